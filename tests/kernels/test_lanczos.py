"""Lanczos quadrature against powers of the matrix, dense eigenvalues and scipy; a stopped run goes on to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigvalsh
from scipy.stats import wasserstein_distance

from daskim.kernels.density import (
    GapCount,
    as_measure,
    count_gaps,
    count_within,
    distance_errors,
    histogram,
    moments,
    spectral_cdf,
    stand_in_spectrum,
    sum_of_squares,
    trace,
    wasserstein,
)
from daskim.kernels.graph import laplacian, similarity_matrix
from daskim.kernels.lanczos import LanczosState, RitzSpectrum, lanczos_start, lanczos_steps, probes, ritz_spectrum


def images_like(n: int, seed: int = 0, directions: int = 12) -> np.ndarray:
    """S of n points on a sphere, negative similarities clipped: dense, connected, a spread spectrum as of real sets."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, directions)) * np.geomspace(1, 0.2, directions)
    points /= np.linalg.norm(points, axis=1)[:, None]
    a, b = np.triu_indices(n, 1)
    return similarity_matrix(n, a, b, (points @ points.T)[a, b]).toarray()


def run(
    matrix: np.ndarray, k: int, p: int, *, seed: int = 0, full: bool = False, law: str = "rademacher"
) -> RitzSpectrum:
    start = lanczos_start(probes(len(matrix), p, seed=seed, law=law), reorthogonalise=full)
    return ritz_spectrum(lanczos_steps(start, lambda block: matrix @ block, k))


# --- the quadrature ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 12),
    p=st.integers(1, 4),
    full=st.booleans(),
    law=st.sampled_from(["rademacher", "gaussian"]),
    kind=st.sampled_from(["unnormalised", "symmetric"]),
    seed=st.integers(0, 2**31),
)
def test_quadrature_is_exact_for_the_first_2k_moments(n, k, p, full, law, kind, seed):
    matrix = laplacian(images_like(n, seed), kind)
    vectors = probes(n, p, seed=seed, law=law)
    spectrum = ritz_spectrum(lanczos_steps(lanczos_start(vectors, reorthogonalise=full), lambda x: matrix @ x, k))
    scale = max(np.linalg.norm(matrix, 2), 1e-300)
    power = vectors.copy()
    for j in range(2 * k):
        exact = np.einsum("ij,ij->j", vectors, power)
        ours = (spectrum.weights * (spectrum.nodes / scale) ** j).sum(axis=1)
        np.testing.assert_allclose(ours, exact, rtol=1e-10, atol=1e-13)
        power = matrix @ power / scale


def test_mean_moments_and_errors_over_probes():
    matrix = laplacian(images_like(40), "symmetric")
    spectrum = run(matrix, 6, 5)
    mean, error = moments(spectrum, 4)
    vectors = probes(40, 5)
    each = np.array([[v @ np.linalg.matrix_power(matrix, j) @ v for j in range(5)] for v in vectors.T])
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(error, each.std(axis=0, ddof=1) / np.sqrt(5), atol=1e-13)
    assert np.isinf(moments(run(matrix, 6, 1), 2)[1]).all()


@pytest.mark.parametrize("kind", ["unnormalised", "symmetric"])
def test_trace_and_sum_of_squares(kind):
    matrix = laplacian(images_like(300), kind)
    spectrum = run(matrix, 30, 24)
    for (value, error), exact in ((trace(spectrum), np.trace(matrix)), (sum_of_squares(spectrum), (matrix**2).sum())):
        assert 0 < error < 0.02 * exact
        assert abs(value - exact) < 4 * error
    # Rademacher probes see a diagonal exactly.
    value, error = trace(run(np.diag(np.arange(50.0)), 2, 6))
    assert value == pytest.approx(1225, rel=1e-13)
    assert error < 1e-10


@pytest.mark.parametrize(("kind", "bound"), [("unnormalised", 0.01), ("symmetric", 0.005)])
@pytest.mark.parametrize("full", [False, True])
def test_distance_to_the_exact_spectrum(kind, bound, full):
    matrix = laplacian(images_like(500), kind)
    exact = eigvalsh(matrix)
    spectrum = run(matrix, 100, 16, full=full)
    width = exact[-1] - exact[0]
    assert wasserstein(*as_measure(spectrum), exact, None) < bound * width
    assert wasserstein(stand_in_spectrum(spectrum), None, exact, None) < 1.2 * bound * width
    assert stand_in_spectrum(spectrum).shape == (500,)
    at = np.linspace(exact[0], exact[-1], 40)[1:-1]
    cdf, error = spectral_cdf(spectrum, at)
    assert (np.diff(cdf) >= 0).all()
    assert np.abs(cdf - np.searchsorted(exact, at, side="right") / 500).mean() < 0.01
    assert (error < 0.1).all()
    mass, _ = histogram(spectrum, np.array([-1.0, *at, exact[-1] + 1]))
    np.testing.assert_allclose(np.cumsum(mass)[:-1], cdf, atol=1e-12)
    assert mass.sum() == pytest.approx(1)


