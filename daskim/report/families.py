"""Which families and which groups of differently labelled images the page shows, and which of their members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from daskim.report.entries import Entry, Gallery
from daskim.report.listed import Pair, codes_of, look_up
from daskim.report.words import counted
from daskim.results import FinishedRun

__all__ = ["MEMBERS", "MOST", "SEED", "families", "groups", "in_turn"]

# Entries of one gallery, and images of one entry, at most.
MOST = 600
MEMBERS = 12
SEED = 0
# Standard pixels of groups that are held together, bytes.
PIXELS = 32_000_000


def in_turn(orders: Sequence[np.ndarray], most: int) -> np.ndarray:
    """The first of each order, then the second of each, and so on, each value once; at most `most`."""
    if not orders:
        return np.zeros(0, dtype=np.int64)
    mixed = np.stack([np.asarray(order)[: most or None] for order in orders], axis=1).ravel()
    _, first = np.unique(mixed, return_index=True)
    return mixed[np.sort(first)][:most]


def families(run: FinishedRun, n: int) -> Gallery:
    """Kept images with those that may go for them: the largest families, the least certain, and some at random."""
    dropped = _dropped(run) if run.has("plan") else _nothing_dropped()
    code, kept = pd.factorize(dropped["kept_id"])
    size = np.bincount(code, minlength=len(kept))
    doubt = _doubt(dropped)
    least = np.full(len(kept), -np.inf)
    np.maximum.at(least, code, doubt)
    order = in_turn(
        [
            np.argsort(-size, kind="stable"),
            np.argsort(-least, kind="stable"),
            np.random.default_rng(SEED).permutation(len(kept)),
        ],
        MOST,
    )
    rows = _rows_of(run, kept.take(order).tolist() if len(order) else [])
    wanted = np.zeros(len(kept), dtype=bool)
    wanted[order] = True
    inside = np.flatnonzero(wanted[code]) if len(code) else np.zeros(0, dtype=np.int64)
    inside = inside[np.lexsort((dropped["row"].to_numpy()[inside], -doubt[inside], code[inside]))]
    start = np.searchsorted(code[inside], np.arange(len(kept) + 1))
    chosen = []
    for family in order.tolist():
        members = inside[start[family] : start[family + 1]]
        chosen.append((rows[str(kept[family])], dropped.iloc[members[: MEMBERS - 1]], 1 + len(members)))
    flat = [codes_of(np.full(len(table), lead), table["row"].to_numpy(), n) for lead, table, _ in chosen]
    pairs = look_up(run, np.concatenate(flat) if flat else np.zeros(0, dtype=np.int64), n)
    return Gallery(
        "families",
        "Families",
        "family",
        "Images that stand for one another. One is kept; the others may go.",
        f"in turn the largest, those that were closest to not being dropped, and some at random (seed {SEED})",
        len(kept),
        ("family", "families"),
        5,
        [_family(lead, table, total, pairs, n) for lead, table, total in chosen],
    )


def _nothing_dropped() -> pd.DataFrame:
    return pd.DataFrame({"row": np.zeros(0, dtype=np.int64), "kept_id": [], "similarity": [], "rms": [], "rule": []})


def _dropped(run: FinishedRun) -> pd.DataFrame:
    """row, kept_id, similarity, rms, rule of the images that may go."""
    parts = []
    for batch in run.store.batches("plan", ["row", "decision", "kept_id", "similarity", "rms", "rule"]):
        inside = batch.filter(pc.equal(batch["decision"], "drop")).drop_columns(["decision"])
        if inside.num_rows:
            parts.append(inside)
    return pa.concat_tables(parts).to_pandas() if parts else _nothing_dropped()


def _doubt(dropped: pd.DataFrame) -> np.ndarray:
    """How near each image came to not being dropped: the least similar, and where that is not known the farthest."""
    similarity = dropped["similarity"].to_numpy(dtype=np.float64)
    rms = np.nan_to_num(dropped["rms"].to_numpy(dtype=np.float64), nan=0.0)
    return np.where(np.isnan(similarity), 1.0 + rms / 256, 1.0 - similarity)


def _rows_of(run: FinishedRun, ids: list[str]) -> dict[str, int]:
    wanted = pa.array(ids, pa.string())
    found: dict[str, int] = {}
    if not ids:
        return found
    for batch in run.store.batches("images", ["row", "id"]):
        inside = batch.filter(pc.is_in(batch["id"].cast(pa.string()), wanted))
        found.update(zip(inside["id"].to_pylist(), inside["row"].to_pylist()))
    return found


def _family(lead: int, table: pd.DataFrame, total: int, pairs: dict[int, Pair], n: int) -> Entry:
    rows = [int(row) for row in table["row"]]
    known = [pairs.get(int(codes_of(np.array(lead), np.array(row), n))) for row in rows]
    similarity = [
        float(value) if pair is None or value == value else pair.similarity
        for value, pair in zip(table["similarity"].tolist(), known)
    ]
    return Entry(
        [lead, *rows],
        [-1, *[0] * len(rows)],
        [np.nan, *similarity],
        [np.nan, *table["rms"].tolist()],
        ["kept", *table["rule"].tolist()],
        [None, *[None if pair is None else pair.seen_from(lead) for pair in known]],
        total,
    )


def groups(run: FinishedRun, n: int) -> Gallery:
    """Alike images with different labels: the largest groups and some at random."""
    table = pd.DataFrame({"row": [], "cluster": [], "label": []})
    if run.has("influential"):
        table = run.table("influential", ["row", "cluster", "label"])
    code, clusters = pd.factorize(table["cluster"], sort=True)
    size = np.bincount(code, minlength=len(clusters))
    order = in_turn([np.argsort(-size, kind="stable"), np.random.default_rng(SEED).permutation(len(clusters))], MOST)
    table = table.assign(group=code)[np.isin(code, order)].sort_values(["group", "row"], ignore_index=True)
    alike = table.groupby(["group", "label"], dropna=False, sort=False)["row"]
    table["count"], table["turn"] = alike.transform("size"), alike.cumcount()
    table["labels"] = table.groupby("group")["label"].transform("nunique")
    best = _contested(run, table)
    start = np.searchsorted(table["group"].to_numpy(), np.arange(len(clusters) + 1))
    chosen = []
    for group in order.tolist():
        lo, hi = start[group], start[group + 1]
        inside = table.iloc[lo:hi]
        told = counted(int(inside["labels"].iloc[0]), "label")
        chosen.append((_some(inside, best.get(group, [])), int(hi - lo), told))
    pairs = look_up(
        run, np.concatenate([*_all_codes([members for members, _, _ in chosen], n), np.zeros(0, dtype=np.int64)]), n
    )
    return Gallery(
        "influential",
        "Influential",
        "group",
        "Images that look alike but carry different labels: a model must draw its boundary between them, or a label "
        "is wrong. All are kept.",
        f"in turn the largest and some at random (seed {SEED})",
        len(clusters),
        ("group", "groups"),
        3,
        list(_grouped(run, chosen, pairs, n)),
    )


def _contested(run: FinishedRun, table: pd.DataFrame) -> dict[int, list[int]]:
    """Of each group of more images than are shown: those of its most similar pairs of different labels, in order.

    Parameters
    ----------
    table : DataFrame
        row, label, group.
    """
    size = table.groupby("group")["row"].transform("size")
    large = table[size > MEMBERS].sort_values("row")
    rows, group = large["row"].to_numpy(dtype=np.int64), large["group"].to_numpy()
    label = pd.factorize(large["label"])[0]
    if not len(rows) or not run.has("pairs"):
        return {}
    found = []
    for batch in run.store.batches("pairs", ["a", "b", "similarity"]):
        ends = [np.asarray(batch[name], dtype=np.int64) for name in ("a", "b")]
        at, other = (np.minimum(np.searchsorted(rows, end), len(rows) - 1) for end in ends)
        inside = (rows[at] == ends[0]) & (rows[other] == ends[1])
        inside &= (group[at] == group[other]) & (label[at] != label[other])
        similarity = np.asarray(batch["similarity"], dtype=np.float64)[inside]
        found.append(np.stack([group[at][inside], -similarity, ends[0][inside], ends[1][inside]]))
    each = np.concatenate(found, axis=1)
    each = each[:, np.lexsort(each[::-1])]
    out: dict[int, list[int]] = {}
    for number, _, a, b in each.T.tolist():
        held = out.setdefault(int(number), [])
        new = [row for row in (int(a), int(b)) if row not in held]
        if len(held) + len(new) <= MEMBERS:
            held += new
    return out


def _some(group: pd.DataFrame, best: list[int]) -> pd.DataFrame:
    """Some members of a group: the most contested ones, if known; else in turn one of each label, the rarest first."""
    if best:
        return group.set_index("row", drop=False).loc[best]
    if len(group) > MEMBERS:
        group = group.sort_values(["turn", "count", "row"]).head(MEMBERS)
    return group.sort_values(["count", "label", "row"])


def _all_codes(chosen: list[pd.DataFrame], n: int) -> Iterator[np.ndarray]:
    for members in chosen:
        rows = members["row"].to_numpy(dtype=np.int64)
        i, j = np.triu_indices(len(rows), 1)
        yield codes_of(rows[i], rows[j], n)


def _grouped(
    run: FinishedRun, chosen: list[tuple[pd.DataFrame, int, str]], pairs: dict[int, Pair], n: int
) -> Iterator[Entry]:
    """The groups as entries; standard pixels are read for many of them at once."""
    size = run.summary["size"]
    many = max(1, PIXELS // (MEMBERS * size["height"] * size["width"] * size["channels"]))
    for start in range(0, len(chosen), many):
        some = chosen[start : start + many]
        pixels = run.standard(np.concatenate([members["row"].to_numpy(dtype=np.int64) for members, _, _ in some]))
        stop = np.cumsum([len(members) for members, _, _ in some])
        for (members, total, told), seen in zip(some, np.split(pixels, stop[:-1])):
            yield _group(members, total, told, seen.reshape(len(seen), -1).astype(np.float32), pairs, n)


def _group(members: pd.DataFrame, total: int, told: str, pixels: np.ndarray, pairs: dict[int, Pair], n: int) -> Entry:
    """Each member with the most alike one of another label: by similarity where it is known, else by RMS difference."""
    rows = members["row"].to_numpy(dtype=np.int64)
    label = pd.factorize(members["label"])[0]
    partner, similarity, rms, motion = [], [], [], []
    for i in range(len(rows)):
        other = np.flatnonzero(label != label[i])
        differ = np.sqrt(np.mean((pixels[other] - pixels[i]) ** 2, axis=1))
        known = [pairs.get(int(codes_of(rows[i], rows[j], n))) for j in other.tolist()]
        alike = np.array([-np.inf if pair is None else pair.similarity for pair in known])
        order = np.lexsort((differ, -alike))
        best = int(order[0]) if len(order) else None
        pair = None if best is None else known[best]
        at = -1 if best is None else int(other[best])
        partner.append(at)
        similarity.append(np.nan if pair is None else pair.similarity)
        rms.append(np.nan if best is None else float(differ[best]))
        motion.append(None if pair is None else pair.seen_from(int(rows[at])))
    return Entry(rows.tolist(), partner, similarity, rms, ["influential"] * len(rows), motion, total, told)
