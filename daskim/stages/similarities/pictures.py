"""What a similarity is shown: standard images, images at another size, or the kept coefficients.

Of many images a copy in the order of the candidates (`daskim.stages.candidates.order`), the array `arranged`: else each
task would read a few rows of nearly every block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.kept import CACHE_BYTES, Kept, gather, kept_of, take
from daskim.lake import ImageSpec, standardise_block
from daskim.release import kept_for_a_stage
from daskim.scatter import Scattered, rows_read, scatter
from daskim.stages import Context
from daskim.statuses import READABLE
from daskim.store import Run, block_bounds, even_rows

__all__ = ["NAME", "Shown", "arranged", "copy_tasks", "group_bytes", "shown"]

NAME = "similarities"
# Images read again by one task.
READ = 64
# What is shown of all images together, bytes, up to which it stays in its order: half of what a process keeps of it.
KEPT_BYTES = CACHE_BYTES // 2
# Bytes of a block of the copy; of the images that one task brings to their places, at least; and groups of such at
# most, as each task that reads leaves a file for each of them.
BLOCK_BYTES, GROUP_BYTES, GROUPS = 2**22, 2**27, 128


@dataclass(frozen=True)
class Shown:
    """Where the images that F sees are.

    Attributes
    ----------
    array : str
        Array of the run; "wavelets" for coefficients.
    shape : tuple of int
        (h, w, c), or (m,).
    count, block : int
        Rows of the array, and of one of its blocks.
    kept : Kept, optional
        For coefficients of W: which.
    unit : float
        For coefficients: what makes their distance the RMS difference in grey levels.
    made : str, optional
        Where the rows of the array are not those of the run: names it. The file ARRAY-rows.npy tells which they are.
    """

    run: Run
    array: str
    shape: tuple[int, ...]
    count: int
    block: int
    kept: Kept | None = None
    unit: float = 1.0
    made: str | None = None

    def take(self, rows: np.ndarray) -> np.ndarray:
        """What F sees of some images."""
        return self.at(self.places(rows))

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where images stand in the array."""
        return rows if self.made is None else _places(self.run, self.array, self.made)[rows]

    def at(self, places: np.ndarray) -> np.ndarray:
        """What F sees of the images at some places."""
        found = self.stored(places)
        return found.astype(np.float64) * self.unit if len(self.shape) == 1 else found

    def stored(self, places: np.ndarray) -> np.ndarray:
        """The same, as it is stored."""
        return take(self.run, self.array, places) if self.kept is None else gather(self.kept, places)


