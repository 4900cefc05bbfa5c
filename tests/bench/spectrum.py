"""The spectrum of a similarity graph: dense eigenvalues against Lanczos quadrature, and blocks against the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.linalg import eigvalsh
from scipy.sparse import csr_array
from scipy.sparse.linalg import eigsh

from daskim.kernels.density import as_measure, count_gaps, count_within, wasserstein
from daskim.kernels.graph import component_blocks, laplacian, similarity_matrix
from daskim.kernels.lanczos import RitzSpectrum, lanczos_start, lanczos_steps, probes, ritz_spectrum
from daskim.kernels.spectral import block_spectra, dense_spectrum, eigen_gaps
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.table import Table

GAMMA = 0.4


def run(options: Options) -> Iterator[Table]:
    for n in (300,) if options.small else (2000, 4000):
        yield giant(n, options)
    yield blocks(600 if options.small else 20_000, options)


def points_on_a_sphere(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n, 20))
    return points / np.linalg.norm(points, axis=1)[:, None]


def giant(n: int, options: Options) -> Table:
    """One component, as candidates of one dense class would give it."""
    points = points_on_a_sphere(n)
    a, b = np.triu_indices(n, 1)
    cosine = (points @ points.T)[a, b]
    similarity = similarity_matrix(n, a[cosine > 0.35], b[cosine > 0.35], cosine[cosine > 0.35])
    matrix = laplacian(similarity)

    def slq(steps: int, count: int, full: bool) -> Callable[[], RitzSpectrum]:
        start = lanczos_start(probes(n, count, law="gaussian" if full else "rademacher"), reorthogonalise=full)
        return lambda: ritz_spectrum(lanczos_steps(start, lambda block: matrix @ block, steps))

    naive = "scipy eigvalsh of D - S (naive)"
    contenders: dict[str, Callable[[], object]] = {
        naive: lambda: eigvalsh(np.diag(similarity.sum(axis=1)) - similarity.toarray()),
        "daskim dense_spectrum": lambda: dense_spectrum(similarity),
        "scipy eigsh, the 100 largest": lambda: np.sort(eigsh(matrix, 100, which="LA", return_eigenvectors=False)),
        "daskim Lanczos, 50 steps, 4 probes": slq(50, 4, False),
        "daskim Lanczos, 100 steps, 16 probes": slq(100, 16, False),
        "daskim Lanczos, 100 steps, 16 Gaussian probes, reorthogonalised": slq(100, 16, True),
    }
    found = timed(contenders, options.repeat)
    exact = found[naive].result
    gaps = eigen_gaps(exact, GAMMA)
    sizes = component_blocks(similarity).sizes
    table = Table(
        f"spectrum: one giant component, n = {n}",
        {"data": "synthetic", "n": n, "pairs": similarity.nnz // 2, "components": sizes.size, "gaps > 0.4": gaps},
        ["contender", "seconds", "against dense", "Wasserstein-1 / range", "gaps seen", "bounds"],
    )
    for name, timing in found.items():
        row = [name, timing.seconds, speed_up(found[naive].seconds, timing.seconds), None, None, None]
        if isinstance(timing.result, RitzSpectrum):
            away = wasserstein(*as_measure(timing.result), exact, None) / np.ptp(exact)
            seen = count_gaps([timing.result], GAMMA, bounds=(0.0, 2 * float(matrix.diagonal().max())))
            row[3:] = [away, seen.count, f"{seen.lower} to {seen.upper}"]
            table.checks.append((f"{name}: within 0.01 of the range", away < 0.01))
            table.checks.append((f"{name}: the bounds hold", seen.lower <= gaps <= seen.upper))
        elif len(timing.result) == n:
            row[3:] = [wasserstein(timing.result, None, exact, None) / np.ptp(exact), eigen_gaps(timing.result, GAMMA)]
            row.append(None)
            if name != naive:
                table.checks.append((f"{name}: the same eigenvalues", np.allclose(timing.result, exact, atol=1e-9)))
        table.rows.append(row)
    return table


def blocks(n: int, options: Options) -> Table:
    """Many small families and lone images, as thresholded similarities give them."""
    rng = np.random.default_rng(1)
    ends = np.sort(rng.integers(0, n, (int(0.3 * n), 2)), axis=1)
    ends = np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0)
    similarity = similarity_matrix(n, ends[:, 0], ends[:, 1], rng.uniform(0.5, 1.0, len(ends)))
    matrix = csr_array(laplacian(similarity))
    steps, count = 50, 16

    def by_blocks() -> np.ndarray:
        return block_spectra(component_blocks(similarity))

    def slq() -> RitzSpectrum:
        start = lanczos_start(probes(n, count))
        return ritz_spectrum(lanczos_steps(start, lambda block: matrix @ block, steps))

    found = timed({"daskim by components": by_blocks, "daskim Lanczos, 50 steps, 16 probes": slq}, options.repeat)
    values, ritz = (timing.result for timing in found.values())
    components = component_blocks(similarity).sizes
    zeros, error = count_within(ritz, 1e-3)
    table = Table(
        "spectrum: many components",
        {
            "data": "synthetic",
            "n": n,
            "pairs": len(ends),
            "components": components.size,
            "largest": int(components.max()),
        },
        ["contender", "seconds", "eigenvalues at 0", "standard error"],
    )
    first, second = found.items()
    table.rows.append([first[0], first[1].seconds, int((np.abs(values) < 1e-9).sum()), 0.0])
    table.rows.append([second[0], second[1].seconds, zeros, error])
    table.checks.append(("zero eigenvalues are the components", table.rows[0][2] == components.size))
    table.checks.append(("trace is the sum of degrees", bool(np.isclose(values.sum(), similarity.sum(), rtol=1e-12))))
    return table
