"""What Ritz spectra say of a spectrum: density, moments, counts, gaps, each with what is not known of it.

Estimates are means over probes. Their standard errors (infinite with one probe) tell the scatter of the probes; the
error of the quadrature itself, of order range / steps, comes on top (Chen, Trogdon, Ubaru 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daskim.kernels.lanczos import RitzSpectrum

__all__ = [
    "GapCount",
    "as_measure",
    "count_gaps",
    "count_within",
    "distance_errors",
    "histogram",
    "moments",
    "spectral_cdf",
    "stand_in_spectrum",
    "sum_of_squares",
    "trace",
    "wasserstein",
]

SURE = 1e-6  # residual, in gammas, below which a Ritz value enters the bounds


def _mean(per_probe: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = len(per_probe)
    mean = per_probe.mean(axis=0)
    if p == 1:
        return mean, np.full_like(mean, np.inf)
    return mean, per_probe.std(axis=0, ddof=1) / np.sqrt(p)


def moments(spectrum: RitzSpectrum, highest: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of lambda^j over the spectrum, j = 0..highest, with standard errors; both shape (highest + 1,).

    Up to j = 2 k - 1 the quadrature is exact for each probe: v' L^j v.
    """
    powers = spectrum.nodes[:, None, :] ** np.arange(highest + 1)[None, :, None]
    return _mean((powers * spectrum.weights[:, None, :]).sum(axis=2))


def trace(spectrum: RitzSpectrum) -> tuple[float, float]:
    """Sum of the eigenvalues and its standard error. With Rademacher probes the error comes from off the diagonal."""
    mean, error = moments(spectrum, 1)
    return spectrum.n * float(mean[1]), spectrum.n * float(error[1])


def sum_of_squares(spectrum: RitzSpectrum) -> tuple[float, float]:
    """Sum of the squared eigenvalues (the squared Frobenius norm) and its standard error; needs two steps."""
    mean, error = moments(spectrum, 2)
    return spectrum.n * float(mean[2]), spectrum.n * float(error[2])


def count_within(spectrum: RitzSpectrum, radius: float, centre: float = 0.0) -> tuple[float, float]:
    """How many eigenvalues lie within `radius` of `centre`, and the standard error.

    Around 0 for a Laplacian: the number of components. Eigenvalues that are near but not within, or within a Ritz
    value's own residual of the border, blur it; by blocks the count is exact.
    """
    inside = np.abs(spectrum.nodes - centre) <= radius
    mean, error = _mean((spectrum.weights * inside).sum(axis=1))
    return spectrum.n * float(mean), spectrum.n * float(error)


