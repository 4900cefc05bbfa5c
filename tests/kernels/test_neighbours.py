"""Pairs within a radius: the filter misses none, however hostile the rows, and distances are exact."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels import neighbours
from daskim.kernels.neighbours import box_order, candidate_pairs, principal_directions, project, squared_distances

ENGINES = ("numba", "numpy")


def by(engine: str) -> AbstractContextManager[object]:
    """The compiled or the array form."""
    return patch.object(neighbours, "engine", lambda: engine)


def exact_squared(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    difference = left[:, None, :].astype(np.float64) - right[None, :, :].astype(np.float64)
    return (difference**2).sum(axis=2)


def pair_set(i: np.ndarray, j: np.ndarray) -> set[tuple[int, int]]:
    pairs = set(zip(i.tolist(), j.tolist()))
    assert len(pairs) == len(i)  # each pair once
    return pairs


def orthonormal(m: int, k: int, seed: int) -> np.ndarray:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((m, m)))
    return basis[:, :k]


ENGINE = st.sampled_from(ENGINES)


@st.composite
def hostile_rows(draw) -> np.ndarray:
    """Integer rows: clustered, far from the origin, of mixed lengths, repeated, collinear."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, 70)), draw(st.integers(1, 40))
    spread = draw(st.sampled_from([1, 30, 1000, 100_000]))
    centres = rng.integers(-spread, spread, (draw(st.integers(1, 8)), m), endpoint=True)
    noise = draw(st.sampled_from([0, 1, 5, 300]))
    rows = centres[rng.integers(0, len(centres), n)] + rng.integers(-noise, noise, (n, m), endpoint=True)
    rows = rows + draw(st.sampled_from([0, 100_000]))  # an offset mean
    rows[rng.random(n) < draw(st.sampled_from([0.0, 0.3]))] *= draw(st.sampled_from([0, 10]))  # outliers in length
    return np.concatenate([rows, rows[rng.integers(0, n, draw(st.integers(0, 20)))]])


@settings(deadline=None, max_examples=300)
@given(data=st.data(), rows=hostile_rows(), tile=st.integers(1, 40), leading=st.booleans(), engine=ENGINE)
def test_no_pair_is_missed(data, rows, tile, leading, engine):
    m = rows.shape[1]
    k = data.draw(st.integers(0, m))
    mean = rows.mean(axis=0)
    centred = rows - mean
    directions = principal_directions(centred, k) if leading else orthonormal(m, k, seed=k)
    features = project(rows, mean, directions)
    exact = exact_squared(rows, rows)
    # A radius that some pair hits exactly.
    at = data.draw(st.tuples(st.integers(0, len(rows) - 1), st.integers(0, len(rows) - 1)))
    radius = np.sqrt(exact[at])
    within = np.argwhere(exact <= exact[at])
    with by(engine):
        i, j = candidate_pairs(features, None, radius, tile=tile)
    assert i.dtype == j.dtype == np.int64
    assert (i < j).all()
    assert {(a, b) for a, b in within.tolist() if a < b} <= pair_set(i, j)
    split = data.draw(st.integers(0, len(rows)))
    with by(engine):
        i, j = candidate_pairs(features[:split], features[split:], radius, tile=tile)
    assert {(a, b - split) for a, b in within.tolist() if a < split <= b} <= pair_set(i, j)


