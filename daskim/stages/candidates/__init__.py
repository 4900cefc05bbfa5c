"""Which pairs of images are worth a similarity: MinHash bands, nearest neighbours in coarse coefficients, or all.

Leaves `representatives` (row, first: the image that stands for it, splits: those of all images that this one stands
for, as bits of the sorted names), `candidates` (a < b, source, correlation; a part holds pairs of few images, as these
are in an order in which partners stand together: `order.py`) and `nearest` (row, nearest_row,
correlation: the most alike in coarse coefficients; with candidates.across = splits, of another split). With across =
splits and a search in coarse coefficients also `nearest_by_split` (row, split, nearest_row, correlation): of each image
that is searched the most alike of every other split, however far. For later deliveries `neighbours` (see `lists.py`),
and in `frozen/candidates` which images were searched, and until the first one their order.

After a delivery the parts of `candidates` that begin with its mark hold all of them: `-new-` those that are to be
compared, `-old-` those that were. Older parts go when the pairs have been compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.equals import numbered
from daskim.errors import SettingsError
from daskim.kept import CACHE_BYTES, LEFT_BYTES, SIDE_BY_SIDE, parts_of
from daskim.kernels.coarse import width
from daskim.kernels.splits import MOST, pairs_across, split_masks
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.stages.candidates.bands import CUT, SORTED, bands_of, forms_of, lsh_files
from daskim.stages.candidates.cells import GROUP, QUERY
from daskim.stages.candidates.features import form_count, leave_features, views_bytes
from daskim.stages.candidates.join import BLOCK, best_of_splits
from daskim.stages.candidates.lists import join_files, renew_lists
from daskim.stages.candidates.order import MOST_SAMPLED, TOLD, leave_order
from daskim.stages.candidates.rows import NAME, first_of_equals, searched_rows
from daskim.stages.candidates.unite import best_of_each, counts, spans, unite_all, united, write
from daskim.store import Run

__all__ = ["STAGE"]

# What k-means by dask-ml takes in the process that orders the work: the library, and a sample.
DASK_ML_BYTES = 300_000_000


def _run(context: Context) -> dict[str, Any]:
    return _find(context, None)


def _update(context: Context, change: Change) -> dict[str, Any] | None:
    """Look the images of a delivery up among all. The pairs are those that a search of all images would give."""
    if context.settings.candidates.method == "all" or context.settings.candidates.across == "splits":
        return None
    return _find(context, change)


def _find(context: Context, change: Change | None) -> dict[str, Any]:
    run, settings, size = context.run, context.settings, context.known
    images = numbered(run.read_table("images", ["row", "status", "digest", "split"]), "digest").to_pandas()
    images = images.sort_values("row", ignore_index=True)
    exact = run.read_table("exact", ["row", "group"]).to_pandas()
    first = first_of_equals(images, exact, size.n, standard=settings.sees_standard)
    masks = _masks(images, first, settings)
    run.write_part("representatives", "000000", pa.table({"row": np.arange(size.n), "first": first, "splits": masks}))
    apart = settings.candidates.across == "splits"
    if apart:
        run.save(masks, "partial", NAME, "masks.npy")
    method = settings.candidates.method
    rows = searched_rows(first, images, flat=method == "all")
    possible = pairs_across(masks[rows]) if apart else len(rows) * (len(rows) - 1) // 2
    facts: dict[str, Any] = {"method": method, "searched": len(rows), "possible": possible}
    if method == "all":
        _refuse(possible, context.known.n, settings, "every pair of")
        _write_nearest(run, size.n, iter(()))
        return {**facts, "candidates": possible}
    facts["delivery"] = "d00000" if change is None else change.mark
    run.save(rows, "frozen", NAME, f"{facts['delivery']}-searched.npy")
    count, best = _searched(context, rows, facts) if change is None else _renewed(context, rows, change, facts)
    _refuse(count["candidates"], context.known.n, settings, "candidate pairs of")
    if apart and method != "lsh":
        best = iter([_write_by_split(run, images, first)])
    _write_nearest(run, size.n, best)
    if method != "lsh":
        facts["join_pairs"] = count["join"]
    if method != "join":
        facts["lsh_pairs"] = count["lsh"]
    return {**facts, "candidates": count["candidates"]}


Found = tuple[dict[str, int], Iterator[np.ndarray]]


def _searched(context: Context, rows: np.ndarray, facts: dict[str, Any]) -> Found:
    """Leave all candidates; how many there are, and the most alike of each image (`unite.best_of_each`)."""
    run, settings = context.run, context.settings.candidates
    method = settings.method
    leave_features(context)
    leave_order(context, rows)
    edges = [lo for lo, _ in spans(context.known.n)]
    near: list[list[str]] = [[] for _ in edges]
    shared = near
    if method != "lsh":
        near, more = join_files(context, rows, edges)
        facts.update(more)
    if method != "join":
        shared, more = lsh_files(context, rows, edges)
        facts.update(more)
    infos = unite_all(context, near, shared, settings.part_pairs(context.known.n))
    facts["parts"] = facts["compare"] = sum(info["parts"] for info in infos)
    count = {name: sum(info[name] for info in infos) for name in ("candidates", "join", "lsh")}
    return count, (run.load("partial", NAME, f"range-{index:03d}.npy") for index in range(len(edges)))


def _renewed(context: Context, rows: np.ndarray, change: Change, facts: dict[str, Any]) -> Found:
    """As `_searched` after a delivery, from the lists that there were; all pairs are held here."""
    run, n, settings = context.run, context.known.n, context.settings.candidates
    method = settings.method
    run.remove(*SIDE_BY_SIDE)
    lists, codes = np.zeros((3, 0)), [np.zeros(0, dtype=np.int64)]
    if method != "lsh":
        lists, more = renew_lists(context, rows, change, run.facts(NAME))
        facts.update(more)
    if method != "join":
        files, more = lsh_files(context, rows, [0], change)
        facts.update(more)
        codes += [run.load("partial", NAME, name) for name in files[0]]
    pairs = united(n, lists, np.concatenate(codes))
    before = _compared(run, run.facts(NAME)["delivery"], change, n)
    old = np.isin(pairs.a * n + pairs.b, before, assume_unique=True)
    part = settings.part_pairs(n)
    facts["parts"] = write(run, f"{change.mark}-old-", pairs.of(old), part)
    facts["compare"] = write(run, f"{change.mark}-new-", pairs.of(~old), part)
    return counts(pairs), iter([best_of_each(pairs)])


def _compared(run: Run, mark: str, change: Change, n: int) -> np.ndarray:
    """The candidates before a delivery whose images are still what they were, as a * n + b."""
    found = [np.zeros(0, dtype=np.int64)]
    for key in parts_of(run, NAME, mark):
        a, b = (np.asarray(column) for column in run.read_part(NAME, key, ["a", "b"]).columns)
        stay = ~np.isin(a, change.removed) & ~np.isin(b, change.removed)
        found.append(a[stay] * n + b[stay])
    return np.concatenate(found)


def _masks(images: pd.DataFrame, first: np.ndarray, settings: Settings) -> np.ndarray:
    """The splits of the images that each image stands for."""
    names, code = _codes(images)
    if len(names) > MOST:
        if settings.candidates.across == "splits":
            raise SettingsError(f"{len(names)} splits: more than {MOST}", "Name fewer splits.")
        code = np.zeros(len(code), dtype=np.int64)
    return split_masks(code, first)


def _codes(images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Names of the splits, sorted ("" for none), and the number of each image's."""
    names, code = np.unique(images["split"].fillna("").to_numpy(dtype=object).astype(str), return_inverse=True)
    return names, code


