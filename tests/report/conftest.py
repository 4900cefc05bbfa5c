"""Finished runs that the tests of reports share; nothing here changes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from page_runs import hostile_run, large_run
from planted_runs import finished, hostile_set, with_leakage

import daskim


@pytest.fixture(scope="session")
def report_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, daskim.FinishedRun]:
    """Runs of every method on the hostile set."""
    home = tmp_path_factory.mktemp("reports")
    source = hostile_set(home / "set")
    pairs = {"method": "similarity", "candidates__method": "all", "similarities__name": "ssim_volume"}
    similarity = finished(source, home / "similarity", **pairs, clusters__by="threshold")
    shutil.copytree(home / "similarity", home / "compare")
    return {
        "wavelet": finished(source, home / "wavelet", clusters__n_clusters=0.85),
        "similarity": similarity,
        "compare": with_leakage(daskim.open_run(home / "compare")),
    }


@pytest.fixture(scope="session")
def fish_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    """The class of the paper's experiments by its own similarity: every pair of 500 images, some 5 s."""
    settings = {"method": "similarity", "candidates.method": "all", "similarities.name": "ssim_volume"}
    run = tmp_path_factory.mktemp("fish") / "run"
    return daskim.reduce(data / "cifar100_aquarium_fish" / "train", run=run, settings=settings)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    """A run whose ids and labels would break a careless page."""
    return hostile_run(tmp_path_factory.mktemp("page") / "set")


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    """A run of 30,000 images, of which one page cannot show all."""
    return large_run(tmp_path_factory.mktemp("page") / "large", 30_000)
