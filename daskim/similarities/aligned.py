"""The best SSIM of two images over mirror, small shifts and scales.

The pair is registered (`daskim.kernels.registration`), from ten starts compared on the coarsest level: mirrored or
not, and either image a centre crop of the other (7/8 or 3/4 of its side). Of the registered images, their brightness
and contrast matched over what both show and the plane of each channel removed (two clear skies share their gradient,
and nothing else), the similarity is the product of

    contrast-structure   mean over 7 x 7 windows of SSIM's (2 cov + C2) / (var + var' + C2), channels summed first
                         (Wang et al. 2004, equation 13 without the luminance term)
    structure            cov / (std std') of the same windows, weighted by sqrt(std std'): windows without texture,
                         alike in every two skies, do not count
    overlap              geometric mean of the shares of either picture that both show, over 0.9, at most 1

each of the first two clipped at 0. Range 0 to 1; identical images give 1, also those without texture, which else get 0.

The motion is found in float32; of the images so registered, the similarity is computed in the dtype of the parts. Where
numba is there, compiled kernels do the same pair by pair (`compare_at`), with the similarity in float64: the figures
agree up to rounding, so that few pairs, on the edge of a screen, are given up in one form only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from daskim.errors import SettingsError
from daskim.kernels.compiled import engine
from daskim.kernels.likeness import likeness
from daskim.kernels.registration import (
    Motion,
    cell_means,
    cell_weights,
    centred,
    move,
    overlap,
    unmoved,
)
from daskim.kernels.starts import UNIT, start, unit_crops
from daskim.kernels.steps import settle
from daskim.kernels.windows import uniform_taps, window_matrix
from daskim.similarities import Parts

__all__ = ["PLUGIN", "Aligned"]

CompareAt = Callable[[Parts, Parts, np.ndarray, np.ndarray], NDArray[np.float64]]

# Shorter side of the coarsest level.
COARSE = 8
# Centre crops that an image may be of the other: share of the side.
CROPS = (1.0, 7 / 8, 3 / 4)
# Steps on each level from the coarsest on; later levels take the last number.
STEPS = (2, 2, 3)
# Least correlation before a step of a level: (level, step) from 0. Below it a pair goes no further. Measured on the
# judged pairs of CIFAR-10: of 580 test images with a true partner among the candidates, these lose 10.
SCREENS = {(0, 1): 0.78, (1, 0): 0.72, (1, 1): 0.80, (2, 0): 0.73, (2, 1): 0.78}
# Least correlation of the crops before any step. Of random pairs of CIFAR-10 a tenth reach it; of 7,816 pairs that are
# at 0.5 or above in the end, the least has 0.595.
START = 0.5
# From this level on the mean of the channels is enough to find the motion.
GREY = 2
WINDOW = 7
C2 = (0.03 * 255.0) ** 2
FULL_OVERLAP = 0.9
# Variance of a channel, grey levels squared, below which a window hardly counts as texture. Rounding to whole grey
# levels leaves less than that; float32 leaves 0.01 where a flat part differs much from the mean of its image.
TEXTURE = 1.0
# What the pairs that are registered or compared together take, about. Measured at 32 x 32: an eighth of it takes 1.8
# times as long (calls), a whole batch at once 1.7 times (cache).
PIECE_BYTES = 2**24
# Contrast ratios that are matched.
CONTRAST = (0.25, 4.0)
# Pairs that go through the compiled kernels together: they hold some 200 bytes each.
TOGETHER = 4096


class Aligned:
    """See `daskim.similarities`.

    Parameters
    ----------
    shape : (h, w, c)
    screen : bool
        Give up pairs whose coarse registration correlates less than `SCREENS`: their similarity is NaN. Without it
        every pair is followed to the end.

    Raises
    ------
    SettingsError
        Images smaller than a window.
    """

    lowest = 0.0
    of: Literal["pixels"] = "pixels"
    screens = True
    reports = ("mirrored", "scale_y", "scale_x", "shift_y", "shift_x", "overlap", "level")
    threshold = 0.6
    versions: ClassVar[dict[str, str]] = {"aligned": "3"}

    def __init__(self, shape: tuple[int, ...], *, screen: bool = True) -> None:
        height, width, channels = shape
        if min(height, width) < WINDOW:
            raise SettingsError(
                f"aligned: the window of {WINDOW}x{WINDOW} does not fit into images of {height}x{width}",
                f"Take a larger similarities.size: {WINDOW} pixels a side at least.",
            )
        self.shape, self.screen = (height, width, channels), screen
        self.levels = _levels(height, width)
        self.engine = engine()
        # from level GREY on the mean of the channels is registered
        sizes = [(y, 1 if number >= GREY else channels, x) for number, (y, x) in enumerate(self.levels)]
        pixels = height * width * channels
        self.batch = max(1, min(512, 2**23 // (4 * pixels)))
        self._work = [_level_bytes(*size) for size in sizes] + [_end_bytes(height, width, channels)]
        crops = len(CROPS) * channels * math.prod(self.levels[0])
        part = pixels + 4 * crops + sum((8 if self.engine == "numpy" else 4) * math.prod(size) + 64 for size in sizes)
        pieces = max(min(self.batch, max(1, PIECE_BYTES // work)) * work for work in self._work)
        # the parts of both images, where they are taken out; crops in float64, or what a piece takes
        self.pair_bytes = 2 * part + 400 + (0 if self.engine == "numba" else max(24 * crops, -(-pieces // self.batch)))
        coarse = self.levels[0]
        self._crops = [
            (
                cell_weights(height, coarse[0], height * (1 - crop) / 2, height * (1 + crop) / 2),
                cell_weights(width, coarse[1], width * (1 - crop) / 2, width * (1 + crop) / 2),
            )
            for crop in CROPS
        ]
        self._cells = [(cell_weights(height, at_y), cell_weights(width, at_x)) for at_y, at_x in self.levels]
        self.compare_at: CompareAt | None = None
        if self.engine == "numba":
            from daskim.kernels.compiled import registered

            self._compiled = registered
            self._compiled_crops = [registered.Cells(*weights) for weights in self._crops]
            self._sizes = [
                registered.Level(
                    registered.Cells(*weights, grey=number >= GREY),
                    *sizes[number],
                    least=self._least(number),
                    whole=number == 0 and len(sizes) > 1,
                )
                for number, weights in enumerate(self._cells)
            ]
            self.compare_at = self._compare_at
        self._c2, self._texture = channels * C2, (channels * TEXTURE) ** 2
        taps = uniform_taps(WINDOW)
        windows = [window_matrix(side, taps, "valid") for side in (height, width)]
        self._window = {np.dtype(kind): [w.astype(kind) for w in windows] for kind in (np.float32, np.float64)}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), screen=self.screen), (self.shape,)  # made anew, by what the other process can run

    def parts(self, images: np.ndarray, dtype: DTypeLike) -> Parts:
        """Crops on the coarsest level, unit norm; the levels, coarsest first; what the compiled form needs; pixels.

        Crops are whole numbers, as they are and mirrored, so that their products are exact. The levels are less the
        mean of each channel.
        """
        pixels = np.ascontiguousarray(images.transpose(0, 1, 3, 2))  # as they are: a quarter of the bytes
        if self.engine == "numba":
            crops = unit_crops([crop(pixels) for crop in self._compiled_crops])
            levels = [size.images(pixels) for size in self._sizes]
            return (crops, *levels, *(size.inverses(each) for size, each in zip(self._sizes, levels)), pixels)
        standard = pixels.astype(np.float32)
        crops = unit_crops([centred(cell_means(standard, *weights)) for weights in self._crops])
        levels = [cell_means(standard, *weights) for weights in self._cells[:-1]] + [standard]
        levels = [each.mean(axis=2, keepdims=True) if at >= GREY else each for at, each in enumerate(levels)]
        return (crops, *(centred(each).astype(dtype, copy=False) for each in levels), pixels)

    def _compare_at(self, left: Parts, right: Parts, i: np.ndarray, j: np.ndarray) -> NDArray[np.float64]:
        """As `compare`, of image i[t] of `left` and image j[t] of `right`, with nothing taken out of the parts."""
        out = np.empty((len(i), 1 + len(self.reports)))
        for lo in range(0, len(i), TOGETHER):
            some = slice(lo, lo + TOGETHER)
            out[some] = self._compare_some(left, right, i[some], j[some])
        return out

    def _compare_some(self, left: Parts, right: Parts, i: np.ndarray, j: np.ndarray) -> NDArray[np.float64]:
        form, count = self._compiled, len(self.levels)
        out = np.full((len(i), 1 + len(self.reports)), np.nan)
        swap, best, found = form.begin(left[0], right[0], left[-1], right[-1], i, j)
        mirrored = best // (2 * len(CROPS)) == 1
        alive = self._begun(found)
        motion = unmoved(np.asarray(CROPS, dtype=np.float32)[best[alive] % len(CROPS)])
        out[:, 1], out[:, 7] = mirrored, 1
        for number, size in enumerate(self._sizes):
            out[alive, 7] = number + 1
            one, other = ((side[1 + number], side[1 + count + number]) for side in (left, right))
            motion, keep = size.settled(one, other, i[alive], j[alive], swap[alive], mirrored[alive], motion)
            alive = alive[keep]
        if not alive.size:
            return out
        pairs = i[alive], j[alive], swap[alive], mirrored[alive], motion
        seen = form.windows(left[-1], right[-1], *pairs, c2=self._c2, texture=self._texture, contrast=CONTRAST)
        out[alive, 0], out[alive, 6] = _similarity(seen[:, 0], seen[:, 1], motion)
        out[alive, 2:4], out[alive, 4:6] = _onto_left(motion, swap[alive], mirrored[alive])
        out[alive[seen[:, 2] == 1], :7] = (1, 0, 1, 1, 0, 0, 1)
        return out

    def compare(self, left: Parts, right: Parts) -> NDArray[np.float64]:
        """Similarity, then mirrored (0 or 1), scales, shifts (sides), overlap, level reached.

        The motion is that of the right image, mirrored if so, onto the left one.
        """
        p, dtype = len(left[0]), left[1].dtype
        swap, best, found = start(left[0], right[0], left[-1], right[-1])
        mirrored = best // (2 * len(CROPS))
        alive = self._begun(found)
        motion = unmoved(np.asarray(CROPS, dtype=np.float32)[best[alive] % len(CROPS)])
        out = np.full((p, 1 + len(self.reports)), np.nan)
        out[:, 1], out[:, 7] = mirrored, 1
        if not alive.size:
            return out
        for number in range(len(self.levels)):
            out[alive, 7] = number + 1
            settled = []
            for some in self._pieces(number, len(alive)):
                rows = alive[some]
                sides = _sides(left[1 + number], right[1 + number], rows, swap, mirrored)
                template, moved = (images.astype(np.float32, copy=False) for images in sides)
                whole = number == 0 and len(self.levels) > 1
                after, keep = settle(template, moved, motion.take(some), self._least(number), whole=whole)
                settled.append((rows[keep], after))
            alive = np.concatenate([rows for rows, _ in settled])
            motion = Motion(*(np.concatenate(each, axis=1) for each in zip(*((m.scale, m.shift) for _, m in settled))))
            if not alive.size:
                return out
        for some in self._pieces(len(self.levels), len(alive)):
            rows = alive[some]
            template, moved = (part.astype(dtype) for part in _sides(left[-1], right[-1], rows, swap, mirrored))
            image, seen_y, seen_x = move(moved, motion.take(some))
            windows = self._window[np.dtype(dtype)]
            shown = template, image, seen_y, seen_x, *windows
            cs, structure = likeness(*shown, c2=self._c2, texture=self._texture, contrast=CONTRAST)
            out[rows, 0], out[rows, 6] = _similarity(cs, structure, motion.take(some))
        out[alive, 2:4], out[alive, 4:6] = _onto_left(motion, swap[alive], mirrored[alive] == 1)
        same = alive[_flat(left[-1][alive] == right[-1][alive]).all(axis=1)]
        out[same, :7] = (1, 0, 1, 1, 0, 0, 1)
        return out

    def _pieces(self, number: int, count: int) -> list[np.ndarray]:
        """Pairs that are registered together on a level (or, after the last, compared): what they take is bounded."""
        piece = max(1, PIECE_BYTES // self._work[number])
        return [np.arange(start, min(start + piece, count)) for start in range(0, count, piece)]

    def _begun(self, found: np.ndarray) -> NDArray[np.intp]:
        """The pairs whose crops are alike enough."""
        return np.flatnonzero(found >= START * UNIT**2) if self.screen else np.arange(len(found))

    def _least(self, number: int) -> NDArray[np.float32]:
        """What a pair must correlate before each step of a level."""
        steps = range(STEPS[min(number, len(STEPS) - 1)])
        least = [SCREENS.get((number, count), -np.inf) if self.screen else -np.inf for count in steps]
        return np.array(least, dtype=np.float32)


def _similarity(
    cs: np.ndarray, structure: np.ndarray, motion: Motion
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The product of the head of this page, and the overlap."""
    shared = overlap(motion)
    return np.clip(cs, 0, 1) * np.clip(structure, 0, 1) * np.minimum(1.0, shared / FULL_OVERLAP), shared


