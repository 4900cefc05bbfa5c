"""Splits as bits: against sets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daskim.kernels.splits import across, pairs_across, split_masks, splits_in

SPLITS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=24)


@given(SPLITS)
def test_masks_and_pairs_are_those_of_sets(images: list[tuple[int, int]]) -> None:
    """Images are (split, set of equal images)."""
    code = np.array([split for split, _ in images])
    group = [number for _, number in images]
    first = np.array([group.index(number) for number in group])
    masks = split_masks(code, first)
    held = [{split for split, other in images if other == number} for number in group]
    assert [{bit for bit in range(5) if mask >> bit & 1} for mask in masks.tolist()] == held
    pairs = [(i, j) for i, j in combinations(range(len(images)), 2) if len(held[i] | held[j]) > 1]
    found = [(i, j) for i, j in combinations(range(len(images)), 2) if across(masks[i], masks[j])]
    assert found == pairs
    assert pairs_across(masks) == len(pairs)
    assert splits_in(masks) == sorted({split for split, _ in images})


def test_an_image_that_stands_for_nothing_has_its_own_split() -> None:
    assert split_masks(np.array([0, 3]), np.array([-1, -1])).tolist() == [1, 8]
