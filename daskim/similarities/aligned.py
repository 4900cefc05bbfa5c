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

The motion is found in float32; of the images so registered, the similarity is computed in the dtype of the parts.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from daskim.errors import SettingsError
from daskim.kernels.registration import (
    Motion,
    cell_means,
    cell_weights,
    centred,
    detrended,
    match,
    move,
    overlap,
    rough_match,
    step,
    template_of,
    unmoved,
)
from daskim.kernels.windows import uniform_taps, window_matrix
from daskim.similarities import Parts

__all__ = ["PLUGIN", "Aligned"]

# Shorter side of the coarsest level.
COARSE = 8
# Centre crops that an image may be of the other: share of the side.
CROPS = (1.0, 7 / 8, 3 / 4)
# Steps on each level from the coarsest on; later levels take the last number.
STEPS = (2, 2, 3)
# Least correlation before a step of a level: (level, step) from 0. Below it a pair goes no further. Measured on the
# judged pairs of CIFAR-10: of 580 test images with a true partner among the candidates, these lose 10.
SCREENS = {(0, 1): 0.78, (1, 0): 0.72, (1, 1): 0.80, (2, 0): 0.73, (2, 1): 0.78}
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
    versions: ClassVar[dict[str, str]] = {"aligned": "2"}

    def __init__(self, shape: tuple[int, ...], *, screen: bool = True) -> None:
        height, width, channels = shape
        if min(height, width) < WINDOW:
            raise SettingsError(
                f"aligned: the window of {WINDOW}x{WINDOW} does not fit into images of {height}x{width}",
                f"Take a larger similarities.size: {WINDOW} pixels a side at least.",
            )
        self.shape, self.screen = (height, width, channels), screen
        self.levels = _levels(height, width)
        pixels = height * width * channels
        self.batch = max(1, min(512, 2**23 // (4 * pixels)))
        self._work = [_level_bytes(*side, channels) for side in self.levels] + [_end_bytes(height, width, channels)]
        crops = len(CROPS) * channels * math.prod(self.levels[0])
        pieces = max(min(self.batch, max(1, PIECE_BYTES // work)) * work for work in self._work)
        # the parts of both images; crops in order and mirrored, or what a piece takes
        self.pair_bytes = 2 * (4 * pixels + 8 * crops) + 400 + max(24 * crops, -(-pieces // self.batch))
        coarse = self.levels[0]
        self._crops = [
            (
                cell_weights(height, coarse[0], height * (1 - crop) / 2, height * (1 + crop) / 2),
                cell_weights(width, coarse[1], width * (1 - crop) / 2, width * (1 + crop) / 2),
            )
            for crop in CROPS
        ]
        taps = uniform_taps(WINDOW)
        windows = [window_matrix(side, taps, "valid") for side in (height, width)]
        self._window = {np.dtype(kind): [w.astype(kind) for w in windows] for kind in (np.float32, np.float64)}

    def parts(self, images: np.ndarray, dtype: DTypeLike) -> Parts:
        """Crops on the coarsest level, unit norm; the levels, coarsest first."""
        height, width, _ = self.shape
        pixels = np.ascontiguousarray(images.transpose(0, 1, 3, 2))  # as they are: a quarter of the bytes
        standard = pixels.astype(np.float32)
        crops = [_unit(cell_means(standard, *weights)) for weights in self._crops]
        levels = [
            cell_means(standard, cell_weights(height, at_y), cell_weights(width, at_x))
            for at_y, at_x in self.levels[:-1]
        ]
        return (*(part.astype(dtype, copy=False) for part in (np.stack(crops, axis=1), *levels)), pixels)

    def compare(self, left: Parts, right: Parts) -> NDArray[np.float64]:
        """Similarity, then mirrored (0 or 1), scales, shifts (sides), overlap, level reached.

        The motion is that of the right image, mirrored if so, onto the left one.
        """
        p, dtype = len(left[0]), left[0].dtype
        swap, mirrored, motion = self._start(left, right)
        alive = np.arange(p)
        out = np.full((p, 1 + len(self.reports)), np.nan)
        out[:, 1] = mirrored
        for number in range(len(self.levels)):
            out[alive, 7] = number + 1
            found = []
            for some in self._pieces(number, len(alive)):
                rows = alive[some]
                sides = _sides(left[1 + number], right[1 + number], rows, swap, mirrored)
                template, moved = (images.astype(np.float32, copy=False) for images in sides)
                if number >= GREY:
                    template, moved = template.mean(axis=2, keepdims=True), moved.mean(axis=2, keepdims=True)
                settled, keep = self._settle(number, template, moved, motion.take(some))
                found.append((rows[keep], settled))
            alive = np.concatenate([rows for rows, _ in found])
            motion = Motion(*(np.concatenate(each, axis=1) for each in zip(*((m.scale, m.shift) for _, m in found))))
            if not alive.size:
                return out
        for some in self._pieces(len(self.levels), len(alive)):
            rows = alive[some]
            template, moved = (part.astype(dtype) for part in _sides(left[-1], right[-1], rows, swap, mirrored))
            out[rows, 0], out[rows, 6] = self._similarity(template, moved, motion.take(some))
        out[alive, 2:4], out[alive, 4:6] = _onto_left(motion, swap[alive], mirrored[alive] == 1)
        same = alive[_flat(left[-1][alive] == right[-1][alive]).all(axis=1)]
        out[same, :7] = (1, 0, 1, 1, 0, 0, 1)
        return out

    def _pieces(self, number: int, count: int) -> list[np.ndarray]:
        """Pairs that are registered together on a level (or, after the last, compared): what they take is bounded."""
        piece = max(1, PIECE_BYTES // self._work[number])
        return [np.arange(start, min(start + piece, count)) for start in range(0, count, piece)]

    def _start(self, left: Parts, right: Parts) -> tuple[np.ndarray, np.ndarray, Motion]:
        """Whether the right image is the template, whether the other is mirrored, and the first motions.

        The wider picture is moved onto the crop, which it covers.
        """
        turned = _comes_first(right, left)
        one, other = left[0].astype(np.float32, copy=False), right[0].astype(np.float32, copy=False)
        swapped = turned[:, None, None, None, None]
        one, other = np.where(swapped, other, one), np.where(swapped, one, other)
        p, count = one.shape[:2]
        size = one[:1, 0].size
        found = np.empty((p, 2, 2, count), dtype=np.float32)  # mirrored, which is the crop, crop
        one = one.reshape(p, count, size)
        for m in range(2):
            form = np.ascontiguousarray(other[..., ::-1] if m else other).reshape(p, count, size)
            found[:, m, 0] = np.vecdot(one[:, :1], form)  # the template is a crop of the other
            found[:, m, 1] = np.vecdot(one, form[:, :1])
        best = found.reshape(p, -1).argmax(axis=1)
        mirrored, side, crop = best // (2 * count), best // count % 2, best % count
        return turned ^ (side == 1), mirrored, unmoved(np.asarray(CROPS, dtype=np.float32)[crop])

    def _settle(
        self, number: int, template: np.ndarray, moved: np.ndarray, motion: Motion
    ) -> tuple[Motion, NDArray[np.intp]]:
        """The motions after the steps of a level, for the pairs that go on; and which those are.

        A step after which a pair agrees less is taken back, and the pair takes no more on this level.
        """
        compare = rough_match if number == 0 and len(self.levels) > 1 else match
        keep, template = np.arange(len(template)), centred(template)
        model, best, last = None, np.full(len(template), -np.inf, dtype=np.float32), motion
        for count in range(STEPS[min(number, len(STEPS) - 1)]):
            found = compare(template, moved, motion)
            worse = found.correlation < best
            best, motion = np.maximum(best, found.correlation), motion.either(worse, last)
            least = SCREENS.get((number, count)) if self.screen else None
            if least is not None:
                good = np.flatnonzero(best >= least)
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

    def _similarity(
        self, template: np.ndarray, moved: np.ndarray, motion: Motion
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The product of the head of this page, and the overlap."""
        image, seen_y, seen_x = move(moved, motion)
        cs, structure = _windows(template, image, seen_y, seen_x, *self._window[template.dtype])
        shared = overlap(motion)
        value = np.clip(cs, 0, 1) * np.clip(structure, 0, 1) * np.minimum(1.0, shared / FULL_OVERLAP)
        return value, shared


def _levels(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes by halves down to about COARSE on the shorter side, coarsest first."""
    levels = [(height, width)]
    while min(levels[-1]) >= 2 * COARSE:
        levels.append(((levels[-1][0] + 1) // 2, (levels[-1][1] + 1) // 2))
    return levels[::-1]


def _level_bytes(height: int, width: int, channels: int) -> int:
    """What a pair takes while it is registered on a level: images, moved, less their means, derivatives; weights."""
    return 4 * (14 * height * width * channels + 3 * (height**2 + width**2))


def _end_bytes(height: int, width: int, channels: int) -> int:
    """What a pair takes while it is compared: images, maps filtered along one axis and both, ten maps; weights."""
    area = height * width
    return 8 * (4 * area * channels + 3 * (2 * channels + 3) * area + 10 * area) + 12 * (height**2 + width**2)


def _unit(images: np.ndarray) -> np.ndarray:
    """Images (b, y, c, x) less the mean of each channel, over their norm."""
    centred = images - images.mean(axis=(1, 3), keepdims=True)
    norm = np.sqrt(np.vecdot(_flat(centred), _flat(centred))) + np.float32(1e-6)
    return centred / norm[:, None, None, None]


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), math.prod(images.shape[1:]))


def _comes_first(one: Parts, other: Parts) -> NDArray[np.bool_]:
    """Whether the first number in which two images differ is larger in `one`: so that no order of a pair matters."""
    larger = np.zeros(len(one[0]), dtype=bool)
    todo = np.arange(len(larger))
    for a, b in ((one[0][:, 0], other[0][:, 0]), (one[-1], other[-1])):
        a, b = _flat(a[todo]), _flat(b[todo])
        first = (a != b).argmax(axis=1)
        rows = np.arange(len(todo))
        larger[todo] = a[rows, first] > b[rows, first]
        todo = todo[a[rows, first] == b[rows, first]]  # such as images without contrast
    return larger


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


def _windows(
    template: np.ndarray,
    moved: np.ndarray,
    seen_y: np.ndarray,
    seen_x: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean contrast-structure, and structure weighted by texture, over the windows that lie in the shared part."""
    p, height, channels, width = template.shape
    dtype = template.dtype
    maps = np.empty((p, height, 2 * channels + 3, width), dtype=dtype)
    maps[:, :, :channels] = detrended(template)
    maps[:, :, channels : 2 * channels] = detrended(moved)
    one, other = maps[:, :, :channels], maps[:, :, channels : 2 * channels]
    for at, (a, b) in enumerate(((one, one), (other, other), (one, other))):
        np.einsum("pycx,pycx->pyx", a, b, out=maps[:, :, 2 * channels + at])
    rows = np.matmul(down, maps.reshape(p, height, -1)).reshape(p, -1, width)
    mean = np.matmul(rows, across.T).reshape(p, len(down), -1, len(across))
    one, other = mean[:, :, :channels], mean[:, :, channels : 2 * channels]
    products = [np.einsum("pycx,pycx->pyx", a, b) for a, b in ((one, one), (other, other), (one, other))]
    variance, variance_moved, covariance = (mean[:, :, 2 * channels + at] - products[at] for at in range(3))
    inside = np.matmul(seen_y.astype(dtype), down.T)[:, :, None] * np.matmul(seen_x.astype(dtype), across.T)[:, None, :]
    whole = (inside > 1 - 1e-3).astype(dtype)
    variance, variance_moved = np.maximum(variance, 0) * whole, np.maximum(variance_moved, 0) * whole
    covariance = covariance * whole
    # the contrast of the moved image as a whole is matched; twice that ratio and more stays different
    gain = np.sqrt(variance.sum(axis=(1, 2)) / np.maximum(variance_moved.sum(axis=(1, 2)), dtype.type(1e-3)))
    gain = np.clip(gain, *map(dtype.type, CONTRAST))[:, None, None]
    covariance *= gain
    variance_moved *= gain * gain
    c2 = dtype.type(channels * C2)
    size = np.maximum(whole.sum(axis=(1, 2), dtype=np.float64), 1)
    cs = ((2 * covariance + c2) / (variance + variance_moved + c2) * whole).sum(axis=(1, 2), dtype=np.float64) / size
    both = np.sqrt(variance * variance_moved)
    weight = np.sqrt(both)
    for each in (variance, variance_moved):
        each *= each
        weight *= each / (each + dtype.type((channels * TEXTURE) ** 2))
    structure = (covariance / np.maximum(both, dtype.type(1e-6)) * weight).sum(axis=(1, 2), dtype=np.float64)
    return cs, structure / np.maximum(weight.sum(axis=(1, 2), dtype=np.float64), 1e-3)


PLUGIN = Aligned
