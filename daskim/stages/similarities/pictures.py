"""What a similarity is shown: standard images, images at another size, or the kept coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.kept import Kept, gather, kept_of, take
from daskim.lake import ImageSpec, standardise_block
from daskim.release import kept_for_a_stage
from daskim.stages import Context
from daskim.statuses import READABLE
from daskim.store import Run, block_bounds

__all__ = ["NAME", "Shown", "shown"]

NAME = "similarities"
# Images read again by one task.
READ = 64


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
    kept, unit : Kept and float
        For coefficients: which, and the factor that makes their distance the RMS difference in grey levels.
    made : str, optional
        For images read again: names the array, whose rows are those of the pairs only.
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
        if self.kept is not None:
            return gather(self.kept, rows).astype(np.float64) * self.unit
        if self.made is not None:
            rows = np.searchsorted(_read_rows(self.run, self.made), rows)
        return take(self.run, self.array, rows)


@lru_cache(maxsize=1)
def _read_rows(run: Run, made: str) -> np.ndarray:
    return run.load("partial", NAME, "read-rows.npy")


kept_for_a_stage(_read_rows.cache_clear)


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
    if asked in ("standard", settings.images.size):
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
        run.save(rows, "partial", NAME, "read-rows.npy")
    bounds = block_bounds(len(rows), READ)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    calls = [(lo, hi, spec, size.rows, context.source_options) for lo, hi in bounds]
    infos = context.engine.each(NAME, "read", keys, calls, read_pictures, alone=partial(read_pictures, alone=True))
    lost = np.array([row for info in infos for row in info["lost"]], dtype=np.int64)
    return Shown(run, "pictures", spec.shape, len(rows), READ, made=str(run.array("pictures").attrs["made"])), lost


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
    rows = run.load("partial", NAME, "read-rows.npy")[lo:hi]
    parts = []
    for index in np.unique(rows // block).tolist():
        mine = rows[rows // block == index]
        parts.append(run.read_part("index", f"{index:06d}").take(pa.array(mine - index * block)))
    pixels, table = standardise_block(pa.concat_tables(parts), spec, options, alone=alone)
    run.array("pictures")[lo:hi] = pixels
    bad = [status not in READABLE for status in table["status"].to_pylist()]
    return {"rows": hi - lo, "lost": rows[np.array(bad, dtype=bool)].tolist()}
