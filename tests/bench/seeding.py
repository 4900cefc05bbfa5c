"""What the seeding does to k-means where n_clusters is near n: recall of planted edits, and the objective."""

from __future__ import annotations

import dask.array as da
import numpy as np
from dask_ml.cluster import KMeans
from sklearn.cluster import KMeans as ScikitKMeans

from daskim.kernels.kmeans import cluster_sums, squared_error
from daskim.transforms.wavelet import Wavelet
from tests.bench import Options
from tests.bench.clusters import SHARE, cut_at, grown
from tests.bench.context import speed_up, timed
from tests.bench.inputs import source
from tests.bench.planted import KINDS, planted
from tests.bench.table import Table


def seedings(n: int, options: Options) -> Table:
    """Recall of planted edits and the k-means objective by how the centres were seeded."""
    pixels, original, kind = planted(n)
    w = Wavelet(pixels.shape[1:])(pixels)
    k = round(SHARE * n)
    rows = w.astype(np.float32)
    lazy = da.from_array(rows, chunks=(-(-n // 2), -1))

    def dask_ml(init: str | np.ndarray) -> np.ndarray:
        return np.asarray(KMeans(n_clusters=k, init=init, random_state=0, max_iter=30).fit(lazy).labels_)

    def ward() -> np.ndarray:
        return cut_at(grown(w, n - k), n, k)

    def confirmed() -> np.ndarray:
        _, label = np.unique(ward(), return_inverse=True)
        sums, counts = cluster_sums(w, label, k)
        return dask_ml((sums / counts[:, None]).astype(np.float32))

    naive = "dask-ml KMeans, default seeding (naive)"
    contenders = {
        naive: lambda: dask_ml("k-means||"),
        "scikit-learn KMeans, random": lambda: (
            ScikitKMeans(k, init="random", n_init=1, random_state=0).fit(rows).labels_
        ),
        "scikit-learn KMeans, k-means++": lambda: ScikitKMeans(k, n_init=1, random_state=0).fit(rows).labels_,
        "daskim join and Ward": ward,
        "daskim join and Ward, dask-ml Lloyd from there": confirmed,
    }
    found = timed(contenders, options.repeat)
    table = Table(
        "clusters: seeding at n_clusters near n",
        {"data": source(), "n": n, "d": w.shape[1], "n_clusters": k, "edits of each kind": int((kind == 0).sum())},
        ["contender", "seconds", "against dask-ml", "clusters", "largest", "squared error"]
        + [f"recall {name}" for name in KINDS],
    )
    error = {}
    for name, timing in found.items():
        _, label = np.unique(timing.result, return_inverse=True)
        sums, counts = cluster_sums(w, label, label.max() + 1)
        error[name] = squared_error(w, sums / counts[:, None], label) / 4.0  # stored units are twice the coefficients
        together = label[original] == label
        recall = [float(together[kind == which].mean()) for which in range(len(KINDS))]
        row = [name, timing.seconds, speed_up(found[naive].seconds, timing.seconds), len(counts), int(counts.max())]
        table.rows.append([*row, f"{error[name]:.4g}", *recall])
    ours, theirs = error["daskim join and Ward"], error["scikit-learn KMeans, k-means++"]
    table.checks.append(("Ward's squared error is not above that of k-means++", ours <= theirs))
    _, label = np.unique(found["daskim join and Ward"].result, return_inverse=True)
    same = label[original] == label
    table.checks.append(("Ward finds all exact copies", bool(same[kind == KINDS.index("exact")].all())))
    return table
