"""What the stage `candidates` does in pieces gives the same in pieces of any size; its sums are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_pairs import UP_TO_PAIRS, Driven, drive, pairs_of

from daskim import settings as settings_module
from daskim.kept import SIDE_BY_SIDE
from daskim.kernels.coarse import cosine_directions, forms, odd_directions
from daskim.settings import Candidates
from daskim.stages.candidates import bands, cells, features, order, unite
from daskim.stages.candidates.features import LENGTH, project, with_mirrored
from daskim.synthetic import planted_families


@pytest.fixture(scope="module")
def families() -> np.ndarray:
    return planted_families(300, size=(16, 16), redundancy=0.5, seed=6).images


def found_in(folder: Path, images: np.ndarray, **values: Any) -> Driven:
    return drive(folder, images, stages=UP_TO_PAIRS[:-1], **values)


@pytest.fixture(scope="module")
def whole(families: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Driven:
    return found_in(tmp_path_factory.mktemp("whole"), families)


class TestPieces:
    @pytest.mark.parametrize(
        "sizes",
        [
            {(bands, "SORTED"): 40, (bands, "CUT"): 64},
            {(unite, "SPAN"): 50, (settings_module, "PART"): 40, (order, "TOLD"): 64},
            {
                (unite, "SPANS"): 3,
                (unite, "SPAN"): 1,
                (cells, "QUERY"): 16,
                (unite, "GROUPS"): 3,
            },
        ],
        ids=["bands", "ranges", "few ranges"],
    )
    def test_do_not_matter(
        self,
        sizes: dict[Any, int],
        whole: Driven,
        families: np.ndarray,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for (where, name), value in sizes.items():
            monkeypatch.setattr(where, name, value)
        found = found_in(tmp_path, families)
        for name in ("candidates", "nearest"):
            pd.testing.assert_frame_equal(found.table(name), whole.table(name), check_exact=True)
        facts = ("candidates", "join_pairs", "lsh_pairs", "crowded_buckets")
        assert [found.facts["candidates"][name] for name in facts] == [
            whole.facts["candidates"][name] for name in facts
        ]
        assert len(found.run.parts("candidates")) == found.facts["candidates"]["parts"]

    def test_nor_do_groups_of_cells(
        self, families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = {"candidates__method": "join", "candidates__all_blocks": 1, "candidates__cells": 9}
        one = found_in(tmp_path / "one", families, **values)
        monkeypatch.setattr(cells, "QUERY", 16)
        monkeypatch.setattr(cells, "GROUP", 2)
        other = found_in(tmp_path / "other", families, **values)
        assert one.facts["candidates"]["join"] == "cells"
        assert len(one.table("candidates")) > 100
        pd.testing.assert_frame_equal(one.table("candidates"), other.table("candidates"), check_exact=True)
        pd.testing.assert_frame_equal(one.table("nearest"), other.table("nearest"), check_exact=True)

    def test_ranges_hold_their_rows(
        self, families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ranges of places, in the order that partners stand together in."""
        monkeypatch.setattr(unite, "SPAN", 60)
        found = found_in(tmp_path, families)
        edges = unite.spans(300)
        assert edges == [(lo, lo + 60) for lo in range(0, 300, 60)]
        rows = found.run.load(*SIDE_BY_SIDE)
        assert (
            sorted(rows) == sorted(set(rows)) == found.run.load("frozen", "candidates", "d00000-searched.npy").tolist()
        )
        places = order.order_in(found.run, 300).places
        assert (rows[places[rows]] == rows).all()
        for key in found.run.parts("candidates"):
            lo, hi = edges[int(key.split("-")[0])]
            part = found.run.read_part("candidates", key)
            a, b = np.asarray(part["a"]), np.asarray(part["b"])
            first = np.minimum(places[a], places[b])
            assert (a < b).all()
            assert (first >= lo).all()
            assert (first < hi).all()
            assert (np.diff(first // unite.SQUARE) >= 0).all()

    def test_neighbours_are_the_lists_of_the_pairs(self, whole: Driven) -> None:
        lists = whole.table("neighbours")
        assert (lists.groupby("row").size() <= 32).all()
        assert not lists.duplicated(["row", "other"]).any()
        either = {(min(a, b), max(a, b)) for a, b in zip(lists["row"], lists["other"])}
        table = whole.table("candidates")
        assert either == pairs_of(table[table["source"].str.contains("join")])


@pytest.mark.parametrize("n", [0, 1, 1000, 60_000, 2_000_000, 5_000_000, 1_000_000_000])
def test_ranges_are_few(n: int) -> None:
    found = unite.spans(n)
    assert len(found) <= unite.SPANS
    assert [lo for lo, _ in found[1:]] == [hi for _, hi in found[:-1]]
    assert all(hi - lo >= unite.SPAN for lo, hi in found[:-1])
    assert (found[-1][1] if found else 0) == n


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(0, 60), st.integers(0, 30))
def test_united_against_a_loop(seed: int, n: int, near: int, shared: int) -> None:
    rng = np.random.default_rng(seed)

    def pairs(count: int) -> np.ndarray:
        two = rng.integers(0, n, (2, count))
        return two[:, two[0] != two[1]]

    lists = pairs(near)
    score = rng.integers(0, 4, lists.shape[1]) / 4
    codes = np.sort(pairs(shared), axis=0)
    found = unite.united(n, np.concatenate([lists, score[None]]).astype(np.float64), codes[0] * n + codes[1])
    best: dict[tuple[int, int], float] = {}
    for a, b, value in zip(*lists.tolist(), score.tolist()):
        best[min(a, b), max(a, b)] = max(value, best.get((min(a, b), max(a, b)), -1.0))
    bands_of = set(zip(*codes.tolist()))
    expected = sorted(best.keys() | bands_of)
    assert list(zip(found.a.tolist(), found.b.tolist())) == expected
    assert found.source.tolist() == [(pair in best) + 2 * (pair in bands_of) for pair in expected]
    np.testing.assert_array_equal(found.correlation, [best.get(pair, np.nan) for pair in expected])
    each = unite.best_of_each(found)
    told: dict[int, tuple[float, int]] = {}
    for (a, b), value in best.items():
        for row, other in ((a, b), (b, a)):
            told[row] = min(told.get(row, (9.0, -1)), (-value, other))
    assert each.T.tolist() == [[row, told[row][1], -told[row][0]] for row in sorted(told)]


@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 28, 1)], ids=str)
@pytest.mark.parametrize("k", [48, 192])
def test_features_are_rounded_forms(shape: tuple[int, int, int], k: int) -> None:
    """Whole numbers whose sums of products float32 holds; mirrored ones by their sign."""
    images = np.random.default_rng(0).integers(0, 256, (30, *shape)).astype(np.uint8)
    images[0] = 7
    wanted = Candidates(directions=k)
    directions, odd = cosine_directions(shape[2], k), odd_directions(shape[2], k)
    found = project(images, directions, wanted).reshape(30, 3, -1)
    assert found.dtype == np.int16
    assert not found[0].any()
    assert (np.linalg.norm(found.astype(np.float64), axis=2) < 4096).all()
    exact = forms(images, wanted.crops, mirror=False) @ directions
    exact[1:] /= np.linalg.norm(exact[1:], axis=2, keepdims=True)
    np.testing.assert_allclose(found, LENGTH * exact, atol=0.51)
    both = with_mirrored(found.astype(np.float32), odd)
    there = project(images[:, :, ::-1], directions, wanted).reshape(30, 3, -1)
    np.testing.assert_allclose(both[:, 1::2], there, atol=1)
    np.testing.assert_array_equal(both[:, ::2], found)


@given(st.integers(1, 192), st.integers(0, 2**16))
def test_the_longest_form_stays_exact(k: int, seed: int) -> None:
    """Rounded coordinates of a vector of norm LENGTH: any sum of products is below 2^24."""
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(k) ** 3
    rounded = np.rint(vector * features.LENGTH / np.linalg.norm(vector))
    assert (rounded**2).sum() < 2**24
