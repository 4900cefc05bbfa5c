"""What both methods decide alike: who is asked in which order, the rules that a decision is told by, and the tables."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.errors import GuardTripped, SettingsError
from daskim.kept import order_of
from daskim.settings import Plan
from daskim.stages import Context
from daskim.statuses import DELETED, READABLE
from daskim.store import Run

__all__ = [
    "ROW_BYTES",
    "STAGE_NAME",
    "Asked",
    "asked_of",
    "asking_order",
    "begin",
    "check_splits",
    "guard",
    "min_per_class",
    "plan_hash",
    "settle",
    "table_of",
    "write",
    "write_plan",
]

STAGE_NAME = "plan"
# What the driver holds of an image at most: 870 were measured, with ids of 29 letters and addresses of 45.
ROW_BYTES = 1_200
# Lines that are written, and rows that are hashed, as Python strings at a time.
LINES = 65_536
IMAGE_COLUMNS = ["row", "id", "uri", "label", "split", "width", "height", "mtime", "status"]


def plan_hash(plan: pd.DataFrame) -> str:
    """SHA-256 over id, decision, kept_id and rule, sorted by id. No floats, so rounding cannot change it."""
    digest = hashlib.sha256()
    order = plan["id"].argsort(kind="stable").to_numpy()
    for start in range(0, len(order), LINES):
        part = plan[["id", "decision", "kept_id", "rule"]].iloc[order[start : start + LINES]]
        for parts in zip(*(part[name].tolist() for name in part)):
            words = "\t".join("" if p is None or p is pd.NA or p != p else str(p) for p in parts)
            digest.update((words + "\n").encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Asked:
    """The images that may follow another one.

    Attributes
    ----------
    rows : ndarray, shape (k,), int64
        In the order in which they are asked, party by party.
    party : ndarray, shape (k,), int64
        Number from 0 on of the group of images that may stand for one another; ascending, each more than once.
    fixed : ndarray, shape (k,), bool
        Protected, or kept before a delivery: may lead and never follow.
    """

    rows: np.ndarray
    party: np.ndarray
    fixed: np.ndarray


def table_of(context: Context) -> pd.DataFrame:
    """One row an image, with all that a decision needs; `kept_row`, `rms` and `similarity` are still empty."""
    run = context.run
    table = run.read_table("images", IMAGE_COLUMNS).to_pandas()
    clusters = run.read_table("clusters", ["row", "cluster", "size", "distance"]).to_pandas()
    exact = run.read_table("exact", ["row", "group"]).to_pandas()
    table = table.merge(clusters, on="row", how="left", validate="1:1")
    table = table.merge(exact.rename(columns={"group": "exact_group"}), on="row", how="left")
    table["exact_group"] = table["exact_group"].fillna(-1).astype("int64")
    table = table.sort_values("row", ignore_index=True)
    table["place"] = order_of(run, len(table))
    table["protected"] = table["split"].isin(list(context.settings.plan.protect))
    stay = context.stay if context.stay is not None and context.settings.plan.stay else np.zeros(0, dtype=np.int64)
    table["stays"] = table["row"].isin(stay)
    empty = {"decision": "keep", "rule": "single", "kept_row": -1, "rms": np.nan, "similarity": np.nan, "labels": ""}
    return table.assign(**empty)


def check_splits(settings: Plan, table: pd.DataFrame) -> None:
    """Refuse a split that does not occur: a protection that protects nothing is a mistake.

    Raises
    ------
    SettingsError
    """
    words = settings.policy.split()
    named = list(settings.protect) + (words[1:] if words[0] == "prefer-split" else [])
    there = sorted(table["split"].dropna().unique().tolist())
    for name in named:
        if name not in there:
            what = f"splits here: {', '.join(there)}" if there else "no image of this set has a split"
            raise SettingsError(f"no image has split {name!r} (plan.protect, plan.policy)", what[:1].upper() + what[1:])


def begin(table: pd.DataFrame, flat: str) -> None:
    """Everything but who follows whom: broken, flat, single and mixed clusters.

    Flat images say nothing about their labels: with `plan.flat = keep` they stay as they are.
    """
    broken = ~table["status"].isin(READABLE)
    table.loc[broken, ["decision", "rule"]] = ["review", "broken"]
    table.loc[table["status"] == "flat", "rule"] = "flat"
    apart = broken | (table["status"] == "flat") if flat == "keep" else broken
    several = table[(table["size"] > 1) & ~apart]
    labels = several.dropna(subset=["label"]).groupby("cluster")["label"].agg(lambda group: sorted(set(group)))
    mixed = labels[labels.map(len) > 1]
    inside = table["cluster"].isin(mixed.index) & (table["size"] > 1) & ~apart
    table.loc[inside, "labels"] = table.loc[inside, "cluster"].map(mixed.map(" | ".join))
    table.loc[inside, "rule"] = "influential"


def asking_order(members: pd.DataFrame, policy: str) -> np.ndarray:
    """Positions that put the images of each cluster together, the one to be kept first; ties go to the first listed.

    Parameters
    ----------
    members : DataFrame
        cluster, part (of the cluster), place (in the listing), distance, width, height, mtime, split, protected, stays.
    policy : str
        See `plan.policy`. Protected images and those that stay come first: they are kept in any case.
    """
    words = policy.split()
    keys = {
        "centre": members["distance"],
        "first": members["place"],
        "largest": -(members["width"].astype("int64") * members["height"].astype("int64")),
        "newest": -members["mtime"].fillna(-np.inf),
        "prefer-split": members["split"].ne(words[-1]),
    }
    protected = ~(members["protected"] | members["stays"]).to_numpy(dtype=bool)
    return np.lexsort(
        (members["place"], members["distance"], keys[words[0]], protected, members["part"], members["cluster"])
    )


def asked_of(table: pd.DataFrame, settings: Plan) -> Asked:
    """Who is asked: the members of clusters of one label; of flat images those with an exact copy, if at all."""
    flat = table["status"] == "flat"
    eligible = (table["size"] > 1) & (table["rule"] == "single")
    if settings.flat == "exact":
        eligible |= (table["size"] > 1) & (table["rule"] == "flat") & (table["exact_group"] >= 0)
    members = table[eligible].assign(part=table["exact_group"].where(flat, -1)[eligible])
    members = members.iloc[asking_order(members, settings.policy)]
    key = members[["cluster", "part"]].to_numpy()
    party = np.cumsum((np.diff(key, axis=0, prepend=-2) != 0).any(axis=1)) - 1
    several = np.bincount(party, minlength=1)[party] > 1
    party = np.unique(party[several], return_inverse=True)[1].astype(np.int64)
    members = members[several]
    fixed = (members["protected"] | members["stays"]).to_numpy(dtype=bool)
    return Asked(members["row"].to_numpy(dtype=np.int64), party, fixed)


def settle(table: pd.DataFrame, by_verdict: np.ndarray) -> None:
    """Decision and rule of the images that were asked: those with a `kept_row`, their own for a leader.

    `by_verdict` are the rows that follow because a person said so.
    """
    inside = table["kept_row"] >= 0
    follows = inside & (table["kept_row"] != table["row"])
    has_followers = table["row"].isin(table.loc[follows, "kept_row"])
    table.loc[inside & ~follows, "rule"] = np.where(has_followers[inside & ~follows], "kept", "apart")
    table.loc[inside & ~follows & table["protected"], "rule"] = "protected"
    table.loc[inside & ~follows & (table["status"] == "flat"), "rule"] = "flat"
    group = table["exact_group"].to_numpy()
    kept = table["kept_row"].to_numpy()
    same = np.zeros(len(table), dtype=bool)
    same[follows] = (group[follows] >= 0) & (group[follows] == group[kept[follows]])
    table.loc[follows, "decision"] = "drop"
    table.loc[follows, "rule"] = np.where(same[follows], "exact", "redundant")
    table.loc[by_verdict[~same[by_verdict]], "rule"] = "reviewed"
    table.loc[~follows, ["kept_row", "rms", "similarity"]] = [-1, np.nan, np.nan]


def min_per_class(table: pd.DataFrame, least: int) -> None:
    """Give dropped images back to classes that would fall below the minimum, the most different first."""
    if not least:
        return
    kept = table[table["decision"] == "keep"].groupby("label").size()
    for label, group in table[table["decision"] == "drop"].groupby("label"):
        missing = least - int(kept.get(label, 0))
        if missing > 0:
            # a similarity that is not known comes first; RMS tells apart what rounding made equal
            order = np.lexsort((group["place"], -group["rms"].fillna(0.0), group["similarity"].fillna(-np.inf)))
            back = group.index[order[:missing]]
            table.loc[back, ["decision", "rule"]] = ["keep", "min-per-class"]
            table.loc[back, ["kept_row", "rms", "similarity"]] = [-1, np.nan, np.nan]


FEWER = "Ask for more clusters, a smaller plan.max_rms, or raise --max-drop."


def guard(run: Run, table: pd.DataFrame, max_drop: float, remedy: str = FEWER) -> None:
    """End the run where the plan would drop more than asked for.

    Raises
    ------
    GuardTripped
    """
    readable = int((table["decision"] != "review").sum())
    dropped = int((table["decision"] == "drop").sum())
    if dropped > max_drop * readable:
        run.remove("state", STAGE_NAME, "blocks")  # the next attempt is not bound to this one's settings
        raise GuardTripped(
            f"the plan would drop {dropped} of {readable} images: more than plan.max_drop = {max_drop:g}",
            f"No plan is made. {remedy} Run: {run.url}",
        )


def write_plan(run: Run, table: pd.DataFrame, theirs: int = 0) -> dict[str, Any]:
    """Leave the table `plan` and the lists of ids, of the rows from `theirs` on; what they count."""
    ids = pd.array(table["id"], dtype="string")
    there = ((table["status"] != DELETED) & (table["row"] >= theirs)).to_numpy()
    plan = table.loc[there, ["row", "id", "uri", "label", "split", "decision"]]
    plan["kept_id"] = ids.take(table["kept_row"].to_numpy()[there], allow_fill=True)
    for name in ("similarity", "rms", "rule", "cluster", "status"):
        plan[name] = table.loc[there, name]
    run.write_part("plan", "000000", pa.Table.from_pandas(plan, preserve_index=False))
    for name in ("keep", "drop"):
        mine = plan.loc[plan["decision"] == name, "id"]
        pieces = (mine.iloc[at : at + LINES].tolist() for at in range(0, len(mine), LINES))
        text = ("".join(f"{line}\n" for line in piece) for piece in pieces)
        run.write(b"".join(piece.encode("utf-8", "surrogateescape") for piece in text), f"{name}.txt")
    decisions = plan["decision"].value_counts()
    return {
        "n_keep": int(decisions.get("keep", 0)),
        "n_drop": int(decisions.get("drop", 0)),
        "n_review": int(decisions.get("review", 0)),
        "rules": {str(rule): int(count) for rule, count in plan["rule"].value_counts().sort_index().items()},
        "plan_hash": plan_hash(plan),
    }


def write(run: Run, table: pd.DataFrame, *, pairs: bool, theirs: int = 0) -> dict[str, Any]:
    """Leave the tables and lists of the plan, for rows from `theirs` on, and `pairs` where no stage before has."""
    if pairs:
        dropped = (table["decision"] == "drop").to_numpy()
        one, other = table["row"].to_numpy()[dropped], table["kept_row"].to_numpy()[dropped]
        found = pd.DataFrame({"a": np.minimum(one, other), "b": np.maximum(one, other)}, dtype="int64")
        found["similarity"] = table["similarity"].to_numpy()[dropped]
        run.write_part("pairs", "000000", pa.Table.from_pandas(found.sort_values(["a", "b"]), preserve_index=False))
    influential = table.loc[table["rule"] == "influential", ["row", "id", "uri", "cluster", "label", "labels", "split"]]
    influential = influential.sort_values(["cluster", "row"])
    influential = influential[influential.groupby("cluster")["row"].transform("max") >= theirs]
    run.write_part("influential", "000000", pa.Table.from_pandas(influential, preserve_index=False))
    own = int((influential["row"] >= theirs).sum())
    counts = {"n_influential": own, "n_influential_clusters": int(influential["cluster"].nunique())}
    return {**write_plan(run, table, theirs), **counts}