def test_counts_the_components_of_a_graph():
    blocks = [np.full((size, size), 0.9) for size in [1] * 30 + [2] * 40 + [5] * 20]
    n = sum(len(block) for block in blocks)
    matrix, at = np.zeros((n, n)), 0
    for block in blocks:
        matrix[at : at + len(block), at : at + len(block)] = laplacian(block)
        at += len(block)
    value, error = count_within(run(matrix, 12, 30, full=True), 1e-6)
    assert 0 < error < 5
    assert abs(value - len(blocks)) < 4 * error
    value, error = count_within(run(matrix, 12, 30, full=True), 1e-6, centre=1.8)
    assert abs(value - 40) < 4 * error


def test_an_exhausted_run_is_the_whole_measure():
    # Three distinct eigenvalues: three steps say all, and further ones add nothing.
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))
    matrix = (basis * np.repeat([0.0, 1.0, 7.0], 10)) @ basis.T
    state = lanczos_steps(lanczos_start(probes(30, 4), reorthogonalise=True), lambda x: matrix @ x, 8)
    np.testing.assert_array_equal(state.length, 3)
    spectrum = ritz_spectrum(state)
    np.testing.assert_allclose(spectrum.nodes[:, :3], [[0, 1, 7]] * 4, atol=1e-12)
    np.testing.assert_array_equal(spectrum.weights[:, 3:], 0)
    np.testing.assert_allclose(spectrum.weights.sum(axis=1), 1)
    vectors = probes(30, 4)
    for group, column in enumerate(spectrum.weights.T[:3]):
        part = basis[:, 10 * group : 10 * group + 10]
        np.testing.assert_allclose(column, ((part.T @ vectors) ** 2).sum(axis=0), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_residuals_bound_the_distance_to_an_eigenvalue(scale):
    matrix = laplacian(images_like(80)) * scale
    exact = eigvalsh(matrix)
    for k in (3, 20, 60):
        spectrum = run(matrix, k, 3, full=True)
        away = np.abs(spectrum.nodes[:, :, None] - exact).min(axis=2)
        assert (away <= spectrum.residuals + 1e-12 * exact[-1]).all()
    assert spectrum.residuals[:, -1].max() < 1e-8 * scale  # the largest has long converged after 60 steps


@pytest.mark.parametrize("n", [1, 2, 5])
def test_more_steps_than_dimensions(n):
    matrix = laplacian(images_like(n) + 0.1)
    spectrum = run(matrix, 12, 2, full=True)
    assert spectrum.nodes.shape == spectrum.weights.shape == spectrum.residuals.shape == (2, 12)
    assert np.isfinite(spectrum.nodes).all()
    np.testing.assert_allclose(spectrum.weights.sum(axis=1), 1)


def test_zero_matrix():
    spectrum = run(np.zeros((6, 6)), 4, 3)
    np.testing.assert_array_equal(spectrum.nodes, 0)
    assert count_within(spectrum, 0.0) == (pytest.approx(6), pytest.approx(0, abs=1e-12))


# --- states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
def test_a_stopped_run_goes_on_to_the_same_bits(full):
    matrix = laplacian(images_like(70))
    start = lanczos_start(probes(70, 3), reorthogonalise=full)
    whole = lanczos_steps(start, lambda x: matrix @ x, 17)
    state = start
    for steps in (1, 0, 5, 2, 9):
        kept = {name: np.array(value) for name, value in vars(state).items()}  # as written and read again
        state = LanczosState(**(kept | {"reorthogonalise": bool(kept["reorthogonalise"])}))
        state = lanczos_steps(state, lambda x: matrix @ x, steps)
    assert state.steps == 17
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(getattr(state, name), value)
    assert start.steps == 0  # states are left as they are
    assert start.basis.shape == (3, 0, 70)


def test_products_by_row_blocks_give_the_same_spectrum():
    matrix = laplacian(images_like(64))
    together = run(matrix, 10, 2)
    start = lanczos_start(probes(64, 2))
    parts = lanczos_steps(start, lambda x: np.concatenate([matrix[:20] @ x, matrix[20:] @ x]), 10)
    np.testing.assert_allclose(ritz_spectrum(parts).nodes, together.nodes, rtol=1e-9)


def test_one_product_a_step_for_all_probes():
    shapes = []

    def product(block: np.ndarray) -> np.ndarray:
        shapes.append(block.shape)
        return 2.0 * block + np.arange(9.0)[:, None] * block

    lanczos_steps(lanczos_start(probes(9, 5)), product, 4)
    assert shapes == [(9, 5)] * 4


def test_reorthogonalised_vectors_are_orthonormal():
    matrix = laplacian(images_like(200))
    state = lanczos_steps(lanczos_start(probes(200, 2), reorthogonalise=True), lambda x: matrix @ x, 90)
    for vectors in state.basis:
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(90), atol=1e-12)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_probes(law):
    vectors = probes(50, 6, seed=3, law=law)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=0), 1)
    np.testing.assert_array_equal(vectors[:, :2], probes(50, 2, seed=3, law=law))  # more probes leave the first alone
    assert not np.array_equal(vectors, probes(50, 6, seed=4, law=law))
    assert len(np.unique(vectors.round(12), axis=1).T) == 6
    assert (len(np.unique(np.abs(vectors).round(12))) == 1) == (law == "rademacher")


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="0 probes"):
        probes(5, 0)
    with pytest.raises(ValueError, match="rademacher, gaussian"):
        probes(5, 1, law="uniform")
    start = lanczos_start(probes(5, 2))
    with pytest.raises(ValueError, match="no step"):
        ritz_spectrum(start)
    with pytest.raises(ValueError, match="shape"):
        lanczos_steps(start, lambda x: x[:3], 1)
    with pytest.raises(ValueError, match="finite"):
        lanczos_steps(start, lambda x: x * np.nan, 1)


