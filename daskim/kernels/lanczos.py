"""Stochastic Lanczos quadrature: the spectral density of a matrix that is seen only through products with it.

A run of Lanczos from a unit vector v gives a tridiagonal T; its eigenvalues (Ritz values) and the squared first entries
of its eigenvectors are the nodes and weights of the Gauss quadrature of the measure sum_i (u_i' v)^2 delta(lambda_i)
(Golub and Meurant). For random v its mean is the spectral density, every eigenvalue with weight 1 / n (Ubaru, Chen,
Saad 2017; Chen, Trogdon, Ubaru 2021, who bound the Wasserstein distance).

p probes run in lock-step, so that one product with an (n, p) block serves all of them. A state is plain arrays: a run
that was stopped goes on from the last one, to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import eigh_tridiagonal

__all__ = ["LanczosState", "RitzSpectrum", "lanczos_start", "lanczos_steps", "probes", "ritz_spectrum"]

Product = Callable[[np.ndarray], np.ndarray]
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class LanczosState:
    """Where p runs stand after some steps: arrays only, as they are to be stored.

    Attributes
    ----------
    alpha, beta : ndarray, shape (steps, p), float64
        Diagonal of T, and below it; the last beta is the length of what is left over.
    length : ndarray, shape (p,), int64
        Steps until the run's Krylov space was exhausted; `steps` where it was not.
    previous, current : ndarray, shape (n, p), float64
        The last two Lanczos vectors; columns of zeros where a run is exhausted.
    basis : ndarray, shape (p, steps, n), float64, or shape (p, 0, n)
        All Lanczos vectors before `current`, with full reorthogonalisation; else none.
    reorthogonalise : bool
    """

    alpha: np.ndarray
    beta: np.ndarray
    length: np.ndarray
    previous: np.ndarray
    current: np.ndarray
    basis: np.ndarray
    reorthogonalise: bool

    @property
    def steps(self) -> int:
        return len(self.alpha)


@dataclass(frozen=True)
class RitzSpectrum:
    """What p runs of k steps know of the spectrum of an n x n matrix.

    Attributes
    ----------
    n : int
    nodes : ndarray, shape (p, k), float64
        Ritz values of each run, ascending.
    weights : ndarray, shape (p, k), float64
        Quadrature weights, each row sums to 1. A run that was exhausted early repeats its last node with weight 0.
    residuals : ndarray, shape (p, k), float64
        beta_k |s_k|, with s_k the last entry of the node's eigenvector of T: there is an eigenvalue this near the node.
    """

    n: int
    nodes: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray


def probes(n: int, count: int, *, seed: int = 0, law: Literal["rademacher", "gaussian"] = "rademacher") -> np.ndarray:
    """Random unit vectors, shape (n, count), float64; probe q depends on the seed and q, not on their number.

    Rademacher probes (all entries of one size) see the diagonal without error: half the distance of Gaussian ones on
    the unnormalised Laplacian, and the default. But each is orthogonal to e_i - e_j, the eigenvector of a pair of
    identical images, with probability 1/2, and then never sees its eigenvalue: Gaussian ones are for counting gaps.
    """
    if n < 1 or count < 1:
        raise ValueError(f"{count} probes of {n} entries")
    if law not in ("rademacher", "gaussian"):
        raise ValueError(f"law = {law!r}; known: rademacher, gaussian")
    vectors = np.empty((n, count))
    for q in range(count):
        rng = np.random.default_rng([seed, q])
        vectors[:, q] = 2.0 * rng.integers(0, 2, n) - 1.0 if law == "rademacher" else rng.standard_normal(n)
    return vectors / np.sqrt(np.einsum("ij,ij->j", vectors, vectors))


def lanczos_start(vectors: np.ndarray, *, reorthogonalise: bool = False) -> LanczosState:
    """The state before the first step.

    Parameters
    ----------
    vectors : ndarray, shape (n, p), float64
        Unit columns (`probes`).
    reorthogonalise : bool
        Against all earlier vectors, twice: for single Ritz values (gaps), up to some 200 steps. For densities it makes
        no difference. Costs 8 n p steps bytes and 8 n p steps^2 flops.
    """
    n, p = vectors.shape
    none = np.zeros((0, p))
    length = np.zeros(p, dtype=np.int64)
    return LanczosState(none, none, length, np.zeros((n, p)), vectors.copy(), np.zeros((p, 0, n)), reorthogonalise)


def lanczos_steps(state: LanczosState, product: Product, steps: int) -> LanczosState:
    """`steps` further steps of all runs; the given state is left as it is.

    Parameters
    ----------
    state : LanczosState
    product : callable
        (n, p) float64 to (n, p): the symmetric matrix times a block. Called `steps` times; may be distributed.
    steps : int, >= 0

    Returns
    -------
    LanczosState
        The same bits however the steps are divided among calls.

    Raises
    ------
    ValueError
        A product of another shape, or not finite.

    Notes
    -----
    A run whose remainder is below 10 sqrt(n) eps times the largest entry of T so far is exhausted: its T is complete,
    and from then on it has zero columns.

    References
    ----------
    Golub and Meurant 2010, "Matrices, moments and quadrature", chapter 4; Parlett and Scott 1979 for "twice is enough".
    """
    done, (n, p) = state.steps, state.current.shape
    alpha = np.concatenate([state.alpha, np.zeros((steps, p))])
    beta = np.concatenate([state.beta, np.zeros((steps, p))])
    length, previous, current = state.length.copy(), state.previous, state.current
    basis = state.basis
    if state.reorthogonalise:
        basis = np.concatenate([basis, np.zeros((p, steps, n))], axis=1)
    for step in range(done, done + steps):
        if state.reorthogonalise:
            basis[:, step] = current.T
        rest = product(current)
        if rest.shape != (n, p):
            raise ValueError(f"the product of an {(n, p)} block has shape {rest.shape}")
        rest = rest - previous * (beta[step - 1] if step else 0.0)
        alpha[step] = np.einsum("ij,ij->j", current, rest)
        rest -= current * alpha[step]
        if state.reorthogonalise:
            _orthogonalise(rest, basis[:, : step + 1])
        size = np.sqrt(np.einsum("ij,ij->j", rest, rest))
        if not np.isfinite(size).all():
            raise ValueError("a product that is not finite")
        alive = beta[step - 1] > 0 if step else np.ones(p, dtype=bool)
        length[alive] += 1
        scale = np.maximum(np.abs(alpha[: step + 1]).max(axis=0), beta[: step + 1].max(axis=0))
        alive &= size > 10.0 * np.sqrt(n) * EPS * scale  # the rounding of a product and of its projections
        beta[step] = np.where(alive, size, 0.0)
        previous, current = current, np.where(alive, rest / np.where(alive, size, 1.0), 0.0)
    return LanczosState(alpha, beta, length, previous, current, basis, state.reorthogonalise)


def _orthogonalise(rest: np.ndarray, basis: np.ndarray) -> None:
    for run, vectors in enumerate(basis):
        column = np.ascontiguousarray(rest[:, run])
        for _ in range(2):
            column -= vectors.T @ (vectors @ column)
        rest[:, run] = column


def ritz_spectrum(state: LanczosState) -> RitzSpectrum:
    """Nodes, weights and residuals of the runs so far; some 6 p k^3 flops.

    Raises
    ------
    ValueError
        Before the first step.
    """
    k, p = state.alpha.shape
    if k == 0:
        raise ValueError("no step was made")
    nodes, weights, residuals = np.empty((p, k)), np.zeros((p, k)), np.empty((p, k))
    for run in range(p):
        m = int(state.length[run])
        values, vectors = eigh_tridiagonal(state.alpha[:m, run], state.beta[: m - 1, run], lapack_driver="stev")
        last = state.beta[m - 1, run] * np.abs(vectors[-1])
        nodes[run, :m], nodes[run, m:] = values, values[-1]
        weights[run, :m] = vectors[0] ** 2
        residuals[run, :m], residuals[run, m:] = last, last[-1]
    return RitzSpectrum(len(state.current), nodes, weights, residuals)
