"""Ward up to a height: equal to scipy's full tree where that is unambiguous, greedy by brute force where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from daskim.kernels import ward
from daskim.kernels.ward import Merges, components, cut, labels_after, ward_dense, ward_heights, ward_merges


def pairs_within(points: np.ndarray, weights: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs with Ward height <= radius, by brute force."""
    a, b = np.triu_indices(len(points), 1)
    difference = points[a].astype(np.float64) - points[b]
    squared = ward_heights(np.einsum("ij,ij->i", difference, difference), weights[a], weights[b])
    near = np.sqrt(squared) <= radius
    return a[near], b[near], squared[near]


def merged(points: np.ndarray, radius: float, weights: np.ndarray | None = None) -> Merges:
    weights = np.ones(len(points)) if weights is None else weights
    return ward_merges(points, weights, *pairs_within(points, weights, radius), radius)


def merged_dense(points: np.ndarray, radius: float, weights: np.ndarray | None = None) -> Merges:
    weights = np.ones(len(points)) if weights is None else weights
    difference = points[:, None].astype(np.float64) - points[None]
    return ward_dense((difference**2).sum(axis=2), weights, radius)


BOTH = pytest.mark.parametrize("merge", [merged, merged_dense], ids=["pairs", "dense"])


def scipy_merges(points: np.ndarray) -> Merges:
    """The full tree of scipy, each merge named by the smallest points of its two clusters."""
    n = len(points)
    if n < 2:
        return Merges(np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    tree = linkage(points, "ward")
    smallest = list(range(n))
    for x, y in tree[:, :2].astype(int).tolist():
        smallest.append(min(smallest[x], smallest[y]))
    names = np.array(smallest)[tree[:, :2].astype(int)]
    return Merges(tree[:, 2], names.min(axis=1), names.max(axis=1))


def check_equal(found: Merges, full: Merges, radius: float) -> None:
    """The same merges in the same order up to the radius: the partitions agree at every level."""
    count = int(np.searchsorted(full.height, radius, side="right"))
    assert found.height.dtype == np.float64
    assert found.a.dtype == found.b.dtype == np.int64
    assert len(found.height) == count
    np.testing.assert_allclose(found.height, full.height[:count], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(found.a, full.a[:count])
    np.testing.assert_array_equal(found.b, full.b[:count])


def scatter(n: int, m: int, groups: int, seed: int) -> np.ndarray:
    """Tie-free points in clumps of many sizes."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, m)) * 4
    spread = rng.gamma(1.0, 0.5, groups)
    group = rng.integers(0, groups, n)
    return centres[group] + rng.standard_normal((n, m)) * spread[group, None]


# --- against scipy ----------------------------------------------------------------------------------------------


@BOTH
@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 120),
    m=st.integers(1, 12),
    groups=st.integers(1, 20),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_equal_to_scipy_up_to_any_radius(merge, n, m, groups, share, seed):
    points = scatter(n, m, groups, seed)
    full = scipy_merges(points)
    if len(full.height) and np.diff(full.height, prepend=0).min() < 1e-9 * full.height[-1]:
        return
    at = full.height[int(share * (len(full.height) - 1))] if len(full.height) else 1.0
    for radius in (at * (1 - 1e-9), at * (1 + 1e-9), at * 1.3):
        check_equal(merge(points, radius), full, radius)


@settings(deadline=None, max_examples=6)
@given(n=st.integers(1000, 2000), m=st.sampled_from([2, 5, 40]), seed=st.integers(0, 2**32 - 1))
def test_equal_to_scipy_at_two_thousand_points(n, m, seed):
    points = scatter(n, m, n // 10, seed)
    full = scipy_merges(points)
    for level in (n // 20, n // 3, n // 2, int(0.8 * n)):
        radius = float(full.height[level])
        radius += 0.5 * (float(full.height[level + 1]) - radius)
        found = merged(points, radius)
        check_equal(found, full, radius)
        by_scipy = fcluster(linkage(points, "ward"), radius, "distance")
        _, first = np.unique(by_scipy, return_index=True)
        numbered = np.argsort(np.argsort(first))[by_scipy - 1]
        np.testing.assert_array_equal(labels_after(n, found.a, found.b), numbered)


@pytest.mark.slow
def test_equal_to_scipy_in_one_component_of_ten_thousand():
    points = np.random.default_rng(7).random((10_000, 2)).astype(np.float64)
    radius = 0.04
    a, b = cKDTree(points).query_pairs(radius, output_type="ndarray").T
    assert components(len(points), a, b).max() == 0
    squared = ((points[a] - points[b]) ** 2).sum(axis=1)
    found = ward_merges(points, np.ones(len(points)), a, b, squared, radius)
    full = scipy_merges(points)
    assert 5000 < len(found.height) < len(points) - 1
    check_equal(found, full, radius)


def test_a_merge_with_hundreds_of_neighbours_of_one_part_only():
    # x at 0 and y merge first; every other point is within the radius of x and of the two together, but not of y.
    rng = np.random.default_rng(0)
    points = np.zeros((302, 301))
    points[1, 0] = 4.4
    points[2:, 0] = -5.2
    points[np.arange(2, 302), np.arange(1, 301)] = 3.3 + 0.01 * rng.random(300)
    points[301, 300] = 3.3  # the last is the nearest
    radius = 10.0
    a, _, squared = pairs_within(points, np.ones(302), radius)
    assert len(a) == 302 * 301 // 2 - 300
    full = scipy_merges(points)
    assert (full.a[0], full.b[0]) == (0, 1)
    check_equal(merged(points, radius), full, radius)
    # Without the pairs among the others, the next is the nearest to the two together.
    star = ward_merges(points, np.ones(302), np.zeros(301, dtype=int), np.arange(1, 302), squared[:301], radius)
    assert (star.a[:2].tolist(), star.b[:2].tolist()) == ([0, 0], [1, 301])
    assert star.height[1] ** 2 == pytest.approx(4 / 3 * (7.4**2 + 3.3**2))


@BOTH
@pytest.mark.parametrize("seed", range(10))
def test_heights_never_fall_by_rounding(merge, seed):
    # The corners of a simplex: every merge ties with others in theory, and rounds either way in practice.
    rng = np.random.default_rng(seed)
    found = merge(np.eye(12) * rng.random() + rng.random(12), 100.0)
    assert len(found.height) == 11
    assert (np.diff(found.height) >= 0).all()


def test_the_whole_tree_of_one_component():
    points = scatter(300, 3, 4, 0)
    radius = float(pdist(points).max()) * 20
    found = merged(points, radius)
    assert len(found.height) == 299
    check_equal(found, scipy_merges(points), radius)
    check_equal(merged_dense(points, np.inf), found, np.inf)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_points_of_narrow_dtypes(dtype):
    points = np.random.default_rng(0).integers(0, 256, (80, 500)).astype(dtype)  # sums of centres pass 2^8 at once
    full = scipy_merges(points.astype(np.float64))
    check_equal(merged(points, float(full.height[60])), full, float(full.height[60]))


# --- weights ----------------------------------------------------------------------------------------------------


@BOTH
@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(1, 60),
    m=st.integers(1, 6),
    groups=st.integers(1, 10),
    heaviest=st.integers(1, 9),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_weighted_point_equals_repeated_points(merge, n, m, groups, heaviest, share, seed):
    points = scatter(n, m, groups, seed)
    weights = np.random.default_rng(seed).integers(1, heaviest, n, endpoint=True)
    start = np.concatenate([[0], np.cumsum(weights)[:-1]])
    repeated = np.repeat(points, weights, axis=0)
    full = scipy_merges(repeated)
    copies = len(repeated) - n
    tree = Merges(full.height[copies:], full.a[copies:], full.b[copies:])
    if n < 2 or np.diff(tree.height, prepend=0).min() < 1e-7 * tree.height[-1]:
        return
    radius = float(tree.height[int(share * (n - 2))]) * (1 + 1e-9)
    found = merge(points, radius, weights)
    check_equal(Merges(found.height, start[found.a], start[found.b]), tree, radius)
    # And the kernel with itself, the copies merged at height 0 first.
    again = merge(repeated, radius)
    assert (again.height[:copies] == 0).all()
    check_equal(Merges(again.height[copies:], again.a[copies:], again.b[copies:]), tree, radius)


@BOTH
def test_heights_by_hand(merge):
    points = np.array([[0.0], [1.0], [5.0]])
    found = merge(points, 100.0, np.array([1.0, 3.0, 2.0]))
    # {0, 1 x 3}: 2*1*3/4 = 1.5; centre 0.75 of weight 4 against 5 of weight 2: 2*4*2/6 * 4.25^2.
    np.testing.assert_allclose(found.height**2, [1.5, 16 / 6 * 4.25**2])
    assert (found.a.tolist(), found.b.tolist()) == ([0, 0], [1, 2])
    assert ward_heights(np.array([9.0]), np.array([1]), np.array([1])).tolist() == [9.0]


# --- ties -------------------------------------------------------------------------------------------------------


def brute_force_check(points: np.ndarray, found: Merges, radius: float) -> None:
    """Every merge is the least there is, among all pairs of clusters as they stand; none is left within the radius."""
    members = {i: [i] for i in range(len(points))}
    scale = 1e-9 * (1 + float(np.abs(points).max(initial=0)) ** 2)
    for height, a, b in [*zip(found.height, found.a, found.b), (None, 0, 0)]:
        names = sorted(members)
        centres = np.array([points[members[x]].mean(axis=0) for x in names])
        sizes = np.array([len(members[x]) for x in names], dtype=float)
        squared = ((centres[:, None] - centres[None]) ** 2).sum(axis=2)
        squared *= 2 * sizes[:, None] * sizes[None] / (sizes[:, None] + sizes[None])
        np.fill_diagonal(squared, np.inf)
        least = float(squared.min())
        if height is None:
            assert least > radius**2 - scale
            return
        assert a < b
        assert squared[names.index(a), names.index(b)] == pytest.approx(height**2, abs=scale)
        assert least >= height**2 - scale
        members[a] += members.pop(b)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 25),
    m=st.integers(1, 3),
    bound=st.integers(0, 6),
    squared_radius=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers_with_many_ties_are_merged_greedily(n, m, bound, squared_radius, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, bound, (n, m), endpoint=True)
    radius = float(np.sqrt(squared_radius))  # often exactly the height of a pair
    weights = np.ones(n)
    a, b, squared = pairs_within(points, weights, radius)
    found = ward_merges(points, weights, a, b, squared, radius)
    assert (np.diff(found.height) >= 0).all()
    brute_force_check(points, found, radius)
    brute_force_check(points, merged_dense(points, radius), radius)
    # The rises add up to the sum of squared errors of the clusters that result.
    label = labels_after(n, found.a, found.b)
    assert label.max() + 1 == n - len(found.height)
    error = sum(points[label == c].var(axis=0).sum() * (label == c).sum() for c in range(label.max() + 1))
    assert (found.height**2).sum() / 2 == pytest.approx(error, abs=1e-9)
    # The order of the pairs, and of the two points in a pair, changes nothing, not a bit.
    for _ in range(3):
        order = rng.permutation(len(a))
        swap = rng.random(len(a)) < 0.5
        x, y = np.where(swap, b, a)[order], np.where(swap, a, b)[order]
        again = ward_merges(points, weights, x, y, squared[order], radius)
        for name in ("height", "a", "b"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


@BOTH
@pytest.mark.parametrize("seed", range(5))
def test_copies_of_one_pattern_have_the_heights_of_scipy(merge, seed):
    # All ties are between far copies, so the tree of a copy, and with it the multiset of heights, is unambiguous.
    rng = np.random.default_rng(seed)
    pattern = np.cumsum(rng.integers(5, 80, (7, 2)) * [1, 3], axis=0)
    points = (np.arange(20)[:, None, None] * [100_000, 7] + pattern).reshape(140, 2)
    full = scipy_merges(points)
    radius = 10_000.0
    found = merge(points, radius)
    assert len(found.height) == 120
    np.testing.assert_allclose(np.sort(found.height), full.height[:120], rtol=1e-9)
    label = labels_after(140, found.a, found.b)
    np.testing.assert_array_equal(label, np.arange(140) // 7)


@BOTH
def test_ties_go_to_the_smaller_points(merge):
    points = np.array([[10.0], [0], [11], [1], [101], [100]])
    found = merge(points, 1.0)
    assert found.height.tolist() == [1.0, 1.0, 1.0]
    assert list(zip(found.a.tolist(), found.b.tolist())) == [(0, 2), (1, 3), (4, 5)]
    line = merge(np.arange(5.0)[:, None], 1.0)  # 0-1 and 2-3 leave 4 at sqrt(4/3) * 1.5
    assert list(zip(line.a.tolist(), line.b.tolist())) == [(0, 1), (2, 3)]


@settings(deadline=None)
@given(squared=st.integers(0, 2**40))
def test_a_pair_exactly_at_the_radius_is_merged(squared):
    weights = np.ones(2)
    points = np.zeros((2, 1))
    a, b, radius = np.array([0]), np.array([1]), float(np.sqrt(squared))
    assert len(ward_merges(points, weights, a, b, np.array([float(squared)]), radius).height) == 1
    assert len(ward_merges(points, weights, a, b, np.array([squared + 1.0]), radius).height) == 0
    for value, merges in [(squared, 1), (squared + 1, 0)]:
        matrix = np.array([[0.0, value], [value, 0.0]])
        assert len(ward_dense(matrix, weights, radius).height) == merges


def test_pairs_beyond_the_radius_are_ignored():
    points = scatter(100, 3, 5, 2)
    weights = np.ones(100)
    radius = 1.5
    found = ward_merges(points, weights, *pairs_within(points, weights, 50.0), radius)
    check_equal(found, scipy_merges(points), radius)
    assert 0 < len(found.height) < 99


@BOTH
def test_equal_points_merge_at_height_zero(merge):
    points = np.full((50, 4), 0.1, dtype=np.float32)
    found = merge(points, 0.0)
    np.testing.assert_array_equal(found.height, np.zeros(49))
    np.testing.assert_array_equal(found.a, np.zeros(49))
    np.testing.assert_array_equal(np.sort(found.b), np.arange(1, 50))


def test_huge_and_offset_points():
    points = scatter(80, 4, 6, 1)
    small = merged(points, 2.0)
    huge = merged(points * 2.0**40, 2.0**41)
    np.testing.assert_array_equal(huge.a, small.a)
    np.testing.assert_array_equal(huge.height, small.height * 2.0**40)
    offset = merged(points + 1e5, 2.0)
    np.testing.assert_array_equal(offset.b, small.b)
    np.testing.assert_allclose(offset.height, small.height, rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_nothing_to_merge(n):
    none = np.zeros(0, dtype=np.int64)
    found = ward_merges(np.zeros((n, 3)), np.ones(n), none, none, np.zeros(0), 10.0)
    assert found.height.shape == found.a.shape == found.b.shape == (0,)
    assert found.a.dtype == np.int64
    np.testing.assert_array_equal(labels_after(n, found.a, found.b), np.arange(n))
    dense = ward_dense(np.full((n, n), 101.0), np.ones(n), 10.0)
    assert dense.height.shape == dense.a.shape == dense.b.shape == (0,)
    assert dense.a.dtype == dense.b.dtype == np.int64


def test_input_is_left_alone():
    points, weights = scatter(60, 3, 4, 0), np.ones(60)
    given_arrays = (points, weights, *pairs_within(points, weights, 3.0))
    before = [array.copy() for array in given_arrays]
    ward_merges(*given_arrays, 3.0)
    for array, copy in zip(given_arrays, before):
        np.testing.assert_array_equal(array, copy)
    squared = np.array([[0.0, 1, 9], [1, 0, 4], [9, 4, 0]])
    ward_dense(squared, weights[:3])
    np.testing.assert_array_equal(squared, [[0, 1, 9], [1, 0, 4], [9, 4, 0]])
    np.testing.assert_array_equal(weights, np.ones(60))


# --- components, labels, cut ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(data=st.data(), n=st.integers(1, 40))
def test_components_are_numbered_by_their_smallest_point(data, n):
    point = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(point, point), max_size=50))
    smallest = list(range(n))
    for x, y in edges:
        low, high = sorted((smallest[x], smallest[y]))
        smallest = [low if s == high else s for s in smallest]
    expected = np.searchsorted(np.unique(smallest), smallest)
    a, b = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    for found in (components(n, a, b), labels_after(n, a, b)):
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("repeats", [128, 255, 256, 512])
def test_repeated_pairs_do_not_wrap(repeats):
    ends = np.zeros(repeats, dtype=np.int64), np.full(repeats, 2)
    np.testing.assert_array_equal(components(3, *ends), [0, 1, 0])


@settings(deadline=None, max_examples=200)
@given(data=st.data(), trees=st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=6))
def test_cut_takes_the_lowest_and_never_a_merge_before_those_under_it(data, trees):
    trees = [sorted(tree) for tree in trees]
    heights = np.array([h for tree in trees for h in tree], dtype=np.float64)
    count = data.draw(st.integers(0, heights.size))
    taken, height = cut(heights, count)
    assert taken.dtype == np.bool_
    assert taken.sum() == count
    assert height == (heights[taken].max() if count else 0.0)
    assert isinstance(height, float)
    if 0 < count < heights.size:
        assert heights[~taken].min() >= height
    start = 0
    for tree in trees:
        part = taken[start : start + len(tree)]
        assert not (np.diff(part.astype(int)) > 0).any()  # a prefix of its tree
        start += len(tree)
    tied = np.flatnonzero(heights == height)
    assert not (np.diff(taken[tied].astype(int)) > 0).any()  # equal heights in the order given


@pytest.mark.parametrize("count", [-1, 4])
def test_cut_refuses_more_than_there_is(count):
    with pytest.raises(ValueError, match="of 3 merges"):
        cut(np.array([1.0, 2.0, 3.0]), count)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 80), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_trees_of_components_and_one_cut_equal_the_tree_of_all(n, share, seed):
    points = scatter(n, 3, 12, seed)
    full = scipy_merges(points)
    if np.diff(full.height, prepend=0).min() < 1e-9 * full.height[-1]:
        return
    radius = float(full.height[int(share * (n - 2))]) * (1 + 1e-9)
    weights = np.ones(n)
    a, b, squared = pairs_within(points, weights, radius)
    component = components(n, a, b)
    trees = []
    for c in range(component.max() + 1):
        inside = np.flatnonzero(component == c)
        part = component[a] == c
        local = np.searchsorted(inside, a[part]), np.searchsorted(inside, b[part])
        tree = ward_merges(points[inside], weights[inside], *local, squared[part], radius)
        trees.append((tree.height, inside[tree.a], inside[tree.b]))
    height, first, second = (np.concatenate(column) for column in zip(*trees))
    for count in {0, len(height) // 2, len(height)}:
        taken, at = cut(height, count)
        np.testing.assert_array_equal(
            labels_after(n, first[taken], second[taken]), labels_after(n, full.a[:count], full.b[:count])
        )
        assert at == pytest.approx(full.height[count - 1] if count else 0.0)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 60),
    m=st.integers(1, 40),
    spread=st.integers(1, 200),
    share=st.floats(0.01, 1.0),
    whole=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_compiled_and_array_form_agree_to_the_last_bit(n, m, spread, share, whole, seed):
    pytest.importorskip("numba")
    rng = np.random.default_rng(seed)
    points = rng.integers(-spread, spread, (n, m)).astype(np.int16)
    if not whole:
        points = (points * rng.random((n, m))).astype(np.float32)
    weights = rng.integers(1, 5, n)
    a, b, squared = pairs_within(points, weights, np.inf)
    radius = float(np.sqrt(np.quantile(squared, share)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASKIM_COMPILED", "1")
        patch.setattr(ward, "COMPILED", 0)
        fast = ward_merges(points, weights, a, b, squared, radius)
        patch.setenv("DASKIM_COMPILED", "0")
        plain = ward_merges(points, weights, a, b, squared, radius)
    for name in ("height", "a", "b"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name))
        assert getattr(fast, name).dtype == getattr(plain, name).dtype
