"""The plan and the near-duplicate pairs as CSV: PATH, and beside it PATH-pairs.csv.

Plan (a row an image): row, id, uri, label, split, status, and where the run planned decision, kept_id, similarity,
rule, cluster. Pairs: a_id, b_id, similarity, a, b; those at or above min_similarity, in the order of the run. UTF-8,
quoted where needed. Ids are as the source has them, so that they can be looked up: a spreadsheet may take one that
begins with = for a formula, so import the column as text.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from daskim.report.files import put
from daskim.report.near import near_batches
from daskim.results import FinishedRun

__all__ = ["pairs_of", "plan_of", "write"]


def write(run: FinishedRun, path: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Write both files."""
    stem, ending = os.path.splitext(path)
    return [
        put(_text(table), target, "--export csv", storage_options)
        for table, target in ((plan_of(run), path), (pairs_of(run), f"{stem}-pairs{ending or '.csv'}"))
    ]


def plan_of(run: FinishedRun) -> pd.DataFrame:
    """One row an image, in the order of the rows."""
    table = run.present(["row", "id", "uri", "label", "split", "status"])
    if run.has("plan"):
        plan = run.table("plan", ["row", "decision", "kept_id", "similarity", "rule", "cluster"])
        table = table.merge(plan, on="row", how="left", validate="one_to_one")
    return table.sort_values("row", ignore_index=True)


def pairs_of(run: FinishedRun) -> pd.DataFrame:
    """Near-duplicate pairs with their ids."""
    parts = []
    if run.has("pairs") or run.has("leakage"):
        parts = [batch.to_pandas() for batch in near_batches(run)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"a": [], "b": [], "similarity": []})
    images = run.table("images", ["row", "id"]).sort_values("row")
    ids = images["id"].to_numpy(dtype=object)
    for side in ("a", "b"):
        table[f"{side}_id"] = ids[table[side].to_numpy(dtype=np.int64)]
    return table[["a_id", "b_id", "similarity", "a", "b"]]


def _text(table: pd.DataFrame) -> bytes:
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    return text.getvalue().encode("utf-8", "surrogatepass")
