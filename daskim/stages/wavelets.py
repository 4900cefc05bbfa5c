"""Wavelet coefficients of every image: the tall matrix W."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.plugins import find, transform_of
from daskim.renewal import renew_rows
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.store import Run, block_bounds
from daskim.transforms import Transform

__all__ = ["STAGE"]


def _run(context: Context) -> dict[str, Any]:
    size = context.known
    transform = transform_of(context.settings.wavelets, (size.height, size.width, size.channels))
    for note in transform.notes:
        context.say(f"wavelets: {note}")
    if not context.run.marked("wavelets"):
        attributes = {"scale": transform.scale}
        context.run.create_array("wavelets", (size.n, transform.columns), transform.dtype, size.rows, attributes)
    bounds = block_bounds(size.n, size.rows)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    context.engine.each("wavelets", "block", keys, [(*bound, transform) for bound in bounds], transform_block)
    return {"columns": transform.columns, "scale": transform.scale, "exact": transform.exact, "notes": transform.notes}


def transform_block(run: Run, key: str, lo: int, hi: int, transform: Transform) -> dict[str, Any]:
    """Coefficients of the images of one block."""
    run.array("wavelets")[lo:hi] = transform(np.asarray(run.array("images")[lo:hi]))
    return {"rows": hi - lo}


def _update(context: Context, change: Change) -> dict[str, Any]:
    size = context.known
    transform = transform_of(context.settings.wavelets, (size.height, size.width, size.channels))
    renew_rows(context.engine, "wavelets", f"{change.mark}-block", change.added, size.n, "wavelets", transform)
    return context.run.facts("wavelets")


def _need(size: Size, settings: Settings, workers: int) -> Need:
    coefficients = size.columns * size.itemsize
    return Need(
        blocks=size.blocks,
        read=size.n * size.pixels,
        write=size.n * coefficients,
        task=size.rows * (2 * size.pixels + 3 * coefficients) + 256 * size.pixels * 16,
        driver=1_000 * size.blocks,
    )


STAGE = Stage(
    name="wavelets",
    version=1,
    reads=("images",),
    settings=("wavelets",),
    leaves=("arrays/wavelets",),
    run=_run,
    need=_need,
    versions=lambda settings: find("transforms", settings.wavelets.transform)((8, 8, 1)).versions,
    update=_update,
)