@settings(deadline=None, max_examples=100)
@given(
    n=st.integers(2, 150),
    k=st.sampled_from([1, 2, 14, 15, 16, 17, 53, 54, 55, 62, 63, 90]),
    engine=ENGINE,
    magnitude=st.sampled_from([1e-12, 1.0, 1e5, 1e14]),
    offset=st.sampled_from([0.0, 1.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_pair_of_float_features_is_missed(n, k, engine, magnitude, offset, seed):
    rng = np.random.default_rng(seed)
    features = ((rng.standard_normal((n, k)) + offset) * magnitude).astype(np.float32)
    exact = exact_squared(features, features)
    a, b = rng.integers(0, n, 2)
    with by(engine):
        i, j = candidate_pairs(features, None, np.sqrt(exact[a, b]))
    assert {(x, y) for x, y in np.argwhere(exact <= exact[a, b]).tolist() if x < y} <= pair_set(i, j)


def test_the_filter_filters():
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (400, 60))
    rows[1::2] = rows[::2] + rng.integers(-2, 3, (200, 60))
    mean = rows.mean(axis=0)
    directions = principal_directions(rows - mean, 12)
    i, j = candidate_pairs(project(rows, mean, directions), None, 60.0, tile=64)
    np.testing.assert_array_equal(np.column_stack([i, j])[np.argsort(i)], np.arange(400).reshape(200, 2))
    # With every direction kept the filter is the distance itself but for its safety margin.
    features = project(rows, mean, np.eye(60))
    exact = exact_squared(rows, rows)
    for radius in (60.0, 800.0, 830.0):
        margin = 2e-5 * (features.astype(np.float64) ** 2).sum(axis=1).max()
        loose = np.argwhere(np.triu(exact <= 1.0001 * radius**2 + 2 * margin, 1))
        assert pair_set(*candidate_pairs(features, None, radius)) <= set(map(tuple, loose.tolist()))


@pytest.mark.parametrize("tile", [1, 7, 512])
def test_all_equal_rows_and_zero_radius(tile):
    rows = np.full((9, 5), 100_000)
    features = project(rows, np.zeros(5), orthonormal(5, 2, 0))
    everything = {(a, b) for a in range(9) for b in range(a + 1, 9)}
    assert pair_set(*candidate_pairs(features, None, 0.0, tile=tile)) == everything
    assert pair_set(*candidate_pairs(np.zeros((9, 3), dtype=np.float32), None, 0.0, tile=tile)) == everything
    assert pair_set(*candidate_pairs(features, None, 1e30, tile=tile)) == everything


def test_pairs_come_in_order_within_tiles():
    features = np.zeros((10, 2), dtype=np.float32)
    i, j = candidate_pairs(features, None, 1.0, tile=10)
    np.testing.assert_array_equal(np.column_stack([i, j]), np.argwhere(np.triu(np.ones((10, 10)), 1)))


def test_empty_and_single():
    none = np.zeros((0, 3), dtype=np.float32)
    one = np.ones((1, 3), dtype=np.float32)
    for left, right in [(none, None), (one, None), (none, one), (one, none), (none, none)]:
        i, j = candidate_pairs(left, right, 10.0)
        assert i.shape == j.shape == (0,)
        assert i.dtype == j.dtype == np.int64
    assert pair_set(*candidate_pairs(one, one, 0.0)) == {(0, 0)}


@pytest.mark.parametrize("bad", [3e19, np.inf, np.nan])
def test_features_beyond_float32_are_refused(bad):
    features = np.ones((3, 2), dtype=np.float32)
    features[1, 0] = bad
    with pytest.raises(ValueError, match="finite"):
        candidate_pairs(features, None, 1.0)
    with pytest.raises(ValueError, match="finite"):
        candidate_pairs(np.ones((3, 2), dtype=np.float32), features, 1.0)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 300), q=st.integers(1, 300), k=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_both_forms_find_the_same_but_at_the_radius(n, q, k, seed):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((7, k)) * np.geomspace(10, 0.1, k)
    rows = (centres[rng.integers(0, 7, n + q)] + rng.standard_normal((n + q, k))).astype(np.float32)
    rows = rows[box_order(rows[:, :8], 64)]
    radius = float(np.quantile(np.sqrt(exact_squared(rows, rows)), 0.05))
    length = (rows.astype(np.float64) ** 2).sum(axis=1).max()
    for left, right in ((rows, None), (rows[:n], rows[n:])):
        found = {}
        for engine in ENGINES:
            with by(engine):
                found[engine] = pair_set(*candidate_pairs(left, right, radius))
        differ = found["numba"] ^ found["numpy"]
        other = left if right is None else right
        for a, b in differ:
            squared = ((left[a].astype(np.float64) - other[b]) ** 2).sum()
            assert abs(squared - radius**2) <= 8 * (k + 10) * neighbours.EPS32 * (length + radius**2)


def test_pairs_do_not_outgrow_their_arrays():
    """More pairs than are written at a time: all of 700 points that are one."""
    features = np.zeros((700, 5), dtype=np.float32)
    with by("numba"):
        i, j = candidate_pairs(features, None, 1.0)
    np.testing.assert_array_equal(np.column_stack([i, j]), np.argwhere(np.triu(np.ones((700, 700)), 1)))


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 400), k=st.integers(1, 5), leaf=st.integers(1, 70), seed=st.integers(0, 2**32 - 1))
def test_box_order_is_a_permutation_with_small_boxes(n, k, leaf, seed):
    points = np.random.default_rng(seed).integers(0, 9, (n, k)).astype(np.float32)
    order = box_order(points, leaf)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    if n > 4 * leaf and k == 1:  # on a line the runs are intervals
        runs = [points[order[at : at + leaf]] for at in range(0, n, leaf)]
        ends = sorted((run.min(), run.max()) for run in runs)
        assert all(left[1] <= right[0] for left, right in pairwise(ends))


