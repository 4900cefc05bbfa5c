"""The similarity of every candidate pair, and of all copies of the images in it.

Leaves `pairs` (a < b, similarity, source, and what the similarity reports): every pair that was followed to the end,
also below `min_similarity`. Equal images are compared once; their pairs are listed all the same, with similarity 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.errors import SettingsError
from daskim.kept import CACHE_BYTES, LEFT_BYTES, SIDE_BY_SIDE, parts_of
from daskim.kernels.proportions import share_interval
from daskim.kernels.splits import across
from daskim.plugins import find, similarity_of
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.stages.similarities.compare import (
    PIECE,
    READ_BYTES,
    Job,
    compare_part,
    compare_sample,
    compare_tile,
    part_bytes,
    shown_bytes,
)
from daskim.stages.similarities.copies import all_copies
from daskim.stages.similarities.deliveries import forget_older, listed_in, still_candidates
from daskim.stages.similarities.pictures import NAME, READ, arranged, copy_tasks, group_bytes, shown
from daskim.store import block_bounds

__all__ = ["STAGE", "threshold_of"]

# Per-image parts that a task holds, bytes. At 32 x 32 some 12,000 images: those of a part of the candidates.
PARTS_BYTES = 160_000_000
# Rows of a square of pairs, where all are compared.
SQUARE = 256
# Images that estimate the recall, at least (where there are as many).
SAMPLE = 32
# Pairs of drawn images in one task, about.
DRAWN_PAIRS = 100_000


def threshold_of(settings: Settings) -> float:
    """From which similarity on images are near-duplicates: as set, or the similarity's own."""
    asked = settings.similarities.min_similarity
    return float(find("similarities", settings.similarities.name).threshold if asked is None else asked)


