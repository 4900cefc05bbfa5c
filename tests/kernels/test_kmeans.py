"""Pieces of k-means: distinct and repeatable seeds, sums, nearest centres and the objective, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels.kmeans import cluster_sums, nearest_centres, seed_centres, squared_error

DTYPES = [np.uint8, np.int16, np.int32, np.float32, np.float64]


@settings(deadline=None, max_examples=100)
@given(
    data=st.data(),
    n=st.integers(1, 60),
    m=st.integers(1, 20),
    dtype=st.sampled_from(DTYPES),
    offset=st.sampled_from([0, 100_000]),
    unique=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_seeds_are_distinct_and_repeats_come_last(data, n, m, dtype, offset, unique, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 100, (unique, m)) + (0 if dtype in (np.uint8, np.int16) else offset)
    points = values[rng.integers(0, unique, n)].astype(dtype)
    k = data.draw(st.integers(1, n))
    chosen = seed_centres(points, k, seed=seed)
    assert chosen.dtype == np.int64
    assert chosen.shape == (k,)
    assert np.unique(chosen).size == k
    assert chosen.min() >= 0
    assert chosen.max() < n
    np.testing.assert_array_equal(chosen, seed_centres(points, k, seed=seed))
    # Every value is taken once before any is taken twice; from then on by index.
    fresh = min(k, len(np.unique(points, axis=0)))
    assert len(np.unique(points[chosen[:fresh]], axis=0)) == fresh
    unused = np.setdiff1d(np.arange(n), chosen[:fresh])
    np.testing.assert_array_equal(chosen[fresh:], unused[: k - fresh])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("offset", "dtype"), [(0.0, np.float32), (1e5, np.float32), (1e10, np.float64)])
def test_seeds_hit_every_one_of_many_far_groups(seed, offset, dtype):
    rng = np.random.default_rng(seed)
    centres = np.eye(25) * 1000.0
    sizes = rng.integers(1, 60, 25)
    group = np.repeat(np.arange(25), sizes)
    points = (centres[group] + rng.standard_normal((group.size, 25)) * 0.1 + offset).astype(dtype)
    assert set(group[seed_centres(points, 25, seed=seed)]) == set(range(25))


def test_seeds_are_drawn_by_squared_distance():
    # From point 0 the others are drawn as 1 : 4 : 16; from anywhere the law is the same, given the first.
    points = np.array([[0.0], [1.0], [2.0], [4.0]])
    squared = (points - points.T) ** 2
    counts = np.zeros((4, 4))
    for seed in range(6000):
        first, second = seed_centres(points, 2, seed=seed)
        counts[first, second] += 1
    np.testing.assert_allclose(counts.sum(axis=1) / 6000, 0.25, atol=0.03)
    law = squared / squared.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), law, atol=0.05)


def test_seeds_differ_with_the_seed():
    points = np.random.default_rng(0).standard_normal((200, 3))
    assert len({tuple(seed_centres(points, 5, seed=seed)) for seed in range(20)}) == 20


@pytest.mark.parametrize("k", [0, -1, 4])
def test_impossible_numbers_of_seeds_are_refused(k):
    with pytest.raises(ValueError, match="of 3 rows"):
        seed_centres(np.zeros((3, 2)), k)


@settings(deadline=None, max_examples=80)
@given(
    data=st.data(),
    n=st.integers(0, 40),
    k=st.integers(1, 30),
    m=st.integers(1, 12),
    dtype=st.sampled_from(DTYPES),
    bound=st.sampled_from([2, 100]),
    seed=st.integers(0, 2**32 - 1),
)
def test_nearest_centres_against_brute_force_with_ties(data, n, k, m, dtype, bound, seed):
    rng = np.random.default_rng(seed)
    points, centres = rng.integers(0, bound, (n, m)), rng.integers(0, bound, (k, m))
    count = data.draw(st.integers(1, k))
    exact = ((points[:, None] - centres[None]) ** 2).sum(axis=2)
    expected = np.argsort(exact, axis=1, kind="stable")[:, :count]
    nearest = nearest_centres(points.astype(dtype), centres.astype(dtype), count)
    assert nearest.dtype == np.int64
    np.testing.assert_array_equal(nearest, expected)


@pytest.mark.parametrize("count", [0, 4])
def test_impossible_numbers_of_nearest_centres_are_refused(count):
    with pytest.raises(ValueError, match="of 3 centres"):
        nearest_centres(np.zeros((2, 2)), np.zeros((3, 2)), count)


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(0, 80),
    k=st.integers(1, 20),
    m=st.integers(1, 10),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_cluster_sums_against_brute_force(n, k, m, dtype, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 256, (n, m)).astype(dtype)
    label = rng.integers(0, rng.integers(1, k, endpoint=True), n)  # with empty clusters, often at the end
    sums, counts = cluster_sums(points, label, k)
    assert sums.dtype == np.float64
    assert counts.dtype == np.int64
    for c in range(k):
        assert counts[c] == (label == c).sum()
        np.testing.assert_array_equal(sums[c], points[label == c].astype(np.float64).sum(axis=0))


def test_cluster_sums_add_up_over_blocks():
    rng = np.random.default_rng(0)
    points, label = rng.integers(-1000, 1000, (500, 7)).astype(np.int16), rng.integers(0, 9, 500)
    parts = [cluster_sums(points[s : s + 77], label[s : s + 77], 9) for s in range(0, 500, 77)]
    sums, counts = cluster_sums(points, label, 9)
    np.testing.assert_array_equal(sum(part[0] for part in parts), sums)
    np.testing.assert_array_equal(sum(part[1] for part in parts), counts)


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises((IndexError, ValueError)):
        cluster_sums(np.ones((2, 2)), np.array([0, label]), 3)


@settings(deadline=None, max_examples=40)
@given(
    n=st.sampled_from([0, 1, 1023, 1024, 1025, 2500]),
    k=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_squared_error_against_brute_force(n, k, dtype, seed):
    rng = np.random.default_rng(seed)
    points, centres = rng.integers(0, 256, (n, 3)).astype(dtype), rng.integers(0, 256, (k, 3)).astype(np.float64)
    label = rng.integers(0, k, n)
    assert squared_error(points, centres, label) == sum(
        float(((points[i].astype(np.float64) - centres[label[i]]) ** 2).sum()) for i in range(n)
    )


def test_squared_error_of_means_is_least():
    rng = np.random.default_rng(1)
    points, label = rng.standard_normal((300, 4)).astype(np.float32), np.arange(300) % 6
    sums, counts = cluster_sums(points, label, 6)
    means = sums / counts[:, None]
    least = squared_error(points, means, label)
    spread = sum(points[label == c].astype(np.float64).var(axis=0).sum() * 50 for c in range(6))
    assert least == pytest.approx(spread, rel=1e-12)
    assert squared_error(points, means + 1e-3, label) == pytest.approx(least + 300 * 4e-6, rel=1e-9)