def _write_by_split(run: Run, images: pd.DataFrame, first: np.ndarray) -> np.ndarray:
    """Leave the table `nearest_by_split`; the most alike of other splits: image, other, correlation; (3, found)."""
    names, code = _codes(images)
    row, bit, other, correlation = best_of_splits(run)
    order = np.lexsort((bit, row))
    row, bit, other, correlation = row[order], bit[order], other[order], correlation[order]
    # of the equal images that one stands for, the first of the split
    mine = np.flatnonzero(first >= 0)
    key, at = np.unique(first[mine] * len(names) + code[mine], return_index=True)
    there = mine[at[np.searchsorted(key, other * len(names) + bit)]] if len(other) else other
    table = {"row": row, "split": names[bit].astype(str), "nearest_row": there}
    run.write_part("nearest_by_split", "000000", pa.table({**table, "correlation": correlation.astype(np.float64)}))
    return np.stack([row.astype(np.float64), there.astype(np.float64), correlation.astype(np.float64)])


def _refuse(pairs: int, n: int, settings: Settings, what: str) -> None:
    most = settings.candidates.most_pairs(n)
    if pairs > most:
        raise SettingsError(
            f"{what} this set would be {pairs:,}, more than candidates.max_pairs = {most:,}",
            "Take candidates.method = union (or fewer candidates.neighbours), or raise the bound.",
        )


