"""Exact spectra of component blocks, the number of clusters that gaps suggest, and each component's share of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.linalg import eigvalsh
from scipy.sparse import csr_array

from daskim.kernels.graph import ComponentBlocks, Kind, laplacian

__all__ = [
    "block_spectra",
    "clusters_by_height",
    "clusters_from_gaps",
    "dense_spectrum",
    "eigen_gaps",
    "share_clusters",
]

TIED = 1e-9  # eigenvalues this near are one value: far above rounding (1e-13 of the largest), far below any real gap
STACKED_SIZE = 32  # blocks up to this size are solved as stacks: there a call costs more than its arithmetic
STACKED_ENTRIES = 2**20  # 8 MB of stacked blocks at a time


def dense_spectrum(block: np.ndarray | csr_array, kind: Kind = "unnormalised") -> np.ndarray:
    """All eigenvalues of the Laplacian of one block, ascending; shape (m,), float64.

    Parameters
    ----------
    block : ndarray or csr_array, shape (m, m), float64
        S of one component (or of any graph): see `laplacian`.
    kind : {"unnormalised", "symmetric", "random-walk"}
        The last two have the same eigenvalues.

    Notes
    -----
    8 m^2 bytes twice over, 4/3 m^3 flops. LAPACK's tridiagonal QR without square roots (dsterf): no random start, no
    tolerance to choose, the same bits for the same BLAS and number of threads.
    """
    dense = np.asarray(block if isinstance(block, np.ndarray) else block.toarray())
    values = eigvalsh(laplacian(dense, _symmetric(kind)), driver="evd", overwrite_a=True, check_finite=False)
    return np.asarray(values)


def _symmetric(kind: Kind) -> Kind:
    return "symmetric" if kind == "random-walk" else kind


def block_spectra(blocks: ComponentBlocks, kind: Kind = "unnormalised", *, largest: int = 4000) -> np.ndarray:
    """Eigenvalues of all components that have at most `largest` images.

    Parameters
    ----------
    blocks : ComponentBlocks
    kind : {"unnormalised", "symmetric", "random-walk"}
    largest : int
        Components above it are left as NaN (see `daskim.kernels.lanczos`).

    Returns
    -------
    ndarray, shape (n,), float64
        Component c has values[start[c]:start[c + 1]], ascending: by components, not sorted as a whole.
    """
    values = np.zeros(blocks.order.size)  # right as it is for lone images
    sizes = blocks.sizes
    values[np.repeat(sizes > largest, sizes)] = np.nan
    for size in np.unique(sizes[(sizes > 1) & (sizes <= min(largest, STACKED_SIZE))]).tolist():
        alike = np.flatnonzero(sizes == size)
        width = max(1, STACKED_ENTRIES // size**2)
        for at in range(0, alike.size, width):
            part = alike[at : at + width]
            spectra = np.linalg.eigvalsh(laplacian(_stack(blocks, part, size), _symmetric(kind)))
            values[blocks.start[part][:, None] + np.arange(size)] = spectra
    for c in np.flatnonzero((sizes > STACKED_SIZE) & (sizes <= largest)).tolist():
        values[blocks.start[c] : blocks.start[c + 1]] = dense_spectrum(blocks.block(c), kind)
    return values


def _stack(blocks: ComponentBlocks, part: np.ndarray, size: int) -> np.ndarray:
    """S of components of one size, dense, shape (len(part), size, size)."""
    matrix = blocks.matrix
    rows = (blocks.start[part][:, None] + np.arange(size)).ravel()
    chosen = matrix[rows]
    row = np.repeat(np.arange(rows.size), np.diff(chosen.indptr))
    out = np.zeros((len(part), size, size))
    out[row // size, row % size, chosen.indices - blocks.start[part][row // size]] = chosen.data
    return out


def eigen_gaps(values: np.ndarray, gamma: float) -> int:
    """How many of the n - 1 gaps between sorted eigenvalues are larger than gamma."""
    return int((np.diff(np.sort(values)) > gamma).sum())


def clusters_from_gaps(values: np.ndarray, gamma: float, rule: Literal["complement", "literal"] = "complement") -> int:
    """Number of clusters from the gaps of a spectrum.

    Parameters
    ----------
    values : ndarray, shape (n,), float64
        All eigenvalues of the unnormalised Laplacian, in any order.
    gamma : float, >= 0
    rule : {"complement", "literal"}
        n minus the number of gaps larger than gamma, which is what reproduces the paper's 454 of 500; or that number
        itself, as its text says, and at least 1.

    Returns
    -------
    int, 1 <= nc <= n

    Notes
    -----
    Gaps add up to the range, so at most range / gamma of them exceed gamma whatever n is: for large n "complement"
    stays near n and "literal" below that bound.

    References
    ----------
    Yousefzadeh 2020, arXiv 2006.09879, Algorithm 2 line 3; von Luxburg 2007, section 8.3 (the eigengap heuristic).
    """
    complement, literal = clusters_by_height(values, np.array([gamma]))
    if rule not in ("complement", "literal"):
        raise ValueError(f"rule = {rule!r}; known: complement, literal")
    return int((complement if rule == "complement" else literal)[0])


def clusters_by_height(values: np.ndarray, gammas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curve nc(gamma) by both rules of `clusters_from_gaps`.

    Parameters
    ----------
    values : ndarray, shape (n,), n >= 1
    gammas : ndarray, shape (g,), >= 0

    Returns
    -------
    complement, literal : ndarray, shape (g,), int64
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("gaps need the whole spectrum: at least one eigenvalue, and all of them finite")
    if not (np.asarray(gammas) >= 0).all():
        raise ValueError("gamma must be 0 or more")
    gaps = np.sort(np.diff(np.sort(values)))
    larger = (gaps.size - np.searchsorted(gaps, gammas, side="right")).astype(np.int64)
    return len(values) - larger, np.maximum(larger, 1)


def share_clusters(values: np.ndarray, start: np.ndarray, nc: int) -> np.ndarray:
    """How many of nc clusters each component gets: its number among the nc smallest eigenvalues of all.

    Parameters
    ----------
    values : ndarray, shape (n,), float64
        Eigenvalues of the symmetric normalised Laplacian by component, each component's ascending (`block_spectra`).
    start : ndarray, shape (components + 1,), int
        Component c has values[start[c]:start[c + 1]].
    nc : int, components <= nc <= n

    Returns
    -------
    ndarray, shape (components,), int64
        At least 1 each (every component has an eigenvalue 0), at most its size, nc in all. Eigenvalues within 1e-9 of
        the next are ties, and ties go to the component with the smaller number: rounding does not decide.

    Raises
    ------
    ValueError
        nc outside its bounds. Below the number of components the null space alone has more directions than clusters:
        which components to join is not defined.
    """
    n, parts = len(values), len(start) - 1
    if nc < parts:
        raise ValueError(f"{nc} clusters are fewer than the {parts} components of the graph")
    if nc > n:
        raise ValueError(f"{nc} clusters are more than the {n} images")
    if not np.isfinite(values).all():
        raise ValueError("shares need the whole spectrum of every component")
    component = np.repeat(np.arange(parts), np.diff(start))
    rest = np.ones(n, dtype=bool)
    rest[start[:-1]] = False  # its first is each component's own
    remaining, owner = values[rest], component[rest]
    order = np.argsort(remaining, kind="stable")
    level = np.empty(remaining.size, dtype=np.int64)
    level[order] = np.cumsum(np.diff(remaining[order], prepend=remaining[order[:1]]) > TIED)
    taken = np.lexsort((owner, level))[: nc - parts]
    return 1 + np.bincount(owner[taken], minlength=parts).astype(np.int64)
