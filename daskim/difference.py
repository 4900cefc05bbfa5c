"""What differs between two finished runs: images, decisions, families, influential groups and settings.

Images are told by their ids. A *family* is a kept image with those that were dropped for it; an *influential group* is
a cluster of alike images of several labels. Groups of the two runs that share an image, directly or by way of others,
are one change: it is `new` where only the second run has groups there, `gone` where only the first has, `changed` where
both have and they are not the same one group (the same ids and, of a family, the same kept image), and not told where
they are. So a family that was split, merged or given another kept image is one change, seen from either side alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from daskim.kernels.ward import components
from daskim.results import FinishedRun
from daskim.statuses import READABLE

__all__ = ["KINDS", "Difference", "GroupChange", "difference"]

# The parts of a difference that are lists, in the order in which they are told.
KINDS = (
    "settings",
    "images_added",
    "images_removed",
    "newly_broken",
    "newly_readable",
    "decisions",
    "families",
    "influential",
)


@dataclass(frozen=True)
class GroupChange:
    """Groups of the two runs that share images.

    Attributes
    ----------
    change : {"new", "gone", "changed"}
    before, after : list of {"kept": id or None, "ids": list of str}
        Groups of the first run and of the second, by their first id; ids sorted.
    """

    change: str
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]


@dataclass(frozen=True)
class Difference:
    """What differs; each list is sorted.

    Attributes
    ----------
    settings : list of {"key", "before", "after"}
        Of `settings.toml`; also the version of daskim, as "daskim".
    images : dict
        Counts: before, after, common.
    images_added, images_removed : list of str
        Ids of the second run only, and of the first only.
    newly_broken, newly_readable : list of {"id", "before", "after", "reason"}
        Status of an image of both runs, and the reason that the second run (of newly_readable the first) gives.
    decisions : list of {"id", "before", "after", "kept_before", "kept_after"}
        Images of both runs that are kept, dropped or to be reviewed differently, or dropped for another image.
    families, influential : list of GroupChange
    notes : list of str
        What could not be compared, and why.
    """

    settings: list[dict[str, Any]]
    images: dict[str, int]
    images_added: list[str]
    images_removed: list[str]
    newly_broken: list[dict[str, str]]
    newly_readable: list[dict[str, str]]
    decisions: list[dict[str, Any]] = field(default_factory=list)
    families: list[GroupChange] = field(default_factory=list)
    influential: list[GroupChange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """Numbers for a summary: images, and the length of each list, of groups by kind of change."""
        found: dict[str, Any] = {"images": dict(self.images)}
        for kind in KINDS:
            listed = getattr(self, kind)
            if kind in ("families", "influential"):
                found[kind] = {change: sum(g.change == change for g in listed) for change in ("new", "gone", "changed")}
            else:
                found[kind] = len(listed)
        found["dropped"] = sum(entry["after"] == "drop" != entry["before"] for entry in self.decisions)
        found["no_longer_dropped"] = sum(entry["before"] == "drop" != entry["after"] for entry in self.decisions)
        return found

    @property
    def empty(self) -> bool:
        """Whether nothing differs, the settings apart."""
        return not any(getattr(self, kind) for kind in KINDS if kind != "settings")

    def rows(self) -> Iterator[dict[str, str]]:
        """All of it as flat rows: kind, change, name, before, after. Groups and settings are JSON."""
        for entry in self.settings:
            yield _row("settings", "changed", entry["key"], _json(entry["before"]), _json(entry["after"]))
        for kind, change in (("images_added", "new"), ("images_removed", "gone")):
            for name in getattr(self, kind):
                yield _row(kind, change, name)
        for kind in ("newly_broken", "newly_readable", "decisions"):
            for entry in getattr(self, kind):
                yield _row(kind, "changed", entry["id"], entry["before"], entry["after"])
        for kind in ("families", "influential"):
            for group in getattr(self, kind):
                first = min(ids["ids"][0] for ids in [*group.before, *group.after])
                yield _row(kind, group.change, first, _json(group.before), _json(group.after))


def _row(kind: str, change: str, name: str, before: str = "", after: str = "") -> dict[str, str]:
    return {"kind": kind, "change": change, "name": name, "before": before, "after": after}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def difference(one: FinishedRun, two: FinishedRun) -> Difference:
    """What the second run says otherwise than the first.

    Notes
    -----
    Memory: a few columns of the tables `images` and `plan` of both runs.
    """
    columns = ["id", "status", "reason"]
    before, after = (run.present(columns).set_index("id") for run in (one, two))
    common = before.index.intersection(after.index)
    broken, readable = _statuses(before.loc[common], after.loc[common])
    found = Difference(
        settings=_settings(one, two),
        images={"before": len(before), "after": len(after), "common": len(common)},
        images_added=sorted(after.index.difference(before.index)),
        images_removed=sorted(before.index.difference(after.index)),
        newly_broken=broken,
        newly_readable=readable,
    )
    if not len(common) and len(before) and len(after):
        found.notes.append("the runs have not one image in common: ids are paths below the INPUT")
    if one.summary.get("method") != two.summary.get("method"):
        ways = f"{one.summary.get('method')} and {two.summary.get('method')}"
        found.notes.append(f"the runs used different methods ({ways}): similarities are not compared")
    if _both(one, two, "plan", "decisions and families", found.notes):
        plans = [run.table("plan", ["id", "decision", "kept_id"]) for run in (one, two)]
        found.decisions.extend(_decisions(*plans))
        found.families.extend(_changes(*(_families(plan) for plan in plans)))
    if _both(one, two, "influential", "influential groups", found.notes):
        groups = [_influential(run.table("influential", ["id", "cluster"])) for run in (one, two)]
        found.influential.extend(_changes(*groups))
    return found


def _both(one: FinishedRun, two: FinishedRun, table: str, what: str, notes: list[str]) -> bool:
    """Whether both runs have a table; notes what cannot be compared without it."""
    lacking = [name for name, run in (("the first run", one), ("the second run", two)) if not run.has(table)]
    if lacking:
        notes.append(f"{' and '.join(lacking)} made no table {table}: {what} are not compared")
    return not lacking


def _settings(one: FinishedRun, two: FinishedRun) -> list[dict[str, Any]]:
    values = [
        {"daskim": run.summary.get("daskim"), **_flat(run.settings.model_dump(mode="json"))} for run in (one, two)
    ]
    keys = sorted(set(values[0]) | set(values[1]))
    pairs = [(key, values[0].get(key), values[1].get(key)) for key in keys]
    return [{"key": key, "before": was, "after": now} for key, was, now in pairs if was != now]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def _statuses(before: pd.DataFrame, after: pd.DataFrame) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Images of both runs that are broken in the second only, and in the first only; tables are by id, aligned."""
    was, now = before["status"].isin(READABLE), after["status"].isin(READABLE)
    lists = []
    for chosen, source in ((was & ~now, after), (~was & now, before)):
        table = pd.DataFrame(
            {"before": before["status"], "after": after["status"], "reason": source["reason"].fillna("")}
        )[chosen]
        lists.append(table.rename_axis("id").reset_index().sort_values("id").to_dict("records"))
    return lists[0], lists[1]