def _levels(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes by halves down to about COARSE on the shorter side, coarsest first."""
    levels = [(height, width)]
    while min(levels[-1]) >= 2 * COARSE:
        levels.append(((levels[-1][0] + 1) // 2, (levels[-1][1] + 1) // 2))
    return levels[::-1]


def _level_bytes(height: int, channels: int, width: int) -> int:
    """What a pair takes while it is registered on a level: images, moved, less their means, derivatives; weights."""
    return 4 * (14 * height * width * channels + 3 * (height**2 + width**2))


def _end_bytes(height: int, width: int, channels: int) -> int:
    """What a pair takes while it is compared: images, maps filtered along one axis and both, ten maps; weights."""
    area = height * width
    return 8 * (4 * area * channels + 3 * (2 * channels + 3) * area + 10 * area) + 12 * (height**2 + width**2)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _onto_left(motion: Motion, swap: np.ndarray, mirrored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and shifts (p, 2) of the right image onto the left: the inverse motion where the left one was moved."""
    sign = np.where(mirrored, np.array([[-1], [1]]), -1)  # a mirror turns the shift along x
    scale = np.where(swap, 1 / motion.scale, motion.scale)
    return scale.T, np.where(swap, sign * motion.shift / motion.scale, motion.shift).T


def _sides(
    left: np.ndarray, right: np.ndarray, rows: np.ndarray, swap: np.ndarray, mirrored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Templates and moved images of some pairs on a level."""
    turn = swap[rows]
    template, moved = left[rows], right[rows]
    template[turn], moved[turn] = right[rows[turn]], left[rows[turn]]
    turned = mirrored[rows] == 1
    moved[turned] = moved[turned][..., ::-1]
    return template, moved


PLUGIN = Aligned
