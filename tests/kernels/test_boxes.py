"""Boxes of a k-d tree from a sample, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from daskim.kernels.boxes import MOST_POINTS, box_of, split_boxes

POINTS = st.tuples(st.integers(0, 60), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.int16, shape, elements=st.integers(-4096, 4096))
)


def by_definition(sample: np.ndarray, points: np.ndarray, depth: int) -> np.ndarray:
    """Number of the box of each point, by halving the sample along with them."""
    if depth == 0:
        return np.zeros(len(points), dtype=np.int64)
    exact = sample.astype(object)
    varied = [len(sample) * sum(x * x for x in column) - sum(column) ** 2 for column in exact.T]
    column = int(np.argmax(varied)) if varied and len(sample) else 0
    middle = sorted(sample[:, column])[(len(sample) - 1) // 2] if len(sample) else 0
    out = np.zeros(len(points), dtype=np.int64)
    for upper in (False, True):
        there, mine = (points[:, column] > middle) == upper, (sample[:, column] > middle) == upper
        out[there] = upper * 2 ** (depth - 1) + by_definition(sample[mine], points[there], depth - 1)
    return out


@given(sample=POINTS, depth=st.integers(0, 4), data=st.data())
@settings(max_examples=200, deadline=None)
def test_boxes_are_those_of_the_definition(sample: np.ndarray, depth: int, data: st.DataObject) -> None:
    others = data.draw(arrays(np.int16, (20, sample.shape[1]), elements=st.integers(-4096, 4096)))
    points = np.concatenate([sample, others])
    found = box_of(points, split_boxes(sample, depth))
    assert found.tolist() == by_definition(sample, points, depth).tolist()


def test_boxes_of_distinct_points_are_equally_full() -> None:
    sample = np.random.default_rng(3).permutation(4096).reshape(-1, 1).astype(np.int16)
    assert (np.bincount(box_of(sample, split_boxes(sample, 7)), minlength=128) == 32).all()


def test_neighbours_share_boxes() -> None:
    """Of near pairs far more than of random ones."""
    rng = np.random.default_rng(0)
    points = rng.integers(-4000, 4000, (4000, 8)).astype(np.int16)
    boxes = split_boxes(points[::4], 5)
    near = np.clip(points + rng.integers(-40, 41, points.shape), -4096, 4096).astype(np.int16)
    own = box_of(points, boxes)
    assert (own == box_of(near, boxes)).mean() > 0.9
    assert (own == np.roll(own, 1)).mean() < 0.1


@pytest.mark.parametrize(
    "points",
    [np.full((1, 1), 4097, dtype=np.int16), np.zeros((MOST_POINTS + 1, 1), dtype=np.int16)],
    ids=["values", "n"],
)
def test_what_would_not_be_exact_is_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="more than"):
        split_boxes(points, 1)
