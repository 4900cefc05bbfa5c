"""The table of pairs after a delivery: what is left of it, and what it holds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from daskim.kept import parts_of
from daskim.stages import Change
from daskim.store import Run

__all__ = ["forget_older", "listed_in", "still_candidates"]


def still_candidates(run: Run, keys: list[str], change: Change) -> None:
    """Take from parts of the table `pairs` those that the delivery left no candidates, or whose images are others."""
    n = run.array("images").shape[0]
    found = [np.zeros(0, dtype=np.int64)]
    for key in parts_of(run, "candidates", f"{change.mark}-old-"):
        a, b = (np.asarray(column) for column in run.read_part("candidates", key, ["a", "b"]).columns)
        found.append(a * n + b)
    codes = np.sort(np.concatenate(found))
    for key in keys:
        a, b = (np.asarray(column) for column in run.read_part("pairs", key, ["a", "b"]).columns)
        mine = a * n + b
        at = np.minimum(np.searchsorted(codes, mine), max(0, len(codes) - 1))
        stay = codes[at] == mine if len(codes) else np.zeros(len(mine), dtype=bool)
        if not stay.all():
            run.write_part("pairs", key, run.read_part("pairs", key).filter(pa.array(stay)))


def forget_older(run: Run, mark: str) -> None:
    """Remove what deliveries before `mark` left for it: candidates, and lists of neighbours."""
    current = set(parts_of(run, "candidates", mark))
    for key in run.parts("candidates"):
        if key not in current:
            run.remove("tables", "candidates", f"{key}.parquet")
    for key in run.parts("neighbours"):
        if not key.startswith(mark):
            run.remove("tables", "neighbours", f"{key}.parquet")
    for name in run.names("frozen", "candidates"):
        if name.endswith("-searched.npy") and not name.startswith(mark):
            run.remove("frozen", "candidates", name)


def listed_in(run: Run, keys: list[str], threshold: float) -> tuple[int, int]:
    """Pairs in some parts of the table, and those of them at or above a similarity."""
    listed = near = 0
    for key in keys:
        similarity = np.asarray(run.read_part("pairs", key, ["similarity"])["similarity"])
        listed, near = listed + len(similarity), near + int((similarity >= threshold).sum())
    return listed, near
