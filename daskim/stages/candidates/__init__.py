"""Which pairs of images are worth a similarity: MinHash bands, nearest neighbours in coarse coefficients, or all.

Leaves `representatives` (row, first: the image that stands for it, splits: those of all images that this one stands
for, as bits of the sorted names), `candidates` (a < b, source, correlation; ordered by the ranges of rows that a and b
are in, so that a task that reads few blocks finds their pairs together) and `nearest` (row, nearest_row, correlation:
the most alike in coarse coefficients; with candidates.across = splits, of another split). With across = splits and a
search in coarse coefficients also `nearest_by_split` (row, split, nearest_row, correlation): of each image that is
searched the most alike of every other split, however far. For later deliveries `neighbours` (see `lists.py`), and in
`frozen/candidates` which images were searched.

After a delivery the parts of `candidates` that begin with its mark hold all of them: `-new-` those that are to be
compared, `-old-` those that were. Older parts go when the pairs have been compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.errors import SettingsError
from daskim.kept import CACHE_BYTES, parts_of
from daskim.kernels.coarse import width
from daskim.kernels.splits import MOST, across, pairs_across, split_masks
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.stages.candidates.bands import bands_of, forms_of, lsh_pairs
from daskim.stages.candidates.features import form_count, views_bytes
from daskim.stages.candidates.join import BLOCK, QUERY, best_of_splits
from daskim.stages.candidates.lists import join_pairs, renew_pairs
from daskim.stages.candidates.rows import NAME, first_of_equals, searched_rows
from daskim.store import Run, block_bounds

__all__ = ["STAGE"]

# Pairs in one part of the table: the unit of work of the similarities.
PART = 8192
# Rows whose pairs with another such range stand together. A constant near the usual block, so that neither the order
# of the tables nor their parts depend on the blocks of the run.
RANGE = 2048
# Bits of a source, and their names in order.
JOIN, LSH = 1, 2
NAMES = np.array(["", "join", "lsh", "join+lsh"], dtype=object)


def _run(context: Context) -> dict[str, Any]:
    return _find(context, None)


def _update(context: Context, change: Change) -> dict[str, Any] | None:
    """Look the images of a delivery up among all. The pairs are those that a search of all images would give."""
    if context.settings.candidates.method == "all" or context.settings.candidates.across == "splits":
        return None
    return _find(context, change)


def _find(context: Context, change: Change | None) -> dict[str, Any]:
    run, settings, size = context.run, context.settings, context.known
    images = run.read_table("images", ["row", "status", "digest", "split"]).to_pandas()
    images = images.sort_values("row", ignore_index=True)
    exact = run.read_table("exact", ["row", "group"]).to_pandas()
    standard = settings.similarities.size in ("standard", settings.images.size)
    first = first_of_equals(images, exact, size.n, standard=standard)
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
        _refuse(possible, settings, "every pair of")
        _write_nearest(run, size.n, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
        return {**facts, "candidates": possible}
    facts["delivery"] = "d00000" if change is None else change.mark
    run.save(rows, "frozen", NAME, f"{facts['delivery']}-searched.npy")
    found = []
    correlation = np.zeros(0, dtype=np.float32)
    join = np.zeros((2, 0), dtype=np.int64)
    nearest = join[0], join[0], correlation
    if method in ("join", "union"):
        if change is None:
            a, b, correlation, more = join_pairs(context, rows)
        else:
            a, b, correlation, more = renew_pairs(context, rows, change, run.facts(NAME))
        join = np.stack([a, b])
        nearest = _write_by_split(run, images, first) if apart else (a, b, correlation)
        facts.update(more, join_pairs=len(a))
        found.append((a * size.n + b, JOIN))
    if method in ("lsh", "union"):
        a, b, more = lsh_pairs(context, rows, change)
        if apart:
            crossing = across(masks[a], masks[b])
            a, b = a[crossing], b[crossing]
        facts.update(more, lsh_pairs=len(a))
        found.append((a * size.n + b, LSH))
    codes, source = _united(found)
    _refuse(len(codes), settings, "candidate pairs of")
    known = np.full(len(codes), np.nan, dtype=np.float32)
    known[np.searchsorted(codes, join[0] * size.n + join[1])] = correlation
    pairs = _Pairs(codes // size.n, codes % size.n, NAMES[source], known)
    if change is None:
        facts["parts"] = facts["compare"] = _write(run, "", pairs)
    else:
        before = _compared(run, run.facts(NAME)["delivery"], change, size.n)
        old = np.isin(codes, before, assume_unique=True)
        facts["parts"] = _write(run, f"{change.mark}-old-", pairs.of(old))
        facts["compare"] = _write(run, f"{change.mark}-new-", pairs.of(~old))
    _write_nearest(run, size.n, *nearest)
    return {**facts, "candidates": len(codes)}


class _Pairs(NamedTuple):
    """Candidates: rows a < b, source, correlation of the coarse coefficients."""

    a: np.ndarray
    b: np.ndarray
    source: np.ndarray
    correlation: np.ndarray

    def of(self, some: np.ndarray) -> _Pairs:
        return _Pairs(*(column[some] for column in self))


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


def _write_by_split(run: Run, images: pd.DataFrame, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave the table `nearest_by_split`; image, the most alike of another split, and their correlation."""
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
    return row, there, correlation


