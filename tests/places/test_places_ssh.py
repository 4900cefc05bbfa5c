"""--cluster ssh, with an sshd of the test's own on two addresses of the loopback; nothing stays behind on a host."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from host_network import Loop, ssh_servers

from daskim.compute import describe_place, open_place
from daskim.compute.ssh import hosts_of
from daskim.errors import SettingsError, SourceError
from daskim.jobs.reduce import main

HOSTS = "127.0.0.2,127.0.0.3"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A configuration with which ssh reaches both hosts, and none else."""
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("ssh")
    with ssh_servers([Loop("two", "127.0.0.2"), Loop("three", "127.0.0.3")], folder, port) as file:
        yield str(file)


class Marked:
    """A Python for the hosts that marks its processes, so that what stays of them is found."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"DASKIM_TEST_MARK={secrets.token_hex(8)}"
        self.python = str(folder / "python")
        Path(self.python).write_text(f'#!/bin/sh\nexport {self.mark}\nexec {sys.executable} "$@"\n')
        os.chmod(self.python, stat.S_IRWXU)

    def processes(self) -> list[str]:
        name, _, value = self.mark.partition("=")
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def wait_for(self, condition: Callable[[int], bool], seconds: float = 40.0) -> None:
        until = time.monotonic() + seconds
        while not condition(len(self.processes())):
            assert time.monotonic() < until, self.processes()
            time.sleep(0.2)


@pytest.fixture
def marked(tmp_path: Path) -> Marked:
    return Marked(tmp_path)


def words_of(config: str, marked: Marked, hosts: str = HOSTS) -> list[str]:
    return ["--cluster", f"ssh:{hosts}", "--ssh-config", config, "--ssh-python", marked.python, "--no-report"]


def test_a_run_over_ssh_is_the_run_of_threads_and_leaves_nothing(
    config: str, marked: Marked, pictures: Path, tmp_path: Path
) -> None:
    assert main([str(pictures), "--run", str(tmp_path / "threads"), "--no-report", "--quiet"]) == 0
    words = [*words_of(config, marked), "--tls", "--workers", "2", "--quiet"]
    assert main([str(pictures), "--run", str(tmp_path / "ssh"), *words]) == 0
    both = [json.loads((tmp_path / name / "summary.json").read_text())["plan_hash"] for name in ("threads", "ssh")]
    assert both[0] == both[1]
    assert marked.processes() == []


def test_what_the_workers_are(config: str, marked: Marked) -> None:
    options = {"ssh-config": config, "ssh-python": marked.python, "tls": True}
    place = open_place(f"ssh:{HOSTS}", workers=3, memory=3_000_000_000, options=options)
    try:
        assert (place.workers, place.processes, place.memory) == (3, 3, 1_500_000_000)
        threads = place.everywhere(os.getenv, "OMP_NUM_THREADS")
        assert set(threads.values()) == {"1"}
        hosts = sorted(address.rpartition(":")[0] for address in threads)
        assert hosts == ["tls://127.0.0.2"] * 2 + ["tls://127.0.0.3"]
        info = place.client.scheduler_info(n_workers=-1)  # type: ignore[attr-defined]
        spill = [Path(worker["local_directory"]) for worker in info["workers"].values()]
        assert all("daskim-spill-" in str(folder) for folder in spill)
        assert not any("PRIVATE KEY" in text or "CERTIFICATE" in text for text in marked.processes())
    finally:
        place.close()
    assert marked.processes() == []
    assert not any(folder.exists() for folder in spill)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_a_driver_that_ends_early_leaves_nothing(
    number: signal.Signals, config: str, marked: Marked, pictures: Path, tmp_path: Path
) -> None:
    words = [str(pictures), "--run", str(tmp_path / "run"), *words_of(config, marked), "--set", "blocks.rows=1"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "daskim.jobs.reduce", *words, "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    blocks = tmp_path / "run" / "state" / "images" / "blocks"
    until = time.monotonic() + 60
    while not blocks.exists():
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
    assert len(marked.processes()) >= 5  # scheduler, two nannies, two workers
    driver.send_signal(number)
    _, told = driver.communicate(timeout=60)
    if number == signal.SIGINT:
        assert driver.returncode == 130, told
        assert marked.processes() == []
    marked.wait_for(lambda count: count == 0)


def test_a_host_that_fails_ends_the_others(config: str, marked: Marked, tmp_path: Path) -> None:
    options = {"ssh-config": config, "ssh-python": marked.python}
    with pytest.raises(SourceError, match=r"host 127\.0\.0\.4: ssh ended with 255: .*refused") as caught:
        open_place("ssh:127.0.0.2,127.0.0.4", options=options)
    assert "ssh HOST true" in caught.value.hint
    assert marked.processes() == []
    with pytest.raises(SourceError, match=r"host 127\.0\.0\.2: ssh ended with 127") as caught:
        open_place(f"ssh:{HOSTS}", options={**options, "ssh-python": str(tmp_path / "nothing")})
    assert "--ssh-python" in caught.value.hint


def test_hosts_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# all\nalpha  # the first\n\nme@beta\n")
    assert hosts_of(f"@{file}") == ["alpha", "me@beta"]
    assert describe_place(f"ssh:@{file}", workers=4, memory=4000).memory == 2000


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("", "names no host"),
        ("alpha,-oProxyCommand=x", "is no host"),
        ("alpha;reboot", "is no host"),
        ("alpha,beta,alpha", "alpha twice"),
        ("@/nowhere/hosts", "cannot read the list"),
    ],
)
def test_hosts_that_are_none(rest: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        hosts_of(rest)


def test_fewer_workers_than_hosts_are_refused() -> None:
    with pytest.raises(SettingsError, match="--workers 1 for 2 hosts"):
        describe_place(f"ssh:{HOSTS}", workers=1)
