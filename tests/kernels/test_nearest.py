"""The k best rows of each query are those of brute force, however and how often they are offered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels import nearest as module
from daskim.kernels.compiled import engine
from daskim.kernels.nearest import Best, Lists, Nearest, best_products, lowest, nearest_of

Found = list[tuple[int, int, float]]

COMPILED = pytest.param(Lists, marks=pytest.mark.skipif(engine() == "numpy", reason="needs numba"))
KINDS = pytest.mark.parametrize("kind", [Nearest, COMPILED])


def brute(scores: np.ndarray, rows: np.ndarray, count: int, least: float, own: np.ndarray) -> Found:
    """By query, then by falling score, equal scores by row."""
    out: Found = []
    for query, line in enumerate(scores):
        best: dict[int, float] = {}
        for row, value in zip(rows.tolist(), line.tolist()):
            if row != own[query] and value >= np.float32(least):
                best[row] = max(value, best.get(row, -np.inf))
        order = sorted(best.items(), key=lambda item: (-item[1], item[0]))
        out += [(query, row, value) for row, value in order[:count]]
    return out


def listed(nearest: Nearest | Lists) -> Found:
    query, row, score = nearest.result()
    assert query.dtype == row.dtype == np.int64
    assert score.dtype == np.float32
    return list(zip(query.tolist(), row.tolist(), score.tolist()))


@st.composite
def offers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, float]:
    """Scores of few distinct values (many ties), rows with repeats, whom each query is, a count, a bound."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, rows = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    values = draw(st.sampled_from([2, 5, 1000]))
    scores = (rng.integers(-values, values, (queries, rows), endpoint=True) / values).astype(np.float32)
    names = rng.choice(draw(st.sampled_from([8, 100])), rows)
    own = np.where(rng.random(queries) < 0.7, rng.choice(names, queries), -1)
    return scores, names, own, draw(st.integers(1, 12)), draw(st.sampled_from([-1.0, 0.0, 0.6]))


@KINDS
@settings(deadline=None, max_examples=200)
@given(made=offers(), data=st.data())
def test_against_brute_force_in_any_order(
    kind: Any, made: tuple[np.ndarray, np.ndarray, np.ndarray, int, float], data: st.DataObject
) -> None:
    scores, rows, own, count, least = made
    expected = brute(scores, rows, count, least, own)
    nearest = kind(len(scores), count, least, own)
    nearest.offer(np.arange(len(scores)), rows, scores)
    assert listed(nearest) == expected
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    pieced = kind(len(scores), count, least, own)
    # each (query, row) once or twice, in small pieces that overlap in queries
    at = [(q, r) for q in range(len(scores)) for r in range(len(rows)) for _ in range(rng.integers(1, 3))]
    for start in range(0, len(at), 7):
        for q, r in (at[k] for k in rng.permutation(np.arange(start, min(start + 7, len(at))))):
            pieced.offer(np.array([q]), rows[[r]], scores[q : q + 1, r : r + 1])
    assert listed(pieced) == expected
    shuffled = kind(len(scores), count, least, own)
    for part in np.array_split(rng.permutation(len(rows)), data.draw(st.integers(1, 5))):
        order = rng.permutation(len(scores))
        shuffled.offer(order, rows[part], scores[np.ix_(order, part)])
    assert listed(shuffled) == expected
    assert listed(shuffled) == expected  # asking twice changes nothing


@KINDS
def test_a_query_may_be_named_twice_in_one_offer(kind: Any) -> None:
    """As two forms of an image, which both probe a cell."""
    nearest = kind(2, 2, 0.0, np.array([10, 11]))
    scores = np.array([[0.5, 0.9, 0.1], [0.8, 0.2, 0.1], [0.7, 0.7, 0.7]], dtype=np.float32)
    nearest.offer(np.array([0, 0, 1]), np.array([3, 4, 11]), scores)
    values = np.array([0.9, 0.8, 0.7, 0.7], dtype=np.float32).tolist()
    assert listed(nearest) == [(0, 4, values[0]), (0, 3, values[1]), (1, 3, values[2]), (1, 4, values[3])]


