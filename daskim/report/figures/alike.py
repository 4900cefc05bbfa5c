"""Which images a picture of the similarities shows, and how alike they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from daskim.report.near import measure, threshold
from daskim.results import FinishedRun

__all__ = ["Alike", "alike_of", "cluster_of"]


@dataclass(frozen=True)
class Alike:
    """Some images and their similarities.

    Attributes
    ----------
    rows : ndarray, shape (k,), int64
        Ascending.
    matrix : ndarray, shape (k, k), float64
        Symmetric; 1 on the diagonal, NaN where a pair was not compared.
    least : float or None
        From where on two images were taken for near-duplicates; None where the matrix is of another measure.
    measure : str
        What the similarities are.
    whole : bool
        These are all readable images.
    """

    rows: np.ndarray
    matrix: np.ndarray
    least: float | None
    measure: str
    whole: bool


def cluster_of(run: FinishedRun) -> np.ndarray:
    """Cluster of each image by row; -1 for broken ones."""
    table = run.store.read_table("clusters", ["row", "cluster"])
    out = np.full(table.num_rows, -1, dtype=np.int64)
    out[np.asarray(table["row"])] = np.asarray(table["cluster"])
    return out


def alike_of(run: FinishedRun, most: int) -> Alike | None:
    """At most `most` images: all of a small set, else those of the largest clusters; None where no two are together."""
    if not run.has("clusters") or not run.has("pairs"):
        return None
    cluster = cluster_of(run)
    readable = np.flatnonzero(cluster >= 0)
    whole = len(readable) <= most
    rows = readable if whole else _largest(cluster, most)
    if len(rows) < 3:
        return None
    if run.summary.get("similarities") is None:
        return Alike(rows, _correlations(run, rows), None, "correlation of pixels", whole)
    return Alike(rows, _listed(run, rows), threshold(run), measure(run), whole)


def _largest(cluster: np.ndarray, most: int) -> np.ndarray:
    """Rows of the largest clusters of two and more, ascending; a cluster beyond a quarter of them is cut."""
    sizes = np.bincount(cluster[cluster >= 0])
    members = pd.Series(np.arange(len(cluster))).groupby(cluster).indices
    chosen: list[np.ndarray] = []
    free = most
    for name in np.argsort(-sizes, kind="stable").tolist():
        if sizes[name] < 2 or free < 2:
            break
        some = members[name][: min(free, max(2, most // 4))]
        chosen.append(some)
        free -= len(some)
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def _listed(run: FinishedRun, rows: np.ndarray) -> np.ndarray:
    """Similarities as the run lists them."""
    out = np.full((len(rows), len(rows)), np.nan)
    np.fill_diagonal(out, 1.0)
    for part in run.store.batches("pairs", ["a", "b", "similarity"]):
        a, b, value = (np.asarray(part[name]) for name in ("a", "b", "similarity"))
        inside = np.isin(a, rows) & np.isin(b, rows)
        i, j = np.searchsorted(rows, a[inside]), np.searchsorted(rows, b[inside])
        out[i, j] = out[j, i] = value[inside]
    return out


def _correlations(run: FinishedRun, rows: np.ndarray) -> np.ndarray:
    """Pearson correlations of the standard images; those of one value correlate with none."""
    pixels = run.standard(rows).reshape(len(rows), -1).astype(np.float64)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(pixels, axis=1, keepdims=True)
    pixels /= np.where(norm > 0, norm, 1.0)
    out = pixels @ pixels.T
    np.fill_diagonal(out, 1.0)
    return out
