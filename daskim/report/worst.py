"""The few findings that a comment or a JSON report names: leaks, families, groups of differing labels, anomalies."""

from __future__ import annotations

from typing import Any

import pandas as pd

from daskim.results import FinishedRun
from daskim.statuses import READABLE

__all__ = ["LISTED", "MEMBERS", "worst_of"]

# Entries of a list, and ids of one entry, at most.
LISTED = 20
MEMBERS = 5


def worst_of(run: FinishedRun, most: int = LISTED) -> dict[str, list[dict[str, Any]]]:
    """At most so many entries of each list, the worst first; plain Python values, ids as they are.

    Returns
    -------
    dict
        leaks: id, split, label, other_id, other_split, other_label, similarity, kind, agreement; conflicts first.
        families: kept_id, label, images (with the kept one), ids of some that may go, similarity (the lowest); the
        largest first. influential: cluster, images, labels, ids of some; the largest first. anomalies: id, label,
        nearest_id, similarity, score. broken: id, status, reason.
    """
    return {
        "leaks": _leaks(run, most),
        "families": _families(run, most),
        "influential": _influential(run, most),
        "anomalies": _anomalies(run, most),
        "broken": _broken(run, most),
    }


def _leaks(run: FinishedRun, most: int) -> list[dict[str, Any]]:
    if not run.has("leakage"):
        return []
    names = ["id", "split", "label", "other_id", "other_split", "other_label", "similarity", "kind", "agreement"]
    table = run.table("leakage", [*names, "row", "rank"])
    table = table[table["rank"] == 1].assign(rest=table["agreement"] != "conflict")
    return _records(table.sort_values(["rest", "similarity", "row"], ascending=[True, False, True])[names], most)


def _families(run: FinishedRun, most: int) -> list[dict[str, Any]]:
    if not run.has("plan"):
        return []
    plan = run.table("plan", ["row", "id", "label", "decision", "kept_id", "similarity"])
    gone = plan[(plan["decision"] == "drop") & plan["kept_id"].notna()]
    size = gone.groupby("kept_id", sort=False)["row"].agg(["size", "min"])
    found = []
    for kept in size.sort_values(["size", "min"], ascending=[False, True]).index[:most]:
        members = gone[gone["kept_id"] == kept].sort_values("row")
        found.append(
            {
                "kept_id": str(kept),
                "label": _plain(members["label"].iloc[0]),
                "images": len(members) + 1,
                "ids": members["id"].head(MEMBERS).tolist(),
                "similarity": _plain(members["similarity"].min()),
            }
        )
    return found


def _influential(run: FinishedRun, most: int) -> list[dict[str, Any]]:
    if not run.has("influential"):
        return []
    table = run.table("influential", ["row", "id", "cluster", "label"])
    size = table.groupby("cluster")["row"].agg(["size", "min"])
    found = []
    for cluster in size.sort_values(["size", "min"], ascending=[False, True]).index[:most]:
        members = table[table["cluster"] == cluster].sort_values("row")
        labels = sorted(members["label"].dropna().astype(str).unique())
        some = members.drop_duplicates("label")  # an image of each label says more than five of one
        ids = [*some["id"], *members["id"]]
        found.append(
            {
                "cluster": int(cluster),
                "images": len(members),
                "labels": labels[: 2 * MEMBERS],
                "ids": list(dict.fromkeys(ids))[:MEMBERS],
            }
        )
    return found


def _anomalies(run: FinishedRun, most: int) -> list[dict[str, Any]]:
    if not run.has("anomalies"):
        return []
    return _records(run.table("anomalies", ["id", "label", "nearest_id", "similarity", "score", "by"]), most)


def _broken(run: FinishedRun, most: int) -> list[dict[str, Any]]:
    table = run.present(["row", "id", "status", "reason"])
    bad = table[~table["status"].isin(READABLE)].sort_values("row")
    return _records(bad[["id", "status", "reason"]], most)


def _records(table: pd.DataFrame, most: int) -> list[dict[str, Any]]:
    return [{str(key): _plain(value) for key, value in row.items()} for row in table.head(most).to_dict("records")]


def _plain(value: Any) -> Any:
    """None where there is nothing; Python's own numbers."""
    if value is None or value is pd.NA or value != value:
        return None
    return value.item() if hasattr(value, "item") else value