@KINDS
def test_ties_go_to_the_lower_row_also_at_the_bound(kind: Any) -> None:
    """After the bound has risen, equal scores of lower rows still come in."""
    nearest = kind(1, 2, 0.0, np.array([-1]))
    for row in range(50, -1, -1):
        nearest.offer(np.zeros(1, dtype=np.int64), np.array([row]), np.full((1, 1), 0.5, dtype=np.float32))
    assert listed(nearest) == [(0, 0, 0.5), (0, 1, 0.5)]


@KINDS
def test_fewer_than_count_and_none(kind: Any) -> None:
    nearest = kind(3, 5, 0.5, np.array([0, 1, 2]))
    assert listed(nearest) == []
    nearest.offer(np.arange(3), np.arange(3), np.eye(3, dtype=np.float32) + np.float32(0.25))  # only themselves
    assert listed(nearest) == []
    nearest.offer(np.array([1]), np.array([7, 8]), np.array([[0.75, 0.25]], dtype=np.float32))
    assert listed(nearest) == [(1, 7, 0.75)]


def test_what_waits_is_bounded() -> None:
    """However many rows are offered, a few times `count` of them are held."""
    rng = np.random.default_rng(0)
    nearest = Nearest(4, 3, -1.0, np.full(4, -1))
    scores = rng.random((4, 20_000)).astype(np.float32)
    most = 0
    for start in range(0, 20_000, 10):
        nearest.offer(np.arange(4), np.arange(start, start + 10), scores[:, start : start + 10])
        most = max(most, sum(len(query) for query, _, _ in nearest._found))
    assert most <= module.SLACK * 3 * 4 + 40
    assert listed(nearest) == brute(scores, np.arange(20_000), 3, -1.0, np.full(4, -1))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 8)
    monkeypatch.setattr(module, "ROWS", 16)


@KINDS
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("queries", [1, 8, 21])
@pytest.mark.parametrize("rows", [1, 16, 50])
@pytest.mark.parametrize("forms", [1, 3])
def test_best_products_against_brute_force(kind: Any, queries: int, rows: int, forms: int) -> None:
    """Small whole numbers: products are exact, and many are equal."""
    rng = np.random.default_rng(queries * rows)
    looked_up = rng.integers(-2, 3, (queries, forms, 6)).astype(np.float32)
    block = rng.integers(-2, 3, (rows, 6)).astype(np.float32)
    names = rng.permutation(1000)[:rows]
    own = np.where(np.arange(queries) % 2 == 0, rng.choice(names, queries), -1)
    scores = np.einsum("qfk,rk->qfr", looked_up, block).max(axis=1)
    nearest = kind(queries, 4, 1.0, own)
    best_products(nearest, looked_up, names, block)
    assert listed(nearest) == brute(scores, names, 4, 1.0, own)


@KINDS
@pytest.mark.usefixtures("small_tiles")
def test_rows_below_zero_are_not_the_filling(kind: Any) -> None:
    """The zeros that fill a tile up are no rows, also where all true products are negative."""
    nearest = kind(3, 2, -5.0, np.full(3, -1))
    best_products(nearest, np.ones((3, 1, 2), dtype=np.float32), np.array([9]), np.full((1, 2), -1, dtype=np.float32))
    assert listed(nearest) == [(query, 9, -2.0) for query in range(3)]


