"""Leaders against asking one image after the other; links against the same with a look-up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskim.kernels import leaders
from daskim.kernels.leaders import follow_leaders, follow_links, rms_to

May = Callable[[int, int], bool]


def asked_one_by_one(order: np.ndarray, fixed: np.ndarray, may: May) -> list[int]:
    """The rule in words: follow the first leader that one may follow, else lead."""
    leader = [-1] * len(order)
    for own in order.tolist():
        earlier = [other for other in order.tolist() if leader[other] == other]
        allowed = [other for other in earlier if may(other, own)]
        leader[own] = allowed[0] if allowed and not fixed[own] else own
    return leader


@st.composite
def some_groups(draw: st.DrawFn) -> tuple[np.random.Generator, int]:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.integers(0, 24))


@given(some_groups(), st.sampled_from([0.0, 4.0, 9.0, np.inf]), st.sampled_from([0.0, 1.0, np.inf]), st.booleans())
def test_groups_bounds_and_agreement(
    drawn: tuple[np.random.Generator, int], bound: float, reach: float, agreed: bool
) -> None:
    rng, k = drawn
    images = rng.integers(0, 12, (k, 3)).astype(np.uint8)
    images[rng.random(k) < 0.3] = 5  # equal ones
    points = rng.normal(size=(k, 2)).astype(np.float32)
    group = rng.integers(0, 4, k)
    order, fixed = rng.permutation(k), rng.random(k) < 0.2
    good = rng.random((k, k)) < 0.6
    asked: list[tuple[int, int]] = []

    def agree(first: np.ndarray, rest: np.ndarray) -> np.ndarray:
        asked.extend(zip(first.tolist(), rest.tolist()))
        return good[first, rest]

    def may(first: int, own: int) -> bool:
        rms = rms_to(images[first], images[own : own + 1])[0]
        apart = np.linalg.norm(points[first].astype(float) - points[own].astype(float))
        fits = bool(group[first] == group[own] and rms <= bound and apart <= reach)
        return fits and (not agreed or rms == 0 or bool(good[first, own]))

    leader, distance = follow_leaders(
        images, order, bound, fixed, group=group, points=points, reach=reach, agree=agree if agreed else None
    )
    assert leader.tolist() == asked_one_by_one(order, fixed, may)
    for own in range(k):
        assert distance[own] == rms_to(images[leader[own]], images[own : own + 1])[0]
    assert len(asked) == len(set(asked)), "nobody is asked about a pair twice"
    for first, own in asked:
        assert leader[first] == first
        assert (images[first] != images[own]).any()
        assert not fixed[own]


@given(some_groups(), st.floats(0.0, 0.4))
def test_links(drawn: tuple[np.random.Generator, int], density: float) -> None:
    rng, k = drawn
    order, fixed = rng.permutation(k), rng.random(k) < 0.2
    linked = rng.random((k, k)) < density
    one, other = np.nonzero(linked)  # either way round, and some both ways
    leader = follow_links(order, one, other, fixed)
    assert leader.tolist() == asked_one_by_one(order, fixed, lambda a, b: bool(linked[a, b] or linked[b, a]))


def test_a_long_chain_of_links_gives_every_other_image() -> None:
    k = 10_001
    leader = follow_links(np.arange(k), np.arange(k - 1), np.arange(1, k), np.zeros(k, dtype=bool))
    assert (leader == np.arange(k) - np.arange(k) % 2).all()


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 30)).astype(np.uint8)
    expected = follow_leaders(images, np.arange(40), 100.0, np.zeros(40, dtype=bool), points=images, reach=550.0)
    assert 1 < len(np.unique(expected[0])) < 40
    monkeypatch.setattr(leaders, "PIECE_VALUES", 70)
    found = follow_leaders(images, np.arange(40), 100.0, np.zeros(40, dtype=bool), points=images, reach=550.0)
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)
