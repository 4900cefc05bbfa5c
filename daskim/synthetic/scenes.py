"""Scenes with the statistics of small photographs: what the images of a lake show.

A ground of few cosines and a texture whose spectrum falls by a power law (Field, J. Opt. Soc. Am. A 4, 2379, 1987),
lit from above or below, and leaves that occlude both and one another: an object in the middle and others, with sizes by
a power law (the dead leaves of Lee, Mumford, Huang, Int. J. Comput. Vision 41, 35, 2001). Contrasts are log-normal; a
third of the scenes is simple, some are smooth, some have a white ground; levels and tints lean on the class. With noise
of a power law alone all distances concentrate. The smooth, the white and the spread of contrast bring the nearest
neighbours as near as those of photographs; light and simple scenes do so when brightness and contrast are taken off.

The constants were fitted by hand to CIFAR-10 train as JPEG, to these at n = 4,000: quantiles of the distances to the
1st and 20th neighbour, of the contrast and of the mean level; pairs and largest component within the radius that method
wavelet takes; pairs whose means over 8 x 8 cells correlate above 0.72; the energy of the leading principal directions.
`python -m tests.bench lakes` sets both side by side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from daskim.synthetic.draws import choose, log_normal, normal, shorts, uniform

__all__ = ["CLASSES", "WINDOW", "Grid", "labels_of", "scenes"]

Grid = tuple[float, ...]
"""Coordinates of the points of one axis, in units of the window."""

CLASSES = 10
# A scene is seen through a window of 32 x 32 units. Its cosines repeat after twice the window and its margins, so that
# a window that is moved or smaller shows what was not seen before.
WINDOW = 32
MARGIN = 6
# Cosines along each axis, and the power by which their amplitude falls.
TEXTURE, TEXTURE_POWER = 22, 1.1
GROUND, GROUND_POWER = 6, 1.0
TINT, TINT_POWER = 5, 1.0
LEAVES = 6
# Numbers drawn for a scene, for a leaf of it, and for a class.
SCENE, LEAF, CLASS = 12, 12, 4
# Shares of scenes on white, of smooth ones, of simple ones (an object and light, little else) and of the others; what
# they have of each thing.
SORTS = (0.015, 0.025, 0.35, 0.61)
GROUNDS = (0.1, 1.0, 0.5, 1.0)
TEXTURES = (0.05, 0.2, 0.5, 1.0)
LIGHTS = (0.0, 1.0, 1.45, 1.0)
OBJECTS = (1.0, 1.0, 1.5, 1.0)
LEAF_TEXTURES = (1.0, 0.3, 0.5, 1.0)
CLUTTER = (0.7, 0.2, 0.35, 1.0)
# Log-normal: median in grey levels, sigma.
CONTRAST = (1.15, 0.21)
GROUND_LEVELS, TEXTURE_LEVELS, LEAF_TEXTURE = (24.0, 0.4), (30.0, 0.4), (30.0, 0.4)
TINT_LEVELS = (9.0, 0.7)
# Grey levels: the mean of the mean, and standard deviations.
MEAN, MEAN_SPREAD, CLASS_SPREAD, TINT_SPREAD = 120.0, 30.0, 10.0, 14.0
OBJECT_SPREAD, LEAF_SPREAD = 65.0, 60.0
# Light from above, grey levels at the upper edge.
LIGHT, LIGHT_SPREAD = 15.0, 40.0
WHITE, WHITE_SPREAD = 238.0, 6.0
# Radii of the leaves in units of the window: of the first, the object in the middle, and of the others.
OBJECT, RADII = (6.0, 13.0), (2.0, 20.0)
# Sums of products of whole numbers below 2^24 are exact in float32, in whatever order: 127 times this is below.
EXACT = 132_000.0
LARGEST = 4.33  # of the normal numbers of `draws`


def labels_of(seed: int, rows: np.ndarray) -> np.ndarray:
    """The class of each scene, shape (b,), int64."""
    return shorts(seed, 0, rows, 1)[:, 0].astype(np.int64) * CLASSES >> 16


@lru_cache(maxsize=8)
def _amplitudes(count: int, power: float) -> np.ndarray:
    """Standard deviations of the coefficients of a field of unit mean square and zero mean; (count, count)."""
    frequency = np.hypot(np.arange(count)[:, None], np.arange(count)[None, :])
    frequency[0, 0] = np.inf
    amplitude = frequency**-power
    half = np.where(np.arange(count) > 0, 0.5, 1.0)  # mean square of a cosine
    found: np.ndarray = amplitude / np.sqrt((amplitude**2 * half[:, None] * half).sum())
    return found


@lru_cache(maxsize=128)
def _cosines(count: int, grid: Grid) -> np.ndarray:
    """Cosines at the points of a grid, times 127 and rounded; (count, points) float32."""
    x = (np.asarray(grid) + MARGIN) / (WINDOW + 2 * MARGIN)
    return np.rint(127 * np.cos(np.pi * np.arange(count)[:, None] * x)).astype(np.float32)


def _fields(z: np.ndarray, power: float, gy: Grid, gx: Grid) -> np.ndarray:
    """Random fields by their cosine coefficients.

    Parameters
    ----------
    z : ndarray, shape (b, count * count), float32
        Standard normal numbers, at most `LARGEST` in size.

    Returns
    -------
    ndarray, shape (b, len(gy), len(gx)), float32
        The same whatever b and whatever the order of the sums in a product: both products are of whole numbers that
        stay below 2^24.
    """
    b = len(z)
    count = round(z.shape[1] ** 0.5)
    amplitude = _amplitudes(count, power)
    unit = EXACT / (LARGEST * amplitude.sum(axis=1).max())
    whole = np.rint(z.reshape(b, count, count) * (amplitude * unit).astype(np.float32))
    inner = (whole.reshape(-1, count) @ _cosines(count, gx)).reshape(b, count, len(gx))
    shrink = EXACT / (LARGEST * amplitude.sum() * unit * 127)
    inner = np.rint(inner.transpose(0, 2, 1) * np.float32(shrink))
    out = inner.reshape(-1, count) @ _cosines(count, gy)
    out *= np.float32(1 / (unit * 127 * shrink * 127))
    return np.ascontiguousarray(out.reshape(b, len(gx), len(gy)).transpose(0, 2, 1))


@lru_cache(maxsize=1)
def _turns() -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of 1,024 angles in half a turn, rounded to 2^-10."""
    angle = np.pi * np.arange(1024) / 1024
    return tuple((np.rint(1024 * f(angle)) / 1024).astype(np.float32) for f in (np.cos, np.sin))


