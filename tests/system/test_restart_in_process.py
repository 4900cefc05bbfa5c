"""One process may do many runs, and one run again: nothing of an earlier one may show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskim
from daskim.errors import DaskimError, StaleRun
from daskim.synthetic import planted_families


def plan_of(found: daskim.FinishedRun) -> pd.DataFrame:
    return found.plan[["id", "decision", "kept_id", "rule", "cluster", "rms"]]


def write(path: Path, seed: int) -> None:
    made = planted_families(200, size=(8, 8), redundancy=0.3, seed=seed)
    np.savez(path, images=made.images, labels=made.labels)


def test_other_pixels_under_the_same_names(tmp_path: Path) -> None:
    source = tmp_path / "set.npz"
    values = {"images.size": "8x8", "clusters.n_clusters": 0.7}
    write(source, 1)
    first = daskim.reduce(source, run=tmp_path / "run", settings=values)
    before = plan_of(first)
    write(source, 2)
    again = daskim.reduce(source, run=tmp_path / "run", settings=values, restart="index")
    fresh = daskim.reduce(source, run=tmp_path / "fresh", settings=values)
    pd.testing.assert_frame_equal(plan_of(again), plan_of(fresh))
    assert not plan_of(again).equals(before)


def test_another_wavelet_by_restart(tmp_path: Path) -> None:
    source = tmp_path / "set.npz"
    write(source, 1)
    values = {"images.size": "8x8", "clusters.n_clusters": 0.7}
    daskim.reduce(source, run=tmp_path / "run", settings=values)
    other = {**values, "wavelets.level": 3, "wavelets.bands": "coarse"}
    with pytest.raises(StaleRun, match=r"wavelets\.level was 1 and is now 3"):
        daskim.reduce(source, run=tmp_path / "run", settings=other)
    again = daskim.reduce(source, run=tmp_path / "run", settings=other, restart="wavelets")
    fresh = daskim.reduce(source, run=tmp_path / "fresh", settings=other)
    assert again.summary["columns"]["d"] == 3
    pd.testing.assert_frame_equal(plan_of(again), plan_of(fresh))


def test_a_failed_attempt_does_not_stand_in_the_way(tmp_path: Path) -> None:
    source = tmp_path / "set.npz"
    write(source, 1)
    values = {"images.size": "8x8", "clusters.n_clusters": 0.7}
    with pytest.raises(DaskimError, match="more than the 200"):
        daskim.reduce(source, run=tmp_path / "run", settings={**values, "clusters.n_clusters": 201})
    found = daskim.reduce(source, run=tmp_path / "run", settings=values)
    assert found.summary["n_clusters"] == 140
