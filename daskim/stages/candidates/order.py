"""An order of the searched images in which candidates of one another stand close together.

So the pairs of a run of images have their partners in few other places, and a task that compares them makes what it
needs of an image once for many pairs, whatever the number of images and of workers. Images go by the box of a k-d tree
that they are in by their coarse features, taken so that an image and its mirror image are in one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.kept import SIDE_BY_SIDE, take
from daskim.kernels.boxes import Boxes, box_of, split_boxes
from daskim.kernels.coarse import odd_directions
from daskim.settings import Candidates
from daskim.stages import Context
from daskim.stages.candidates.features import form_count
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["MOST_SAMPLED", "TOLD", "Order", "leave_order", "order_in"]

# Images of a box, about, where there are few enough; halvings at most; images of the sample for each box.
BOX, DEPTH, SAMPLED = 64, 12, 32
MOST_SAMPLED = SAMPLED << DEPTH
# Images whose boxes are told by one task.
TOLD = 65_536


class Order:
    """Rows to places and back.

    Attributes
    ----------
    rows : ndarray, shape (p,), int64
        The row that stands at each place.
    places : ndarray, shape (n,), int64
        The place of each row; -1 for those that are not searched.
    """

    def __init__(self, rows: np.ndarray, n: int) -> None:
        self.rows, self.places = rows, np.full(n, -1, dtype=np.int64)
        self.places[rows] = np.arange(len(rows))


def order_in(run: Run, n: int) -> Order:
    """The order that `leave_order` left."""
    return Order(run.load(*SIDE_BY_SIDE), n)


def leave_order(context: Context, rows: np.ndarray) -> None:
    """Leave the order of some images, ascending, whose coarse features are there.

    Images of one box come as they are listed.
    """
    run, settings = context.run, context.settings.candidates
    depth = min(DEPTH, max(0, (len(rows) // BOX).bit_length() - 1))
    some = np.random.default_rng(settings.seed).permutation(len(rows))[: SAMPLED << depth]
    boxes = split_boxes(_folded(run, rows[np.sort(some)], settings), depth)
    run.save(np.stack(boxes), "partial", NAME, "boxes.npy")
    run.save(rows, "partial", NAME, "order-rows.npy")
    bounds = block_bounds(len(rows), TOLD)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    context.engine.each(NAME, "boxes", keys, [(lo, hi, settings) for lo, hi in bounds], tell_boxes)
    parts = [run.load("partial", NAME, f"boxes-{key}.npy") for key in keys]
    box = np.concatenate([np.zeros(0, dtype=np.int16), *parts])
    run.save(rows[np.argsort(box, kind="stable")], *SIDE_BY_SIDE)


def tell_boxes(run: Run, key: str, lo: int, hi: int, settings: Candidates) -> dict[str, Any]:
    """The boxes of some images, int16."""
    rows = run.load("partial", NAME, "order-rows.npy")[lo:hi]
    box = box_of(_folded(run, rows, settings), Boxes(*run.load("partial", NAME, "boxes.npy")))
    run.save(box.astype(np.int16), "partial", NAME, f"boxes-{key}.npy")
    return {}


def _folded(run: Run, rows: np.ndarray, settings: Candidates) -> np.ndarray:
    """Features of images as they are, which those of their mirror images share; shape (len(rows), k), int16."""
    found = take(run, "coarse", rows)
    found = found[:, : found.shape[1] // form_count(settings)]
    if not settings.mirror:
        return found
    odd = odd_directions(run.array("images").shape[-1], settings.directions)
    return np.where(odd, np.abs(found), found)
