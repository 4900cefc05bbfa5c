"""Laplacian scores against the formula with dense matrices, and what a good score means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.neighbors import kneighbors_graph

from daskim.kernels.laplacian_score import heat_kernel_graph, laplacian_scores


def dense_graph(rows: np.ndarray, neighbours: int) -> np.ndarray:
    """S by the definition, one pair at a time."""
    s = len(rows)
    squared = ((rows[:, None, :].astype(float) - rows[None]) ** 2).sum(axis=2)
    joined = np.zeros((s, s), dtype=bool)
    for i in range(s):
        nearest = sorted((j for j in range(s) if j != i), key=lambda j: (squared[i, j], j))[:neighbours]
        joined[i, nearest] = True
    joined |= joined.T
    width = squared[joined].mean() if joined.any() else 0.0
    return np.where(joined, np.exp(-squared / width) if width else 1.0, 0.0)


def dense_scores(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    degrees = np.diag(weights.sum(axis=1))
    laplacian = degrees - weights
    one = np.ones(len(rows))
    scores = []
    for column in rows.T.astype(float):
        flat = column - (column @ degrees @ one) / (one @ degrees @ one) * one
        spread = flat @ degrees @ flat
        scores.append(np.inf if np.ptp(column) == 0 else flat @ laplacian @ flat / spread)
    return np.array(scores)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 12),
    st.integers(1, 45),
    st.sampled_from([2, 5, 1000]),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_against_the_definition(s: int, d: int, neighbours: int, levels: int, tile: int, seed: int) -> None:
    """Few levels make ties in distance and equal rows."""
    rows = np.random.default_rng(seed).integers(0, levels, (s, d))
    expected = dense_graph(rows, neighbours)
    graph = heat_kernel_graph(rows, neighbours, tile=tile)
    np.testing.assert_allclose(graph.toarray(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        laplacian_scores(rows, graph, width=5), dense_scores(rows, expected), rtol=1e-9, atol=1e-12
    )


def test_neighbours_are_those_of_scikit_learn() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 20)).astype(np.float32)
    found = heat_kernel_graph(rows, 5).toarray() > 0
    expected = kneighbors_graph(rows.astype(np.float64), 5).toarray() > 0
    np.testing.assert_array_equal(found, expected | expected.T)


def test_scale_and_offset_do_not_matter() -> None:
    rows = np.random.default_rng(1).integers(0, 256, (200, 30))
    scores = laplacian_scores(rows, heat_kernel_graph(rows, 5))
    moved = rows * 4 + 1000
    np.testing.assert_allclose(laplacian_scores(moved, heat_kernel_graph(moved, 5)), scores, rtol=1e-12)
    graph = heat_kernel_graph(rows, 5)
    np.testing.assert_allclose(laplacian_scores(rows * 1e-3 - 7.0, graph), scores, rtol=1e-9)


def test_the_column_that_tells_the_groups_apart_is_best() -> None:
    rng = np.random.default_rng(2)
    group = rng.integers(0, 2, 400)
    rows = rng.standard_normal((400, 10))
    rows[:, 3] = 20.0 * group + rng.standard_normal(400) * 0.1
    scores = laplacian_scores(rows, heat_kernel_graph(rows, 5))
    assert scores.argmin() == 3
    assert scores[3] < 0.01 < np.delete(scores, 3).min()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_columns_are_worst(value: float) -> None:
    rows = np.random.default_rng(3).standard_normal((50, 4))
    rows[:, 2] = value
    scores = laplacian_scores(rows, heat_kernel_graph(rows, 3))
    assert np.isinf(scores).tolist() == [False, False, True, False]


def test_equal_rows_one_row_and_none() -> None:
    equal = np.full((6, 3), 9)
    graph = heat_kernel_graph(equal, 2)
    assert set(graph.data) == {1.0}
    assert np.isinf(laplacian_scores(equal, graph)).all()
    for s in (0, 1):
        graph = heat_kernel_graph(equal[:s], 2)
        assert graph.shape == (s, s)
        assert np.isinf(laplacian_scores(equal[:s], graph)).all()
    assert laplacian_scores(equal[:, :0], graph).shape == (0,)


def test_rows_without_an_edge_do_not_count() -> None:
    weights = np.zeros((4, 4))
    weights[0, 1] = weights[1, 0] = weights[1, 2] = weights[2, 1] = 0.5
    rows = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 5.0], [8.0, 2.0]])
    scores = laplacian_scores(rows, csr_array(weights))
    assert np.isinf(scores[0])
    assert scores[1] == pytest.approx(dense_scores(rows[:3], weights[:3, :3])[1])
