"""All pairs of images within a radius: a lower bound in float32 and exact checks, against brute force; and by n."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from sklearn.neighbors import NearestNeighbors

from daskim.kernels.compiled import SWITCH
from daskim.kernels.neighbours import box_order, candidate_pairs, principal_directions, project, squared_distances
from daskim.synthetic.planted import lake_rows
from daskim.transforms.wavelet import Wavelet
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import images, source
from tests.bench.planted import planted
from tests.bench.table import Table

DIRECTIONS = 256
TILE = 2048
# Leading features of the order, and rows of a bounding box.
HEAD, LEAF = 8, 64
# Images from which the directions come.
LEARNT = 2048
# The array form is not timed above.
ARRAY = 20_000


def run(options: Options) -> Iterator[Table]:
    pixels, _, _ = planted(600 if options.small else 10_000)
    w = Wavelet(pixels.shape[1:])(pixels)
    for grey in (8.0, 18.0, 33.0):
        yield compare(w, grey, options)
    sizes = [600, 1200] if options.small else [5000, 10_000, 20_000, 50_000]
    yield by_size(lambda lo, hi: images(sizes[-1])[lo:hi], source(), sizes)
    if options.n or options.small:
        sizes = [options.n // 8, options.n // 4, options.n // 2, options.n] if options.n else sizes
        yield by_size(lambda lo, hi: lake_rows(lo, hi).images, "synthetic lake", sizes)


@contextmanager
def array_form() -> Iterator[None]:
    """Without the compiler."""
    with patch.dict(os.environ, {SWITCH: "0"}):
        yield


def radius_of(grey: float, d: int) -> float:
    """Distance in stored units (twice the orthonormal ones) for an RMS difference in grey levels.

    The square lies half way between two whole numbers: whatever way a contender rounds, no pair is on the border.
    """
    return float(np.sqrt(np.floor((2.0 * grey) ** 2 * d) + 0.5))


Basis = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]


def basis_of(w: np.ndarray, share: float = 0.95) -> Basis:
    """Mean, directions, their columns (those that hold this share of the variance), and the others in eight groups."""
    sample = w[:LEARNT].astype(np.float64)
    mean, variance = sample.mean(axis=0), sample.var(axis=0)
    order = np.argsort(-variance, kind="stable")
    count = int(np.searchsorted(np.cumsum(variance[order]), share * variance.sum())) + 1
    columns = np.sort(order[:count])
    others = np.setdiff1d(np.arange(w.shape[1]), columns)
    rest = tuple(np.array_split(others, 8)) if len(others) else ()
    return mean, principal_directions((sample - mean)[:, columns], DIRECTIONS), columns, rest


def features_of(w: np.ndarray, basis: Basis) -> np.ndarray:
    mean, directions, columns, rest = basis
    chosen = None if len(columns) == len(mean) else columns
    return project(w, mean, directions, chosen, rest)


def joined(w: np.ndarray, radius: float, basis: Basis | None = None) -> tuple[np.ndarray, int]:
    """Pairs as codes a * n + b, and the number of candidates."""
    features = features_of(w, basis_of(w) if basis is None else basis)
    order = box_order(features[:, :HEAD], LEAF)
    i, j = candidate_pairs(features[order], None, radius)
    a, b = np.minimum(order[i], order[j]), np.maximum(order[i], order[j])
    near = squared_distances(w, w, a, b, radius**2) <= radius**2
    return np.sort(a[near] * len(w) + b[near]), len(a)


def joined_by_arrays(w: np.ndarray, radius: float, basis: Basis) -> tuple[np.ndarray, int]:
    with array_form():
        features = features_of(w, basis)
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
    basis, whole = basis_of(w), basis_of(w, 1.0)
    naive = "distances by GEMM in float64 (naive)"
    ours = "daskim: project, box_order, candidate_pairs, squared_distances"
    contenders = {
        naive: lambda: brute_force(w, radius),
        "sklearn NearestNeighbors(brute).radius_neighbors_graph": lambda: scikit(w, radius),
        ours: lambda: joined(w, radius, basis),
        "daskim, with the directions": lambda: joined(w, radius),
        "daskim by arrays, all columns projected": lambda: joined_by_arrays(w, radius, whole),
    }
    found = timed(contenders, options.repeat)
    table = Table(
        f"join: pairs within {grey:g} grey levels RMS",
        {"data": source() + ", 7 % planted edits", "n": n, "d": d, "directions": DIRECTIONS},
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


def by_size(rows: Callable[[int, int], np.ndarray], data: str, sizes: list[int]) -> Table:
    """CPU seconds of the steps on the first n images, at one radius, and at that of the share of n_clusters."""
    transform = Wavelet((32, 32, 3))
    learnt = transform(rows(0, min(LEARNT, sizes[0])))
    basis = basis_of(learnt)
    parts, made = [], 0.0
    for lo in range(0, sizes[-1], TILE):
        w = transform(rows(lo, min(lo + TILE, sizes[-1])))
        start = time.process_time()
        parts.append(features_of(w, basis))
        made += time.process_time() - start
    features = np.concatenate(parts)
    table = Table(
        "join by n: CPU seconds of candidate_pairs",
        {"data": data, "directions": DIRECTIONS, "threads": 1, "project, us an image": 1e6 * made / len(features)},
        ["n", "radius by", "box_order", "compiled", "ns a pair", "arrays", "array / compiled", "candidates an image"],
    )
    radius = nearest_radius(features)
    candidate_pairs(features[:100], None, radius)  # the compiler's time is not that of the join
    fixed, moving = [], []
    for n in sizes:
        mine = features[:n]
        for name, r, kept in (("fixed", radius, fixed), ("share", nearest_radius(mine), moving)):
            start = time.process_time()
            order = box_order(mine[:, :HEAD], LEAF)
            ordered = time.process_time()
            found = candidate_pairs(mine[order], None, r)
            ended = time.process_time()
            arrays = by_arrays(mine, r, found, order, table) if n <= ARRAY and name == "fixed" else None
            ratio = None if arrays is None else arrays / (ended - ordered)
            each = (ended - ordered) * 1e9 / (n * (n - 1) / 2)
            table.rows.append([n, name, ordered - start, ended - ordered, each, arrays, ratio, 2 * len(found[0]) / n])
            kept.append(ended - start)
    for name, seconds in (("fixed", fixed), ("by share", moving)):
        slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        last = math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])
        table.facts[f"exponent, radius {name}"] = f"{slope:.2f} over all sizes, {last:.2f} over the last two"
    return table


def nearest_radius(features: np.ndarray) -> float:
    """The radius within which 18 % of a sample have another image: what 6 % of merges need."""
    sample = np.random.default_rng(0).permutation(len(features))[:1024]
    best = np.full(len(sample), np.inf)
    for lo in range(0, len(features), TILE):
        right = features[lo : lo + TILE]
        squared = (features[sample] ** 2).sum(1)[:, None] + (right**2).sum(1) - 2.0 * (features[sample] @ right.T)
        inside = np.flatnonzero((sample >= lo) & (sample < lo + TILE))
        squared[inside, sample[inside] - lo] = np.inf
        best = np.minimum(best, squared.min(axis=1))
    return float(np.sqrt(max(0.0, np.quantile(best, 0.18)))) * 1.12


def by_arrays(
    features: np.ndarray, radius: float, found: tuple[np.ndarray, np.ndarray], order: np.ndarray, table: Table
) -> float:
    """CPU seconds of the array form, whose candidates differ by rounding at the radius alone."""
    start = time.process_time()
    with array_form():
        i, j = candidate_pairs(features, None, radius)
    seconds = time.process_time() - start
    a, b = order[found[0]], order[found[1]]
    n = len(features)
    codes = [np.minimum(x, y) * n + np.maximum(x, y) for x, y in ((i, j), (a, b))]
    differ = np.setxor1d(*codes)
    table.checks.append(
        (f"{n:,} images: forms differ in {len(differ)} of {len(i):,}", len(differ) <= 0.01 * len(i) + 3)
    )
    return seconds
