"""Lanczos by blocks of rows against the whole, for any blocks; runs that end; float32."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from daskim.kernels.density import as_measure, moments, wasserstein
from daskim.kernels.graph import laplacian
from daskim.kernels.lanczos import RitzSpectrum, lanczos_start, lanczos_steps, probes, ritz_spectrum
from daskim.kernels.lanczos_rows import advance, floor_of, signs, state_of, step_of_rows


def some_laplacian(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    similarity = np.triu(rng.random((n, n)) * (rng.random((n, n)) < 0.3), 1)
    return laplacian(similarity + similarity.T)


def by_blocks(
    matrix: np.ndarray, bounds: list[int], k: int, p: int, *, seed: int = 0, dtype: str = "f8"
) -> tuple[np.ndarray, np.ndarray, RitzSpectrum]:
    """alpha, sizes and spectrum of k steps; every block has its own rows only, and the whole operand."""
    n = len(matrix)
    blocks = [csr_array(matrix[lo:hi].astype(dtype)) for lo, hi in pairwise(bounds)]
    u = signs(n, p, seed=seed, dtype=dtype)
    alpha, size, before = np.zeros((0, p)), np.full((1, p), np.sqrt(n)), None
    for _ in range(k):
        parts = []
        for (lo, hi), block in zip(pairwise(bounds), blocks):
            back = None if before is None else before[lo:hi]
            parts.append(step_of_rows(block, u, lo, back, size[-1], None if before is None else size[-2]))
            assert parts[-1][0].dtype == u.dtype
        alpha = np.concatenate([alpha, sum(part for _, part in parts)[None]])
        before, squares = u.copy(), np.zeros(p)
        for (lo, hi), (remainder, _) in zip(pairwise(bounds), parts):
            squares += advance(u[lo:hi], remainder, alpha[-1], size[-1])
        over = np.sqrt(squares) <= floor_of(alpha, size, dtype)
        u[:, over] = 0
        size = np.concatenate([size, np.where(over, 0.0, np.sqrt(squares))[None]])
    return alpha, size, ritz_spectrum(state_of(n, alpha, size))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(12, 80),
    k=st.integers(1, 6),
    p=st.integers(1, 4),
    cuts=st.lists(st.integers(1, 11), max_size=5, unique=True),
    seed=st.integers(0, 2**31),
)
def test_the_same_steps_as_the_whole(n, k, p, cuts, seed):
    matrix = some_laplacian(n, seed)
    alpha, size, spectrum = by_blocks(matrix, [0, *sorted(cuts), n], k, p, seed=seed)
    whole = lanczos_steps(lanczos_start(probes(n, p, seed=seed)), lambda x: matrix @ x, k)
    scale = np.linalg.norm(matrix, 2) + 1e-300
    np.testing.assert_allclose(alpha / scale, whole.alpha / scale, atol=1e-9)
    np.testing.assert_allclose(size[1:] / scale, whole.beta / scale, atol=1e-9)
    other = ritz_spectrum(whole)
    assert spectrum.n == n
    assert wasserstein(*as_measure(spectrum), *as_measure(other)) < 1e-9 * scale
    np.testing.assert_allclose(spectrum.residuals[:, -1] / scale, other.residuals[:, -1] / scale, atol=1e-8)


def test_float32_gives_the_density_and_its_moments():
    # an eigenvalue far from the others is found again and again where rounding brings it back, sooner in float32
    matrix = some_laplacian(300)
    exact = np.linalg.eigvalsh(matrix)
    double, single = (by_blocks(matrix, [0, 100, 300], 40, 8, dtype=dtype)[2] for dtype in ("f8", "f4"))
    for found in (double, single):
        assert wasserstein(*as_measure(found), exact, None) < 0.01 * np.ptp(exact)
    np.testing.assert_allclose(moments(double, 6)[0], moments(single, 6)[0], rtol=2e-6)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_an_exhausted_run_ends(dtype):
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))
    matrix = (basis * np.repeat([0.0, 1.0, 7.0], 10)) @ basis.T
    _, size, spectrum = by_blocks(matrix, [0, 11, 30], 8, 4, dtype=dtype)
    np.testing.assert_array_equal((size > 0).sum(axis=0), 3)
    np.testing.assert_allclose(spectrum.nodes[:, :3], [[0, 1, 7]] * 4, atol=2e-6 if dtype == "f4" else 1e-12)
    np.testing.assert_array_equal(spectrum.weights[:, 3:], 0)
    np.testing.assert_allclose(spectrum.weights.sum(axis=1), 1)
    np.testing.assert_array_equal(spectrum.residuals[:, -1], 0)


def test_a_matrix_of_zeros_and_a_single_row():
    for matrix in (np.zeros((5, 5)), np.array([[3.0]])):
        _, _, spectrum = by_blocks(matrix, [0, len(matrix)], 3, 2)
        np.testing.assert_allclose(spectrum.nodes, matrix[0, 0])


def test_signs_are_the_probes():
    vectors = signs(49, 5, seed=3, dtype="f4")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors / 7.0, probes(49, 5, seed=3), rtol=1e-7)
