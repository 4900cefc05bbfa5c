"""What became of every image, and the broken files: the page's two lists of text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daskim.results import FinishedRun
from daskim.statuses import DELETED, READABLE

__all__ = ["BROKEN", "LISTED", "broken_files", "decisions"]

# Images that the list of decisions holds, and broken files, at most.
LISTED = 100_000
BROKEN = 2_000


def broken_files(run: FinishedRun) -> tuple[list[dict[str, Any]], int]:
    """id, status, reason of the first `BROKEN` images that cannot be read, and how many there are."""
    found: list[dict[str, Any]] = []
    total = 0
    below = run.store.below()
    first = 0 if below is None else below[1]  # those of the run that this one is against are told there
    no_matter = pa.array([*READABLE, DELETED], pa.string())
    for batch in run.store.batches("images", ["row", "id", "label", "split", "status", "reason"]):
        inside = batch.filter(pc.invert(pc.is_in(batch["status"], no_matter)))
        inside = inside.filter(pc.greater_equal(inside["row"], first))
        total += inside.num_rows
        found += inside.slice(0, max(0, BROKEN - len(found))).to_pylist()
    return found, total


def decisions(run: FinishedRun, most: int = LISTED) -> tuple[dict[str, Any], int]:
    """The plan as columns: of a large set the images of which something is to be told, the first of them.

    Parameters
    ----------
    most : int
        Images at most.

    Returns
    -------
    columns : dict
        id, label, split, decision, rule (numbers into `texts`), kept (a number into `ids`, -1 for none), similarity.
    total : int
        Images of the run.
    """
    names = ["id", "label", "split", "decision", "rule", "kept_id", "similarity"]
    total = int(run.summary["n_images"])
    parts, room = [], most
    if run.has("plan"):
        for batch in run.store.batches("plan", names):
            some = batch if total <= most else batch.filter(pc.not_equal(batch["rule"], "single"))
            parts.append(some.slice(0, room))
            room -= parts[-1].num_rows
            if not room:
                break
    if not parts:
        return {"ids": [], "texts": [], "columns": {}}, total
    return _columns(pa.concat_tables(parts)), total


def _columns(table: pa.Table) -> dict[str, Any]:
    ids: list[str] = table["id"].to_pylist()
    place = {name: at for at, name in enumerate(ids)}
    kept = []
    for name in table["kept_id"].to_pylist():
        if name is not None and name not in place:
            place[name] = len(ids)
            ids.append(name)
        kept.append(-1 if name is None else place[name])
    texts: dict[str, int] = {}
    columns: dict[str, list[int] | list[float | None]] = {}
    for name in ("label", "split", "decision", "rule"):
        columns[name] = [
            -1 if value is None else texts.setdefault(str(value), len(texts)) for value in table[name].to_pylist()
        ]
    similarity = np.asarray(table["similarity"].cast(pa.float64()).fill_null(np.nan))
    columns["kept"] = kept
    columns["similarity"] = [None if value != value else round(value, 4) for value in similarity.tolist()]
    return {"ids": ids, "texts": list(texts), "columns": columns, "count": table.num_rows}
