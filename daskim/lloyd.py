"""The only door to dask-ml: Lloyd's steps from given centres.

Its own seeding is never used: with n_clusters near n it draws most centres at random, and repeats some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from daskim.compute import Place

if TYPE_CHECKING:
    import dask.array as da

__all__ = ["dask_ml_steps"]


def dask_ml_steps(
    place: Place, rows: da.Array, centres: np.ndarray, steps: int
) -> tuple[NDArray[np.int64], np.ndarray, int]:
    """Labels, centres and the number of Lloyd steps done, by dask-ml from the given centres."""
    from dask_ml.cluster import KMeans

    model = KMeans(n_clusters=len(centres), init=np.ascontiguousarray(centres, dtype=np.float32), max_iter=steps)
    with place.scheduler():
        model.fit(rows)
        labels = np.asarray(model.labels_.compute()).astype(np.int64)
    return labels, np.asarray(model.cluster_centers_, dtype=np.float64), int(model.n_iter_)
