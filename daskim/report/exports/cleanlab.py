"""An issues table as cleanlab's Datalab has it (`Datalab.get_issues("near_duplicate")`), as CSV.

One row an image. `is_NAME_issue` is a flag; `NAME_score` lies between 0 and 1, and the lower it is, the more severe is
the issue, as in cleanlab: see
https://docs.cleanlab.ai/stable/cleanlab/datalab/guide/issue_type_description.html. CleanVision's columns have the same
meaning and plural names (is_near_duplicates_issue).

- row, id, label, split: the image.
- is_near_duplicate_issue: it has a pair at or above min_similarity (exact copies count, as in Datalab).
- near_duplicate_score: 1 - the highest similarity to another image, within 0 and 1; 1 where no pair is listed.
- near_duplicate_sets: JSON list of the rows that it is near to, the most alike first, at most `NEIGHBOURS`.
- distance_to_nearest_neighbor: 1 - the highest similarity; empty where no pair is listed.
- is_exact_duplicate_issue, exact_duplicate_score (0 or 1), exact_duplicate_sets: of equal bytes or equal pixels.
- is_label_conflict_issue, label_conflict_score (0 or 1): alike to an image of another label.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from daskim.report.files import put
from daskim.report.near import near_pairs
from daskim.results import FinishedRun

__all__ = ["NEIGHBOURS", "issues_of", "write"]

NEIGHBOURS = 100
# Pairs that sets are made of, the most alike first.
PAIRS = 5_000_000


def write(run: FinishedRun, path: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Write the table as CSV, quoted where needed, in UTF-8."""
    text = io.StringIO()
    issues_of(run).to_csv(text, index=False, lineterminator="\n")
    data = text.getvalue().encode("utf-8", "surrogatepass")
    return [put(data, path, "--export cleanlab", storage_options)]


def issues_of(run: FinishedRun) -> pd.DataFrame:
    """One row an image, in the order of the rows."""
    table = run.table("images", ["row", "id", "label", "split"]).sort_values("row", ignore_index=True)
    near = _neighbours(run)
    best = _best(run, len(table))
    table["is_near_duplicate_issue"] = [row in near for row in table["row"].tolist()]
    table["near_duplicate_score"] = np.clip(1.0 - np.where(np.isfinite(best), best, 0.0), 0.0, 1.0)
    table["near_duplicate_sets"] = [json.dumps(near.get(row, [])[:NEIGHBOURS]) for row in table["row"].tolist()]
    table["distance_to_nearest_neighbor"] = 1.0 - best
    equal = _equal(run)
    table["is_exact_duplicate_issue"] = [row in equal for row in table["row"].tolist()]
    table["exact_duplicate_score"] = np.where(table["is_exact_duplicate_issue"], 0.0, 1.0)
    table["exact_duplicate_sets"] = [json.dumps(equal.get(row, [])[:NEIGHBOURS]) for row in table["row"].tolist()]
    contested = _contested(run)
    table["is_label_conflict_issue"] = [row in contested for row in table["row"].tolist()]
    table["label_conflict_score"] = np.where(table["is_label_conflict_issue"], 0.0, 1.0)
    return table[table["row"].isin(run.present(["row"])["row"])].reset_index(drop=True)


def _neighbours(run: FinishedRun) -> dict[int, list[int]]:
    """Of each image those that it is near to, the most alike first; copies that a run does not pair are added."""
    found: dict[int, list[int]] = {}
    if run.has("pairs") or run.has("leakage"):
        pairs, _ = near_pairs(run, PAIRS)
        for a, b in zip(pairs["a"].to_pylist(), pairs["b"].to_pylist()):
            found.setdefault(a, []).append(b)
            found.setdefault(b, []).append(a)
    for row, others in _equal(run).items():
        held = found.setdefault(row, [])
        known = set(held)
        found[row] = [other for other in others if other not in known] + held
    return found


def _best(run: FinishedRun, n: int) -> np.ndarray:
    """Highest listed similarity of each image, NaN where none is; 1 for exact copies."""
    best = np.full(n, -np.inf)
    for table, names in (("pairs", ("a", "b")), ("leakage", ("row", "other_row"))):
        if not run.has(table):
            continue
        for batch in run.store.batches(table, [*names, "similarity"]):
            value = np.asarray(batch["similarity"], dtype=np.float64)
            for name in names:
                np.maximum.at(best, np.asarray(batch[name]), np.where(np.isfinite(value), value, -np.inf))
    for row in _equal(run):
        best[row] = 1.0
    return np.where(np.isfinite(best), best, np.nan)


def _equal(run: FinishedRun) -> dict[int, list[int]]:
    """Of each exact duplicate the others of its group."""
    if not run.has("exact"):
        return {}
    found: dict[int, list[int]] = {}
    table = run.table("exact", ["row", "group"])
    for rows in table.groupby("group")["row"].apply(list):
        for row in rows:
            found[int(row)] = [int(other) for other in rows if other != row]
    return found


def _contested(run: FinishedRun) -> set[int]:
    rows: set[int] = set()
    if run.has("influential"):
        rows |= set(run.table("influential", ["row"])["row"].tolist())
    if run.has("leakage"):
        found = run.table("leakage", ["row", "other_row", "agreement"])
        found = found[found["agreement"] == "conflict"]
        rows |= set(found["row"].tolist()) | set(found["other_row"].tolist())
    return rows
