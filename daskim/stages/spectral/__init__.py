"""The cluster of each image by the similarity graph: spectral clustering, leaders above a threshold, or k-medoids.

Leaves `clusters` (row, cluster, size, distance), a row for every image; -1 for broken ones; clusters are numbered by
their first image. `distance` orders the members of a cluster, the smallest being its middle:

- spectral, a component cut into several clusters: distance to the cluster's mean in the embedding, 0 to 2;
- spectral, a component that is one cluster: 1 - mean |S| to the other members, pairs without an edge counting 0. That
  needs no eigenvectors, and its order is that of degrees;
- threshold: 1 - similarity to the leader; medoids: 1 - similarity to the medoid; 0 for these themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from daskim.kept import order_of
from daskim.kernels.embedding import DENSE_ROWS
from daskim.settings import Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.stages.spectral.links import by_medoids, by_threshold
from daskim.stages.spectral.parts import NAME, by_spectrum
from daskim.statuses import READABLE
from daskim.store import Run

__all__ = ["STAGE"]

# Pairs at or above min_similarity that memory is planned for, for each image, but with candidates.method = all.
LINKS = 8
# Images above which memory is reckoned without cutting components of a graph of candidates, where n_clusters = auto:
# above 5,000 readable images that is the number of components.
UNCUT = 10_000
# What one process has while Lanczos works on a block: vectors of this many probes' worth.
VECTORS = 8


def _run(context: Context) -> dict[str, Any]:
    run, settings = context.run, context.settings
    images = run.read_table("images", ["row", "status"]).to_pandas()
    rows = np.sort(images.loc[images["status"].isin(READABLE), "row"].to_numpy(dtype=np.int64))
    by = settings.clusters.by
    wanted = int(run.facts("spectrum")["n_clusters"])
    if by == "spectral":
        label, distance, facts = by_spectrum(context, wanted)
    elif by == "threshold":
        label, distance, facts = by_threshold(run, rows, order_of(run, context.known.n)[rows])
        if settings.clusters.n_clusters not in (None, "auto"):
            context.say(f"{NAME}: clusters.by = threshold: min_similarity decides, not clusters.n_clusters")
    else:
        label, distance, facts = by_medoids(run, rows, wanted)
    sizes = _write(run, context.known.n, rows, label, distance)
    count, several = len(sizes), int((sizes > 1).sum())
    context.say(f"{NAME}: {count:,} clusters by {by}, {several:,} of several images, the largest of {sizes.max():,}")
    return {
        "by": by,
        "n_clusters": count,
        "n_clusters_asked": wanted,
        "n_several": several,
        "largest": int(sizes.max()),
        **facts,
    }


def _write(run: Run, n: int, rows: np.ndarray, label: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The table `clusters`; sizes of the clusters, by number."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first, kind="stable"), kind="stable")[inverse]
    sizes = np.bincount(number)
    cluster, size, away = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n)
    cluster[rows], size[rows], away[rows] = number, sizes[number], distance
    run.write_part(
        "clusters", "000000", pa.table({"row": np.arange(n), "cluster": cluster, "size": size, "distance": away})
    )
    return sizes


def _need(size: Size, settings: Settings, workers: int) -> Need:
    n = size.n
    possible = n * (n - 1) // 2
    listed = min(settings.candidates.most_pairs(n), possible)
    if settings.candidates.method != "all":
        listed = min(listed, n * (settings.candidates.neighbours + 32))
    linked = listed if settings.candidates.method == "all" else min(listed, LINKS * n)
    task, driver = 0, 0
    auto = settings.clusters.n_clusters in (None, "auto") and settings.candidates.method != "all"
    if settings.clusters.by == "spectral":
        solved = 0 if auto and n > UNCUT else min(n, settings.spectrum.exact)  # components as they are need no graph
        task = max(32 * solved**2, 64 * min(solved, DENSE_ROWS) ** 2)
        if solved and n > min(settings.spectrum.exact, DENSE_ROWS):
            task = max(task, 250 * linked + 8 * VECTORS * n * settings.spectrum.probes)
    elif settings.clusters.by == "threshold":
        driver = 150 * linked
    else:
        driver = 300 * listed
    return Need(blocks=1 + n // 1000, read=24 * listed, write=32 * n, task=task, driver=driver + 400 * n)


STAGE = Stage(
    name=NAME,
    version=1,
    reads=("images", "similarities", "spectrum"),
    settings=(
        "clusters.by",
        "clusters.n_clusters",
        "spectrum.seed",
        "similarities.negative",
        "candidates.method",
    ),
    leaves=("tables/clusters",),
    run=_run,
    need=_need,
)