def _write_nearest(run: Run, n: int, found: Iterator[np.ndarray]) -> None:
    """For each image the most alike in coarse coefficients, ties to the first; -1 and NaN where none is known.

    Parameters
    ----------
    found : iterator of ndarray, shape (3, rows), float64
        Row, other, score.
    """
    nearest, best = np.full(n, -1, dtype=np.int64), np.full(n, -np.inf)
    for part in found:
        order = np.lexsort((part[1], -part[2], part[0]))
        order = order[np.diff(part[0, order], prepend=-1) != 0]
        row, other, score = part[0, order].astype(np.int64), part[1, order].astype(np.int64), part[2, order]
        better = (score > best[row]) | ((score == best[row]) & (other < nearest[row]))
        nearest[row[better]], best[row[better]] = other[better], score[better]
    best[nearest < 0] = np.nan
    run.write_part("nearest", "000000", pa.table({"row": np.arange(n), "nearest_row": nearest, "correlation": best}))


def _need(size: Size, settings: Settings, workers: int) -> Need:
    candidates = settings.candidates
    if candidates.method == "all":
        _refuse(size.possible, size.n, settings, "every pair of")  # before anything is read
        return Need(blocks=1, read=0, write=20 * size.n, task=0, driver=200 * size.n)
    k = min(candidates.directions, width(size.channels))
    forms = form_count(candidates)
    lsh = candidates.method in ("lsh", "union")
    pairs = min(candidates.most_pairs(size.n), size.n * (candidates.neighbours + (32 if lsh else 0)))
    signature = bands_of(candidates, size.n).permutations * 4 * forms_of(candidates) if lsh else 0
    views = views_bytes(size.n, size.pixels, size.channels, forms, k)
    search = QUERY * forms * k * 12 + BLOCK * (forms + 1) * k * 4 + QUERY * candidates.neighbours * 300
    sign = size.rows * (size.pixels * 9 + 2 * signature)
    sort = min(size.n, SORTED) * 5 // 4 * (3 * signature // 16 + 200) + 2 * min(size.n, CUT) * signature if lsh else 0
    span = max(hi - lo for lo, hi in spans(size.n))
    one = -(-pairs // size.n) * span * 150  # the pairs of one range
    group = GROUP * QUERY * (2 * forms * k + 16 * forms * candidates.probes + 16) * 4  # sorted into cells
    cells = group if size.n > candidates.all_blocks else 0
    told = min(size.n, TOLD) * (forms + 2) * k * 2
    sampled = 24 * k * min(size.n, MOST_SAMPLED)
    return Need(
        blocks=-(-size.n // QUERY),
        read=2 * size.n * size.pixels,
        write=size.n * (forms * k * 2 + signature) + 40 * pairs,
        # and the order of all; measured, a worker holds 350 bytes more for each image from 500,000 to 2,000,000
        task=max(views, search, told, 80 * size.n + max(sign, sort, one, cells)),
        process=CACHE_BYTES + LEFT_BYTES,
        # the graph of the blocks; dask-ml, where there are cells
        driver=400 * size.n + 20_000 * size.blocks + max(sampled, DASK_ML_BYTES if cells else 0),
    )


STAGE = Stage(
    name=NAME,
    version=7,  # 6: pairs that meet in a band by chance are left out; 7: they go by the order of the coarse features
    reads=("images", "exact"),
    settings=("candidates", "similarities.size"),
    leaves=(
        "tables/representatives",
        "tables/candidates",
        "tables/nearest",
        "tables/nearest_by_split",
        "tables/neighbours",
        "frozen/candidates",
        "arrays/coarse",
        "arrays/signatures",
    ),
    run=_run,
    need=_need,
    update=_update,
)
