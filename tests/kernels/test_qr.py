"""Column-pivoted QR: three routes to the same pivots, the greedy rule checked on W itself, and m by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg.lapack import dpstrf

from daskim.kernels.condition import condition_curve, largest_well_conditioned, leading_condition
from daskim.kernels.qr import PivotedFactor, gram, greedy_slack, pivoted_cholesky, pivoted_qr, r_factor

EPS = float(np.finfo(float).eps)


def with_spectrum(n: int, d: int, smallest: float, seed: int) -> np.ndarray:
    """A dense matrix whose singular values fall geometrically from 1 to `smallest`."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((n, d)))
    right, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return (left * np.geomspace(1, smallest, d)) @ right.T


def coefficients(n: int, d: int, seed: int, *, bound: int = 1020) -> np.ndarray:
    """Integers as the Haar transform gives them: few large, most small, no two columns of one norm."""
    rng = np.random.default_rng(seed)
    scale = np.geomspace(bound / 4, 3, d)
    return np.clip(np.rint(rng.standard_normal((n, d)) * scale), -bound, bound).astype(np.int16)


def check_greedy(w: np.ndarray, factor: PivotedFactor, *, loss: float = 1e-9) -> None:
    """Businger and Golub's rule from residuals of W itself: orthogonalise its columns twice at every step."""
    residual = np.array(w, dtype=np.float64)
    top = (residual**2).sum(axis=0).max(initial=0.0)
    slack = 4 * w.shape[1] * EPS * top  # what a Gram matrix in double cannot see
    for column in factor.permutation[: factor.rank]:
        squared = (residual**2).sum(axis=0)
        assert squared[column] >= squared.max() * (1 - loss) - slack
        q = residual[:, column] / np.sqrt(squared[column])
        for _ in range(2):
            residual -= np.outer(q, q @ residual)
        residual[:, column] = 0.0
    assert (residual**2).sum(axis=0).max(initial=0.0) <= slack


def check_factor(w: np.ndarray, factor: PivotedFactor) -> None:
    """Shapes, dtypes, W[:, permutation] = Q R, and the order of what was not chosen."""
    d = w.shape[1]
    assert factor.r.shape == (factor.rank, d)
    assert factor.permutation.dtype == np.int64
    np.testing.assert_array_equal(np.sort(factor.permutation), np.arange(d))
    assert (np.diff(factor.permutation[factor.rank :]) > 0).all()
    np.testing.assert_array_equal(factor.r[:, : factor.rank], np.triu(factor.r[:, : factor.rank]))
    ordered = w[:, factor.permutation].astype(np.float64)
    exact = ordered.T @ ordered
    np.testing.assert_allclose(factor.r.T @ factor.r, exact, atol=1e-12 * d * max(exact.max(initial=0.0), 1e-300))


# --- the Gram matrix and the tree -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    rows=st.integers(0, 200),
    d=st.integers(1, 20),
    level=st.integers(0, 5),
    leaf=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_integer_gram_is_exact_however_the_rows_are_split(data, rows, d, level, leaf, seed):
    bound = 255 * 4**level
    w = np.random.default_rng(seed).integers(-bound, bound, (rows, d), dtype=np.int32, endpoint=True)
    exact = w.astype(np.int64).T @ w.astype(np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=6)))
    total = sum((gram(part, leaf=leaf) for part in np.split(w, cuts)), np.zeros((d, d)))
    np.testing.assert_array_equal(total, exact)
    np.testing.assert_array_equal(gram(w), exact)


def test_gram_of_int16_is_worked_out_in_float64():
    w = np.full((3000, 2), 32640, dtype=np.int16)
    np.testing.assert_array_equal(gram(w), np.full((2, 2), 3000 * 32640**2))


@settings(deadline=None, max_examples=40)
@given(data=st.data(), rows=st.integers(1, 120), d=st.integers(1, 15), seed=st.integers(0, 2**32 - 1))
def test_tree_of_r_factors_equals_one_qr(data, rows, d, seed):
    w = np.random.default_rng(seed).standard_normal((rows, d))
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=6)))
    level = [r_factor(part) for part in np.split(w, cuts)]
    while len(level) > 1:
        step = data.draw(st.integers(2, 4))
        level = [r_factor(*level[i : i + step]) for i in range(0, len(level), step)]
    tree, single = level[0], r_factor(w)
    assert tree.shape == single.shape == (min(rows, d), d)
    assert (np.diagonal(tree) >= 0).all()
    np.testing.assert_allclose(tree.T @ tree, w.T @ w, atol=1e-13 * rows * d)
    np.testing.assert_array_equal(tree, np.triu(tree))
    if rows >= 2 * d:  # well conditioned: R itself is unique
        np.testing.assert_allclose(tree, single, atol=1e-10)


