"""Clusters of the kept coefficients: exact Ward for many clusters, dask-ml k-means for few, cells between."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

from daskim.equals import numbered
from daskim.errors import SettingsError
from daskim.kept import CACHE_BYTES, Kept, kept_of
from daskim.kernels.neighbours import PIECE
from daskim.kernels.ward import Merges, cut, labels_after
from daskim.scatter import READ_BYTES
from daskim.settings import Clusters, Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.stages.clusters import features as features_step
from daskim.stages.clusters.cells import cell_merges, cells_bytes
from daskim.stages.clusters.centres import write_centres
from daskim.stages.clusters.forest import DENSE_POINTS, PAIRS
from daskim.stages.clusters.join import TooManyPairs, join_merges, tile_rows
from daskim.stages.clusters.lloyd import CHUNK, check_by_lloyd, is_checked, k_means, seeds_from_features
from daskim.stages.clusters.pairs import BATCH
from daskim.stages.clusters.per_class import class_labels
from daskim.stages.clusters.points import GROUP, Points, energy_share, points_of
from daskim.stages.clusters.points import STAGE as NAME

__all__ = ["STAGE", "asked_clusters", "choose_regime", "wanted_clusters"]

# Clusters of the images where nothing is asked for: the paper's 47,000 of 50,000.
SHARE = 0.94
# Pairs of a task that are not counted otherwise.
SPARE = 1 << 20
# Bytes that Ward takes for a pair.
PAIR_BYTES = 60
# What importing dask-ml (with numba and scikit-learn) takes in a process.
DASK_ML_BYTES = 150_000_000


def asked_clusters(settings: Settings) -> int | float | Literal["auto"]:
    """The setting with its default: a share near 1 for method wavelet (as in the paper), else auto."""
    asked = settings.clusters.n_clusters
    if asked is None:
        return SHARE if settings.method == "wavelet" else "auto"
    return asked


def wanted_clusters(n_clusters: int | float, n: int) -> int:
    """The number of clusters for n images: as given, or the share rounded; at least 1.

    Raises
    ------
    SettingsError
        More clusters than images.
    """
    count = n_clusters if isinstance(n_clusters, int) else max(1, round(n_clusters * n))
    if count > n:
        raise SettingsError(f"clusters.n_clusters = {count} is more than the {n} readable images", "Ask for fewer.")
    return count


def choose_regime(settings: Settings, points: int, count: int) -> tuple[str, str]:
    """How the clusters are found, and why."""
    regime = settings.clusters.regime
    if settings.clusters.per_class:
        return "per-class", "as set"
    if regime != "auto":
        return regime, "as set"
    if count * 50 <= points:
        return "kmeans", f"{count} clusters are at most 1/50 of {points} images"
    if points <= DENSE_POINTS:
        return "join", f"{points} images are few enough for the full tree"
    if count * 2 >= points:
        return "join", f"{count} clusters are at least half of {points} images"
    return "cells", f"{count} clusters lie between 1/50 and 1/2 of {points} images"


def _run(context: Context) -> dict[str, Any]:
    size = context.known
    table = numbered(context.run.read_table("images", ["row", "status", "digest", "label"]), "digest").to_pandas()
    points = points_of(table, size.n)
    readable = int((points.owner >= 0).sum() + (points.flat >= 0).sum())
    asked = asked_clusters(context.settings)
    if asked == "auto":
        asked = int(context.run.facts("spectrum")["n_clusters"])
    total = wanted_clusters(asked, readable)
    goal = max(1, total - points.n_flat)  # flat images are clusters of their own
    kept = kept_of(context.run)
    share = energy_share(kept, points.rows)
    unit = kept.scale / (size.pixels * share) ** 0.5
    name = np.full(size.n, -1, dtype=np.int64)
    facts: dict[str, Any] = {}
    if len(points.rows):
        regime, why = choose_regime(context.settings, len(points.rows), goal)
        name, facts = _cluster(context, kept, points, goal, regime, why, unit, table["label"].to_numpy())
    name = np.where(points.flat >= 0, points.flat, name)
    return {
        **facts,
        **_write(context, kept, name, unit),
        "n_clusters_asked": total,
        "n_flat": points.n_flat,
        "share": share,
    }


def _cluster(
    context: Context, kept: Kept, points: Points, goal: int, regime: str, why: str, unit: float, labels: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Cluster of each image (n,), named by an image of it, and facts."""
    context.say(f"clusters: {regime} ({why})")
    images = np.flatnonzero(points.owner >= 0)
    facts: dict[str, Any] = {"regime": regime, "why": why}
    if regime == "per-class":
        number = np.unique(labels.astype(str), return_inverse=True)[1]
        name, more = class_labels(context, kept, points, number, goal)
        return name, {**facts, **more}
    features_step.make_features(context, kept, points.rows, _token(context))
    if regime == "kmeans":
        seeds = seeds_from_features(context, images, min(goal, len(points.rows)))
        label, more = k_means(context, kept, images, len(seeds), seeds)
        return _named(label, images, context.known.n), {**facts, **more}
    count = max(0, len(points.rows) - goal)
    near = context.settings.clusters.near_rms / unit
    if regime == "join":
        try:
            merges, more = join_merges(context, kept, points, count, near, unit)
        except TooManyPairs as error:
            what = f"about {error.pairs:,.0f} pairs lie within {error.radius * unit:.1f} grey levels"
            bound = f"clusters.max_pairs = {context.settings.clusters.most_pairs(len(points.rows)):,}"
            if context.settings.clusters.regime == "join":
                raise SettingsError(
                    f"regime join: {what}, more than {bound}", "Use clusters.regime = cells, or raise the bound."
                ) from None
            context.say(f"clusters: cells instead of join: {what}, more than {bound}")
            facts.update(regime="cells", why=f"{what}, more than {bound}")
            regime = "cells"
    if regime == "cells":
        merges, more = cell_merges(context, kept, points, count, unit)
    facts.update(more)
    name, more = _cut(context, points, merges, count, near, unit)
    facts.update(more)
    return _lloyd(context, kept, images, name, facts)