@KINDS
@pytest.mark.usefixtures("small_tiles")
def test_same_bits_however_rows_come(kind: Any) -> None:
    rng = np.random.default_rng(3)
    looked_up = rng.integers(-600, 600, (21, 2, 37)).astype(np.float32)  # sums stay below 2^24
    block = rng.integers(-600, 600, (50, 37)).astype(np.float32)
    whole = kind(21, 50, -100.0, np.full(21, -1))
    best_products(whole, looked_up, np.arange(50), block)
    for cuts in ([7, 8, 30], [25], list(range(1, 50))):
        parts = kind(21, 50, -100.0, np.full(21, -1))
        for rows in np.split(np.arange(50), cuts):
            best_products(parts, looked_up, rows, block[rows])
        assert listed(parts) == listed(whole)
    alone = kind(1, 50, -100.0, np.full(1, -1))
    best_products(alone, looked_up[4:5], np.arange(50), block)
    assert [(4, row, value) for _, row, value in listed(alone)] == [one for one in listed(whole) if one[0] == 4]


@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 30), st.integers(1, 9))
def test_the_best_is_that_of_all(seed: int, queries: int, rows: int, piece: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (queries, rows)).astype(np.float32)  # many ties
    best = Best(queries)
    starts = rng.permutation(np.arange(0, rows, piece))
    for start in starts:
        here = np.arange(start, min(start + piece, rows))
        some = rng.integers(0, queries, queries)  # again, and in repeats, as the forms of an image
        best.offer(some, here, scores[np.ix_(some, here)] - rng.integers(0, 2, (queries, len(here))).astype(np.float32))
        asked = np.repeat(np.arange(queries), 2)
        lower = scores[np.ix_(asked, here)]
        lower[rng.integers(0, 2) :: 2] -= 1  # the better offer comes first or second
        best.offer(asked, here, lower)
    query, row, score = best.result()
    assert query.tolist() == list(range(queries))
    assert row.tolist() == scores.argmax(axis=1).tolist()
    assert score.tolist() == scores.max(axis=1).tolist()


def test_a_query_that_was_offered_nothing_has_no_best() -> None:
    assert [len(part) for part in Best(3).result()] == [0, 0, 0]


@KINDS
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("forms", [1, 2, 3, 4, 7])
def test_mirrored_forms_are_those_with_the_odd_coordinates_turned(kind: Any, forms: int) -> None:
    rng = np.random.default_rng(forms)
    looked_up = rng.integers(-3, 4, (21, forms, 6)).astype(np.float32)
    block = rng.integers(-3, 4, (50, 6)).astype(np.float32)
    for odd in (np.array([True, False, False, True, True, False]), np.ones(6, bool), np.zeros(6, bool)):
        both = np.concatenate([looked_up, np.where(odd, -looked_up, looked_up)], axis=1)
        found, expected = (kind(21, 4, 1.0, np.arange(21)) for _ in range(2))
        best_products(found, looked_up, np.arange(50), block, odd)
        best_products(expected, both, np.arange(50), block)
        assert listed(found) == listed(expected)
        assert len(listed(found)) == 84


def test_without_numba_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    looked_up = rng.integers(-99, 100, (70, 3, 8)).astype(np.float32)
    block = rng.integers(-99, 100, (600, 8)).astype(np.float32)
    odd = rng.random(8) < 0.5
    results = []
    for name in ("numba", "numpy"):
        monkeypatch.setattr(module, "engine", lambda name=name: name if engine() == "numba" else "numpy")
        nearest = nearest_of(70, 5, 0.0, np.arange(70))
        assert isinstance(nearest, Nearest) == (module.engine() == "numpy")
        best_products(nearest, looked_up, np.arange(600), block, odd)
        results.append(listed(nearest))
    assert results[0] == results[1]


@given(st.integers(1, 8), st.integers(1, 30), st.sampled_from([2, 5, 10**6]), st.data())
def test_the_lowest_of_each_row_and_of_equal_ones_the_first(q: int, r: int, values: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    table = rng.integers(0, values, (q, r)).astype(np.float64)
    table[rng.random((q, r)) < 0.1] = np.inf
    count = data.draw(st.integers(1, r))
    i, j = lowest(table, count)
    expected = np.sort(np.argsort(table, axis=1, kind="stable")[:, :count], axis=1)
    assert i.tolist() == np.repeat(np.arange(q), count).tolist()
    assert j.reshape(q, count).tolist() == expected.tolist()