def _run(context: Context) -> dict[str, Any]:
    run, settings, size = context.run, context.settings, context.known
    everything = settings.candidates.method == "all"
    first = np.asarray(run.read_table("representatives", ["first"])["first"])
    apart = settings.candidates.across == "splits"
    masks = np.asarray(run.read_table("representatives", ["splits"])["splits"]) if apart else None
    if masks is not None:
        run.save(masks, "partial", NAME, "masks.npy")
    job, rows, lost = _job(context, _rows(context, first, everything), in_order=True)
    if everything:
        ordered, squares, ranges = _squares(rows, masks, min(SQUARE, max(job.most // 2, 8)))
        run.save(ordered, "partial", NAME, "rows.npy")
        keys = [f"{i:05d}-{j:05d}" for i, j in ranges]
        infos = context.engine.each(
            NAME, "square", keys, [(job, squares[i], squares[j]) for i, j in ranges], compare_tile
        )
    else:
        delivery = run.facts("candidates")["delivery"]
        forget_older(run, delivery)
        keys = parts_of(run, "candidates", delivery)
        infos = context.engine.each(NAME, "part", keys, [(job, lost) for _ in keys], compare_part)
    if not keys:
        _empty(context, job.similarity().reports)
    facts = _finished(context, job, _counts(infos, size.possible), first, keys, int(lost.size))
    if not everything:
        facts["recall"] = _recall(context, job, rows, facts)
    run.remove("arrays", "arranged")
    _say(context, facts)
    return facts


def _update(context: Context, change: Change) -> dict[str, Any] | None:
    """Compare the new candidates of a delivery, and leave the pairs that are candidates no more.

    Images at another size than the standard one would have to be read again: then all is done again. The recall stays
    that of the run's first images: to estimate it, all images would be read.
    """
    run, settings, size = context.run, context.settings, context.known
    chosen = run.facts("candidates")
    if "delivery" not in chosen or not chosen["delivery"].startswith(change.mark) or not settings.sees_standard:
        return None
    before = run.facts(NAME)
    first = np.asarray(run.read_table("representatives", ["first"])["first"])
    job, _, lost = _job(context, _rows(context, first, False), in_order=False)
    keys = parts_of(run, "candidates", f"{change.mark}-new-")
    infos = context.engine.each(NAME, f"{change.mark}-part", keys, [(job, lost) for _ in keys], compare_part)
    old = [key for key in run.parts("pairs") if not key.startswith((change.mark, "copies"))]
    still_candidates(run, old, change)
    counted = _counts(infos, size.possible)
    for name in ("compared", "listed", "near"):
        counted[f"new_{name}"] = counted[name]
    counted["engine"] = _engines((counted["engine"], before.get("engine", "numpy")))
    counted["compared"] += before["compared"]
    counted["compared_share"] = counted["compared"] / max(1, size.possible)
    counted["by_level"] = _levels_of(counted["by_level"], before["by_level"], size.possible)
    counted["listed"], counted["near"] = listed_in(run, [*old, *keys], job.threshold)
    facts = _finished(context, job, counted, first, [*old, *keys], int(lost.size))
    facts["recall"] = before["recall"]
    forget_older(run, change.mark)
    context.say(
        f"similarities: {facts['new_compared']:,} new pairs compared in pixels, {facts['new_near']:,} of them at or "
        f"above {job.threshold:g}; {facts['near']:,} in all"
    )
    return facts


def _levels_of(new: dict[str, Any], old: dict[str, Any], possible: int) -> dict[str, Any]:
    """Pairs by the level that they reached, of all deliveries together."""
    pairs = {key: sum(level.get(key, {"pairs": 0})["pairs"] for level in (new, old)) for key in sorted({*new, *old})}
    return {key: {"pairs": count, "share": count / max(1, possible)} for key, count in pairs.items()}


def _job(context: Context, rows: np.ndarray, *, in_order: bool) -> tuple[Job, np.ndarray, np.ndarray]:
    """What every task shares, the rows that can be seen, and those that cannot.

    Parameters
    ----------
    in_order : bool
        All candidates will be looked at, and many images are best copied in the order of these, if they have one.
    """
    run, settings = context.run, context.settings
    name, everything = settings.similarities.name, settings.candidates.method == "all"
    view, lost = shown(context, find("similarities", name).of, rows)
    if lost.size:
        context.say(f"similarities: {lost.size} images cannot be read at {settings.similarities.size}: left out")
        rows = rows[~np.isin(rows, lost)]
    similarity = similarity_of(name, view.shape, screen=not everything)
    dtype = np.float64 if everything else np.float32
    most = max(2, PARTS_BYTES // part_bytes(similarity, view.shape, dtype))
    if in_order and run.exists(*SIDE_BY_SIDE):
        order = run.load(*SIDE_BY_SIDE)
        view = arranged(context, view, order[np.isin(order, rows)])
    return Job(view, name, everything, threshold_of(settings), most, settings.candidates.across == "splits"), rows, lost


def _finished(
    context: Context, job: Job, facts: dict[str, Any], first: np.ndarray, keys: list[str], lost: int
) -> dict[str, Any]:
    """Write the pairs of copies; the facts."""
    run = context.run
    for key in run.parts("pairs"):  # those of an earlier delivery
        if key.startswith("copies"):
            run.remove("tables", "pairs", f"{key}.parquet")
    copies, alike = all_copies(run, first, keys, context.settings.candidates.most_pairs(context.known.n), job.threshold)
    shape, of = job.shown.shape, find("similarities", job.name).of
    return {
        **facts,
        "name": job.name,
        "min_similarity": job.threshold,
        "size": "x".join(map(str, shape[:2])) if of == "pixels" else "coefficients",
        "unreadable": lost,
        "copies": copies,
        "listed": facts["listed"] + copies,
        "near": facts["near"] + alike,
    }


def _squares(
    rows: np.ndarray, masks: np.ndarray | None, side: int
) -> tuple[np.ndarray, list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows in order, ranges of them, and which two ranges hold pairs: with masks, only pairs across splits."""
    if masks is None:
        bounds = block_bounds(len(rows), side)
        return rows, bounds, [(i, j) for i in range(len(bounds)) for j in range(i, len(bounds))]
    ordered = rows[np.argsort(masks[rows], kind="stable")]
    value, start, count = np.unique(masks[ordered], return_index=True, return_counts=True)
    groups = list(zip(value, start.tolist(), count.tolist()))
    parts = [(mask, lo + at, hi + at) for mask, at, size in groups for lo, hi in block_bounds(size, side)]
    bounds = [(lo, hi) for _, lo, hi in parts]
    mask = np.array([one for one, _, _ in parts], dtype=np.int64)
    i, j = np.nonzero(np.triu(across(mask[:, None], mask[None])))
    return ordered, bounds, list(zip(i.tolist(), j.tolist()))


def _rows(context: Context, first: np.ndarray, everything: bool) -> np.ndarray:
    """Images that may be in a pair, ascending."""
    run = context.run
    alone = np.flatnonzero(first == np.arange(len(first)))
    if everything:
        return alone
    if context.settings.sees_standard:
        status = run.read_table("images", ["row", "status"]).to_pandas().sort_values("row")["status"].to_numpy()
        return alone[status[alone] == "ok"]
    used = np.zeros(len(first), dtype=bool)
    for key in parts_of(run, "candidates", run.facts("candidates")["delivery"]):
        part = run.read_part("candidates", key, ["a", "b"])
        used[np.asarray(part["a"])] = True
        used[np.asarray(part["b"])] = True
    return np.flatnonzero(used)


def _empty(context: Context, reports: tuple[str, ...]) -> None:
    """A table without a row, so that it can be read."""
    none = np.zeros(0)
    table = {"a": none.astype(np.int64), "b": none.astype(np.int64), "similarity": none, "source": none.astype(str)}
    context.run.write_part("pairs", "000000", pa.table({**table, **dict.fromkeys(reports[:-1], none)}))


def _counts(infos: list[dict[str, Any]], possible: int) -> dict[str, Any]:
    """What was compared: pairs by the level of the cascade they reached, and the blocks read for them."""
    levels: Counter[int] = Counter()
    for info in infos:
        levels.update({int(level): count for level, count in info["levels"].items()})
    pairs = sum(info["pairs"] for info in infos)
    possible = max(1, possible)
    reached = {
        level: sum(count for at, count in levels.items() if at >= level)
        for level in range(1, max(levels, default=0) + 1)
    }
    return {
        "compared": pairs,
        "compared_share": pairs / possible,
        "by_level": {str(level): {"pairs": count, "share": count / possible} for level, count in reached.items()},
        "listed": sum(info["listed"] for info in infos),
        "near": sum(info["near"] for info in infos),
        "block_reads_per_pair": sum(info["blocks"] for info in infos) / max(1, pairs),
        "block_reads_per_part": sum(info["blocks"] for info in infos) / max(1, len(infos)),
        "engine": _engines(info["engine"] for info in infos),
    }


def _engines(names: Iterable[str]) -> str:
    """What computed the pairs: names, where workers differ."""
    return ", ".join(sorted(set(", ".join(names).split(", ")) - {""}))


def _recall(context: Context, job: Job, rows: np.ndarray, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Of the near-duplicates of some images among all others, the share that the candidates hold."""
    settings = context.settings.candidates
    if not settings.sample or len(rows) < 2:
        return None
    count = _drawn(len(rows), settings.sample)
    drawn_from = _looked_up(context, rows) if job.across else rows
    chosen = drawn_from[np.sort(np.random.default_rng(settings.seed).permutation(len(drawn_from))[:count])]
    count = len(chosen)
    context.run.save(chosen, "partial", NAME, "drawn.npy")
    context.run.save(rows[np.argsort(job.shown.places(rows), kind="stable")], "partial", NAME, "rows.npy")
    bounds = block_bounds(len(rows), _beside(count, job.most))
    keys = [f"{index:06d}" for index in range(len(bounds))]
    infos = context.engine.each(NAME, "recall", keys, [(job, lo, hi) for lo, hi in bounds], compare_sample)
    pairs = context.run.read_table("pairs", ["a", "b", "similarity"])
    near = np.asarray(pairs["similarity"]) >= job.threshold
    n = context.known.n
    known = np.sort(np.asarray(pairs["a"])[near] * n + np.asarray(pairs["b"])[near])
    truth = np.array(sorted(a * n + b for info in infos for a, b in info["hits"]), dtype=np.int64)
    at = np.minimum(np.searchsorted(known, truth), max(0, len(known) - 1))
    found = int((known[at] == truth).sum()) if len(known) else 0
    low, high = share_interval(found, len(truth))
    compared = sum(info["pairs"] for info in infos)
    return {
        "images": count,
        "compared": compared,
        "compared_share": compared / max(1, context.known.possible),
        "pairs": len(truth),
        "found": found,
        "recall": found / len(truth) if len(truth) else None,
        "low": low,
        "high": high,
    }


def _drawn(n: int, pairs: int) -> int:
    """Images drawn to estimate the recall, as many as make so many pairs, or `SAMPLE`."""
    return min(n, max(SAMPLE, pairs // n))


def _beside(count: int, most: int) -> int:
    """Images that one task sets beside so many drawn ones, where it holds the parts of `most` at most."""
    return max(1, min(most // 2, DRAWN_PAIRS // count))


def _looked_up(context: Context, rows: np.ndarray) -> np.ndarray:
    """Rows of all splits but the largest, which the others are looked up in; all rows where there is none."""
    masks = context.run.load("partial", NAME, "masks.npy")[rows]
    value, size = np.unique(masks, return_counts=True)
    some = rows[masks != value[size.argmax()]]
    return some if len(some) else rows


def _say(context: Context, facts: dict[str, Any]) -> None:
    recall = facts.get("recall")
    more = f", and {100 * recall['compared_share']:.3g} % to estimate the recall" if recall else ""
    context.say(
        f"similarities: {facts['compared']:,} pairs compared in pixels ({100 * facts['compared_share']:.3g} % of all"
        f"{more}), {facts['near']:,} at or above {facts['min_similarity']:g}"
    )
    if recall is None:
        return
    if not recall["pairs"]:
        context.say(f"similarities: recall unknown: none of {recall['images']} images drawn has a near-duplicate")
        return
    context.say(
        f"similarities: recall {recall['recall']:.2f} (95 % interval {recall['low']:.2f} to {recall['high']:.2f}): "
        f"{recall['found']} of {recall['pairs']} near-duplicate pairs of {recall['images']} images drawn at random and "
        "compared with all others"
    )


def _need(size: Size, settings: Settings, workers: int) -> Need:
    maker = find("similarities", settings.similarities.name)
    asked = settings.similarities.size
    shape: tuple[int, ...] = (size.height, size.width, size.channels)
    if asked != "native" and not settings.sees_standard:
        height, width = (int(side) for side in asked.split("x"))
        shape = (height, width, size.channels)
    seen = int(np.prod(shape))
    if maker.of == "coefficients":
        shape = (size.columns,)
    try:
        similarity = similarity_of(settings.similarities.name, shape)
    except SettingsError:
        if settings.sees_standard:
            raise
        similarity = similarity_of(settings.similarities.name, (64, 64, size.channels))
    parts = part_bytes(similarity, shape)
    everything = settings.candidates.method == "all"
    held = min(size.n, max(2, PARTS_BYTES // parts))
    if everything:
        held = min(held, 2 * SQUARE)
    # parts in the making take several times their final size
    task = held * parts + 4 * min(held, PIECE) * parts + similarity.batch * similarity.pair_bytes + 2 * READ * seen
    task += max(READ_BYTES, min(held, PIECE) * shown_bytes(shape))
    copied = size.n * shown_bytes(shape)
    task = max(task, 2 * min(group_bytes(copied), copied)) + 8 * size.n
    pairs = size.possible if everything else min(size.n * (settings.candidates.neighbours + 32), size.possible)
    pairs = min(pairs, settings.candidates.most_pairs(size.n))
    columns = 4 + len(similarity.reports)
    together = SQUARE**2 if everything else settings.candidates.part_pairs(size.n)
    table = max(together, DRAWN_PAIRS if settings.candidates.sample else 0) * 16 * columns
    tasks = max(1, pairs // together)
    if maker.of == "pixels" and not settings.sees_standard:
        tasks += -(-size.n // READ)
    if not everything:
        tasks += copy_tasks(size.n, shown_bytes(shape))
        if settings.candidates.sample and size.n > 1:
            most = max(2, PARTS_BYTES // part_bytes(similarity, shape, np.float32))
            tasks += -(-size.n // _beside(_drawn(size.n, settings.candidates.sample), most))
    return Need(
        blocks=tasks,
        read=pairs // 4 * seen + (0 if everything else 2 * copied),
        write=pairs * 8 * columns + (0 if everything else 2 * copied),
        task=task + table,
        process=CACHE_BYTES + LEFT_BYTES,
        driver=pairs * 40 + 100 * size.n,
    )


STAGE = Stage(
    name=NAME,
    version=1,
    reads=("images", "columns", "candidates"),
    settings=(
        "similarities.name",
        "similarities.size",
        "similarities.min_similarity",
        "candidates.sample",
        "candidates.seed",
    ),
    leaves=("tables/pairs", "arrays/pictures", "arrays/arranged"),
    run=_run,
    need=_need,
    versions=lambda settings: similarity_versions(settings),
    update=_update,
)


def similarity_versions(settings: Settings) -> dict[str, str]:
    """What the similarity's output depends on."""
    maker = find("similarities", settings.similarities.name)
    return dict(maker((64, 64, 3) if maker.of == "pixels" else (1,)).versions)
