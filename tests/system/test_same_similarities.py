"""Algorithm 2 gives the same tables whatever the threads, the processes and the blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import daskim

TABLES = ("candidates", "pairs", "nearest", "spectrum", "clusters", "anomalies", "plan", "influential")


@pytest.fixture(scope="module")
def source(planted: Any) -> Path:
    path, _ = planted(900, 16, redundancy=0.2, seed=9)
    return Path(path)


SETTINGS = {"method": "similarity", "images.size": "16x16", "similarities.name": "aligned"}


@pytest.fixture(scope="module")
def reference(source: Path, tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    found = daskim.reduce(source, run=tmp_path_factory.mktemp("reference") / "run", settings=SETTINGS, workers=1)
    assert found.summary["similarities"]["near"] > 50
    return found


def same_tables(one: daskim.FinishedRun, other: daskim.FinishedRun) -> None:
    assert one.summary["plan_hash"] == other.summary["plan_hash"]
    for name in TABLES:
        left, right = one.table(name), other.table(name)
        assert left.drop(columns="uri", errors="ignore").equals(right.drop(columns="uri", errors="ignore")), name
    assert one.summary["similarities"]["recall"] == other.summary["similarities"]["recall"]


@pytest.mark.parametrize(("rows", "workers"), [(97, 1), (97, 2), (500, 2)])
def test_blocks_and_threads(
    source: Path, reference: daskim.FinishedRun, rows: int, workers: int, tmp_path: Path
) -> None:
    found = daskim.reduce(source, run=tmp_path / "run", settings={**SETTINGS, "blocks.rows": rows}, workers=workers)
    same_tables(found, reference)


@pytest.mark.slow
def test_processes(source: Path, reference: daskim.FinishedRun, tmp_path: Path) -> None:
    found = daskim.reduce(source, run=tmp_path / "run", settings=SETTINGS, cluster="local", workers=2)
    same_tables(found, reference)


@pytest.mark.parametrize("name", ["ssim", "wavelet"])
def test_other_similarities(source: Path, name: str, tmp_path: Path) -> None:
    settings = {**SETTINGS, "similarities.name": name, "candidates.sample": 0}
    one = daskim.reduce(source, run=tmp_path / "one", settings={**settings, "blocks.rows": 97}, workers=2)
    other = daskim.reduce(source, run=tmp_path / "other", settings=settings, workers=1)
    assert one.table("pairs").equals(other.table("pairs"))
    assert one.summary["plan_hash"] == other.summary["plan_hash"]
