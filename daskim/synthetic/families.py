"""Families of any number for tests and benchmarks: images with the spectrum of natural scenes, row by row."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from daskim.errors import SettingsError

__all__ = ["Families", "planted_families"]


class Families(NamedTuple):
    """What `planted_families` returns: images (b, h, w, c) u1, labels (b,) i8, family (b,) i8."""

    images: np.ndarray
    labels: np.ndarray
    family: np.ndarray


def _rng(seed: int, stream: int, index: int) -> np.random.Generator:
    """Numbers of its own for every row, with no state handed from row to row.

    Philox is counter-based (Salmon et al., SC 2011): (seed, index) is its key, the stream its highest counter
    word.
    """
    return np.random.Generator(
        np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=[0, 0, 0, stream])
    )


@lru_cache(maxsize=8)
def _falloff(height: int, width: int) -> np.ndarray:
    """Amplitudes f ** -1.4 of a real 2-D spectrum, (height, width // 2 + 1) f4; 0 for the mean.

    Field's scenes at full resolution have f ** -1; photographs at 32 x 32 pixels measure f ** -1.5.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    weights: np.ndarray = (frequency**-1.4).astype(np.float32)
    weights.flags.writeable = False
    return weights


def _scene(seed: int, identity: int, height: int, width: int, channels: int, classes: int) -> tuple[np.ndarray, int]:
    """The picture that a family shares, (height, width, channels) in grey levels, not clipped; its label."""
    rng = _rng(seed, 0, identity)
    label = int(rng.integers(classes))
    white = rng.standard_normal((channels + 1, height, width), dtype=np.float32)
    fields = np.fft.irfft2(np.fft.rfft2(white) * _falloff(height, width), s=(height, width))
    picture = np.moveaxis(fields[:1] + 0.4 * fields[1:], 0, -1)  # channels go together, as in photographs
    picture *= rng.uniform(25.0, 65.0) / picture.std()
    picture += rng.uniform(70.0, 185.0) + rng.normal(0.0, 15.0, channels)
    y, x = np.ogrid[:height, :width]
    for _ in range(rng.integers(1, 4)):
        cy, cx, ry, rx = rng.uniform(0.0, 1.0, 4) * (height, width, 0.3 * height, 0.3 * width)
        angle = rng.uniform(0.0, np.pi)
        u = (np.cos(angle) * (y - cy) + np.sin(angle) * (x - cx)) / (ry + 2.0)
        v = (np.cos(angle) * (x - cx) - np.sin(angle) * (y - cy)) / (rx + 2.0)
        cover = 1.0 / (1.0 + np.exp(np.minimum((np.hypot(u, v) - 1.0) * 8.0, 50.0)))
        picture += 0.8 * cover[..., None] * (rng.uniform(0.0, 255.0, channels) - picture)
    return picture, label


def _family_row(
    seed: int, row: int, position: int, n_scenes: int, shape: tuple[int, int, int], classes: int
) -> tuple[np.ndarray, int, int]:
    height, width, channels = shape
    rng = _rng(seed, 1, row)
    identity = position if position < n_scenes else int(rng.integers(n_scenes))
    # One pixel of margin on each side, so that a shifted member brings in pixels of its own.
    scene, label = _scene(seed, identity, height + 2, width + 2, channels, classes)
    top = left = 1
    if position >= n_scenes:
        kind = ("noise", "brightness", "shift")[rng.integers(3)]
        if kind == "brightness":
            scene += rng.choice([-1.0, 1.0]) * rng.uniform(6.0, 12.0)
        elif kind == "shift":
            top, left = [(0, 1), (2, 1), (1, 0), (1, 2)][rng.integers(4)]
        # Some noise in every edit: otherwise two members shifted alike would be one image twice.
        scene += rng.normal(0.0, 3.0 if kind == "noise" else 1.0, scene.shape)
    cut = scene[top : top + height, left : left + width]
    return np.clip(np.round(cut), 0, 255).astype(np.uint8), label, identity


def planted_families(
    n: int,
    *,
    size: tuple[int, int] = (32, 32),
    channels: int = 3,
    redundancy: float = 0.1,
    seed: int = 0,
    classes: int = 10,
    rows: tuple[int, int] | None = None,
) -> Families:
    """n distinct images of natural statistics, a share of which are edits of others; any rows of them.

    Scenes are noise of amplitude f ** -1.4 with one to three soft-edged ellipses. An edit is a scene with
    noise (sigma 3 grey levels), another brightness (6 to 12 levels up or down) or a shift of 1 pixel, the
    last two with noise of sigma 1. Exactly ``round(n * redundancy)`` rows are edits, spread evenly over the
    set; each edits a scene drawn at random, so family sizes are 1 + a nearly Poisson number. A family has one
    label.

    Row i depends on (seed, n, redundancy, size, channels, classes, i) alone: blocks may be made in any order,
    by any worker with the same NumPy on the same kind of CPU, and join to the same set, bit for bit. The same
    seed with another n is another set.

    Parameters
    ----------
    n : int
        Images in the whole set, at least 1.
    size : (int, int)
        Height and width in pixels, at least 4.
    channels : int
        At least 1.
    redundancy : float
        Share of edits, 0 <= redundancy < 1; at least one image stays a scene.
    seed : int
        0 <= seed < 2**64.
    classes : int
        Labels are 0 .. classes - 1.
    rows : (int, int), optional
        Only rows lo <= i < hi of the n.

    Returns
    -------
    Families
        images (b, h, w, c) u1, labels (b,) i8, family (b,) i8 from 0 to n - edits - 1, one number a scene.
        About 0.35 ms an image of 32 x 32 x 3 on one core; memory is that of the result.

    Raises
    ------
    SettingsError
        If an argument is out of its range.
    """
    lo, hi = rows if rows is not None else (0, n)
    edits = round(n * redundancy) if 0 <= redundancy < 1 else n
    bounds = {
        "n": (n, n >= 1, "n >= 1"),
        "size": (size, min(size) >= 4, "height and width >= 4"),
        "channels": (channels, channels >= 1, "channels >= 1"),
        "redundancy": (
            redundancy,
            edits < n or n < 1,
            "0 <= redundancy < 1, with a scene left over",
        ),
        "seed": (seed, 0 <= seed < 2**64, "0 <= seed < 2**64"),
        "classes": (classes, classes >= 1, "classes >= 1"),
        "rows": (rows, 0 <= lo <= hi <= n, f"0 <= lo <= hi <= {n}"),
    }
    for name, (value, good, rule) in bounds.items():
        if not good:
            raise SettingsError(f"planted_families: {name}={value} is out of range.", f"It has to be {rule}.")
    # i -> (step * i + start) mod n is a bijection when step and n have no common factor; the golden ratio
    # spreads the edits evenly over the rows.
    step = max(1, int(n * 0.6180339887498949))
    while math.gcd(step, n) != 1:
        step += 1
    start = int(_rng(seed, 2, 0).integers(n))
    shape = (size[0], size[1], channels)
    images = np.empty((hi - lo, *shape), np.uint8)
    labels, family = np.empty((2, hi - lo), np.int64)
    for out, row in enumerate(range(lo, hi)):
        position = (step * row + start) % n
        images[out], labels[out], family[out] = _family_row(seed, row, position, n - edits, shape, classes)
    return Families(images, labels, family)
