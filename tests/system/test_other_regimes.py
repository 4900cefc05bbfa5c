"""One plan in the regimes of dask-ml too, by either way to R, and on workers that outlive a run."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import daskim
from daskim.jobs.reduce import main

SummaryOf = Callable[[Path], dict[str, Any]]
SETTINGS = ("--size", "16x16", "--n-clusters", "0.85")


@pytest.fixture(scope="module")
def source(planted: Any) -> Path:
    path, _ = planted(1200, 16, redundancy=0.2, seed=21)
    return Path(path)


@pytest.fixture(scope="module")
def reference(source: Path, tmp_path_factory: pytest.TempPathFactory, summary_of: SummaryOf) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("reference") / "run"
    assert main([str(source), "--run", str(run), *SETTINGS, "--workers", "1", "--quiet"]) == 0
    return summary_of(run)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers of one thread on loopback, in processes of their own; its address."""
    here = tmp_path_factory.mktemp("cluster")
    file = here / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": here}
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    processes = [subprocess.Popen([*start, "--no-dashboard", "--scheduler-file", str(file)], **quiet)]
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        more = ["--host", "127.0.0.1", "--memory-limit", "4GB", "--no-nanny", "--local-directory", str(here)]
        processes += [subprocess.Popen([*worker, *more], **quiet) for _ in range(2)]
        yield address
    finally:
        for process in reversed(processes):  # a worker that has lost its scheduler would wait for it
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def check_equal(found: dict[str, Any], reference: dict[str, Any]) -> None:
    assert found["plan_hash"] == reference["plan_hash"]
    for key in ("m", "cond", "rank", "n_zero"):
        assert found["columns"][key] == reference["columns"][key], key
    for key in ("n_clusters", "cut_rms", "n_several", "largest", "squared_error"):
        assert found["clusters"][key] == pytest.approx(reference["clusters"][key], rel=1e-12), key


@pytest.mark.slow
def test_workers_that_stay_know_nothing_of_an_earlier_run(
    source: Path, scheduler: str, tmp_path: Path, command: Any, summary_of: SummaryOf
) -> None:
    """A run made again in its place with other coefficients; the workers have blocks of the first in memory."""
    place = ["--cluster", f"address:{scheduler}", "--workers", "2", "--quiet"]
    run, fresh = tmp_path / "run", tmp_path / "fresh"
    done = command(source, "--run", run, *SETTINGS, *place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    again = command(source, "--run", run, *SETTINGS, "--level", "2", "--restart", "wavelets", *place)
    assert again.returncode == 0, again.stderr
    assert main([str(source), "--run", str(fresh), *SETTINGS, "--level", "2", "--quiet"]) == 0
    check_equal(summary_of(run), summary_of(fresh))


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["cells", "kmeans"])
def test_dask_ml_on_a_scheduler(
    source: Path, scheduler: str, tmp_path: Path, command: Any, summary_of: SummaryOf, regime: str
) -> None:
    words = [str(source), "--size", "8x8", "--set", f"clusters.regime={regime}", "--quiet"]
    words += ["--n-clusters", "300" if regime == "cells" else "12"]
    done = command(*words, "--run", tmp_path / "run", "--cluster", f"address:{scheduler}")
    assert (done.returncode, done.stderr) == (0, "")
    assert main([*words, "--run", str(tmp_path / "threads")]) == 0
    assert summary_of(tmp_path / "run")["plan_hash"] == summary_of(tmp_path / "threads")["plan_hash"]


@pytest.mark.parametrize("regime", ["cells", "kmeans"])
def test_the_other_regimes(source: Path, tmp_path: Path, regime: str) -> None:
    count = 300 if regime == "cells" else 12
    values = {"images.size": "16x16", "clusters.n_clusters": count, "clusters.regime": regime, "wavelets.level": 2}
    values["wavelets.bands"] = "coarse"
    found = [
        daskim.reduce(source, run=tmp_path / f"run{rows}", workers=workers, settings={**values, "blocks.rows": rows})
        for rows, workers in ((97, 1), (500, 2))
    ]
    assert found[0].clusters["cluster"].tolist() == found[1].clusters["cluster"].tolist()
    assert found[0].summary["plan_hash"] == found[1].summary["plan_hash"]


def test_columns_by_either_method_lead_to_one_plan(source: Path, reference: dict[str, Any], tmp_path: Path) -> None:
    values = {"images.size": "16x16", "clusters.n_clusters": 0.85, "columns.method": "tsqr"}
    found = daskim.reduce(source, run=tmp_path / "run", settings=values)
    assert found.summary["columns"]["m"] == reference["columns"]["m"]
    assert found.summary["plan_hash"] == reference["plan_hash"]


def test_pixels_stored_are_those_given(source: Path, tmp_path: Path) -> None:
    from daskim.store import Run

    found = daskim.reduce(source, run=tmp_path / "run", settings={"images.size": "16x16", "source.limit": 200})
    with np.load(source) as stored:
        np.testing.assert_array_equal(np.asarray(Run(found.run).array("images")[:]), stored["images"][:200])
        assert found.images["label"].tolist() == [str(label) for label in stored["labels"][:200]]
    assert pq.read_table(tmp_path / "run" / "tables" / "images").num_rows == 200


@pytest.mark.slow
def test_two_clusters_of_processes_at_a_time_are_silent(source: Path, tmp_path: Path, command: Any) -> None:
    """The port of Dask's dashboard may be another's."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # it is taken in any case then
            taken.bind(("127.0.0.1", 8787))
            taken.listen()
        done = command(source, "--run", tmp_path / "run", "--size", "8x8", "--cluster", "local", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