def _decisions(before: pd.DataFrame, after: pd.DataFrame) -> list[dict[str, Any]]:
    table = before.merge(after, on="id", suffixes=("_before", "_after"), validate="1:1")
    kept = table[["kept_id_before", "kept_id_after"]].fillna("")
    changed = table["decision_before"].ne(table["decision_after"]) | kept.iloc[:, 0].ne(kept.iloc[:, 1])
    table = table[changed].sort_values("id").astype(object)
    table = table.where(table.notna(), None)
    names = {
        "decision_before": "before",
        "decision_after": "after",
        "kept_id_before": "kept_before",
        "kept_id_after": "kept_after",
    }
    return table.rename(columns=names)[["id", *names.values()]].to_dict("records")


def _families(plan: pd.DataFrame) -> pd.DataFrame:
    """Members of families: id, kept; the kept image is a member of its own."""
    follows = plan.loc[plan["decision"].eq("drop") & plan["kept_id"].notna(), ["id", "kept_id"]].astype(object)
    kept = follows["kept_id"].unique()
    heads = pd.DataFrame({"id": kept, "kept": kept}, dtype=object)
    members = pd.concat([follows.rename(columns={"kept_id": "kept"}), heads], ignore_index=True)
    return members.assign(group=pd.factorize(members["kept"])[0])


def _influential(table: pd.DataFrame) -> pd.DataFrame:
    """Members of influential groups: id, kept (None), group."""
    return pd.DataFrame({"id": table["id"].astype(object), "kept": None, "group": pd.factorize(table["cluster"])[0]})


def _changes(before: pd.DataFrame, after: pd.DataFrame) -> list[GroupChange]:
    """Changes among groups (id, kept, group), by their first id."""
    sides = [before, after.assign(group=after["group"] + before["group"].max() + 1 if len(before) else after["group"])]
    members = pd.concat([side.assign(side=index) for index, side in enumerate(sides)], ignore_index=True)
    if members.empty:
        return []
    # groups that hold one image are joined by way of the first of them
    first = members.groupby("id", sort=False)["group"].transform("first").to_numpy(dtype=np.int64)
    group = members["group"].to_numpy(dtype=np.int64)
    members["part"] = components(int(group.max()) + 1, group, first)[group]
    found = []
    for _, part in members.groupby("part", sort=False):
        was, now = (_told(part[part["side"] == side]) for side in (0, 1))
        if was != now:
            found.append(GroupChange("changed" if was and now else "new" if now else "gone", was, now))
    return sorted(found, key=lambda change: min(entry["ids"][0] for entry in [*change.before, *change.after]))


def _told(members: pd.DataFrame) -> list[dict[str, Any]]:
    groups = [
        {"kept": group["kept"].iloc[0], "ids": sorted(group["id"].tolist())}
        for _, group in members.groupby("group", sort=False)
    ]
    return sorted(groups, key=lambda entry: entry["ids"][0])
