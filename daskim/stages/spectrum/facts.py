"""What the spectra of the blocks say together: checks, gaps, the curve of cluster numbers, tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.kernels.density import (
    GapCount,
    as_measure,
    count_gaps,
    count_within,
    distance_errors,
    moments,
    sum_of_squares,
    trace,
    wasserstein,
)
from daskim.kernels.lanczos import RitzSpectrum
from daskim.kernels.spectral import clusters_by_height, eigen_gaps
from daskim.stages.spectrum.graph import Graph
from daskim.store import Run

__all__ = ["Spectra", "checks", "distance", "write_tables"]

# Eigenvalues within this share of the largest count as 0: exact ones round at 1e-14 of it, Ritz values come as near as
# they have converged.
ZERO_EXACT = 1e-10
ZERO_RITZ = 1e-6
# Points of the curve nc(gamma).
CURVE = 64
HIGHEST_MOMENT = 4


@dataclass(frozen=True)
class Spectra:
    """All that is known of the spectrum of the whole graph, block by block.

    Attributes
    ----------
    exact, sizes : ndarray, shape (m,)
        Eigenvalues that are known, and the size of the component of each.
    density, gaps : list of RitzSpectrum
        Of each block that is not: see `lanczos_spectra`.
    bound : float
        Twice the largest degree: no eigenvalue is larger (Gershgorin).
    """

    exact: np.ndarray
    sizes: np.ndarray
    density: list[RitzSpectrum]
    gaps: list[RitzSpectrum]
    bound: float

    @property
    def n(self) -> int:
        return self.exact.size + sum(spectrum.n for spectrum in self.density)

    def largest(self) -> tuple[float, float]:
        """The largest eigenvalue, and how far from one it may be."""
        found = [(float(self.exact.max()), 0.0)] if self.exact.size else []
        for spectrum in (*self.density, *self.gaps):
            at = int(np.argmax(spectrum.nodes))
            found.append((float(spectrum.nodes.flat[at]), float(spectrum.residuals.flat[at])))
        return max(found)

    def gap_count(self, gamma: float) -> GapCount:
        """How many gaps exceed gamma, exactly where all eigenvalues are known."""
        if not self.gaps:
            count = eigen_gaps(self.exact, gamma)
            return GapCount(count, count, count)
        return count_gaps(self.gaps, gamma, known=np.unique(self.exact), bounds=(0.0, self.bound))

    def clusters(self, gammas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """nc(gamma) by both rules: see `clusters_by_height`."""
        if not self.gaps:
            return clusters_by_height(self.exact, gammas)
        counts = np.array([self.gap_count(gamma).count for gamma in gammas.tolist()], dtype=np.int64)
        return self.n - counts, np.maximum(counts, 1)


def checks(spectra: Spectra, graph: Graph) -> dict[str, Any]:
    """Sums over the spectrum beside what the graph says they are, with standard errors where Lanczos estimates."""
    largest, error = spectra.largest()
    exact, density = spectra.exact, spectra.density
    degrees = float(graph.degree.sum())
    frobenius = float((graph.degree**2).sum()) + graph.squares
    zeros = int((np.abs(exact) <= ZERO_EXACT * max(1.0, largest)).sum())
    near = [count_within(spectrum, ZERO_RITZ * max(1.0, largest)) for spectrum in density]
    count, count_error = _sum(float(zeros), near)
    return {
        "largest": largest,
        "largest_error": error,
        "trace": _beside(*_sum(float(exact.sum()), [trace(spectrum) for spectrum in density]), degrees),
        "squares": _beside(*_sum(float((exact**2).sum()), [sum_of_squares(s) for s in density]), frobenius),
        "zeros": {"count": count, "error": count_error, "components": len(graph.sizes)},
        "moments": _moments(spectra) if density else None,
        "density": _density(spectra) if density else None,
    }


def _density(spectra: Spectra) -> dict[str, float | None]:
    """Error bars of the whole estimated spectrum: see `distance_errors`."""
    found = [(spectrum.n, *distance_errors(spectrum, (0.0, spectra.largest()[0]))) for spectrum in spectra.density]
    quadrature, probes = (sum(row[0] * row[at] for row in found) / spectra.n for at in (1, 2))
    return {"quadrature": quadrature, "probes": probes if np.isfinite(probes) else None}


def _sum(exact: float, estimates: list[tuple[float, float]]) -> tuple[float, float | None]:
    """A sum and its standard error; None where one probe says nothing about its error."""
    error = float(np.sqrt(sum(error**2 for _, error in estimates)))
    return exact + sum(value for value, _ in estimates), error if np.isfinite(error) else None


def _beside(value: float, error: float | None, truth: float) -> dict[str, float | None]:
    return {"eigenvalues": value, "error": error, "graph": truth, "relative": abs(value - truth) / max(truth, 1e-300)}


def _moments(spectra: Spectra) -> list[list[float | None]]:
    """Means of lambda^j over the whole spectrum, j from 0 on, each with its standard error."""
    out: list[list[float | None]] = []
    found = [(spectrum.n, *moments(spectrum, HIGHEST_MOMENT)) for spectrum in spectra.density]
    for j in range(HIGHEST_MOMENT + 1):
        parts = [(n * float(mean[j]), n * float(error[j])) for n, mean, error in found]
        value, error = _sum(float((spectra.exact**j).sum()), parts)
        out.append([value / spectra.n, None if error is None else error / spectra.n])
    return out


def distance(spectra: Spectra, values: np.ndarray) -> dict[str, float]:
    """Wasserstein-1 distance of the estimate to the exact spectrum `values`, also as a share of its range."""
    parts = [(spectra.exact, np.ones(spectra.exact.size)), *(as_measure(spectrum) for spectrum in spectra.density)]
    nodes, weights = (np.concatenate(column) for column in zip(*parts))
    w1 = wasserstein(nodes, weights, values, None)
    return {"w1": w1, "relative": w1 / max(float(np.ptp(values)), 1e-300)}


def write_tables(run: Run, spectra: Spectra, gamma: float) -> None:
    """The tables `spectrum` and `gaps_curve`.

    `spectrum`: value, weight (sum: the images), error (0, or there is an eigenvalue this near a Ritz value), size (of
    the component, or of the block that Lanczos saw), by (exact or lanczos). `gaps_curve`: gamma, and the number of
    clusters by both rules.
    """
    value, weight, error, size = [spectra.exact], [np.ones(spectra.exact.size)], [np.zeros(spectra.exact.size)], []
    size.append(spectra.sizes.astype(np.int64))
    for spectrum in spectra.density:
        value.append(spectrum.nodes.ravel())
        weight.append(spectrum.weights.ravel() * (spectrum.n / len(spectrum.nodes)))
        error.append(spectrum.residuals.ravel())
        size.append(np.full(spectrum.nodes.size, spectrum.n, dtype=np.int64))
    by = np.repeat(["exact", "lanczos"], [spectra.exact.size, sum(map(len, value)) - spectra.exact.size])
    order = np.argsort(np.concatenate(value), kind="stable")
    columns = {"value": value, "weight": weight, "error": error, "size": size, "by": [by]}
    run.write_part("spectrum", "000000", pa.table({name: np.concatenate(c)[order] for name, c in columns.items()}))
    top = max(spectra.largest()[0], gamma)
    gammas = np.unique(np.append(np.geomspace(1e-4 * top, top, CURVE), gamma))
    complement, literal = spectra.clusters(gammas)
    run.write_part("gaps_curve", "000000", pa.table({"gamma": gammas, "complement": complement, "literal": literal}))