# --- projection -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(data=st.data(), rows=hostile_rows())
def test_projection_bounds_every_distance_from_below(data, rows):
    k = data.draw(st.integers(0, rows.shape[1]))
    mean = rows.mean(axis=0)
    features = project(rows, mean, orthonormal(rows.shape[1], k, seed=1))
    assert features.shape == (len(rows), k + 1)
    assert features.dtype == np.float32
    lengths = ((rows - mean) ** 2).sum(axis=1)
    slack = 4e-6 * (lengths[:, None] + lengths[None, :])
    bound = exact_squared(features, features)
    assert (bound <= exact_squared(rows, rows) + slack + 1e-9).all()
    # The remainder keeps the length of every row, so distances to the mean are exact.
    np.testing.assert_allclose((features.astype(np.float64) ** 2).sum(axis=1), lengths, rtol=1e-5, atol=1e-9)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), rows=hostile_rows(), groups=st.integers(1, 4))
def test_projection_of_some_columns_bounds_every_distance_from_below(data, rows, groups):
    m = rows.shape[1]
    columns = np.sort(data.draw(st.permutations(range(m)))[: data.draw(st.integers(1, m))])
    k = data.draw(st.integers(0, len(columns)))
    others = np.setdiff1d(np.arange(m), columns)
    rest = tuple(part for part in np.array_split(others, groups) if len(part))
    mean = rows.mean(axis=0)
    features = project(rows, mean, orthonormal(len(columns), k, seed=1), columns, rest)
    assert features.shape == (len(rows), k + 1 + len(rest))
    lengths = ((rows - mean) ** 2).sum(axis=1)
    slack = 4e-6 * (lengths[:, None] + lengths[None, :])
    assert (exact_squared(features, features) <= exact_squared(rows, rows) + slack + 1e-9).all()
    np.testing.assert_allclose((features.astype(np.float64) ** 2).sum(axis=1), lengths, rtol=1e-5, atol=1e-9)


def test_projection_by_hand():
    directions = np.array([[1.0], [0], [0]])
    np.testing.assert_allclose(project(np.array([[5, 6, 8]]), np.array([2.0, 3, 4]), directions), [[3, 5]])


