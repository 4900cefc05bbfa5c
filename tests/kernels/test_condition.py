"""How many columns stay within a bound on the condition number, and the curve: by brute force on W itself."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels import condition
from daskim.kernels.condition import condition_curve, conditions, largest_well_conditioned, leading_condition
from daskim.kernels.qr import PivotedFactor, gram, pivoted_cholesky, pivoted_qr, r_factor


def with_spectrum(n: int, d: int, smallest: float, seed: int) -> np.ndarray:
    """A dense matrix whose singular values fall geometrically from 1 to `smallest`."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((n, d)))
    right, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return (left * np.geomspace(1, smallest, d)) @ right.T


def brute_conditions(w: np.ndarray, factor: PivotedFactor) -> np.ndarray:
    """Condition number of the first k chosen columns of W, k = 1..rank, by singular values of W."""
    w = w[:, factor.permutation].astype(np.float64)
    return np.array([(s := scipy.linalg.svdvals(w[:, :k]))[0] / s[-1] for k in range(1, factor.rank + 1)])


@pytest.mark.parametrize("smallest", [1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_engines_give_the_same_m(smallest, seed):
    w = with_spectrum(1500, 240, smallest, seed)
    by_gram = pivoted_cholesky(sum(gram(part) for part in np.array_split(w, 4)))
    by_tree = pivoted_qr(r_factor(*[r_factor(part) for part in np.array_split(w, 4)]))
    by_scipy = scipy.linalg.qr(w, mode="r", pivoting=True)
    brute = brute_conditions(w, PivotedFactor(by_scipy[0], by_scipy[1], 240))
    for tau in (1e4, 1e5, 1e6, 3e6, 1e7):
        expected = int(np.searchsorted(brute, tau))
        assert 0 < expected < 240
        assert largest_well_conditioned(by_gram, tau)[0] == expected
        assert largest_well_conditioned(by_tree, tau)[0] == expected


@pytest.mark.parametrize("dense", [400, 10], ids=["svd", "lanczos"])
@pytest.mark.parametrize("smallest", [1e-2, 1e-5, 1e-9])
def test_m_and_curve_against_brute_force(monkeypatch, dense, smallest):
    monkeypatch.setattr(condition, "DENSE", dense)
    w = with_spectrum(200, 90, smallest, 5)
    factor = pivoted_qr(r_factor(w))
    brute = brute_conditions(w, factor)
    assert factor.rank == 90
    # Between two neighbours, and within 1e-5 of one from both sides.
    middles = np.sqrt(brute[1:] * brute[:-1])[::4]
    edges = np.concatenate([brute[5::9] * (1 - 1e-5), brute[5::9] * (1 + 1e-5), [brute[-1] * 10]])
    for tau in np.concatenate([middles, edges]):
        m, known = largest_well_conditioned(factor, tau)
        assert m == np.searchsorted(brute, tau)
        assert known[m] < tau
        if m < 90:
            assert known[m + 1] >= tau
        for k, value in known.items():
            assert value == pytest.approx(brute[k - 1], rel=1e-6)
    m, known = largest_well_conditioned(factor, float(np.median(brute)))
    curve = condition_curve(factor, known=known)
    assert conditions(factor, float(np.median(brute))) == (m, curve)
    assert len(curve) >= 64
    assert {1, 90, m, m + 1} <= set(curve)
    assert list(curve) == sorted(curve)
    np.testing.assert_allclose(list(curve.values()), brute[np.array(list(curve)) - 1], rtol=2e-6)
    assert (np.diff(list(curve.values())) > 0).all()


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(1, 25),
    d=st.integers(1, 25),
    tau=st.floats(1.01, 1e6),
    copies=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_m_of_singular_matrices_against_brute_force(n, d, tau, copies, seed):
    rng = np.random.default_rng(seed)
    w = rng.integers(-9, 9, (n, d))
    w = np.hstack([w, w[:, rng.integers(0, d, copies)]])
    factor = pivoted_cholesky(gram(w))
    brute = brute_conditions(w, factor)
    if np.abs(brute / tau - 1).min(initial=1.0) < 1e-9:
        return
    m, known = largest_well_conditioned(factor, tau)
    assert m == np.searchsorted(brute, tau)
    for k, value in known.items():
        assert value == (pytest.approx(brute[k - 1], rel=1e-8) if k <= factor.rank else np.inf)
    assert factor.rank == 0 or {m, min(m + 1, w.shape[1])} <= set(known)


def test_the_bound_is_strict():
    factor = pivoted_cholesky(np.diag([64.0, 16, 4, 1]))
    for k, tau in [(1, 2.0), (2, 4.0), (3, 8.0), (4, 8.000001)]:
        assert largest_well_conditioned(factor, tau)[0] == conditions(factor, tau)[0] == k
    for tau in (1.0, 0.0, np.nan):
        for ask in (largest_well_conditioned, conditions):
            with pytest.raises(ValueError, match="exceed 1"):
                ask(factor, tau)


def test_lanczos_above_its_threshold_and_the_diagonal_is_no_substitute():
    w = with_spectrum(600, 450, 1e-6, 3)
    factor = pivoted_qr(r_factor(w))
    m, known = largest_well_conditioned(factor, 6e5)
    assert m > condition.DENSE
    for k in (m, m + 1):
        s = scipy.linalg.svdvals(w[:, factor.permutation[:k]])
        assert known[k] == pytest.approx(s[0] / s[-1], rel=1e-6)
        assert (known[k] < 6e5) == (k == m)
    diagonal = np.abs(np.diagonal(factor.r))
    assert (diagonal[0] / diagonal < 6e5).sum() > m
    curve = condition_curve(factor, known=known)
    assert len(curve) >= 64
    assert {1, m, m + 1, 450} <= set(curve)
    assert (np.diff(list(curve.values())) >= 0).all()
    for k in [k for k in curve if k > condition.DENSE]:
        s = scipy.linalg.svdvals(factor.r[:k, :k])
        assert curve[k] == pytest.approx(s[0] / s[-1], rel=2e-6)


def test_curve_does_not_follow_a_stale_singular_vector(monkeypatch):
    # Columns without coupling: each new smallest direction is orthogonal to the one that Lanczos starts from.
    monkeypatch.setattr(condition, "DENSE", 5)
    diagonal = np.geomspace(1, 1e-9, 120)
    factor = PivotedFactor(np.diag(diagonal), np.arange(120), 120)
    curve = condition_curve(factor, points=120)
    assert len(curve) == 120
    np.testing.assert_allclose(list(curve.values()), 1 / diagonal, rtol=2e-6)


@settings(deadline=None)
@given(rank=st.integers(1, 400), points=st.integers(2, 80))
def test_curve_has_as_many_points_as_asked(rank, points):
    factor = PivotedFactor(np.eye(rank), np.arange(rank), rank)
    ks = condition._geometric(rank, points)
    assert len(ks) >= min(points, rank)
    assert ks[0] == 1
    assert ks[-1] == rank
    if rank < 30:
        assert list(condition_curve(factor, points=points)) == ks


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), d=st.integers(1, 30), k=st.integers(1, 35), seed=st.integers(0, 2**32 - 1))
def test_leading_condition_of_r_is_that_of_w(n, d, k, seed):
    w = np.random.default_rng(seed).standard_normal((n, d))
    factor = pivoted_qr(r_factor(w))
    value = leading_condition(factor.r, k)
    if k > min(n, d):
        assert value == np.inf
        return
    s = scipy.linalg.svdvals(w[:, factor.permutation[:k]])
    assert value == pytest.approx(s[0] / s[-1], rel=1e-8 + 1e-14 * s[0] / s[-1])
