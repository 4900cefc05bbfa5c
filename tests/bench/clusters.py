"""Clusters at n_clusters near n: Ward on the join against scipy, and what the seeding does to k-means."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from daskim.kernels.neighbours import candidate_pairs, principal_directions, project, squared_distances
from daskim.kernels.ward import Merges, cut, labels_after, ward_dense, ward_merges
from daskim.stages.clusters.forest import all_squared
from daskim.transforms.wavelet import Wavelet
from tests.bench import Options
from tests.bench.context import peak_of, speed_up, timed
from tests.bench.inputs import source
from tests.bench.planted import planted
from tests.bench.table import Table

SHARE = 0.94


def run(options: Options) -> Iterator[Table]:
    from tests.bench.seeding import seedings  # which builds on the trees below

    yield trees(400 if options.small else 5000, options)
    yield seedings(300 if options.small else 2150, options)


def grown(w: np.ndarray, count: int) -> Merges:
    """The `count` lowest Ward merges and some more: the join at a radius that grows until there are enough."""
    mean = w[:1024].mean(0)
    features = project(w, mean, principal_directions(w[:2048] - mean, 256))
    sample = np.random.default_rng(0).permutation(len(w))[:256]
    distances = np.sqrt(np.maximum(_squared(features[sample], features), 0.0))
    distances[np.arange(len(sample)), sample] = np.inf
    radius = float(np.quantile(distances.min(axis=1), min(1.0, 3 * count / len(w)))) * 1.08
    while True:
        a, b = candidate_pairs(features, None, radius)
        squared = squared_distances(w, w, a, b)
        near = squared <= radius**2
        merges = ward_merges(w, np.ones(len(w)), a[near], b[near], squared[near], radius)
        if len(merges.height) >= count:
            return merges
        radius *= 1.1


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * x).sum(1)[:, None] + (y * y).sum(1) - 2.0 * (x @ y.T)


def cut_at(merges: Merges, n: int, k: int) -> np.ndarray:
    taken, _ = cut(merges.height, n - k)
    return labels_after(n, merges.a[taken], merges.b[taken])


def canonical(label: np.ndarray) -> np.ndarray:
    """Clusters numbered by their first row: two equal partitions become equal arrays."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return first[inverse]


def trees(n: int, options: Options) -> Table:
    pixels, _, _ = planted(n)
    w = Wavelet(pixels.shape[1:])(pixels)
    k = round(SHARE * n)
    naive = "scipy linkage(ward), fcluster (naive)"
    contenders = {
        naive: lambda: fcluster(linkage(w.astype(np.float64), "ward"), k, "maxclust"),
        "daskim join, ward_merges, cut": lambda: cut_at(grown(w, n - k), n, k),
        "daskim full matrix, ward_dense, cut": lambda: cut_at(ward_dense(all_squared(w), np.ones(n)), n, k),
    }
    found = timed(contenders, options.repeat)
    table = Table(
        "clusters: Ward's tree",
        {"data": source() + ", 7 % planted edits", "n": n, "d": w.shape[1], "n_clusters": k, "memory": "tracemalloc"},
        ["contender", "seconds", "against scipy", "peak MB beyond W", "clusters", "same partition"],
    )
    truth = canonical(found[naive].result)
    for name, timing in found.items():
        same = bool(np.array_equal(canonical(timing.result), truth))
        count = len(np.unique(timing.result))
        row = [name, timing.seconds, speed_up(found[naive].seconds, timing.seconds), peak_of(contenders[name]) / 1e6]
        table.rows.append([*row, count, same])
        table.checks.append((f"{name}: exactly {k:,} clusters", count == k))
        if name != naive:
            table.checks.append((f"{name}: the clusters of scipy", same))
    return table