@lru_cache(maxsize=1)
def _places(run: Run, array: str, made: str) -> np.ndarray:
    """Where each image of the run stands in an array of some of them; (n,), int64, -1 for the others."""
    rows = run.load("partial", NAME, f"{array}-rows.npy")
    places = np.full(run.array("images").shape[0], -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return places


kept_for_a_stage(_places.cache_clear)


def shown(context: Context, of: str, rows: np.ndarray) -> tuple[Shown, np.ndarray]:
    """What the similarity is shown, and which rows cannot be shown.

    Parameters
    ----------
    of : "pixels" or "coefficients"
    rows : ndarray, int64, ascending
        Images that take part in a pair: only they are read again, where another size is asked for.
    """
    run, size, settings = context.run, context.known, context.settings
    standard = (size.height, size.width, size.channels)
    none = np.zeros(0, dtype=np.int64)
    if of == "coefficients":
        kept = kept_of(run)
        some = rows[:1024] if len(rows) else np.zeros(1, dtype=np.int64)
        pixels = take(run, "images", some).reshape(len(some), size.pixels)
        whole = float(pixels.var(axis=0, dtype=np.float64).sum())
        part = float(gather(kept, some).var(axis=0, dtype=np.float64).sum()) * kept.scale**2
        share = part / whole if whole else 1.0
        columns = size.columns if kept.columns is None else len(kept.columns)
        return Shown(
            run, "wavelets", (columns,), size.n, size.rows, kept, kept.scale / (size.pixels * (share or 1.0)) ** 0.5
        ), none
    asked = settings.similarities.size
    if settings.sees_standard:
        return Shown(run, "images", standard, size.n, size.rows), none
    if asked == "native":
        height, width = _native(run)
    else:
        height, width = (int(side) for side in asked.split("x"))
    images = settings.images
    spec = ImageSpec(
        height=height,
        width=width,
        mode=images.mode,
        filter=images.filter,
        fit="native" if asked == "native" else images.fit,
        draft=images.draft,
        max_pixels=images.max_pixels,
        max_bytes=images.max_bytes,
        max_seconds=images.max_seconds,
        flat_std=images.flat_std,
    )
    if not any(key.startswith("read") for key in run.marked(NAME)):
        run.create_array("pictures", (len(rows), *spec.shape), "u1", min(READ, max(1, len(rows))))
        run.save(rows, "partial", NAME, "pictures-rows.npy")
    bounds = block_bounds(len(rows), READ)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    calls = [(lo, hi, spec, size.rows, context.source_options) for lo, hi in bounds]
    infos = context.engine.each(NAME, "read", keys, calls, read_pictures, alone=partial(read_pictures, alone=True))
    lost = np.array([row for info in infos for row in info["lost"]], dtype=np.int64)
    return Shown(run, "pictures", spec.shape, len(rows), READ, made=str(run.array("pictures").attrs["made"])), lost


def group_bytes(total: int) -> int:
    """Bytes of images that one task brings to their places."""
    return max(GROUP_BYTES, total // GROUPS)


def _group_rows(count: int, row: int) -> int:
    """Rows of so many bytes that one task brings to their places: whole blocks of the copy."""
    block = _block_rows(row)
    return block * max(1, group_bytes(count * row) // (block * row))


def _block_rows(row: int) -> int:
    """Rows of so many bytes in a block of the copy."""
    return max(1, even_rows(BLOCK_BYTES // row))


def copy_tasks(count: int, row: int) -> int:
    """Tasks that copy so many images of so many bytes into another order; 0 where they are left in theirs."""
    if count * row <= KEPT_BYTES:
        return 0
    return -(-count // rows_read(row)) + -(-count // _group_rows(count, row))


def arranged(context: Context, view: Shown, order: np.ndarray) -> Shown:
    """A copy of what a similarity is shown, in another order; of few images, which a process keeps anyhow, as it is.

    Parameters
    ----------
    order : ndarray, int64
        All rows that are shown, in that order.
    """
    run, shape = context.run, view.shape
    dtype = view.stored(view.places(order[:1])).dtype if len(order) else np.dtype("u1")
    row = math.prod(shape) * dtype.itemsize
    if not copy_tasks(len(order), row):
        return view
    block, group = _block_rows(row), _group_rows(len(order), row)
    bounds = block_bounds(len(order), group)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    if not any(key.startswith("leave") for key in run.marked(NAME)) or not run.exists("arrays", "arranged"):
        # where it is gone, all has been compared, and nothing will be read from it
        run.create_array("arranged", (len(order), *shape), dtype, block)
        run.save(order, "partial", NAME, "arranged-rows.npy")
    rows = np.sort(order)
    made = str(run.array("arranged").attrs["made"])
    target = _places(run, "arranged", made)[rows] // group
    there = scatter(context.engine, NAME, view.kept or view.array, view.places(rows), target, "leave")
    context.engine.each(NAME, "enter", keys, [(lo, hi, there[index]) for index, (lo, hi) in enumerate(bounds)], enter)
    return Shown(run, "arranged", shape, len(order), block, unit=view.unit, made=made)


def enter(run: Run, key: str, lo: int, hi: int, there: Scattered) -> dict[str, Any]:
    """A group of places in order, from what is shown of its images in the order of the rows."""
    array = run.array("arranged")
    places = np.argsort(run.load("partial", NAME, "arranged-rows.npy")[lo:hi])
    out = np.empty((hi - lo, *array.shape[1:]), dtype=array.dtype)
    done = 0
    for part in there.parts(run):
        out[places[done : done + len(part)]] = part
        done += len(part)
    for first, last in block_bounds(hi - lo, run.block_rows("arranged")):  # of all at once zarr would hold two copies
        array[lo + first : lo + last] = out[first:last]
    return {}


def _native(run: Run) -> tuple[int, int]:
    """(height, width) of the first readable image."""
    table = run.read_table("images", ["status", "height", "width"]).to_pandas()
    first = table[table["status"].isin(READABLE)].iloc[0]
    return int(first["height"]), int(first["width"])


def read_pictures(
    run: Run,
    key: str,
    lo: int,
    hi: int,
    spec: ImageSpec,
    block: int,
    options: Mapping[str, Any],
    *,
    alone: bool = False,
) -> dict[str, Any]:
    """Read some images again at the size that F sees; `alone`: in child processes."""
    rows = run.load("partial", NAME, "pictures-rows.npy")[lo:hi]
    parts = []
    for index in np.unique(rows // block).tolist():
        mine = rows[rows // block == index]
        parts.append(run.read_part("index", f"{index:06d}").take(pa.array(mine - index * block)))
    pixels, table = standardise_block(pa.concat_tables(parts), spec, options, alone=alone)
    run.array("pictures")[lo:hi] = pixels
    bad = [status not in READABLE for status in table["status"].to_pylist()]
    return {"rows": hi - lo, "lost": rows[np.array(bad, dtype=bool)].tolist()}
