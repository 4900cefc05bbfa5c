"""The steps of a registration on one level, for stacks of pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daskim.kernels.registration import Motion, match, rough_match, step, template_of

__all__ = ["settle"]


def settle(
    template: np.ndarray, moved: np.ndarray, motion: Motion, least: np.ndarray, *, whole: bool
) -> tuple[Motion, NDArray[np.intp]]:
    """The motions after the steps of a level, for the pairs that go on; and which those are.

    A step after which a pair agrees less is taken back, and the pair takes no more on this level.

    Parameters
    ----------
    template, moved : ndarray, shape (p, y, c, x), float32
        Less the means of their channels.
    least : ndarray, shape (steps,), float32
        What a pair must correlate before each step; else it goes no further.
    whole : bool
        Compare whole templates, with the moved images repeated beyond their borders: at half the cost.
    """
    compare = rough_match if whole else match
    keep = np.arange(len(template))
    model, best, last = None, np.full(len(template), -np.inf, dtype=np.float32), motion
    worse = np.zeros(len(template), dtype=bool)
    for bound in least:
        found = compare(template, moved, motion)
        worse = worse | (found.correlation < best)
        best, motion = np.maximum(best, found.correlation), motion.either(worse, last)
        good = np.flatnonzero(best >= bound)
        if len(good) < len(best):
            keep, motion, found = keep[good], motion.take(good), found.take(good)
            worse, best = worse[good], best[good]
            template, moved = template[good], moved[good]
            model = model.take(good) if model is not None else None
        if not keep.size:
            break
        if model is None:
            model = template_of(template)
        last, motion = motion, step(model, found, motion).either(worse, motion)
    return motion, keep
