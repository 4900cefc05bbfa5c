"""What changed in the source since a run was made or last brought up to date, and its rows in the index.

A row is an image for ever: new images have new rows, a changed one keeps its row, and a deleted one leaves it as a
tombstone (status `deleted`), which it gets back if it returns. What a delivery changes is written down before anything
is changed (`state/delivery`), so that an interrupted one goes on as it began, whatever the source holds by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daskim.errors import SettingsError
from daskim.kept import NAMES, ORDER, order_of
from daskim.reading import listing_of
from daskim.stages import Change, Context
from daskim.stages.index import facts_of
from daskim.statuses import DELETED
from daskim.store import Run, block_bounds

__all__ = ["Delivery", "close", "history", "index_facts", "kept_before", "open_delivery", "under_way"]

WHERE = ("state", "delivery")
# Columns that say which image a row is, where it is, and what is told of it.
PLACE = ("container", "item", "member")
TOLD = ("label", "split")


@dataclass(frozen=True)
class Delivery:
    """A delivery under way.

    Attributes
    ----------
    counts : dict of str to int
        Images that are new, changed, deleted, relabelled, unchanged.
    """

    change: Change
    counts: dict[str, int]


def under_way(run: Run) -> Delivery | None:
    """The delivery that an earlier command began and did not end."""
    record = run.read_json(*WHERE, "open.json")
    if record is None:
        return None
    rows = {name: run.load(*WHERE, f"{name}.npy") for name in ("added", "removed", "told")}
    return Delivery(Change(record["number"], record["before"], **rows), record["counts"])


def history(run: Run) -> list[dict[str, Any]]:
    """A record of each delivery that was finished: number, counts, seconds, bytes that were read."""
    return (run.read_json("deliveries.json") or {"deliveries": []})["deliveries"]


def close(run: Run, record: dict[str, Any]) -> None:
    """Note that a delivery is finished."""
    run.write_json({"deliveries": [*history(run), record]}, "deliveries.json")
    run.remove(*WHERE, "open.json")
    run.remove(*WHERE)


def open_delivery(context: Context, facts: dict[str, Any], *, apart: bool = False) -> Delivery | None:
    """List the source again and write down what changed; None where nothing did.

    Parameters
    ----------
    facts : dict
        Of the sealed stage `index`.
    apart : bool
        The source is another one than the run's: all its images are new, and the others stay what they are.

    Raises
    ------
    SettingsError
        The run holds only a part of its source (`source.limit`, `source.sample`).
    """
    run, source = context.run, context.settings.source
    if source.limit is not None or source.sample is not None:
        raise SettingsError(
            "source.limit and source.sample: a part of the source has no deliveries",
            "Leave them out and choose another --run.",
        )
    listing = listing_of(source, context.source_options)
    held, now = run.read_table("index"), listing.table
    if apart:
        now, prefix = _named_apart(held, now)
        run.write_json({"prefix": prefix}, *NAMES)
    at = pc.fill_null(pc.index_in(now["id"], held["id"].combine_chunks()), -1).to_numpy()
    new, old = np.flatnonzero(at < 0), np.flatnonzero(at >= 0)
    row = at[old].astype(np.int64)
    was, there = held.take(pa.array(row)), now.take(pa.array(old))
    back = _equal_to(was["status"], DELETED)
    changed = back | _changed(was, there)
    relabelled = ~changed & _differ(was, there, TOLD)
    live = ~_equal_to(held["status"], DELETED)
    gone = np.zeros(0, dtype=np.int64) if apart else np.setdiff1d(np.flatnonzero(live), row)
    before = held.num_rows
    counts = {
        "new": len(new),
        "changed": int((changed & ~back).sum()),
        "back": int(back.sum()),
        "deleted": len(gone),
        "relabelled": int(relabelled.sum()),
        "unchanged": int(live.sum()) if apart else int((~changed & ~relabelled).sum()),
    }
    if not any(count for name, count in counts.items() if name != "unchanged"):
        return None
    change = Change(
        number=int(facts.get("delivery", 0)) + 1,
        before=before,
        added=np.concatenate([np.sort(row[changed]), before + np.arange(len(new))]),
        removed=np.sort(np.concatenate([row[changed & ~back], gone])),
        told=np.sort(np.concatenate([gone, row[relabelled]])),
    )
    _write_down(run, change, counts, listing.ignored)
    _write_order(run, before, row, old, new, now.num_rows, apart=apart)
    _write_index(run, held, now, row, old, new, gone, change.number)
    run.write_json({"number": change.number, "before": before, "counts": counts}, *WHERE, "open.json")
    return Delivery(change, counts)


def _named_apart(held: pa.Table, now: pa.Table) -> tuple[pa.Table, str]:
    """The images of another source, with names that none of the run has; and what their names now begin with."""
    taken = set(held["id"].to_pylist())
    prefix, number = "", 1
    while any(prefix + name in taken for name in now["id"].to_pylist()):
        prefix, number = f"new-{number}/", number + 1
    at = now.schema.get_field_index("id")
    return now.set_column(at, "id", pc.binary_join_element_wise(pa.scalar(prefix), now["id"], "")), prefix


def _write_order(
    run: Run, before: int, row: np.ndarray, old: np.ndarray, new: np.ndarray, listed: int, *, apart: bool
) -> None:
    """The place of each row in the listing; of another source, after all of the run."""
    order = np.full(before + len(new), listed, dtype=np.int64)
    if apart:
        order = np.concatenate([order_of(run, before), before + np.arange(len(new))])
    else:
        order[np.concatenate([row, before + np.arange(len(new))])] = np.concatenate([old, new])
    run.save(order, *WHERE, "order.npy")


def kept_before(run: Run, change: Change) -> np.ndarray:
    """Rows that the plan before the delivery kept, and that hold the same image still."""
    return np.setdiff1d(run.load(*WHERE, "kept.npy"), change.removed)


def _write_down(run: Run, change: Change, counts: dict[str, int], ignored: dict[str, int]) -> None:
    for name in ("added", "removed", "told"):
        run.save(getattr(change, name), *WHERE, f"{name}.npy")
    run.write_json({"ignored": ignored}, *WHERE, "listing.json")
    kept = run.read_table("plan", ["row", "decision"]) if run.parts("plan") else None
    rows = np.asarray(kept["row"])[_equal_to(kept["decision"], "keep")] if kept is not None else np.zeros(0)
    run.save(rows.astype(np.int64), *WHERE, "kept.npy")


def _write_index(
    run: Run,
    held: pa.Table,
    now: pa.Table,
    row: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
    gone: np.ndarray,
    number: int,
) -> None:
    """Write down the table `index` as it will be."""
    n = held.num_rows + len(new)
    now = now.add_column(0, "row", pa.array(np.zeros(now.num_rows, dtype=np.int64))).select(held.column_names)
    take = np.arange(n)
    take[row] = held.num_rows + old
    take[held.num_rows :] = held.num_rows + new
    whole = pa.concat_tables([held, now]).take(pa.array(take))
    lost = np.zeros(n, dtype=bool)
    lost[gone] = True
    for name, value in (
        ("row", pa.array(np.arange(n))),
        ("status", pc.if_else(pa.array(lost), DELETED, whole["status"])),
        ("reason", pc.if_else(pa.array(lost), f"no more in the source at delivery {number}", whole["reason"])),
    ):
        whole = whole.set_column(whole.column_names.index(name), name, value)
    run.save_table(whole, *WHERE, "index.parquet")


def index_facts(run: Run, delivery: Delivery, facts: dict[str, Any]) -> dict[str, Any]:
    """Bring the table `index` up to date; its facts."""
    table = run.load_table(*WHERE, "index.parquet")
    for index, (lo, hi) in enumerate(block_bounds(table.num_rows, facts["rows"])):
        part, key = table.slice(lo, hi - lo), f"{index:06d}"
        if hi > delivery.change.before or not part.equals(run.read_part("index", key)):
            run.write_part("index", key, part)
    run.save(run.load(*WHERE, "order.npy"), *ORDER)
    told = facts_of(table)
    number = delivery.change.number
    content = f"{told['content']}-{number}"
    ignored = (run.read_json(*WHERE, "listing.json") or {})["ignored"]
    return {**facts, **told, "n": table.num_rows, "content": content, "ignored": ignored, "delivery": number}


def _equal_to(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False)


def _differ(was: pa.Table, now: pa.Table, names: tuple[str, ...]) -> np.ndarray:
    """Rows in which a column differs; null equals null."""
    found = np.zeros(was.num_rows, dtype=bool)
    for name in names:
        one, other = was[name].combine_chunks(), now[name].combine_chunks()
        same = pc.fill_null(pc.equal(one, other), False).to_numpy(zero_copy_only=False)
        none = pc.and_(pc.is_null(one), pc.is_null(other)).to_numpy(zero_copy_only=False)
        found |= ~(same | none)
    return found


def _changed(was: pa.Table, now: pa.Table) -> np.ndarray:
    """Rows that hold another image, as far as a listing tells: by etag where both have one, else by size and mtime."""
    tags = [table["etag"].combine_chunks() for table in (was, now)]
    tagged = pc.and_(pc.is_valid(tags[0]), pc.is_valid(tags[1])).to_numpy(zero_copy_only=False)
    by_tag = pc.fill_null(pc.not_equal(*tags), False).to_numpy(zero_copy_only=False)
    size = [table["bytes"].to_numpy() for table in (was, now)]
    time = [table["mtime"].to_numpy() for table in (was, now)]
    by_size = (size[0] >= 0) & (size[1] >= 0) & (size[0] != size[1])
    by_time = np.isfinite(time[0]) & np.isfinite(time[1]) & (time[0] != time[1])
    status = _differ(was, now, ("status",))
    return np.where(tagged, by_tag, by_size | by_time) | status | _differ(was, now, PLACE)
