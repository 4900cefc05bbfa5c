"""What becomes of each image, and why."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.errors import GuardTripped, SettingsError
from daskim.kept import CACHE_BYTES, Kept, gather, kept_of, take
from daskim.kernels.leaders import follow_leaders
from daskim.settings import Plan, Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.store import Run

__all__ = ["MAX_RMS", "STAGE", "plan_hash"]

# Largest difference from the kept image that is not asked for: RMS in grey levels. About where the cut at 0.94 n lies
# on CIFAR-10 (31 grey levels); beyond it, images of one label are rarely the same thing.
MAX_RMS = 32.0
# Images of one task, unless a cluster has more.
GROUP = 2048


def plan_hash(plan: pd.DataFrame) -> str:
    """SHA-256 over id, decision, kept_id and rule, sorted by id. No floats, so rounding cannot change it."""
    digest = hashlib.sha256()
    ordered = plan.sort_values("id")
    for parts in zip(ordered["id"], ordered["decision"], ordered["kept_id"], ordered["rule"]):
        digest.update(("\t".join("" if p is None or p is pd.NA or p != p else str(p) for p in parts) + "\n").encode())
    return digest.hexdigest()


def asking_order(members: pd.DataFrame, policy: str) -> np.ndarray:
    """Positions that put the images of each cluster together, the one to be kept first; ties go to the first row.

    Parameters
    ----------
    members : DataFrame
        cluster, row, distance, width, height, mtime, split, protected.
    policy : str
        See `plan.policy`. Protected images come first: they stay in any case.
    """
    words = policy.split()
    keys = {
        "centre": members["distance"],
        "first": members["row"],
        "largest": -(members["width"].astype("int64") * members["height"].astype("int64")),
        "newest": -members["mtime"].fillna(-np.inf),
        "prefer-split": members["split"].ne(words[-1]),
    }
    protected = ~members["protected"].to_numpy(dtype=bool)
    return np.lexsort((members["row"], members["distance"], keys[words[0]], protected, members["cluster"]))


def _run(context: Context) -> dict[str, Any]:
    settings, run = context.settings.plan, context.run
    table = _table(context)
    _check_splits(settings, table)
    bound, reach, why = _bounds(context)
    _decide(table, settings.flat)
    _leaders(context, table, bound, reach)
    _min_per_class(table, settings.min_per_class)
    readable = int((table["decision"] != "review").sum())
    dropped = int((table["decision"] == "drop").sum())
    if dropped > settings.max_drop * readable:
        run.remove("state", "plan", "blocks")  # the next attempt is not bound to this one's settings
        raise GuardTripped(
            f"the plan would drop {dropped} of {readable} images: more than plan.max_drop = {settings.max_drop:g}",
            f"No plan is made. Ask for more clusters, a smaller plan.max_rms, or raise --max-drop. Run: {run.url}",
        )
    return {**_write(run, table), "max_rms": bound, "max_rms_why": why}


def _table(context: Context) -> pd.DataFrame:
    """One row an image, with all that a decision needs."""
    run = context.run
    table = run.read_table("images").to_pandas().drop(columns=["file_digest", "digest"])
    clusters = run.read_table("clusters").to_pandas()
    exact = run.read_table("exact").to_pandas()
    table = table.merge(clusters, on="row", how="left", validate="1:1")
    table = table.merge(exact.rename(columns={"group": "exact_group", "by": "exact_by"}), on="row", how="left")
    table["exact_group"] = table["exact_group"].fillna(-1).astype("int64")
    table["protected"] = table["split"].isin(list(context.settings.plan.protect))
    for name, value in (("decision", "keep"), ("rule", "single"), ("kept_row", -1), ("rms", np.nan), ("labels", "")):
        table[name] = value
    return table.sort_values("row", ignore_index=True)


def _check_splits(settings: Plan, table: pd.DataFrame) -> None:
    """Refuse a split that does not occur: a protection that protects nothing is a mistake."""
    words = settings.policy.split()
    named = list(settings.protect) + (words[1:] if words[0] == "prefer-split" else [])
    there = sorted(table["split"].dropna().unique().tolist())
    for name in named:
        if name not in there:
            what = f"splits here: {', '.join(there)}" if there else "no image of this set has a split"
            raise SettingsError(f"no image has split {name!r} (plan.protect, plan.policy)", what[:1].upper() + what[1:])


def _bounds(context: Context) -> tuple[float, float, str]:
    """How near an image must be to the one kept for it: in grey levels (RMS), in stored coefficients, and in words.

    Unless it is set, the height at which the trees were cut bounds the distance in the kept coefficients, which is what
    the clusters were made by, and `MAX_RMS` the difference of the pixels.
    """
    if context.settings.plan.max_rms is not None:
        return context.settings.plan.max_rms, float("inf"), "as set"
    sealed = context.run.read_json("state", "clusters", "sealed.json") or {}
    facts = sealed.get("facts", {})
    height = facts.get("cut_height")
    if height is None:
        return MAX_RMS, float("inf"), "the largest that is not asked for (plan.max_rms)"
    if facts["share"] == 1.0 and facts["cut_rms"] < MAX_RMS:  # the same thing in pixels, which are smaller to read
        return float(facts["cut_rms"]) * (1 + 1e-9), float("inf"), "the height at which the trees were cut"
    return MAX_RMS, float(height) * (1 + 1e-9), "and in the kept coefficients the height at which the trees were cut"


def _decide(table: pd.DataFrame, flat: str) -> None:
    """Everything but who follows whom: broken, flat, single and mixed clusters.

    Flat images say nothing about their labels: with `plan.flat = keep` they stay as they are.
    """
    broken = ~table["status"].isin(["ok", "flat"])
    table.loc[broken, ["decision", "rule"]] = ["review", "broken"]
    table.loc[table["status"] == "flat", "rule"] = "flat"
    apart = broken | (table["status"] == "flat") if flat == "keep" else broken
    several = table[(table["size"] > 1) & ~apart]
    labels = several.dropna(subset=["label"]).groupby("cluster")["label"].agg(lambda group: sorted(set(group)))
    mixed = labels[labels.map(len) > 1]
    inside = table["cluster"].isin(mixed.index) & (table["size"] > 1) & ~apart
    table.loc[inside, "labels"] = table.loc[inside, "cluster"].map(mixed.map(" | ".join))
    table.loc[inside, "rule"] = "influential"


def _leaders(context: Context, table: pd.DataFrame, bound: float, reach: float) -> None:
    """Keep and drop inside clusters of one label; tasks look at the pixels and the coefficients."""
    settings, run = context.settings.plan, context.run
    flat = table["status"] == "flat"
    eligible = (table["size"] > 1) & (table["rule"] == "single")
    if settings.flat == "exact":
        eligible |= (table["size"] > 1) & flat & (table["rule"] == "flat") & (table["exact_group"] >= 0)
    members = table[eligible]
    members = members.iloc[asking_order(members, settings.policy)]
    starts = np.flatnonzero(np.diff(members["cluster"].to_numpy(), prepend=-1))
    ordered = [rows for rows in np.split(members["row"].to_numpy(), starts[1:]) if len(rows) > 1]
    ends = np.cumsum([len(rows) for rows in ordered])
    task = (ends - 1) // GROUP
    keys, parts = [], []
    for t in np.unique(task).tolist():
        mine = [ordered[g] for g in np.flatnonzero(task == t)]
        number = np.repeat(np.arange(len(mine)), [len(rows) for rows in mine])
        rows = np.concatenate(mine)
        fixed = table["protected"].to_numpy()[rows]
        keys.append(f"{t:06d}")
        parts.append(np.stack([rows, number, fixed.astype(np.int64)]))
        run.save(parts[-1], "partial", "plan", f"members-{keys[-1]}.npy")
    context.engine.each("plan", "leaders", keys, [(kept_of(run), bound, reach) for _ in keys], leaders_task)
    for key in keys:
        rows, leader = run.load("partial", "plan", f"leader-{key}.npy")
        table.loc[rows, "kept_row"] = leader
        table.loc[rows, "rms"] = run.load("partial", "plan", f"rms-{key}.npy")
    _rules(table)


def _rules(table: pd.DataFrame) -> None:
    """Decision and rule of the members of clusters that have leaders."""
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
    table.loc[~follows, ["kept_row", "rms"]] = [-1, np.nan]


def leaders_task(run: Run, key: str, columns: Kept, bound: float, reach: float) -> dict[str, Any]:
    """Leaders of some clusters; their images come in the order in which they are asked."""
    rows, number, fixed = run.load("partial", "plan", f"members-{key}.npy")
    leader, rms = np.empty_like(rows), np.zeros(len(rows))
    for group in np.unique(number).tolist():
        mine = np.flatnonzero(number == group)
        images = take(run, "images", rows[mine]).reshape(len(mine), -1)
        points = gather(columns, rows[mine]) if np.isfinite(reach) else None
        found, distance = follow_leaders(
            images, np.arange(len(mine)), bound, fixed[mine].astype(bool), points=points, reach=reach
        )
        leader[mine], rms[mine] = rows[mine][found], distance
    run.save(np.stack([rows, leader]), "partial", "plan", f"leader-{key}.npy")
    run.save(rms, "partial", "plan", f"rms-{key}.npy")
    return {"dropped": int((leader != rows).sum())}


def _min_per_class(table: pd.DataFrame, least: int) -> None:
    """Give dropped images back to classes that would fall below the minimum, the most different first."""
    if not least:
        return
    kept = table[table["decision"] == "keep"].groupby("label").size()
    for label, group in table[table["decision"] == "drop"].groupby("label"):
        missing = least - int(kept.get(label, 0))
        if missing > 0:
            back = group.sort_values(["rms", "row"], ascending=[False, True]).index[:missing]
            table.loc[back, ["decision", "rule"]] = ["keep", "min-per-class"]
            table.loc[back, ["kept_row", "rms"]] = [-1, np.nan]


def _write(run: Run, table: pd.DataFrame) -> dict[str, Any]:
    ids = table["id"].to_numpy(dtype=object)
    kept = table["kept_row"].to_numpy()
    dropped = table["decision"] == "drop"
    plan = table[["row", "id", "uri", "label", "split", "decision"]].copy()
    plan["kept_id"] = pd.array([ids[row] if row >= 0 else None for row in kept], dtype="string")
    plan["similarity"] = 1.0 / (1.0 + table["rms"])
    plan["rms"] = table["rms"]
    plan["rule"] = table["rule"]
    plan["cluster"] = table["cluster"]
    plan["status"] = table["status"]
    run.write_part("plan", "000000", pa.Table.from_pandas(plan, preserve_index=False))
    one, other = table.loc[dropped, "row"].to_numpy(), kept[dropped]
    pairs = pd.DataFrame({"a": np.minimum(one, other), "b": np.maximum(one, other)}, dtype="int64")
    pairs["similarity"] = plan.loc[dropped, "similarity"].to_numpy()
    pairs = pairs.sort_values(["a", "b"])
    run.write_part("pairs", "000000", pa.Table.from_pandas(pairs, preserve_index=False))
    influential = table.loc[table["rule"] == "influential", ["row", "id", "uri", "cluster", "label", "labels", "split"]]
    influential = influential.sort_values(["cluster", "row"])
    run.write_part("influential", "000000", pa.Table.from_pandas(influential, preserve_index=False))
    for name in ("keep", "drop"):
        lines = plan.loc[plan["decision"] == name, "id"].tolist()
        run.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), f"{name}.txt")
    decisions = plan["decision"].value_counts()
    return {
        "n_keep": int(decisions.get("keep", 0)),
        "n_drop": int(decisions.get("drop", 0)),
        "n_review": int(decisions.get("review", 0)),
        "n_influential": len(influential),
        "n_influential_clusters": int(influential["cluster"].nunique()),
        "rules": {str(rule): int(count) for rule, count in plan["rule"].value_counts().sort_index().items()},
        "plan_hash": plan_hash(plan),
    }


def _need(size: Size, settings: Settings, workers: int) -> Need:
    row = size.columns * size.itemsize
    return Need(
        blocks=max(1, size.n // GROUP // 8),
        read=size.n * size.pixels // 8,
        write=300 * size.n,
        process=CACHE_BYTES,
        task=GROUP * (size.pixels + 2 * row) + 1024 * 24 * size.columns,
        driver=2_500 * size.n,
    )


STAGE = Stage(
    name="plan",
    version=1,
    reads=("images", "exact", "clusters"),
    settings=("plan",),
    leaves=("tables/plan", "tables/pairs", "tables/influential", "keep.txt", "drop.txt"),
    run=_run,
    need=_need,
)
