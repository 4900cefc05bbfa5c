"""What a plan found of what was planted in the demo set."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from daskim.errors import SettingsError, nearest
from daskim.statuses import READABLE
from daskim.synthetic.demo import KINDS

__all__ = ["score_demo"]


def _root_of(plan: pd.DataFrame) -> Callable[[str], str]:
    """A function from an id to the image that stands for it, by following kept_id of dropped images."""
    dropped = plan[plan["decision"] == "drop"]
    keeper = dict(zip(dropped["id"], dropped["kept_id"]))

    def root(name: str) -> str:
        seen = {name}
        # A missing kept_id reads as None or nan, which is no str.
        while isinstance(above := keeper.get(name), str) and above:
            if above in seen:
                raise ValueError(f"plan: kept_id runs in a circle at {above!r}")
            seen.add(above)
            name = above
        return name

    return root


def _found(truth: pd.DataFrame, plan: pd.DataFrame, influential: pd.DataFrame, images: pd.DataFrame) -> list[bool]:
    """For each row of the truth whether it was found, by the rules of `score_demo`."""
    root = _root_of(plan)
    status = dict(zip(images["id"], images["status"]))
    clusters: dict[str, set[object]] = {}
    for name, cluster in zip(influential["id"], influential["cluster"]):
        clusters.setdefault(name, set()).add(cluster)

    def one(name: str, original: str, kind: str) -> bool:
        if kind == "flat":
            return status.get(name) == "flat"
        if kind == "broken":
            return status.get(name, "ok") not in READABLE
        if kind == "relabelled":
            return bool(clusters.get(name, set()) & clusters.get(original, set()))
        return root(name) == root(original)  # equal only if at least one of them is dropped

    return [one(*row) for row in zip(truth["id"], truth["original"], truth["kind"])]


def score_demo(
    truth: pd.DataFrame, plan: pd.DataFrame, influential: pd.DataFrame, images: pd.DataFrame
) -> pd.DataFrame:
    """What a run on the demo set found of what was planted.

    Found means, by kind: copy, recoded, jpeg, noise, brightness, contrast, shift: at least one of {planted,
    original} is dropped, and both come to the same kept image when kept_id is followed; relabelled: both are
    in `influential` under the same cluster; flat: the status is "flat"; broken: the status is neither "ok"
    nor "flat", and present.

    Parameters
    ----------
    truth : DataFrame
        Columns id, original, kind, as `write_demo` returns or writes it.
    plan : DataFrame
        Columns id, decision (keep, drop, review), kept_id (missing or "" unless dropped); others are not
        read.
    influential : DataFrame
        Columns id, cluster.
    images : DataFrame
        Columns id, status. An id that is absent counts as not found.

    Returns
    -------
    DataFrame
        Columns kind, planted (int), found (int), recall (found / planted; nan when nothing was planted). A
        row for each of `KINDS`, then two rows of damage whose planted is 0: "lost pairs" (planted edits of
        the first seven kinds that were dropped together with their original: a third image stands for both)
        and "false drops" (dropped images that are neither planted nor an original of something planted).

    Raises
    ------
    SettingsError
        If a table lacks a column, or the truth names a kind that is not in `KINDS`.
    ValueError
        If kept_id runs in a circle.
    """
    wanted = {
        "truth": (truth, ("id", "original", "kind")),
        "plan": (plan, ("id", "decision", "kept_id")),
        "influential": (influential, ("id", "cluster")),
        "images": (images, ("id", "status")),
    }
    for name, (table, columns) in wanted.items():
        if missing := [column for column in columns if column not in table.columns]:
            raise SettingsError(
                f"score_demo: the table {name} has no column {' and '.join(missing)}.",
                f"It needs {', '.join(columns)}.",
            )
    if unknown := sorted(set(truth["kind"]) - set(KINDS)):
        raise SettingsError(f"score_demo: the truth names the kind {unknown[0]!r}.", nearest(str(unknown[0]), KINDS))
    planted = truth["kind"].value_counts()
    found = truth.loc[_found(truth, plan, influential, images), "kind"].value_counts()
    dropped = set(plan.loc[plan["decision"] == "drop", "id"])
    in_pair = ~truth["kind"].isin(("relabelled", "flat", "broken"))
    lost = int((in_pair & truth["id"].isin(dropped) & truth["original"].isin(dropped)).sum())
    false_drops = len(dropped - set(truth["id"]) - set(truth["original"]))

    rows = [(kind, int(planted.get(kind, 0)), int(found.get(kind, 0))) for kind in KINDS]
    rows += [("lost pairs", 0, lost), ("false drops", 0, false_drops)]
    table = pd.DataFrame(rows, columns=["kind", "planted", "found"])
    table["recall"] = table["found"] / table["planted"].where(table["planted"] > 0)
    return table