def test_r_factor_of_nothing_and_of_integers():
    assert r_factor(np.zeros((0, 3))).shape == (0, 3)
    w = np.arange(12, dtype=np.int16).reshape(4, 3) ** 2
    joined = r_factor(r_factor(np.zeros((0, 3))), w)
    np.testing.assert_allclose(joined.T @ joined, (w.T @ w).astype(float), rtol=1e-12)


# --- pivots -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "d"), [(900, 64), (700, 150), (2000, 300)])
def test_pivots_equal_lapack_on_tie_free_data(n, d, seed):
    w = coefficients(n, d, seed)
    matrix = gram(w)
    assert np.unique(matrix.diagonal()).size == d
    factor = pivoted_cholesky(matrix)
    r, permutation, rank, _ = dpstrf(matrix, lower=0)
    assert factor.rank == rank == d
    np.testing.assert_array_equal(factor.permutation, permutation - 1)
    np.testing.assert_allclose(factor.r, np.triu(r), rtol=1e-8, atol=1e-9 * r[0, 0])
    _, by_qr = scipy.linalg.qr(w.astype(np.float64), mode="r", pivoting=True)
    np.testing.assert_array_equal(factor.permutation, by_qr)
    np.testing.assert_array_equal(pivoted_qr(r_factor(w)).permutation, by_qr)
    check_factor(w, factor)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    d=st.integers(1, 40),
    bound=st.sampled_from([1, 3, 255, 261120]),
    zero=st.integers(0, 5),
    copies=st.integers(0, 5),
    panel=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
)
def test_greedy_certificate_from_w_itself(n, d, bound, zero, copies, panel, seed):
    rng = np.random.default_rng(seed)
    w = rng.integers(-bound, bound, (n, d), endpoint=True)
    w = np.hstack([w, np.zeros((n, zero), dtype=w.dtype), w[:, rng.integers(0, d, copies)]])
    w = w[:, rng.permutation(w.shape[1])]
    rank = np.linalg.matrix_rank(w)
    for factor in (pivoted_cholesky(gram(w), panel=panel), pivoted_qr(r_factor(w[: n // 2], w[n // 2 :]))):
        assert factor.rank == rank
        check_factor(w, factor)
        check_greedy(w, factor)
        assert greedy_slack(factor.r) < 1e-9
        assert not np.isin(np.flatnonzero(~w.any(axis=0)), factor.permutation[: factor.rank]).any()


@pytest.mark.parametrize("seed", range(3))
def test_greedy_certificate_on_a_steep_spectrum(seed):
    w = with_spectrum(400, 120, 1e-6, seed)
    for factor in (pivoted_cholesky(gram(w)), pivoted_qr(r_factor(w))):
        check_greedy(w, factor, loss=1e-6)
        check_factor(w, factor)


def test_greedy_slack_sees_a_wrong_choice():
    w = coefficients(200, 10, 0).astype(np.float64)
    right = pivoted_cholesky(gram(w))
    assert greedy_slack(right.r) < 1e-10
    order = right.permutation.copy()
    order[[3, 4]] = order[[4, 3]]
    wrong = np.linalg.qr(w[:, order], mode="r")
    larger = np.sqrt((right.r[3:, 3] ** 2).sum()), np.linalg.norm(right.r[3:, 4])
    assert greedy_slack(wrong) == pytest.approx((larger[0] / larger[1]) ** 2 - 1, rel=1e-9)


@pytest.mark.parametrize("panel", [1, 2, 3, 128])
def test_duplicate_columns_leave_the_smallest_index(panel):
    base = coefficients(300, 8, 1)
    w = base[:, [0, 1, 2, 2, 3, 1, 4, 5, 6, 0, 7, 7]]
    first = np.array([0, 1, 2, 4, 6, 7, 8, 10])
    factor = pivoted_cholesky(gram(w), panel=panel)
    assert factor.rank == 8
    np.testing.assert_array_equal(factor.permutation[:8], first[pivoted_cholesky(gram(base)).permutation])
    np.testing.assert_array_equal(factor.permutation[8:], [3, 5, 9, 11])


@pytest.mark.parametrize("panel", [1, 2, 3, 128])
def test_exact_ties_go_to_the_smallest_index(panel):
    # After the swaps of LAPACK's pstrf the last two would come as 3, 0.
    factor = pivoted_cholesky(np.diag([4.0, 9, 9, 4, 9]), panel=panel)
    np.testing.assert_array_equal(factor.permutation, [1, 2, 4, 0, 3])
    np.testing.assert_array_equal(factor.r, np.diag([3.0, 3, 3, 2, 2]))


@pytest.mark.parametrize("panel", [1, 4, 7, 128])
@pytest.mark.parametrize("seed", range(8))
def test_ties_hidden_by_rounding_go_to_the_smallest_index(panel, seed):
    # Every column of A twice, in orthogonal spaces, all of it turned: each residual ties with its twin's but for noise.
    rng = np.random.default_rng(seed)
    a = coefficients(60, 9, seed).astype(np.float64)
    rotation, _ = np.linalg.qr(rng.standard_normal((120, 120)))
    w = rotation @ scipy.linalg.block_diag(a, a)
    single = pivoted_cholesky(gram(a)).permutation
    factor = pivoted_cholesky(gram(w), panel=panel)
    np.testing.assert_array_equal(factor.permutation, np.column_stack([single, single + 9]).ravel())


def test_rank_zero_no_columns_no_rows():
    for factor in (pivoted_cholesky(np.zeros((3, 3))), pivoted_qr(np.zeros((2, 3))), pivoted_qr(np.zeros((0, 3)))):
        assert factor.rank == 0
        assert factor.r.shape == (0, 3)
        np.testing.assert_array_equal(factor.permutation, [0, 1, 2])
        assert largest_well_conditioned(factor, 10.0) == (0, {})
        assert condition_curve(factor) == {}
        assert greedy_slack(factor.r) == 0.0
        assert leading_condition(factor.r, 1) == np.inf
    assert pivoted_cholesky(np.zeros((0, 0))).rank == 0


def test_single_row_and_single_column():
    w = np.array([[3, -5, 0, 4]])
    for factor in (pivoted_cholesky(gram(w)), pivoted_qr(r_factor(w))):
        assert factor.rank == 1
        np.testing.assert_array_equal(factor.permutation, [1, 0, 2, 3])
        assert largest_well_conditioned(factor, 1e5) == (1, {1: 1.0, 2: np.inf})
    one = pivoted_cholesky(np.array([[16]]))
    assert one.r.tolist() == [[4.0]]
    assert largest_well_conditioned(one, 2.0) == (1, {1: 1.0})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_matrices_that_are_not_finite_are_refused(bad):
    matrix = np.eye(3)
    matrix[1, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        pivoted_cholesky(matrix)
    with pytest.raises(ValueError, match="NaN"):
        pivoted_qr(matrix)


@pytest.mark.parametrize("stop", [0.5, 1e-2, 1e-4])
def test_early_stop_ends_where_the_diagonal_falls_below(stop):
    w = with_spectrum(300, 80, 1e-5, 4)
    full = pivoted_cholesky(gram(w))
    kept = np.abs(full.r.diagonal()) >= stop * full.r[0, 0]
    assert 0 < kept.sum() < 80
    for factor in (pivoted_cholesky(gram(w), stop=stop), pivoted_qr(r_factor(w), stop=stop)):
        assert factor.rank == kept.sum()
        np.testing.assert_array_equal(factor.permutation[: factor.rank], full.permutation[: factor.rank])
        check_order = np.sort(full.permutation[factor.rank :])
        np.testing.assert_array_equal(factor.permutation[factor.rank :], check_order)
        ordered = w[:, factor.permutation]
        np.testing.assert_allclose(
            factor.r[:, : factor.rank].T @ factor.r, ordered[:, : factor.rank].T @ ordered, atol=1e-12
        )


@pytest.mark.parametrize("copies", [0, 1, 5, 12])
def test_duplicate_rows_lower_the_rank_by_their_number(copies):
    distinct = coefficients(60 - copies, 200, copies)
    rng = np.random.default_rng(copies)
    w = np.vstack([distinct, distinct[rng.choice(60 - copies, copies, replace=False)]])[rng.permutation(60)]
    for factor in (pivoted_cholesky(gram(w)), pivoted_qr(r_factor(w)), pivoted_qr(w)):
        assert factor.rank == 60 - copies
        m, known = largest_well_conditioned(factor, 1e5)
        assert m == 60 - copies
        assert known[m] < 1e5
        assert known[m + 1] == np.inf