# --- distances --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(m=st.integers(1, 30), q=st.integers(1, 30), weighted=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_wasserstein_against_scipy(m, q, weighted, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, m) / 4.0, rng.normal(size=q)
    u, v = (rng.random(m) + 0.01, rng.random(q) + 0.01) if weighted else (None, None)
    assert wasserstein(x, u, y, v) == pytest.approx(wasserstein_distance(x, y, u, v), rel=1e-9, abs=1e-12)
    assert wasserstein(x, u, x, u) == pytest.approx(0, abs=1e-14)
    assert wasserstein(x, u, x + 3, u) == pytest.approx(3)


def test_measures_mix_with_exact_blocks():
    giant, small = laplacian(images_like(200)), laplacian(images_like(50, seed=1))
    values, weights = as_measure(run(giant, 60, 8))
    assert weights.sum() == pytest.approx(200)
    assert (np.diff(values) >= 0).all()
    exact = eigvalsh(small)
    mixed = np.concatenate([values, exact]), np.concatenate([weights, np.ones(50)])
    whole = np.concatenate([eigvalsh(giant), exact])
    assert wasserstein(*mixed, whole, None) < 0.01 * np.ptp(whole)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 60), k=st.integers(1, 12), p=st.integers(1, 3), seed=st.integers(0, 1000))
def test_the_quadrature_is_within_its_bound(n, k, p, seed):
    matrix = laplacian(images_like(n, seed))
    values, basis = np.linalg.eigh(matrix)
    vectors = probes(n, p, seed=seed)
    start = lanczos_start(vectors, reorthogonalise=True)
    spectrum = ritz_spectrum(lanczos_steps(start, lambda block: matrix @ block, k))
    bound, scatter = distance_errors(spectrum, (0.0, float(values[-1])))
    own = ((basis.T @ vectors) ** 2).sum(axis=1)  # the measure that the probes see, without quadrature
    assert wasserstein(*as_measure(spectrum), values, own) <= bound + 1e-9 * values[-1]
    assert np.isinf(scatter) == (p == 1)


def test_error_bars_hold_the_distance_to_the_spectrum():
    matrix = laplacian(images_like(400))
    exact = eigvalsh(matrix)
    for k in (10, 30, 60):
        bound, scatter = distance_errors(run(matrix, k, 8), (0.0, float(exact[-1])))
        assert wasserstein(*as_measure(run(matrix, k, 8)), exact, None) < bound + 2 * scatter
        assert bound < 6.0 / k * exact[-1]


