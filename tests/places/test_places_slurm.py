"""--cluster slurm on a real Slurm of one node, which the test starts and ends itself; skipped where there is none."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import dask
import pytest

from daskim.compute import describe_place, open_place
from daskim.errors import SettingsError, SourceError
from daskim.jobs.reduce import main

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory=3000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=60 OverSubscribe=FORCE:2 State=UP
"""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _until(condition: list[str], words: str, log: Path) -> None:
    for _ in range(80):
        done = subprocess.run(condition, capture_output=True, text=True, timeout=30)
        if words in done.stdout:
            return
        time.sleep(0.25)
    pytest.skip(f"Slurm does not start here: {done.stdout} {done.stderr} {log.read_text()[-500:]}")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """A Slurm of one node with one core, which two jobs share; its home for jobs' files."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"no Slurm (slurm-wlm, munge): {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of the test's own needs root")
    with ExitStack() as opened, pytest.MonkeyPatch.context() as patch:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="daskim-test-slurm-", dir="/tmp")))
        folder.chmod(0o755)  # munged refuses a socket in a folder that others cannot enter
        patch.setenv("PATH", path)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("DASK_JOBQUEUE__SLURM__SHARED_TEMP_DIRECTORY", str(folder / "home"))
        _start(folder, opened)
        with dask.config.set({"jobqueue.slurm.shared-temp-directory": str(folder / "home")}):
            yield folder / "home"
            subprocess.run(["scancel", "--user", getpass.getuser()], capture_output=True, timeout=30)
            _until(["sh", "-c", "squeue --noheader | wc -l"], "0", folder / "slurmctld.out")


def _start(folder: Path, opened: ExitStack) -> None:
    """The three servers, with a configuration and a key of their own; until the node is idle."""
    for name in ("state", "spool", "home"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    ports = {"controller": _free_port(), "node": _free_port()}
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, user=getpass.getuser(), **ports))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    munge = [f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"]
    munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    for words in (["munged", "--force", "--foreground", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]):
        log = folder / f"{words[0]}.out"
        with log.open("wb") as file:
            server = subprocess.Popen(words, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        opened.callback(server.wait, 30)
        opened.callback(server.terminate)
        if words[0] == "munged":
            time.sleep(0.5)
    _until(["sinfo", "--noheader", "--format", "%T"], "idle", folder / "slurmctld.out")


def jobs() -> list[str]:
    """Jobs that wait or run; those that are being ended count no more."""
    done = subprocess.run(["squeue", "--noheader", "--format", "%T"], capture_output=True, text=True, check=True)
    return [state for state in done.stdout.split() if state != "COMPLETING"]


WORDS = [
    "--cluster",
    "slurm",
    "--workers",
    "2",
    "--memory",
    "2GB",
    "--slurm-walltime",
    "20",
    "--no-report",
    "--quiet",
]


def test_a_run_in_jobs_is_the_run_of_threads_and_leaves_nothing(slurm: Path, pictures: Path, tmp_path: Path) -> None:
    assert main([str(pictures), "--run", str(tmp_path / "threads"), "--no-report", "--quiet"]) == 0
    words = [*WORDS, "--tls", "--slurm-directive=--comment=daskim"]
    assert main([str(pictures), "--run", str(tmp_path / "slurm"), *words]) == 0
    both = [json.loads((tmp_path / name / "summary.json").read_text())["plan_hash"] for name in ("threads", "slurm")]
    assert both[0] == both[1]
    assert jobs() == []
    assert os.listdir(slurm) == []


def test_ctrl_c_cancels_the_jobs(slurm: Path, pictures: Path, tmp_path: Path) -> None:
    words = [str(pictures), "--run", str(tmp_path / "run"), *WORDS, "--set", "blocks.rows=1"]
    driver = subprocess.Popen(
        [sys.executable, "-m", "daskim.jobs.reduce", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until = time.monotonic() + 90
    while not jobs():
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
    assert [name for name in os.listdir(slurm) if name.startswith(".daskim-slurm-")]
    driver.send_signal(signal.SIGINT)
    _, told = driver.communicate(timeout=60)
    assert driver.returncode == 130, told
    assert jobs() == []
    assert os.listdir(slurm) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slurm-queue": "nosuch"}, "sbatch refuses: .*invalid partition"),
        ({"slurm-directive": ["--mem=1T"]}, "sbatch refuses: .*Memory specification can not be satisfied"),
        ({"slurm-walltime": "2-0"}, "will not start this: job .*: pending .PartitionTimeLimit.; job"),
        ({"slurm-wait": 2.0}, r"of 3 workers joined within 2 s; .*job \d+: pending \((Resources|Priority|None)\)"),
    ],
)
def test_what_the_queue_says_is_told(options: dict[str, object], words: str, slurm: Path) -> None:
    with pytest.raises(SourceError, match=words):
        open_place("slurm", workers=3, memory=100_000_000, options={"slurm-wait": 20.0, **options})
    assert jobs() == []
    assert os.listdir(slurm) == []


def test_jobs_that_end_at_once_are_told_with_their_log(slurm: Path) -> None:
    with (
        dask.config.set({"jobqueue.slurm.python": "/usr/bin/no-python"}),
        pytest.raises(SourceError, match=r"the jobs ended before their workers joined: .*no-python") as caught,
    ):
        open_place("slurm", workers=1, memory=100_000_000, options={"slurm-wait": 40.0})
    assert "shared-temp-directory" in caught.value.hint
    assert os.listdir(slurm) == []


@pytest.mark.parametrize(
    ("workers", "options", "words"),
    [
        (None, {}, "needs --workers"),
        (3, {"slurm-cores": 2}, "no whole number of jobs"),
        (2, {"slurm-directive": ["--x\nreboot"]}, "no option of sbatch"),
    ],
)
def test_what_makes_no_job_is_refused(
    workers: int | None, options: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SettingsError, match=words), closing(open_place("slurm", workers=workers, options=options)):
        pass


def test_plan_needs_no_slurm() -> None:
    place = describe_place("slurm", workers=4, memory=8_000_000_000, options={"slurm-cores": 2, "slurm-queue": "long"})
    assert (place.workers, place.processes, place.memory) == (4, 4, 4_000_000_000)