def _refuse(pairs: int, settings: Settings, what: str) -> None:
    most = settings.candidates.max_pairs
    if pairs > most:
        raise SettingsError(
            f"{what} this set would be {pairs:,}, more than candidates.max_pairs = {most:,}",
            "Take candidates.method = union (or fewer candidates.neighbours), or raise the bound.",
        )


def _united(found: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted codes of all pairs, and the sum of their source bits."""
    codes = np.unique(np.concatenate([part for part, _ in found]))
    source = np.zeros(len(codes), dtype=np.int64)
    for part, bit in found:
        source[np.searchsorted(codes, part)] += bit
    return codes, source


def _write(run: Run, mark: str, pairs: _Pairs) -> int:
    """Candidates by pairs of ranges of rows, in parts of the table whose names begin with a mark; how many parts."""
    a, b, source, correlation = pairs
    order = np.lexsort((b, a, b // RANGE, a // RANGE))
    bounds = block_bounds(len(a), PART) or [(0, 0)]  # so that the table can be read
    for index, (lo, hi) in enumerate(bounds):
        mine = order[lo:hi]
        table = {"a": a[mine], "b": b[mine], "source": source[mine].astype(str), "correlation": correlation[mine]}
        run.write_part(NAME, f"{mark}{index:06d}", pa.table(table))
    return len(bounds)


def _write_nearest(run: Run, n: int, a: np.ndarray, b: np.ndarray, correlation: np.ndarray) -> None:
    """For each image the most alike in coarse coefficients, ties to the first; -1 and NaN where none is known."""
    row, other = np.concatenate([a, b]), np.concatenate([b, a])
    score = np.concatenate([correlation, correlation]).astype(np.float64)
    order = np.lexsort((other, -score, row))
    row, at = np.unique(row[order], return_index=True)
    nearest, best = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    nearest[row], best[row] = other[order][at], score[order][at]
    run.write_part("nearest", "000000", pa.table({"row": np.arange(n), "nearest_row": nearest, "correlation": best}))


def _need(size: Size, settings: Settings, workers: int) -> Need:
    candidates = settings.candidates
    if candidates.method == "all":
        _refuse(size.possible, settings, "every pair of")  # before anything is read
        return Need(blocks=1, read=0, write=20 * size.n, task=0, driver=200 * size.n)
    k = min(candidates.directions, width(size.channels))
    forms = form_count(candidates)
    lsh = candidates.method in ("lsh", "union")
    pairs = min(candidates.max_pairs, size.n * (candidates.neighbours + (32 if lsh else 0)))
    signature = bands_of(candidates, size.n).permutations * 4 * forms_of(candidates) if lsh else 0
    views = views_bytes(size.n, size.pixels, size.channels, forms, k)
    search = QUERY * forms * k * 12 + BLOCK * (forms + 1) * k * 4 + QUERY * candidates.neighbours * 300
    bands = size.n * 120 + size.rows * (size.pixels * 9 + 2 * signature)
    return Need(
        blocks=-(-size.n // QUERY),
        read=2 * size.n * size.pixels,
        write=size.n * (forms * k * 4 + signature) + 40 * pairs,
        task=max(views, search, bands),
        process=CACHE_BYTES,
        driver=100 * pairs + 300 * size.n + 20_000 * size.blocks,  # the graph of the blocks
    )


STAGE = Stage(
    name=NAME,
    version=4,
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
