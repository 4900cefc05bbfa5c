"""Fixtures for the places: a few images, a scheduler without workers, workers as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from PIL import Image

StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve small images."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(np.random.default_rng(1).integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


@pytest.fixture
def scheduler() -> Iterator[str]:
    """The address of a scheduler on loopback that has no workers yet."""
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def start_worker(scheduler: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker process and wait until it has joined; `before` is a command that starts it, `python` its paths."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*before: str, python: str = "") -> subprocess.Popen[bytes]:
        words = [
            *before,
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            scheduler,
            "--no-nanny",
            "--nthreads",
            "1",
        ]
        words += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1"]
        environment = {**os.environ, "PYTHONPATH": python, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*words, "--local-directory", f"/tmp/{tmp_path.name}-{len(started)}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(len(started), timeout=60)
        return process

    yield start
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