def _cut(
    context: Context, points: Points, merges: Merges, count: int, near: float, unit: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Cut all trees at one height; warn where nearly identical images stay apart."""
    p = len(points.rows)
    taken, height = cut(merges.height, min(count, len(merges.height)))
    label = labels_after(p, merges.a[taken], merges.b[taken])
    name = np.full(context.known.n, -1, dtype=np.int64)
    images = np.flatnonzero(points.owner >= 0)
    name[images] = _named(label[points.owner[images]], images, context.known.n)[images]
    close = int((merges.height <= near).sum())
    facts: dict[str, Any] = {
        "cut_rms": height * unit,
        "cut_height": height,  # in stored coefficients
        "merges": int(taken.sum()),
        "near_merges": close,
    }
    if close > count:
        better = p - close + points.n_flat
        facts["n_clusters_better"] = better
        context.say(
            f"warning: the cut at {height * unit:.1f} grey levels leaves {close - count} more merges of nearly "
            f"identical images (RMS up to {context.settings.clusters.near_rms:g}) undone; --n-clusters {better} "
            "would make them"
        )
    heights = merges.height * unit
    steps = np.unique(np.linspace(0, len(heights) - 1, min(len(heights), 256)).astype(int))[: len(heights)]
    facts["height_curve"] = [[p + points.n_flat - k - 1, round(float(heights[k]), 4)] for k in steps.tolist()]
    return name, facts


def _lloyd(
    context: Context, kept: Kept, images: np.ndarray, name: np.ndarray, facts: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Let dask-ml's Lloyd steps confirm or improve the clusters where that is affordable."""
    _, label = np.unique(name[images], return_inverse=True)
    k = int(label.max()) + 1
    m = len(kept.columns) if kept.columns is not None else context.known.columns
    if not is_checked(len(images), k, m, context.settings.clusters):
        return name, {**facts, "lloyd": f"left out: n * n_clusters * m = {float(len(images)) * k * m:.2g}"}
    label, more = check_by_lloyd(context, kept, images, label)
    return _named(label, images, context.known.n), {**facts, "lloyd": "done", **more}


def _named(label: np.ndarray, images: np.ndarray, n: int) -> np.ndarray:
    """Clusters named by their first image; shape (n,), -1 for images outside."""
    names = np.full(n, -1, dtype=np.int64)
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    names[images] = images[first[inverse]]
    return names


def _write(context: Context, kept: Kept, name: np.ndarray, unit: float) -> dict[str, Any]:
    """Number the clusters by their first image and leave the tables `clusters` and `centres`."""
    inside = name >= 0
    _, number, counts = np.unique(name[inside], return_inverse=True, return_counts=True)
    cluster = np.full(len(name), -1, dtype=np.int64)
    cluster[inside] = number
    size = np.zeros(len(name), dtype=np.int64)
    size[inside] = counts[number]
    distance, error = write_centres(context, kept, np.where(size > 1, cluster, -1), unit)
    columns = {"row": np.arange(len(name)), "cluster": cluster, "size": size, "distance": distance}
    context.run.write_part("clusters", "000000", pa.table(columns))
    return {
        "n_clusters": len(counts),
        "n_several": int((counts > 1).sum()),
        "largest": int(counts.max(initial=0)),
        "squared_error": error * kept.scale**2,
    }


def _token(context: Context) -> str:
    """Names what the features are made from."""
    record = context.run.read_json("state", NAME, "stage.json") or {}
    return f"{record.get('fingerprint', '')} {context.run.array('wavelets').attrs['made']}"


def _need(size: Size, settings: Settings, workers: int) -> Need:
    m, k = size.columns, settings.clusters.directions + 1 + features_step.GROUPS
    row = m * size.itemsize
    project = 2 * size.rows * row + PIECE * 40 * m + 2 * m * k * 8
    read = 2 * min(size.n * row, READ_BYTES) + size.rows * row
    tile = min(size.n, tile_rows(size.n))
    join = 2 * tile * k * 4 * 3 + 64 * tile
    part = min(size.n, max(settings.clusters.largest, GROUP))
    # rows of the components and their files, centres of those that are merged, pairs of each point
    ward = 2 * part * row + part * m * 8 // 4 + PAIR_BYTES * PAIRS * part
    dense = 4 * 8 * min(size.n, DENSE_POINTS) ** 2 if size.n <= DENSE_POINTS else 0
    task = max(project, read, join, ward, dense) + 64 * SPARE
    process = CACHE_BYTES + DASK_ML_BYTES
    if choose_regime(settings, size.n, size.n_clusters)[0] == "cells":
        # the largest component takes all rows that it may, and most of them are merged
        process += part * m * 8
        task = max(task, cells_bytes(size.n, m, size.itemsize, settings.clusters))
    held = 160 * min(BATCH, 64 * size.n)  # pairs, and their components
    lloyd = 0
    if is_checked(size.n, size.n_clusters, m, settings.clusters) or size.n_clusters * 50 <= size.n:
        lloyd = 8 * size.n_clusters * m * (-(-size.n // CHUNK) + 4) + 12 * min(size.n, CHUNK * workers) * m
    return Need(
        blocks=-(-size.n // features_step.TASK),
        read=4 * size.n * row,
        # features, twice more in the order of the join; rows that have a neighbour, some in two tasks
        write=3 * size.n * k * 4 + size.n * row // 2,
        task=task,
        process=process,
        driver=max(3 * 8 * m * m, lloyd) + held + 320 * size.n,
    )


STAGE = Stage(
    name=NAME,
    version=4,  # 3: a chain of more than clusters.largest points is cut; 4: where its points are farthest apart
    reads=("images", "wavelets", "columns", "spectrum"),
    settings=tuple(f"clusters.{key}" for key in Clusters.model_fields if key not in ("by", "verify")),
    leaves=("tables/clusters", "tables/centres", "arrays/features"),
    run=_run,
    need=_need,
)
