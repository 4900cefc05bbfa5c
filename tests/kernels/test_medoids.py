"""k-medoids: never below the greedy bound of the best medoids, exact on planted families, right at k near n."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels.medoids import Medoids, k_medoids


@st.composite
def pairs(draw, most: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, float]:
    """n, listed pairs in any order with many equal similarities, and `elsewhere`."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, most))
    a, b = np.triu_indices(n, 1)
    listed = rng.permutation(np.flatnonzero(rng.random(a.size) < draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))))
    few = draw(st.booleans())
    value = rng.choice([-0.5, 0.0, 0.2, 0.5, 0.9, 1.0], listed.size) if few else rng.uniform(-0.2, 1, listed.size)
    return n, a[listed], b[listed], value, draw(st.sampled_from([0.0, 0.2, -1.0]))


def full_matrix(n: int, a: np.ndarray, b: np.ndarray, value: np.ndarray, elsewhere: float) -> np.ndarray:
    full = np.full((n, n), elsewhere)
    full[a, b] = full[b, a] = np.maximum(value, elsewhere)
    np.fill_diagonal(full, 1.0)
    return full


def check(found: Medoids, full: np.ndarray, k: int, elsewhere: float) -> None:
    """The answer is consistent: k medoids that stand for themselves, each image with its most similar one."""
    medoids = np.unique(found.medoid)
    assert medoids.size == k
    np.testing.assert_array_equal(found.medoid[medoids], medoids)
    np.testing.assert_allclose(found.similarity, full[:, medoids].max(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.similarity, full[np.arange(len(full)), found.medoid], atol=1e-12)
    assert found.total == pytest.approx(found.similarity.sum(), abs=1e-9)
    lost = full[:, medoids].max(axis=1) <= elsewhere
    assert found.unlisted == lost.sum()
    assert (found.medoid[lost] == medoids[0]).all()


@settings(deadline=None, max_examples=150)
@given(case=pairs(8), data=st.data())
def test_against_all_sets_of_medoids(case, data):
    n, *_, elsewhere = case
    k = data.draw(st.integers(1, n))
    full = full_matrix(*case)
    best = max(full[:, list(chosen)].max(axis=1).sum() for chosen in combinations(range(n), k))
    found = k_medoids(*case[:4], k, elsewhere=elsewhere)
    check(found, full, k, elsewhere)
    nothing = n * elsewhere
    assert found.total <= best + 1e-9
    assert found.total - nothing >= (1 - 1 / np.e) * (best - nothing) - 1e-9


@settings(deadline=None, max_examples=60)
@given(case=pairs(25), data=st.data())
def test_no_swap_improves_the_answer(case, data):
    n, *_, elsewhere = case
    k = data.draw(st.integers(1, n))
    full = full_matrix(*case)
    found = k_medoids(*case[:4], k, elsewhere=elsewhere)
    check(found, full, k, elsewhere)
    medoids = np.unique(found.medoid)
    for out in range(k):
        kept = full[:, np.delete(medoids, out)].max(axis=1, initial=-np.inf)
        swapped = np.maximum(kept[:, None], full).sum(axis=0)
        assert swapped.max() <= found.total + 1e-8


def test_the_first_choice_alone_keeps_the_greedy_bound():
    # Greedy takes the hub first, the best pair is the two outer ones; one swap repairs it.
    a, b = np.array([0, 0, 0, 0, 1, 3]), np.array([1, 2, 3, 4, 2, 4])
    value = np.array([0.5, 0.5, 0.5, 0.5, 0.9, 0.9])
    greedy = k_medoids(5, a, b, value, 2, iterations=0)
    assert greedy.swaps == 0
    swapped = k_medoids(5, a, b, value, 2)
    assert greedy.total <= swapped.total
    assert swapped.total == pytest.approx(1 + 1 + 0.9 + 0.9 + 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_planted_families_are_found_exactly(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, 40)
    family = rng.permutation(np.repeat(np.arange(40), sizes))
    n = family.size
    a, b = np.triu_indices(n, 1)
    inside = family[a] == family[b]
    listed = inside | (rng.random(a.size) < 0.05)
    # A second medoid in a family of 12 gains less than 12 * 0.05, one in a family without more than 0.7.
    value = np.where(inside, rng.uniform(0.95, 1.0, a.size), rng.uniform(0.0, 0.3, a.size))
    found = k_medoids(n, a[listed], b[listed], value[listed], 40)
    np.testing.assert_array_equal(family[found.medoid], family)
    assert found.unlisted == 0
    full = full_matrix(n, a[listed], b[listed], value[listed], 0.0)
    for members in (np.flatnonzero(family == f) for f in range(40)):
        own = full[np.ix_(members, members)].sum(axis=0)
        assert own[members == found.medoid[members[0]]].item() == pytest.approx(own.max())


def test_near_n_the_most_similar_pairs_go_first():
    rng = np.random.default_rng(0)
    n, pairs = 200, 60
    a = np.arange(0, 2 * pairs, 2)
    value = rng.permutation(np.linspace(0.3, 1.0, pairs))
    for dropped in (0, 1, 7, 30, 60):
        found = k_medoids(n, a, a + 1, value, n - dropped)
        gone = np.flatnonzero(found.medoid != np.arange(n))
        np.testing.assert_array_equal(np.sort(gone), np.sort(a[np.argsort(-value)[:dropped]] + 1))  # the smaller stays
        assert found.total == pytest.approx(n - dropped + np.sort(value)[::-1][:dropped].sum())


def test_near_n_hubs_do_not_hide_the_most_similar_pair():
    # From below both hubs are chosen first, and the pair of hubs, the most similar of all, would never be found.
    leaves = np.arange(2, 42)
    a = np.concatenate([[0], np.where(leaves % 2, 1, 0)])
    b = np.concatenate([[1], leaves])
    value = np.concatenate([[0.99], np.full(40, 0.5)])
    found = k_medoids(42, a, b, value, 41)
    assert found.total == pytest.approx(41.99)
    np.testing.assert_array_equal(np.flatnonzero(found.medoid != np.arange(42)), [1])


def test_identical_images_and_nothing_listed():
    found = k_medoids(4, np.array([0, 2]), np.array([1, 3]), np.array([1.0, 1.0]), 2)
    np.testing.assert_array_equal(found.medoid, [0, 0, 2, 2])
    assert found.total == 4
    none = np.zeros(0, dtype=np.int64)
    found = k_medoids(5, none, none, np.zeros(0), 3, elsewhere=0.1)
    np.testing.assert_array_equal(found.medoid, [0, 1, 2, 0, 0])
    np.testing.assert_allclose(found.similarity, [1, 1, 1, 0.1, 0.1])
    assert found.unlisted == 2


def test_pairs_in_any_order_give_the_same_answer():
    rng = np.random.default_rng(1)
    a, b = np.triu_indices(60, 1)
    value, order = rng.random(a.size), rng.permutation(a.size)
    for k in (3, 20, 50):
        ours, other = k_medoids(60, a, b, value, k), k_medoids(60, a[order], b[order], value[order], k)
        for name, array in vars(ours).items():
            np.testing.assert_array_equal(getattr(other, name), array)


@pytest.mark.parametrize(
    ("a", "b", "value", "k", "words"),
    [
        ([0], [1], [0.5], 0, "0 medoids of 3 images"),
        ([0], [1], [0.5], 4, "4 medoids of 3 images"),
        ([1], [0], [0.5], 1, "a < b"),
        ([0], [3], [0.5], 1, "a < b"),
        ([0, 0], [1, 1], [0.5, 0.5], 1, "twice"),
        ([0], [1], [1.5], 1, "above 1"),
        ([0], [1], [np.nan], 1, "not a number"),
    ],
)
def test_what_cannot_be_is_refused(a, b, value, k, words):
    with pytest.raises(ValueError, match=words):
        k_medoids(3, np.array(a), np.array(b), np.array(value), k)


def test_elsewhere_must_be_below_identity():
    with pytest.raises(ValueError, match="elsewhere"):
        k_medoids(3, np.array([0]), np.array([1]), np.array([0.5]), 1, elsewhere=1.0)
