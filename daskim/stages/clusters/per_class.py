"""Each class by itself: classes packed into tasks of equal work, the full Ward tree of each cut at its own share."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.errors import SettingsError
from daskim.kept import Kept, gather
from daskim.kernels.ward import cut, labels_after, ward_dense
from daskim.stages import Context
from daskim.stages.clusters.forest import all_squared
from daskim.stages.clusters.points import STAGE, Points, load
from daskim.store import Run

__all__ = ["MOST", "class_labels", "pack", "shares"]

# Images of a class: the full distance matrix and its copies in float64 are 1.5 GB at that size.
MOST = 8_000
# Work of one task: the matrix of a class of this many images.
TASK = 2_000


def shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers of clusters by class, proportional to the sizes, at least 1 each and summing to `total`.

    Largest remainders; a class never gets more clusters than it has images.
    """
    exact = sizes * (total / sizes.sum())
    count = np.clip(np.floor(exact).astype(np.int64), 1, sizes)
    order = np.argsort(-(exact - np.floor(exact)), kind="stable")
    while (missing := total - int(count.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = [c for c in order.tolist() if (count[c] < sizes[c] if step > 0 else count[c] > 1)]
        if not free:
            break
        count[free[: abs(missing)]] += step
    return count


def pack(sizes: np.ndarray) -> list[list[int]]:
    """Classes in tasks of about equal work (the square of the size); the largest first, into the lightest task."""
    work = sizes.astype(np.float64) ** 2
    tasks = max(1, int(np.ceil(work.sum() / TASK**2)))
    load_of = np.zeros(min(tasks, len(sizes)))
    packed: list[list[int]] = [[] for _ in load_of]
    for c in np.argsort(-work, kind="stable").tolist():
        lightest = int(load_of.argmin())
        packed[lightest].append(c)
        load_of[lightest] += work[c]
    return [sorted(members) for members in packed if members]


def class_labels(
    context: Context, kept: Kept, points: Points, label: np.ndarray, total: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Cluster of each image (n,), with no cluster across two classes; -1 where an image takes no part.

    Parameters
    ----------
    label : ndarray, shape (n,)
        Class number of each image.
    total : int
        Clusters in all classes together.
    """
    run = context.run
    images = np.flatnonzero(points.owner >= 0)
    order = images[np.argsort(label[images], kind="stable")]
    classes, starts, sizes = np.unique(label[order], return_index=True, return_counts=True)
    if sizes.max(initial=0) > MOST:
        raise SettingsError(
            f"clusters.per_class: a class has {sizes.max()} images, more than {MOST}",
            "Cluster the whole set together (clusters.per_class = false).",
        )
    counts = shares(sizes, total)
    packed = pack(sizes)
    keys = [f"{t:06d}" for t in range(len(packed))]
    there = run.marked(STAGE)
    for key, members in zip(keys, packed):
        if f"class-{key}" not in there:
            rows = np.concatenate([order[starts[c] : starts[c] + sizes[c]] for c in members])
            run.save(rows, "partial", STAGE, f"class-rows-{key}.npy")
    calls = [(kept, sizes[members].tolist(), counts[members].tolist()) for members in packed]
    context.engine.each(STAGE, "class", keys, calls, class_task)
    out = np.full(len(label), -1, dtype=np.int64)
    for key in keys:
        rows, first = load(run, f"class-out-{key}.npy")
        out[rows] = first
    return out, {"classes": len(classes), "tasks": len(keys)}


def class_task(run: Run, key: str, kept: Kept, sizes: list[int], counts: list[int]) -> dict[str, Any]:
    """Clusters of some classes, each named by its first image."""
    rows = load(run, f"class-rows-{key}.npy")
    first = np.empty_like(rows)
    at = 0
    for size, count in zip(sizes, counts):
        mine = rows[at : at + size]
        merges = ward_dense(all_squared(gather(kept, mine)), np.ones(size))
        same = int((merges.height == 0).sum())  # equal images always share a cluster
        taken, _ = cut(merges.height, max(size - count, same))
        cluster = labels_after(size, merges.a[taken], merges.b[taken])
        _, start = np.unique(cluster, return_index=True)
        first[at : at + size] = mine[start[cluster]]
        at += size
    run.save(np.stack([rows, first]), "partial", STAGE, f"class-out-{key}.npy")
    return {"clusters": sum(counts)}
