"""`--cluster k8s-job`: the pods of an Indexed Job, each a process here with its index and all on one address.

What this cannot show: names of pods in a headless service, and the Job's own back-off and success policy. Both are
taken from Kubernetes' documentation.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from daskim.compute import k8s_job, open_place
from daskim.errors import SettingsError
from daskim.jobs.reduce import main

Pod = Callable[..., subprocess.Popen[str]]
SETTINGS = ("--size", "16x16", "--set", "blocks.rows=50", "--no-report")


@pytest.fixture(scope="module")
def source(planted: Any) -> str:
    path, _ = planted(400, 16, redundancy=0.2, seed=3)
    return str(path)


@pytest.fixture(scope="module")
def plan_hash(source: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("threads") / "run"
    assert main([source, "--run", str(run), "--quiet", *SETTINGS]) == 0
    return str(json.loads((run / "summary.json").read_text())["plan_hash"])


@pytest.fixture
def pod(source: str, tmp_path: Path) -> Iterator[Pod]:
    """Start the command in a pod of this index; what still runs at the end is killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[subprocess.Popen[str]] = []

    def start(index: int, scheduler: int = port) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "daskim.jobs.reduce", source, "--run", str(tmp_path / "run"), *SETTINGS]
        words += ["--cluster", "k8s-job", "--workers", "2", "--memory", "2GB", "--k8s-timeout", "60", "--json"]
        with (tmp_path / f"pod-{index}.log").open("a") as log:
            process = subprocess.Popen(
                [*words, "--k8s-scheduler", f"127.0.0.1:{scheduler}"],
                env={**os.environ, "JOB_COMPLETION_INDEX": str(index), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def ended(pods: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and standard output of each."""
    told = [process.communicate(timeout=120)[0] for process in pods]
    return [(process.returncode, text) for process, text in zip(pods, told)]


@pytest.mark.slow
def test_one_command_in_all_pods_is_one_run(pod: Pod, plan_hash: str) -> None:
    workers = [pod(1), pod(2)]  # they come first, and wait
    time.sleep(2)
    (driver, *others) = ended([pod(0), *workers])
    assert driver[0] == 0
    summary = json.loads(driver[1].splitlines()[-1])
    assert summary["plan_hash"] == plan_hash
    assert summary["cluster"]["processes"] == 2
    assert others == [(0, ""), (0, "")]


@pytest.mark.slow
def test_pods_that_are_killed_start_again_and_the_run_goes_on(pod: Pod, plan_hash: str, tmp_path: Path) -> None:
    driver, lost, waiting = pod(0), pod(1), pod(2)
    seal = tmp_path / "run" / "state" / "images" / "sealed.json"
    deadline = time.monotonic() + 90
    while not seal.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for process in (driver, lost):
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "run" / "summary.json").exists()
    time.sleep(1)
    assert waiting.poll() is None, "a driver that was killed sends nobody home"
    (again, *others) = ended([pod(0), pod(1), waiting])
    assert again[0] == 0, (tmp_path / "pod-0.log").read_text()
    summary = json.loads(again[1].splitlines()[-1])
    assert summary["plan_hash"] == plan_hash
    assert summary["blocks"]["images"]["computed"] == 0
    assert [code for code, _ in others] == [0, 0]


@pytest.mark.slow
def test_a_worker_that_is_terminated_ends_with_all_that_it_started(pod: Pod, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # listens, and says nothing
        worker = pod(1, server.getsockname()[1])
        deadline = time.monotonic() + 60
        while not (children := psutil.Process(worker.pid).children(recursive=True)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        worker.send_signal(signal.SIGTERM)
        assert ended([worker])[0][0] == 143
        assert not psutil.wait_procs(children, timeout=20)[1]


def test_a_worker_waits_for_pod_0_with_a_bound(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    words = [
        "--cluster",
        "k8s-job",
        "--k8s-scheduler",
        "127.0.0.1:9",
        "--k8s-timeout",
        "1",
        "--run",
        str(tmp_path / "r"),
    ]
    assert main(words) == 4
    assert "pod 0 does not listen at 127.0.0.1:9" in capsys.readouterr().err
    assert not (tmp_path / "r").exists(), "a worker makes no demo"


def test_the_driver_waits_for_its_workers_with_a_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, source: str
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--cluster", "k8s-job", "--k8s-scheduler", f"127.0.0.1:{port}", "--k8s-timeout", "1", "--workers", "2"]
    assert main([source, *place, "--quiet"]) == 4
    assert "0 of 2 workers after 1 s" in capsys.readouterr().err


def test_pod_0_is_found_by_the_name_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "12")
    monkeypatch.setattr(socket, "getfqdn", lambda: "nightly-2912-12.nightly.lake.svc.cluster.local")
    assert k8s_job._address({}) == ("nightly-2912-0.nightly.lake.svc.cluster.local", 8786)
    assert k8s_job._address({"k8s_scheduler": "tcp://driver"}) == ("driver", 8786)
    monkeypatch.setenv("DASKIM_SCHEDULER", "driver:90")
    assert k8s_job._address({}) == ("driver", 90)


@pytest.mark.parametrize(
    ("environment", "options", "words"),
    [
        ({}, {}, "JOB_COMPLETION_INDEX"),
        ({"JOB_COMPLETION_INDEX": "1"}, {}, "subdomain"),
        ({"JOB_COMPLETION_INDEX": "1"}, {"k8s-scheduler": "host:port"}, "HOST:PORT"),
        ({"JOB_COMPLETION_INDEX": "1"}, {"k8s-timeout": -1.0}, "--k8s-timeout"),
        ({"JOB_COMPLETION_INDEX": "0"}, {"tls-ca": "ca.crt"}, "all three"),
        ({"JOB_COMPLETION_INDEX": "0"}, {"k8s-cpu": "1"}, "--k8s-cpu"),
    ],
)
def test_a_mistake_is_told(
    environment: dict[str, str], options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    monkeypatch.setattr(socket, "getfqdn", lambda: "laptop")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words):
        open_place("k8s-job", options=options)
