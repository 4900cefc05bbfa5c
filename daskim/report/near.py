"""The near-duplicate pairs of a run, whatever its method."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daskim.results import FinishedRun

__all__ = ["measure", "near_batches", "near_pairs", "threshold"]

# Pairs that are held, the most alike first.
HELD = 200_000


def threshold(run: FinishedRun) -> float:
    """From where on the run took two images for near-duplicates; -1 where it had no such bound."""
    for section in ("similarities", "leakage", "plan"):
        value = (run.summary.get(section) or {}).get("min_similarity")
        if value is not None:
            return float(value)
    return -1.0


def measure(run: FinishedRun) -> str:
    """Name of the similarity that the run's pairs have."""
    for section, key in (("similarities", "name"), ("leakage", "similarity"), ("plan", "verify")):
        name = (run.summary.get(section) or {}).get(key)
        if name:
            return str(name)
    return "similarity"


def near_batches(run: FinishedRun) -> Iterator[pa.Table]:
    """Pairs at or above the threshold: a, b (a < b), similarity; in the order of the run, in pieces.

    Of a run of `compare` those of `leakage`: of an image of one split and one of another.
    """
    table, names = ("pairs", ["a", "b", "similarity"])
    if run.has("leakage"):
        table, names = ("leakage", ["row", "other_row", "similarity"])
    least = threshold(run)
    for batch in run.store.batches(table, names):
        a, b = (np.asarray(batch[name], dtype=np.int64) for name in names[:2])
        value = np.asarray(batch["similarity"], dtype=np.float64)
        near = value >= least
        low, high = np.minimum(a, b)[near], np.maximum(a, b)[near]
        yield pa.table({"a": low, "b": high, "similarity": value[near]})


def near_pairs(run: FinishedRun, most: int = HELD) -> tuple[pa.Table, int]:
    """At most so many pairs, the most alike first, each once; and how many there are in all."""
    held, total = _none(), 0
    for batch in near_batches(run):
        total += batch.num_rows
        held = pa.concat_tables([held, batch])
        if held.num_rows > 2 * most:
            held = _first(held, most)
    return _first(held, most), total


def _none() -> pa.Table:
    return pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.int64()), "similarity": pa.array([], "f8")})


def _first(table: pa.Table, most: int) -> pa.Table:
    order = [("similarity", "descending"), ("a", "ascending"), ("b", "ascending")]
    return table.take(pc.sort_indices(table, sort_keys=order)[:most])