class _Look(NamedTuple):
    """What decides the levels of a scene; arrays (b,) float32."""

    sort: np.ndarray  # int64, index into SORTS
    contrast: np.ndarray
    mean: np.ndarray
    leaning: np.ndarray  # (b, CLASS) standard normal, one row a class

    def by(self, factors: tuple[float, ...]) -> np.ndarray:
        """Contrast times the factor of the scene's sort."""
        return self.contrast * np.array(factors, dtype=np.float32)[self.sort]


def _look(seed: int, rows: np.ndarray, u: np.ndarray) -> _Look:
    sort = choose(u[:, 0], SORTS)
    leaning = normal(shorts(seed, 5, labels_of(seed, rows), CLASS))
    own = normal(u[:, 4])
    mean = MEAN + MEAN_SPREAD * own + CLASS_SPREAD * leaning[:, 0]
    mean = np.where(sort == 0, WHITE + WHITE_SPREAD * own, mean)
    return _Look(sort, log_normal(u[:, 1], *CONTRAST), mean, leaning)


def _over(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32, copy=False)[:, None, None]


def _shape(v: np.ndarray, leaf: int, gy: Grid, gx: Grid) -> np.ndarray:
    """How much of each point a leaf covers, 0 to 1: an ellipse or a rectangle, turned, its edge one unit wide."""
    if leaf == 0:
        radius = uniform(v[:, 0], *OBJECT)
        cx, cy = (WINDOW / 2 + 4 * normal(v[:, at]) for at in (2, 3))
    else:
        low, high = RADII
        radius = low / uniform(v[:, 0], low / high, 1.0)  # density falls as radius^-2
        cx, cy = (uniform(v[:, at], 0.0, WINDOW) for at in (2, 3))
    other = radius * uniform(v[:, 1], 0.5, 1.0)
    cos, sin = (table[v[:, 4] >> 6] for table in _turns())
    x = np.asarray(gx, dtype=np.float32) - cx[:, None]
    y = np.asarray(gy, dtype=np.float32) - cy[:, None]
    p = ((cos / radius)[:, None] * x)[:, None, :] + ((sin / radius)[:, None] * y)[:, :, None]
    q = ((cos / other)[:, None] * y)[:, :, None] - ((sin / other)[:, None] * x)[:, None, :]
    if leaf % 2:
        cover = np.maximum(np.abs(p, out=p), np.abs(q, out=q), out=p)
        slope = other
    else:
        p *= p
        q *= q
        cover = np.add(p, q, out=p)
        slope = other / 2  # of p^2 + q^2 at the edge
    cover -= 1
    cover *= _over(-slope)
    cover += np.float32(0.5)
    return np.clip(cover, 0, 1, out=cover)


