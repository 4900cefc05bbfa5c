"""A few numbers for every image whose distance never exceeds the distance of the images."""

from __future__ import annotations

from functools import lru_cache

import dask.array as da
import numpy as np

from daskim.kept import Kept, gather
from daskim.kernels.neighbours import principal_directions, project
from daskim.stages import Context
from daskim.stages.clusters.points import STAGE
from daskim.store import Run

__all__ = ["ROWS", "make_features"]

# Rows projected together. A constant: the last bit of a product may depend on the number of rows in it.
ROWS = 2048
# Rows whose mean is taken off. Any vector serves; the mean keeps numbers, and so rounding, small.
MEAN_ROWS = 1024


class _Projector:
    """Projects a block of W; the directions are read from the run once a process."""

    def __init__(self, kept: Kept, token: str) -> None:
        self.kept = kept
        self.token = token

    def __call__(self, block: np.ndarray) -> np.ndarray:
        mean, directions = _basis(self.kept.run, self.token)
        return project(self.kept.select(block), mean, directions)


@lru_cache(maxsize=2)
def _basis(run: Run, token: str) -> tuple[np.ndarray, np.ndarray]:
    return run.load("partial", STAGE, "mean.npy"), run.load("partial", STAGE, "directions.npy")


def make_features(context: Context, kept: Kept, rows: np.ndarray, token: str) -> int:
    """Leave the array `features` (n, k + 1) f4 in the run; returns k + 1.

    Parameters
    ----------
    rows : ndarray
        Rows that count (not broken), for the mean.
    token : str
        Names this attempt: a process that worked on another run must not use its directions.
    """
    run = context.run
    name = "directions.npy"
    if not run.exists("partial", STAGE, name):
        r = np.asarray(run.array("columns_r")[:])
        table = run.read_table("columns", ["kept", "pivot"]).to_pandas()
        pivots = table.loc[table["kept"], "pivot"].to_numpy()  # in the order of the columns of W
        chosen = r[:, pivots]
        directions = principal_directions(chosen.T @ chosen, context.settings.clusters.directions)
        picked = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MEAN_ROWS)).astype(int))]
        run.save(gather(kept, picked).mean(axis=0, dtype=np.float64), "partial", STAGE, "mean.npy")
        run.save(directions, "partial", STAGE, name)
    width = run.load("partial", STAGE, name).shape[1] + 1
    n = context.known.n
    if not any(key.startswith("features") for key in run.marked(STAGE)):
        run.create_array("features", (n, width), "f4", min(ROWS, n), {"fingerprint": token})
    coefficients = da.from_zarr(run.array("wavelets")).rechunk((ROWS, -1))
    features = coefficients.map_blocks(
        _Projector(kept, token), dtype="f4", chunks=(coefficients.chunks[0], (width,)), meta=np.empty((0, 0), "f4")
    )
    context.engine.materialise(STAGE, "features", features, "features")
    return width
