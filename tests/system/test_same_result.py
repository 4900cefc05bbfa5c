"""Same input and settings, same tables: whatever the workers, the blocks, the place or the directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import daskim

SETTINGS = {"clusters.n_clusters": 0.88}


@pytest.fixture(scope="module")
def source(planted: Any) -> Path:
    path, _ = planted(900, 16, redundancy=0.2, seed=9)
    return Path(path)


@pytest.fixture(scope="module")
def reference(source: Path, tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    return daskim.reduce(source, run=tmp_path_factory.mktemp("reference") / "run", settings=SETTINGS, workers=1)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A Dask scheduler with two workers on loopback, in processes of their own."""
    dask = [sys.executable, "-m", "dask"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": environment}
    head = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"], text=True, **quiet
    )
    assert head.stderr is not None
    address = next(line.split()[-1] for line in head.stderr if "Scheduler at:" in line)
    more = ["--nworkers", "2", "--nthreads", "1", "--memory-limit", "2GB", "--no-dashboard"]
    hand = subprocess.Popen([*dask, "worker", address, *more], **{**quiet, "stderr": subprocess.DEVNULL})
    yield address
    for process in (hand, head):
        process.terminate()
        process.communicate(timeout=60)


def same_tables(one: daskim.FinishedRun, other: daskim.FinishedRun) -> None:
    assert one.summary["plan_hash"] == other.summary["plan_hash"]
    assert one.summary["columns"]["m"] == other.summary["columns"]["m"]
    for name in ("plan", "pairs", "influential", "clusters", "images"):
        left, right = one.table(name), other.table(name)
        assert left.drop(columns="uri", errors="ignore").equals(right.drop(columns="uri", errors="ignore")), name


@pytest.mark.parametrize("rows", [97, 500])
@pytest.mark.parametrize("workers", [1, 2])
def test_blocks_and_threads(
    source: Path, reference: daskim.FinishedRun, rows: int, workers: int, tmp_path: Path
) -> None:
    found = daskim.reduce(source, run=tmp_path / "run", settings={**SETTINGS, "blocks.rows": rows}, workers=workers)
    same_tables(found, reference)


@pytest.mark.slow
def test_processes(source: Path, reference: daskim.FinishedRun, tmp_path: Path, command: Any) -> None:
    done = command(source, "--run", tmp_path / "run", "--n-clusters", 0.88, "--cluster", "local", "--workers", 2)
    assert done.returncode == 0, done.stderr
    same_tables(daskim.open_run(tmp_path / "run"), reference)


@pytest.mark.slow
def test_a_scheduler_by_its_address(
    source: Path, reference: daskim.FinishedRun, scheduler: str, tmp_path: Path, command: Any
) -> None:
    done = command(source, "--run", tmp_path / "run", "--n-clusters", 0.88, "--cluster", f"address:{scheduler}")
    assert done.returncode == 0, done.stderr
    same_tables(daskim.open_run(tmp_path / "run"), reference)


def test_from_another_directory(source: Path, reference: daskim.FinishedRun, tmp_path: Path, command: Any) -> None:
    shutil.copy(source, tmp_path / source.name)
    done = command(source.name, "--run", "here", "--n-clusters", 0.88, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert daskim.open_run(tmp_path / "here").summary["plan_hash"] == reference.summary["plan_hash"]
    again = command(f"{tmp_path.name}/{source.name}", "--run", tmp_path / "here", "--n-clusters", 0.88,
                    cwd=tmp_path.parent)  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert all(b["computed"] == 0 for b in daskim.open_run(tmp_path / "here").summary["blocks"].values())


def test_another_wavelet_gives_the_same_for_other_blocks(source: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "wavelets.name": "db2", "wavelets.level": 2}
    one = daskim.reduce(source, run=tmp_path / "one", settings={**settings, "blocks.rows": 97}, workers=1)
    other = daskim.reduce(source, run=tmp_path / "other", settings={**settings, "blocks.rows": 450}, workers=2)
    assert one.summary["columns"]["m"] == other.summary["columns"]["m"]
    assert np.array_equal(one.clusters["cluster"], other.clusters["cluster"])


@pytest.mark.slow
def test_a_killed_worker_process_costs_nothing_but_time(
    source: Path, reference: daskim.FinishedRun, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [str(source), "--run", str(run), "--n-clusters", "0.88", "--set", "blocks.rows=30"]
    process = subprocess.Popen(
        [sys.executable, "-m", "daskim.jobs.reduce", *words, "--cluster", "local", "--workers", "2", "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    blocks = run / "state" / "images" / "blocks"
    deadline = time.monotonic() + 60
    while not any(blocks.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert workers, "no worker process was found"
    os.kill(workers[0].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode()
    assert daskim.open_run(run).summary["plan_hash"] == reference.summary["plan_hash"]
