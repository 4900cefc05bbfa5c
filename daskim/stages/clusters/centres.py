"""Centres of the clusters with more than one image, and every image's distance to its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.kept import Kept
from daskim.kernels.kmeans import cluster_sums
from daskim.scatter import Scattered, scatter
from daskim.stages import Context
from daskim.stages.clusters.points import STAGE, load
from daskim.store import Run

__all__ = ["write_centres"]

# Rows of one task, unless a cluster has more, and rows looked at at a time.
TASK, PIECE = 8192, 1024


def write_centres(context: Context, kept: Kept, cluster: np.ndarray, unit: float) -> tuple[np.ndarray, float]:
    """Leave the table `centres`; the distance of each image to its centre, and the sum of squared errors.

    Parameters
    ----------
    cluster : ndarray, shape (n,), int64
        -1 for images that are in no cluster of several (their distance is 0).
    unit : float
        What a distance of stored coefficients is multiplied with.

    Returns
    -------
    distance : ndarray, shape (n,), float64
    error : float
        Sum of squared distances, in squared stored coefficients.
    """
    run = context.run
    if kept.columns == ():  # every image is zero in every coefficient: nothing lies apart from anything
        return np.zeros(len(cluster)), 0.0
    rows = np.flatnonzero(cluster >= 0)
    _, label, sizes = np.unique(cluster[rows], return_inverse=True, return_counts=True)
    # whole clusters, about `TASK` rows together
    target = np.unique((np.cumsum(sizes) - 1) // TASK, return_inverse=True)[1][label]
    found = scatter(context.engine, STAGE, kept, rows, target, "centres-read")
    keys, calls = [], []
    for t, scattered in sorted(found.items()):
        mine = rows[target == t]
        keys.append(f"{t:06d}")
        calls.append((kept.scale, scattered))
        run.save(np.stack([mine, cluster[mine]]), "partial", STAGE, f"members-{keys[-1]}.npy")
    infos = context.engine.each(STAGE, "centres", keys, calls, centres_task)
    distance = np.zeros(len(cluster))
    for key in keys:
        members = load(run, f"members-{key}.npy")[0]
        distance[members] = load(run, f"distance-{key}.npy") * unit
    return distance, float(sum(info["error"] for info in infos))


def centres_task(run: Run, key: str, scale: float, scattered: Scattered) -> dict[str, Any]:
    """Centres and distances of some clusters; a large cluster is gone through in pieces."""
    rows, cluster = load(run, f"members-{key}.npy")
    names, label, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    sums: np.ndarray | None = None
    for part, block in _pieces(run, scattered):
        block_sums, _ = cluster_sums(block, label[part], len(names))
        sums = block_sums if sums is None else sums + block_sums
    assert sums is not None
    distance = np.empty(len(rows))
    for part, block in _pieces(run, scattered):
        # |size * x - sum| / size: whole numbers until the division, so that equal distances compare equal
        own = sizes[label[part]].astype(np.float64)
        difference = block.astype(np.float64) * own[:, None] - sums[label[part]]
        distance[part] = np.sqrt(np.einsum("ij,ij->i", difference, difference)) / own
    centre = (sums / sizes[:, None] * scale).astype(np.float32)
    run.write_part(
        "centres",
        key,
        pa.table(
            {
                "cluster": names,
                "size": sizes.astype(np.int64),
                "centre": pa.FixedSizeListArray.from_arrays(pa.array(centre.ravel()), centre.shape[1]),
            }
        ),
        compression="none",  # means of noisy images: Zstandard saves a tenth and takes a second for 2,000 centres
    )
    run.save(distance, "partial", STAGE, f"distance-{key}.npy")
    return {"error": float(np.square(distance).sum()), "clusters": len(names)}


def _pieces(run: Run, scattered: Scattered) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows in their order, at most `PIECE` at a time."""
    at = 0
    for block in scattered.parts(run):
        for start in range(0, len(block), PIECE):
            piece = block[start : start + PIECE]
            yield slice(at, at + len(piece)), piece
            at += len(piece)