def _occlude(planes: np.ndarray, texture: np.ndarray, look: _Look, v: np.ndarray, leaf: int, cover: np.ndarray) -> None:
    """Lay a leaf over the planes: of one level and tint, with the texture stronger, weaker or reversed."""
    w = normal(v)
    apart = np.float32(0.5) * (MEAN - look.mean)
    if leaf == 0:
        level = look.mean + apart + (OBJECT_SPREAD * w[:, 5] + CLASS_SPREAD * look.leaning[:, 3]) * look.by(OBJECTS)
    else:
        level = look.mean + (apart + LEAF_SPREAD * w[:, 5]) * look.by(CLUTTER)
    strength = log_normal(v[:, 6], *LEAF_TEXTURE) * look.by(LEAF_TEXTURES)
    strength = np.where(v[:, 7] & 1, strength, -strength)
    if leaf > 2:
        cover *= _over(look.sort != 0)
    for at, plane in enumerate(planes):
        if at == 0:
            change = texture * _over(strength)
            change += _over(level)
            change -= plane
        else:
            change = _over(TINT_SPREAD * w[:, 7 + at]) - plane
        change *= cover
        plane += change


def scenes(seed: int, rows: np.ndarray, gy: Grid, gx: Grid) -> np.ndarray:
    """What scenes look like at the points of a grid.

    Parameters
    ----------
    seed : int
        0 <= seed < 2**64.
    rows : ndarray, shape (b,), int64
        Which scenes.
    gy, gx : tuple of float
        Coordinates of the points, the window being from 0 to 32 on both axes. Up to 6 beyond are new ground.

    Returns
    -------
    ndarray, shape (3, b, len(gy), len(gx)), float32
        Red, green and blue, grey levels, not clipped. A function of (seed, row) and the grid alone, whichever rows are
        made together. About 90 microseconds a scene of 32 x 32 on one core; memory of 20 channels at most.
    """
    b = len(rows)
    u = shorts(seed, 3, rows, SCENE)
    look = _look(seed, rows, u)
    texture = _fields(normal(shorts(seed, 1, rows, TEXTURE**2)), TEXTURE_POWER, gy, gx)
    z = normal(shorts(seed, 2, rows, GROUND**2 + 2 * TINT**2))
    ground = _fields(z[:, : GROUND**2], GROUND_POWER, gy, gx)
    tint = _fields(z[:, GROUND**2 :].reshape(2 * b, TINT**2), TINT_POWER, gy, gx).reshape(b, 2, len(gy), len(gx))
    pale = np.where(look.sort == 0, np.float32(0.1), np.float32(1))
    planes = np.empty((3, b, len(gy), len(gx)), dtype=np.float32)
    planes[0] = ground
    planes[0] *= _over(log_normal(u[:, 2], *GROUND_LEVELS) * look.by(GROUNDS))
    planes[0] += texture * _over(log_normal(u[:, 3], *TEXTURE_LEVELS) * look.by(TEXTURES))
    light = (LIGHT + LIGHT_SPREAD * normal(u[:, 8])) * look.by(LIGHTS)
    height = 1 - np.asarray(gy, dtype=np.float32) / np.float32(WINDOW / 2)
    planes[0] += (look.mean[:, None] + light[:, None] * height)[:, :, None]
    strength = log_normal(u[:, 5], *TINT_LEVELS) * pale
    for at in (0, 1):
        own = (0.8 * normal(u[:, 6 + at]) + 0.6 * look.leaning[:, 1 + at]) * TINT_SPREAD * pale
        planes[1 + at] = tint[:, at]
        planes[1 + at] *= _over(strength)
        planes[1 + at] += _over(own)
    v = shorts(seed, 4, rows, LEAVES * LEAF).reshape(b, LEAVES, LEAF)
    for leaf in range(LEAVES):
        _occlude(planes, texture, look, v[:, leaf], leaf, _shape(v[:, leaf], leaf, gy, gx))
    return _colours(planes)


def _colours(planes: np.ndarray) -> np.ndarray:
    """Red, green and blue of level, warmth and green, which they replace; shape (3, b, h, w)."""
    level, warm, green = planes
    red, blue = level + warm, level - warm
    green *= np.float32(0.3)
    warm *= np.float32(-0.25)
    level += warm
    level += green
    green *= np.float32(-2)
    blue += green
    planes[1], planes[0], planes[2] = level, red, blue  # level is planes[0]
    return planes
