"""Pairs of the copies of an image: equal images are compared once and listed all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.errors import SettingsError
from daskim.store import Run

__all__ = ["all_copies"]


def all_copies(run: Run, first: np.ndarray, keys: list[str], most: int, threshold: float) -> tuple[int, int]:
    """Write the pairs in which some image is a copy of the one that was compared.

    Parameters
    ----------
    first : ndarray, shape (n,), int64
        The image that stands for each; -1 for broken ones.
    keys : list of str
        Parts of the table `pairs`.
    most : int
        Pairs in all, at most.
    threshold : float

    Returns
    -------
    added, near : int
        Pairs written, and those of them at or above the threshold.

    Raises
    ------
    SettingsError
        More than that.
    """
    rows = np.flatnonzero(first >= 0)
    order = rows[np.argsort(first[rows], kind="stable")]
    owner = first[order]
    start = np.searchsorted(owner, np.arange(len(first) + 1))
    size = np.diff(start)
    total = near = int((size * (size - 1) // 2).sum())
    _refuse(total, most)
    for key in keys:
        added, alike = _of_part(run, key, order, start, size, most - total, threshold)
        total, near = total + added, near + alike
    parts = []
    for at in np.flatnonzero(size > 1).tolist():
        group = order[start[at] : start[at + 1]]
        i, j = np.triu_indices(len(group), 1)
        parts.append(np.stack([group[i], group[j]]))
    if parts:
        a, b = np.concatenate(parts, axis=1)
        table = pd.DataFrame({"a": np.minimum(a, b), "b": np.maximum(a, b), "similarity": 1.0, "source": "exact"})
        _write(run, "copies", table, run.read_part("pairs", run.parts("pairs")[0]).schema)
    return total, near


def _refuse(total: int, most: int) -> None:
    if total > most:
        raise SettingsError(
            f"exact duplicates make {total:,} pairs, more than candidates.max_pairs = {most:,}",
            "Remove exact duplicates first (method wavelet does), or raise the bound.",
        )


def _of_part(
    run: Run, key: str, order: np.ndarray, start: np.ndarray, size: np.ndarray, room: int, threshold: float
) -> tuple[int, int]:
    """The pairs of copies for the pairs of one part."""
    a, b = (np.asarray(column) for column in run.read_part("pairs", key, ["a", "b"]).columns)
    count = size[a] * size[b]
    some = np.flatnonzero(count > 1)
    if not some.size:
        return 0, 0
    count = count[some]
    added = int(count.sum()) - len(some)
    _refuse(added, room)
    table = run.read_part("pairs", key)
    at = np.repeat(some, count)
    step = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    one, other = order[start[a[at]] + step // size[b[at]]], order[start[b[at]] + step % size[b[at]]]
    fresh = (one != a[at]) | (other != b[at])
    frame = table.take(pa.array(at[fresh])).to_pandas()
    frame["a"], frame["b"] = np.minimum(one, other)[fresh], np.maximum(one, other)[fresh]
    _write(run, f"copies-{key}", frame, table.schema)
    return added, int((frame["similarity"] >= threshold).sum())


def _write(run: Run, key: str, frame: pd.DataFrame, schema: pa.Schema) -> None:
    frame = frame.reindex(columns=schema.names).sort_values(["a", "b"])
    run.write_part("pairs", key, pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