@pytest.mark.parametrize(("m", "k"), [(1, 1), (30, 5), (30, 30), (30, 99), (80, 8), (5, 0)])
def test_principal_directions_are_orthonormal_and_leading(m, k):
    rng = np.random.default_rng(m + k)
    basis, _ = np.linalg.qr(rng.standard_normal((m, m)))
    values = np.geomspace(1e3, 1e-1, m)  # singular values
    directions = principal_directions((basis * values).T, k)
    kept = min(k, m)
    assert directions.shape == (m, kept)
    np.testing.assert_allclose(directions.T @ directions, np.eye(kept), atol=1e-12)
    captured = np.einsum("ij,i,ij->j", basis.T @ directions, values**2, basis.T @ directions)
    np.testing.assert_allclose(captured, values[:kept] ** 2, rtol=1e-2)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_principal_directions_of_a_singular_covariance(rank):
    rows = np.random.default_rng(0).standard_normal((rank, 25))
    directions = principal_directions(rows, 6)
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(rows @ directions @ directions.T, rows, atol=1e-5)


def test_principal_directions_depend_on_nothing_but_their_arguments():
    matrix = np.random.default_rng(0).standard_normal((90, 40))
    np.testing.assert_array_equal(principal_directions(matrix, 5), principal_directions(matrix, 5))


# --- distances --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=120)
@given(
    case=st.sampled_from([(np.int16, 16383), (np.int16, 9), (np.int32, 2**20), (np.int32, 2**26), (np.int64, 2**23)]),
    sparse=st.booleans(),
    m=st.integers(0, 50),
    pairs=st.integers(0, 150),
    seed=st.integers(0, 2**32 - 1),
)
def test_squared_distances_of_integers_are_exact(case, sparse, m, pairs, seed):
    dtype, bound = case
    if m * (2 * bound) ** 2 >= 2**53:
        m = 2**53 // (2 * bound) ** 2
    rng = np.random.default_rng(seed)
    left = rng.integers(-bound, bound, (20, m), dtype=dtype, endpoint=True)
    right = left[rng.integers(0, 20, 30)].copy() if sparse else rng.integers(-bound, bound, (30, m), dtype=dtype)
    if sparse and m:
        right[:, 0] = rng.integers(-bound, bound, 30)
    i, j = rng.integers(0, 20, pairs), rng.integers(0, 30, pairs)
    exact = ((left[i].astype(object) - right[j].astype(object)) ** 2).sum(axis=1) if m else np.zeros(pairs)
    for engine in ENGINES:
        with by(engine):
            value = squared_distances(left, right, i, j)
            assert value.dtype == np.float64
            assert value.tolist() == list(exact)
            most = float(np.median(value)) if pairs else 0.0
            early = squared_distances(left, right, i, j, most)
            np.testing.assert_array_equal(early <= most, value <= most)
            np.testing.assert_array_equal(early[value <= most], value[value <= most])


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_squared_distances_around_two_to_the_24(last):
    rows = np.zeros((2, 2), dtype=np.int16)
    rows[1] = 4096, last  # 2^24 + last^2: float32 cannot hold the odd ones
    assert squared_distances(rows, rows, np.array([0]), np.array([1])).item() == 2**24 + last**2
    tall = np.zeros((2, 300), dtype=np.int32)
    tall[1] = 257
    assert squared_distances(tall, tall, np.array([0]), np.array([1])).item() == 300 * 257**2


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.uint32, np.bool_])
def test_narrow_and_unsigned_rows_do_not_wrap(dtype):
    low, high = (0, 1) if dtype is np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    rows = np.array([[low], [high]], dtype=dtype)
    pair = np.array([0]), np.array([1])
    assert squared_distances(rows, rows, *pair).item() == float((int(high) - int(low)) ** 2)


def test_squared_distances_of_floats_are_worked_out_in_float64():
    rows = np.array([[1e8, 3.0], [0.25, 0.0]], dtype=np.float32)
    assert squared_distances(rows, rows, np.array([0]), np.array([1])).item() == (1e8 - 0.25) ** 2 + 9
    mixed = squared_distances(rows, np.array([[1, 1]], dtype=np.int16), np.array([1]), np.array([0]))
    assert mixed.item() == 0.75**2 + 1
