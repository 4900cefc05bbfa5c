"""Coarse features of every image: its forms in the leading cosines, the array `coarse`.

Mirrored forms are not stored: they differ in the sign of the directions that are odd across the image. The others are
rounded to whole numbers, so small that float32 adds up their products without rounding, in whatever order: inner
products depend neither on how a library goes about them nor on the processor, and equal ones are equal.
"""

from __future__ import annotations

import math

import numpy as np

from daskim.kept import take
from daskim.kernels.coarse import cosine_directions, forms, odd_directions, width
from daskim.renewal import renew_rows
from daskim.settings import Candidates
from daskim.stages import Change, Context
from daskim.stages.candidates.rows import NAME
from daskim.store import Run

__all__ = ["LENGTH", "Projector", "form_count", "forms_of", "leave_features", "odd_of", "plain_of"]
__all__ += ["renew_features", "views_bytes", "with_mirrored"]

# Images whose forms are made together, and that are projected by one task. Constants: the last bits of products may
# depend on them, and nothing may depend on the blocks of the run. Fewer where images are large: so many values of
# pixels at most.
VIEW, VIEW_PIXELS = 256, 2**21
PROJECT, PIXELS = 2048, 2**25
# Length of a form. Rounded, that of at most 192 coordinates is below 4080 + sqrt(192) / 2 < 4096, so that any sum of
# products is below 2^24 (Cauchy and Schwarz). Correlations are off by 1e-4 (standard deviation at 48 directions).
LENGTH = 4080


def form_count(settings: Candidates) -> int:
    """Forms of each image that are stored: the whole and its crops."""
    return 1 + len(settings.crops)


def _rows(most: int, pixels: int, bound: int) -> int:
    return max(1, min(most, bound // pixels))


def views_bytes(n: int, pixels: int, channels: int, forms: int, k: int) -> int:
    """What a task holds at most while it makes forms of images and projects them."""
    view = min(n, _rows(VIEW, pixels, VIEW_PIXELS)) * (16 * pixels + 24 * forms * width(channels))
    return view + min(n, _rows(PROJECT, pixels, PIXELS)) * (2 * pixels + 8 * forms * k)


class Projector:
    """All forms of a block of images in the leading directions."""

    def __init__(self, settings: Candidates, channels: int) -> None:
        self.settings = settings
        self.directions = cosine_directions(channels, settings.directions)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        return project(block, self.directions, self.settings)


def project(images: np.ndarray, directions: np.ndarray, settings: Candidates) -> np.ndarray:
    """Forms of images in the leading directions, of norm `LENGTH`, rounded; shape (b, forms * k), int16."""
    out = np.empty((len(images), form_count(settings), directions.shape[1]), dtype=np.int16)
    view = _rows(VIEW, math.prod(images.shape[1:]), VIEW_PIXELS)
    for start in range(0, len(images), view):
        found = forms(images[start : start + view], settings.crops, mirror=False) @ directions
        norm = np.sqrt(np.einsum("bfk,bfk->bf", found, found))
        found *= (LENGTH / np.where(norm > 1e-3, norm, np.inf))[..., None].astype(np.float32)
        out[start : start + view] = np.rint(found)
    return out.reshape(len(images), -1)


def leave_features(context: Context) -> None:
    """Leave the array `coarse` (n, forms * k) in the run."""
    import dask.array as da

    run, size, settings = context.run, context.known, context.settings.candidates
    project_rows = _rows(PROJECT, size.pixels, PIXELS)
    projector = Projector(settings, size.channels)
    columns = form_count(settings) * projector.directions.shape[1]
    if not any(key.startswith("coarse-0") for key in run.marked(NAME)):
        run.create_array("coarse", (size.n, columns), "i2", min(project_rows, size.n))
    images = da.from_zarr(run.array("images")).rechunk((project_rows, -1, -1, -1))
    coarse = images.map_blocks(
        projector,
        dtype="i2",
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(images.chunks[0], (columns,)),
        meta=np.empty((0, 0), dtype="i2"),
    )
    context.engine.materialise(NAME, "coarse", coarse, "coarse")


def renew_features(context: Context, change: Change) -> None:
    """The features of the images that a delivery added."""
    size, settings = context.known, context.settings.candidates
    projector = Projector(settings, size.channels)
    renew_rows(context.engine, NAME, f"{change.mark}-coarse", change.added, size.n, "coarse", projector)


def forms_of(run: Run, rows: np.ndarray, settings: Candidates) -> np.ndarray:
    """Features of some images, shape (len(rows), forms, k), float32."""
    return take(run, "coarse", rows).reshape(len(rows), form_count(settings), -1).astype(np.float32)


def plain_of(run: Run, rows: np.ndarray, settings: Candidates) -> np.ndarray:
    """Features of some images as they are, shape (len(rows), k), float32."""
    found = take(run, "coarse", rows)
    return found[:, : found.shape[1] // form_count(settings)].astype(np.float32)


def odd_of(run: Run, settings: Candidates) -> np.ndarray | None:
    """Directions that change their sign in a mirrored image, shape (k,), bool; None where none are looked up."""
    if not settings.mirror:
        return None
    return odd_directions(run.array("images").shape[-1], settings.directions)


def with_mirrored(found: np.ndarray, odd: np.ndarray | None) -> np.ndarray:
    """Features (b, forms, k) with the mirrored form after each; shape (b, 2 * forms, k)."""
    if odd is None:
        return found
    both = np.repeat(found, 2, axis=1)
    both[:, 1::2, odd] *= np.float32(-1)
    return both