def spectral_cdf(spectrum: RitzSpectrum, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the eigenvalues that are <= each of `at`, and standard errors; shapes (len(at),)."""
    at = np.asarray(at, dtype=np.float64)
    mass = np.empty((len(spectrum.nodes), at.size))
    for run, (nodes, weights) in enumerate(zip(spectrum.nodes, spectrum.weights)):
        mass[run] = np.concatenate([[0.0], np.cumsum(weights)])[np.searchsorted(nodes, at, side="right")]
    return _mean(mass)


def histogram(spectrum: RitzSpectrum, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the eigenvalues in each bin (the last one closed) and standard errors; shapes (len(edges) - 1,)."""
    mass = [np.histogram(nodes, edges, weights=weights)[0] for nodes, weights in zip(spectrum.nodes, spectrum.weights)]
    return _mean(np.array(mass))


def as_measure(spectrum: RitzSpectrum) -> tuple[np.ndarray, np.ndarray]:
    """All nodes, ascending, and weights that sum to n: to be put beside exact eigenvalues of weight 1 each."""
    order = np.argsort(spectrum.nodes, axis=None, kind="stable")
    weights = spectrum.weights.ravel()[order]
    return spectrum.nodes.ravel()[order], weights * (spectrum.n / weights.sum())


def stand_in_spectrum(spectrum: RitzSpectrum) -> np.ndarray:
    """n values, ascending, with the estimated density: the quantiles at (i + 1/2) / n. Shape (n,), float64.

    For sums and shares over the spectrum. Their spacing carries nothing: never look for gaps in it.
    """
    values, weights = as_measure(spectrum)
    reached = np.searchsorted(np.cumsum(weights), np.arange(spectrum.n) + 0.5, side="left")
    return values[np.minimum(reached, values.size - 1)]


def wasserstein(
    values_a: np.ndarray, weights_a: np.ndarray | None, values_b: np.ndarray, weights_b: np.ndarray | None
) -> float:
    """Wasserstein-1 distance of two weighted spectra, each scaled to mass 1: the area between their distributions.

    Parameters
    ----------
    values_a, values_b : ndarray, shape (m,) and (q,), in any order
    weights_a, weights_b : ndarray, shape (m,) and (q,), >= 0 with a positive sum, or None
        None: equal weights.
    """
    points = np.concatenate([values_a, values_b])
    order = np.argsort(points, kind="stable")
    mass_a = np.ones(len(values_a)) if weights_a is None else np.asarray(weights_a, dtype=np.float64)
    mass_b = np.ones(len(values_b)) if weights_b is None else np.asarray(weights_b, dtype=np.float64)
    signed = np.concatenate([mass_a / mass_a.sum(), -mass_b / mass_b.sum()])[order]
    return float((np.abs(np.cumsum(signed))[:-1] * np.diff(points[order])).sum())


def distance_errors(spectrum: RitzSpectrum, bounds: tuple[float, float]) -> tuple[float, float]:
    """How far, in Wasserstein-1 distance, the estimate may be from the spectrum: by its quadrature, and by its probes.

    Parameters
    ----------
    spectrum : RitzSpectrum
    bounds : (float, float)
        All eigenvalues lie between them.

    Returns
    -------
    quadrature : float
        A bound, in exact arithmetic: between two nodes the distribution of a probe is within their larger weight of
        that of its quadrature (Chebyshev, Markov and Stieltjes; Golub and Meurant 2010, section 2). Mean over probes.
    probes : float
        Area under the standard error of the mean distribution; infinite with one probe.
    """
    nodes = np.sort(spectrum.nodes, axis=None)
    _, error = spectral_cdf(spectrum, nodes)
    scatter = float((error[:-1] * np.diff(nodes)).sum()) if len(spectrum.nodes) > 1 else np.inf
    quadrature = 0.0
    for values, weights in zip(spectrum.nodes, spectrum.weights):
        ends = np.concatenate([[min(bounds[0], values[0])], values, [max(bounds[1], values[-1])]])
        padded = np.concatenate([[0.0], weights, [0.0]])
        quadrature += float((np.diff(ends) * np.maximum(padded[:-1], padded[1:])).sum())
    return quadrature / len(spectrum.nodes), scatter


@dataclass(frozen=True)
class GapCount:
    """How many gaps of a spectrum exceed gamma.

    Attributes
    ----------
    count : int
        Seen between known eigenvalues with nothing unresolved between them.
    lower, upper : int
        What the number lies between; `count` is within them.
    """

    count: int
    lower: int
    upper: int


def count_gaps(
    spectra: Sequence[RitzSpectrum],
    gamma: float,
    *,
    known: np.ndarray | None = None,
    bounds: tuple[float, float] | None = None,
) -> GapCount:
    """Gaps larger than gamma in the union of spectra, from converged extreme Ritz values and known eigenvalues.

    Parameters
    ----------
    spectra : sequence of RitzSpectrum
        One for each giant block, made from Gaussian probes (see `probes`) and with full reorthogonalisation (a ghost
        Ritz value would end a converged run).
    gamma : float, > 0
    known : ndarray, shape (m,), float64
        Eigenvalues known exactly: those of the other blocks.
    bounds : (float, float)
        All eigenvalues lie between them: 0 and twice the largest degree for a Laplacian. Without them the upper bound
        is the number of images less 1 as long as an end has not converged.

    Returns
    -------
    GapCount
        Exact when `spectra` is empty and `known` is the whole spectrum.

    Notes
    -----
    A Ritz value has converged when its residual is below gamma / 10; what counts are unbroken runs of converged ones
    from either end of the spectrum. Where such a run ends, Lanczos has sometimes not yet seen an eigenvalue between two
    that it has; the bounds therefore rest on runs with residuals below 1e-6 gamma only. Between the runs the
    eigenvalues are unresolved: there a stretch of length x between two known ones can hold no gap, or up to
    ceil(x / gamma) - 1 of them. The bounds allow for every residual. What they presume is that no eigenvalue within
    these runs was missed by every probe: likely, and beyond what Lanczos can prove. A Ritz spectrum does not see
    multiplicities; the number of gaps larger than gamma > 0 does not depend on them.
    """
    if not gamma > 0:
        raise ValueError("gamma must be positive")
    exact = np.zeros(0) if known is None else np.asarray(known, dtype=np.float64)
    points, _, open_, _ = _known_points(spectra, gamma / 10.0, exact, bounds)
    count = int(((np.diff(points) > gamma) & ~open_).sum())
    points, errors, open_, bounded = _known_points(spectra, gamma * SURE, exact, bounds)
    gap, slack = np.diff(points), errors[:-1] + errors[1:]
    # several probes know one eigenvalue, each with its own error: none of them may reach into a certain gap
    reach = np.minimum.accumulate((points - errors)[::-1])[::-1][1:] - np.maximum.accumulate(points + errors)[:-1]
    most = max(exact.size + sum(spectrum.n for spectrum in spectra) - 1, 0)
    upper = int(((gap + slack > gamma) & ~open_).sum())
    upper += int(np.maximum(np.ceil((gap + slack)[open_] / gamma) - 1, 0).sum())
    lower, upper = int(((reach > gamma) & ~open_).sum()), min(upper, most) if bounded else most
    return GapCount(min(max(count, lower), upper), lower, upper)


def _known_points(
    spectra: Sequence[RitzSpectrum], tolerance: float, exact: np.ndarray, bounds: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Known eigenvalues ascending, their errors, whether the stretch after each is unresolved, and if that ends.

    Where an end has not converged the bound stands in for an eigenvalue: its stretch is unresolved, so that it only
    enters the upper bound.
    """
    low, high = bounds if bounds is not None else (-np.inf, np.inf)
    value, error, unresolved = [exact], [np.zeros(exact.size)], []
    bounded = True
    for spectrum in spectra:
        settled = spectrum.residuals < tolerance
        head = np.logical_and.accumulate(settled, axis=1)
        tail = np.logical_and.accumulate(settled[:, ::-1], axis=1)[:, ::-1]
        value.append(spectrum.nodes[head | tail])
        error.append(spectrum.residuals[head | tail])
        first = spectrum.nodes[head].max() if head.any() else low
        last = spectrum.nodes[tail].min() if tail.any() else high
        unresolved.append((first, last))
        bounded &= bool(np.isfinite([first, last]).all())
        ends = [end for end, runs in ((low, head), (high, tail)) if not runs.any() and np.isfinite(end)]
        value.append(np.array(ends, dtype=np.float64))
        error.append(np.zeros(len(ends)))
    points, errors = np.concatenate(value), np.concatenate(error)
    order = np.argsort(points, kind="stable")
    points, errors = points[order], errors[order]
    open_ = np.zeros(max(points.size - 1, 0), dtype=bool)
    for first, last in unresolved:
        open_ |= (points[:-1] < last) & (points[1:] > first)
    return points, errors, open_, bounded