# --- gaps -------------------------------------------------------------------------------------------------------


def gaps_of(values: np.ndarray, gamma: float) -> int:
    return int((np.diff(np.sort(values)) > gamma).sum())


def ends(matrix: np.ndarray, k: int, p: int, *, seed: int = 0) -> RitzSpectrum:
    return run(matrix, k, p, seed=seed, full=True, law="gaussian")


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 120),
    k=st.integers(1, 60),
    p=st.integers(1, 4),
    gamma=st.sampled_from([0.05, 0.3, 1.0, 4.0]),
    extra=st.integers(0, 40),
    bounded=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_gap_bounds_hold(n, k, p, gamma, extra, bounded, seed):
    matrix = laplacian(images_like(n, seed))
    known = np.random.default_rng(seed).uniform(0, 1.2 * np.linalg.norm(matrix, 2), extra)
    exact = gaps_of(np.concatenate([eigvalsh(matrix), known]), gamma)
    bounds = (0.0, max(2 * matrix.diagonal().max(), known.max(initial=0))) if bounded else None
    found = count_gaps([ends(matrix, k, p, seed=seed)], gamma, known=known, bounds=bounds)
    assert found.lower <= found.count <= found.upper <= n + extra - 1
    assert found.lower <= exact <= found.upper


def test_gaps_of_a_whole_spectrum_are_exact():
    values = eigvalsh(laplacian(images_like(100)))
    for gamma in (0.1, 0.5, 2.0):
        exact = gaps_of(values, gamma)
        assert count_gaps([], gamma, known=values) == GapCount(exact, exact, exact)
        full = ends(laplacian(images_like(100)), 100, 1)  # exhausted: all distinct eigenvalues
        assert count_gaps([full], gamma) == GapCount(exact, exact, exact)


def test_gaps_at_the_ends_are_counted_and_the_middle_is_bounded():
    # 20 far eigenvalues at the top, a dense middle, a few at the bottom, each twice: multiplicity is not seen.
    values = np.concatenate([[0.0, 3.0, 6.0], np.linspace(10, 20, 400), np.arange(25.0, 125.0, 5.0)])
    values = np.repeat(values, 2)
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((values.size, values.size)))
    matrix = (basis * values) @ basis.T
    exact = gaps_of(values, 1.0)
    assert exact == 3 + 20
    found = count_gaps([ends(matrix, 130, 4)], 1.0, bounds=(0.0, 130.0))
    assert 20 <= found.lower <= found.count == exact <= found.upper < exact + 18  # the middle is 10 wide
    early = count_gaps([ends(matrix, 4, 1)], 1.0, bounds=(0.0, 130.0))
    assert early.lower <= exact <= early.upper <= 130
    assert count_gaps([ends(matrix, 4, 1)], 1.0).upper == values.size - 1  # no bounds: nothing is known
    with pytest.raises(ValueError, match="gamma"):
        count_gaps([], 0.0, known=values)


def test_an_eigenvalue_of_another_block_closes_a_gap():
    giant = np.diag([0.0, 1.0, 9.0])
    spectrum = ends(giant, 3, 2)
    assert count_gaps([spectrum], 3.0).count == 1
    assert count_gaps([spectrum], 3.0, known=np.array([3.9, 6.5])) == GapCount(0, 0, 0)
    assert count_gaps([spectrum, ends(np.diag([5.0, 5.5]), 2, 1)], 3.0).count == 2


def test_rademacher_probes_can_miss_what_gaussian_ones_see():
    # Images 0 and 1 are identical: where a probe has equal signs there, e_0 - e_1 is not in its Krylov space.
    similarity = images_like(30)
    similarity[1], similarity[:, 1] = similarity[0], similarity[:, 0]
    similarity[0, 1] = similarity[1, 0] = 1.0
    similarity[1, 1] = 0.0
    matrix = laplacian(similarity)
    own = similarity[0].sum() + 1
    for law, blind in (("rademacher", True), ("gaussian", False)):
        vectors = probes(30, 12, law=law)
        equal = vectors[0] == vectors[1]
        assert equal.any() == blind
        assert not equal.all()
        nearest = np.abs(run(matrix, 30, 12, full=True, law=law).nodes - own).min(axis=1)
        np.testing.assert_array_equal(nearest > 1e-6, equal)
