"""A run that is killed goes on: equal result, finished blocks untouched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

METHODS = {
    "wavelet": ("--n-clusters", "0.9"),
    "similarity": ("--method", "similarity", "--similarity", "ssim", "--set", "candidates.sample=20000"),
    "spectral": ("--method", "similarity", "--similarity", "ssim", "--candidates", "all", "--limit", "400"),
}
STAGES = (
    *(("wavelet", stage) for stage in ("index", "images", "exact", "wavelets", "columns", "clusters", "plan")),
    *(("similarity", stage) for stage in ("candidates", "similarities", "spectrum", "spectral", "anomalies", "plan")),
    *(("spectral", stage) for stage in ("similarities", "spectrum", "spectral")),
)
SETTINGS = ("--set", "blocks.rows=120", "--workers", "2", "--quiet", "--no-report")


def start(source: Path, run: Path, method: str = "wavelet") -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "daskim.jobs.reduce", str(source), "--run", str(run), *METHODS[method], *SETTINGS]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=240)
    if process.returncode not in (0, 130):
        sys.stderr.write(errors.decode())
    return process.returncode


def markers(run: Path) -> dict[Path, int]:
    """Markers of finished blocks and seals of finished stages, with the time they were written."""
    state = run / "state"
    return {path: path.stat().st_mtime_ns for path in state.rglob("*.json") if path.name != "stage.json"}


def wait_for(run: Path, stage: str, process: subprocess.Popen[bytes]) -> None:
    """Until the stage has finished a block, or for a stage of one block has begun."""
    folder = run / "state" / stage
    single = stage in ("index", "exact", "spectrum", "spectral", "anomalies", "plan")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "stage.json").exists() and (single or any((folder / "blocks").glob("*.json"))):
            return
        time.sleep(0.002)
    pytest.fail(f"stage {stage} was not seen at work; the run ended with {process.poll()}")


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def source(planted: Any) -> Path:
    path, _ = planted(1500, 24, redundancy=0.2, seed=5)
    return Path(path)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    hashes: dict[str, str] = {}

    def hash_of(method: str) -> str:
        if method not in hashes:
            run = tmp_path_factory.mktemp("undisturbed") / "run"
            assert finish(start(source, run, method)) == 0
            hashes[method] = str(summary(run)["plan_hash"])
        return hashes[method]

    return hash_of


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stage"), STAGES, ids=map("-".join, STAGES))
def test_killed_in_a_stage_it_goes_on(
    source: Path, undisturbed: Callable[[str], str], method: str, stage: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(source, run, method)
    wait_for(run, stage, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (run / "summary.json").exists(), "the run had ended before it was killed"
    before = markers(run)
    assert finish(start(source, run, method)) == 0
    after = markers(run)
    assert {path: after.get(path) for path in before} == before, "a finished block or stage was done again"
    result = summary(run)
    assert result["plan_hash"] == undisturbed(method)
    blocks = result["blocks"]
    for path in before:
        name = path.relative_to(run / "state").parts[0]
        if path.name == "sealed.json":
            assert blocks[name]["computed"] == 0
        elif name == stage and path.parent.name == "blocks":
            assert blocks[name]["resumed"] > 0


@pytest.mark.slow
def test_interrupted_it_says_so_and_goes_on(source: Path, undisturbed: Callable[[str], str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(source, run)
    wait_for(run, "images", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"goes on" in errors
    assert b"Traceback" not in errors
    assert finish(start(source, run)) == 0
    assert summary(run)["plan_hash"] == undisturbed("wavelet")
