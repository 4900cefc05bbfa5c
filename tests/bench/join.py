"""All pairs of images within a radius: a lower bound in float32 and exact checks, against brute force."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.neighbors import NearestNeighbors

from daskim.kernels.neighbours import candidate_pairs, principal_directions, project, squared_distances
from daskim.kernels.qr import gram
from daskim.transforms.wavelet import Wavelet
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import source
from tests.bench.planted import planted
from tests.bench.table import Table

DIRECTIONS = 256
TILE = 2048


def run(options: Options) -> Iterator[Table]:
    pixels, _, _ = planted(600 if options.small else 10_000)
    w = Wavelet(pixels.shape[1:])(pixels)
    for grey in (8.0, 18.0, 33.0):
        yield compare(w, grey, options)


def radius_of(grey: float, d: int) -> float:
    """Distance in stored units (twice the orthonormal ones) for an RMS difference in grey levels.

    The square lies half way between two whole numbers: whatever way a contender rounds, no pair is on the border.
    """
    return float(np.sqrt(np.floor((2.0 * grey) ** 2 * d) + 0.5))


def joined(w: np.ndarray, radius: float, basis: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """Pairs as codes a * n + b, and the number of candidates."""
    if basis is None:
        basis = principal_directions(gram(w), DIRECTIONS)
    features = np.concatenate([project(w[at : at + TILE], w[:1024].mean(0), basis) for at in range(0, len(w), TILE)])
    a, b = candidate_pairs(features, None, radius)
    near = squared_distances(w, w, a, b) <= radius**2
    return np.sort(a[near] * len(w) + b[near]), len(a)


def brute_force(w: np.ndarray, radius: float) -> np.ndarray:
    """Distances by matrix products in float64: exact, as all sums are whole numbers below 2^53."""
    rows = w.astype(np.float64)
    norms = np.einsum("ij,ij->i", rows, rows)
    codes = []
    for p in range(0, len(w), TILE):
        for q in range(p, len(w), TILE):
            squared = (
                norms[p : p + TILE, None] + norms[q : q + TILE] - 2.0 * (rows[p : p + TILE] @ rows[q : q + TILE].T)
            )
            i, j = np.nonzero(squared <= radius**2)
            codes.append(((i + p) * len(w) + j + q)[i + p < j + q])
    return np.sort(np.concatenate(codes))


def scikit(w: np.ndarray, radius: float) -> np.ndarray:
    rows = w.astype(np.float64)
    near = NearestNeighbors(radius=radius, algorithm="brute", n_jobs=1).fit(rows)
    graph = near.radius_neighbors_graph(rows).tocoo()
    a, b = graph.row.astype(np.int64), graph.col.astype(np.int64)
    return np.sort((a * len(w) + b)[a < b])


def compare(w: np.ndarray, grey: float, options: Options) -> Table:
    n, d = w.shape
    radius = radius_of(grey, d)
    basis = principal_directions(gram(w), DIRECTIONS)
    naive = "distances by GEMM in float64 (naive)"
    ours = "daskim: project, candidate_pairs, squared_distances"
    contenders = {
        naive: lambda: brute_force(w, radius),
        "sklearn NearestNeighbors(brute).radius_neighbors_graph": lambda: scikit(w, radius),
        ours: lambda: joined(w, radius, basis),
        "daskim, with Gram matrix and directions": lambda: joined(w, radius),
    }
    found = timed(contenders, options.repeat)
    table = Table(
        f"join: pairs within {grey:g} grey levels RMS",
        {"data": source() + ", 7 % planted edits", "n": n, "d": d, "directions": DIRECTIONS, "tile": 512},
        ["contender", "seconds", "ns per pair of images", "against GEMM", "candidates", "pairs"],
    )
    for name, timing in found.items():
        pairs, candidates = timing.result if isinstance(timing.result, tuple) else (timing.result, None)
        each = 1e9 * timing.seconds / (n * (n - 1) / 2)
        row = [name, timing.seconds, each, speed_up(found[naive].seconds, timing.seconds), candidates, len(pairs)]
        table.rows.append(row)
        if name != naive:
            table.checks.append((f"{name}: the same pairs", np.array_equal(pairs, found[naive].result)))
    table.checks.append(("there are pairs to be found", len(found[naive].result) > 0))
    return table
