"""Components that are too large for a task are cut so that near points stay together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels.ward import components
from daskim.stages.clusters import pairs as pairs_module
from daskim.stages.clusters.cuts import cut_components
from daskim.stages.clusters.pairs import LEVELS, Pairs, level_file, levels_of
from daskim.stages.clusters.points import STAGE
from daskim.store import Run


def stored(run: Run, table: np.ndarray, heights: np.ndarray, reach: float, files: int) -> Pairs:
    """The pairs (2, count) in some files, as tasks leave them."""
    counts = {}
    for at, part in enumerate(np.array_split(np.arange(table.shape[1]), files)):
        name = f"tile{at}.npy"
        run.save(table[:, part].astype(np.int32), "partial", STAGE, name)
        run.save(levels_of(heights[part] ** 2, reach), "partial", STAGE, level_file(name))
        counts[name] = len(part)
    return Pairs(counts, reach)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), st.integers(1, 200), st.integers(1, 20), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_parts_fit_and_near_pairs_stay_together(
    tmp_path_factory: pytest.TempPathFactory, p: int, edges: int, points: int, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    a, b = np.sort(random.integers(0, p, (2, edges)), axis=0)
    table = np.unique(np.stack([a, b])[:, a < b], axis=1)
    heights = random.random(table.shape[1]) ** 2 * 7.0
    run = Run(str(tmp_path_factory.mktemp("run")))
    label = components(p, *table)
    place = random.permutation(p)
    found, near = cut_components(run, stored(run, table, heights, 7.0, 3), label, points, count, place)

    _, part = np.unique(found, return_inverse=True)
    whole = label[np.unique(part, return_index=True)[1]]
    np.testing.assert_array_equal(whole[part], label, "a part lies in one component")
    apart = part[table[0]] != part[table[1]]
    inside = np.bincount(part[table[0][~apart]], minlength=part.max() + 1)
    assert (np.bincount(part) <= points).all()
    assert (inside <= count).all()
    fitting = (np.bincount(label) <= points) & (np.bincount(label[table[0]], minlength=label.max() + 1) <= count)
    assert len(np.unique(part[fitting[label]])) == fitting.sum(), "what fits is not cut"
    if fitting.all():
        assert near == np.inf
    else:
        assert (heights[apart] > near * 7.0).all()
    once, _ = cut_components(run, stored(run, table, heights, 7.0, 1), label, points, count, place)
    np.testing.assert_array_equal(once, found)


def test_a_chain_is_cut_at_its_widest_gaps(tmp_path: Path) -> None:
    """Four tight groups of 25 in a row, their order in place of no help: each is one part."""
    p, run = 100, Run(str(tmp_path))
    i, j = np.triu_indices(p, 1)
    at = np.arange(p) * 0.1 + np.arange(p) // 25 * 3.0
    gap = at[j] - at[i]
    near = gap <= 5.0
    pairs = stored(run, np.stack([i, j])[:, near], gap[near], 5.0, 2)
    label, beyond = cut_components(run, pairs, np.zeros(p, dtype=np.int64), 30, 10**6, np.arange(p) * 37 % p)
    _, part = np.unique(label, return_inverse=True)
    np.testing.assert_array_equal(part[::25], part[24::25])
    assert len(np.unique(part)) == 4
    assert 0.1 <= beyond * 5.0 <= 3.1


def test_small_groups_are_packed(tmp_path: Path) -> None:
    """Pairs at two heights: fifty twins, all chained by long pairs. Parts of ten points hold five twins each."""
    run = Run(str(tmp_path))
    twins = np.arange(100).reshape(2, 50, order="F")
    chain = np.stack([np.arange(99), np.arange(1, 100)])
    table, first = np.unique(np.concatenate([twins, chain], axis=1), axis=1, return_index=True)
    pairs = stored(run, table, np.where(first < 50, 0.2, 0.9), 1.0, 1)
    label, near = cut_components(run, pairs, np.zeros(100, dtype=np.int64), 10, 10**6, np.arange(100))
    np.testing.assert_array_equal(label[::2], label[1::2])
    np.testing.assert_array_equal(np.unique(label, return_counts=True)[1], np.full(10, 10))
    assert 0.2 <= near < 0.9


def test_identical_points_are_cut_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at distance nought: there is no level below which they fit."""
    monkeypatch.setattr(pairs_module, "BATCH", 7)
    run = Run(str(tmp_path))
    table = np.stack(np.triu_indices(12, 1))
    pairs = stored(run, table, np.zeros(66), 1.0, 5)
    label, near = cut_components(run, pairs, np.zeros(12, dtype=np.int64), 5, 10**6, np.arange(12)[::-1])
    np.testing.assert_array_equal(np.unique(label, return_counts=True)[1], [5, 5, 2])
    assert near == 0.0


def test_levels_are_at_least_what_they_stand_for() -> None:
    heights = np.arange(LEVELS + 1) / LEVELS * 3.3
    np.testing.assert_array_equal(levels_of(heights**2, 3.3), np.maximum(1, np.arange(LEVELS + 1)))
    assert levels_of(np.zeros(2), 0.0).tolist() == [1, 1]
