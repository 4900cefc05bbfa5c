"""From standard images, in grey levels from 0 to 255, to what a model wants to see.

An image x (h, w, c) becomes (x * scale - mean) / std, in the model's layout and type. All of that is linear, so a point
on the line between two images becomes the same point on the line between the two prepared images: it does not matter
that lines are walked in grey levels, before the preparation. (With a whole-number type it is rounded, and then it does,
by up to half a unit of that type.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskim.errors import SettingsError, nearest

__all__ = ["DTYPES", "LAYOUTS", "Prepared", "Preprocessing", "Wanted", "prepare", "settled"]

LAYOUTS = ("nhwc", "nchw", "flat")
DTYPES = ("float32", "float16", "float64", "uint8")
MODES = {"RGB": 3, "L": 1}


@dataclass(frozen=True)
class Wanted:
    """What a model says of its input; None where it leaves that open.

    Attributes
    ----------
    shape : tuple of int or None, or None
        Of a batch, the batch itself first.
    dtype : str or None
        One of `DTYPES`.
    """

    shape: tuple[int | None, ...] | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        if self.shape is None:
            return "an array"
        return "x".join("?" if side is None else str(side) for side in self.shape)


@dataclass(frozen=True)
class Preprocessing:
    """What the user says; None where nothing is said.

    Attributes
    ----------
    size : str or None
        HxW in pixels; by default the model's own size where it is fixed, else that of the run's standard images.
    mode : str or None
        RGB or L; by default by the model's channels where they are fixed, else that of the run.
    scale : str or None
        Factor of the grey levels, a number or a fraction; by default 1/255, for a model of type uint8 1.
    mean, std : str or None
        Subtracted after scaling, and divided by then: one number or one a channel, with commas; by default 0 and 1.
    layout : str or None
        nhwc, nchw or flat (pixels row by row, channels last); by default as the model's shape says, else nhwc.
    dtype : str or None
        By default the model's own, else float32.
    """

    size: str | None = None
    mode: str | None = None
    scale: str | None = None
    mean: str | None = None
    std: str | None = None
    layout: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A preprocessing in which all is settled."""

    height: int
    width: int
    mode: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str
    dtype: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images before layout."""
        return self.height, self.width, MODES[self.mode]

    @property
    def lowest(self) -> float:
        """Of what the model can see."""
        return min(min((edge * self.scale - m) / s for edge in (0, 255)) for m, s in zip(self.mean, self.std))

    @property
    def highest(self) -> float:
        return max(max((edge * self.scale - m) / s for edge in (0, 255)) for m, s in zip(self.mean, self.std))

    def record(self) -> dict[str, Any]:
        """For a summary."""
        return {
            "size": f"{self.height}x{self.width}",
            "mode": self.mode,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": self.layout,
            "dtype": self.dtype,
        }


def prepare(images: NDArray[np.float32], how: Prepared) -> np.ndarray:
    """Images (b, h, w, c) float32 in grey levels as the model's batch: (b, h, w, c), (b, c, h, w) or (b, h w c)."""
    values = (images * np.float32(how.scale) - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    if how.layout == "nchw":
        values = values.transpose(0, 3, 1, 2)
    elif how.layout == "flat":
        values = values.reshape(len(values), -1)
    if how.dtype == "uint8":
        values = np.clip(np.rint(values), 0, 255)
    return np.ascontiguousarray(values, dtype=how.dtype)


def settled(asked: Preprocessing, wanted: Wanted, size: tuple[int, int], mode: str) -> Prepared:
    """What is asked for, what the model wants and the run's standard images, made one.

    Parameters
    ----------
    size : (height, width)
        Of the run's standard images.
    mode : str
        Of the run's standard images.

    Raises
    ------
    SettingsError
        A value that does not fit, or one that the model contradicts: says what the model wants.
    """
    for name, value, known in (("mode", asked.mode, MODES), ("layout", asked.layout, LAYOUTS)):
        if value is not None and value not in known:
            raise SettingsError(f"--{name} {value}: not known", nearest(value, known))
    if asked.dtype is not None and asked.dtype not in DTYPES:
        raise SettingsError(f"--dtype {asked.dtype}: not known", nearest(asked.dtype, DTYPES))
    layout = _layout(asked, wanted)
    fixed_height, fixed_width, fixed_channels = _fixed(wanted, layout)
    height, width = _sides(asked.size) or (fixed_height or size[0], fixed_width or size[1])
    if (fixed_height or height, fixed_width or width) != (height, width):
        fitting = f"{fixed_height or height}x{fixed_width or width}"
        raise _refused("size", asked.size, wanted, f"Leave --size out, or give {fitting}.")
    if layout == "flat":
        fixed_channels = _flat_channels(wanted, height, width)
    modes = {channels: name for name, channels in MODES.items()}
    if fixed_channels and fixed_channels not in modes:
        raise SettingsError(
            f"--model: wants a batch of {wanted}: {fixed_channels} channels, and images here have 3 (RGB) or 1 (L)",
            "Give a model of RGB or grey images" + (", or another --layout." if asked.layout else "."),
        )
    if asked.mode and fixed_channels and MODES[asked.mode] != fixed_channels:
        raise _refused("mode", asked.mode, wanted, f"Leave --mode out, or give {modes[fixed_channels]}.")
    chosen = asked.mode or (modes[fixed_channels] if fixed_channels else mode)
    if asked.dtype and wanted.dtype and asked.dtype != wanted.dtype:
        raise _refused("dtype", asked.dtype, wanted, f"Leave --dtype out, or give {wanted.dtype}.")
    dtype = asked.dtype or wanted.dtype or "float32"
    channels = MODES[chosen]
    scale = _numbers("scale", asked.scale or ("1" if dtype == "uint8" else "1/255"), 1, nonzero=True)[0]
    mean = _numbers("mean", asked.mean or "0", channels)
    std = _numbers("std", asked.std or "1", channels, nonzero=True)
    return Prepared(height, width, chosen, scale, mean, std, layout, dtype)


def _refused(option: str, value: object, wanted: Wanted, hint: str) -> SettingsError:
    of = f" of {wanted.dtype}" if wanted.dtype else ""
    return SettingsError(f"--{option} {value}: the model wants a batch of {wanted}{of}", hint)


def _layout(asked: Preprocessing, wanted: Wanted) -> str:
    shape = wanted.shape
    if shape is None:
        return asked.layout or "nhwc"
    if len(shape) == 2:
        fitting = ["flat"]
    elif len(shape) == 4:
        fitting = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (*MODES.values(), None)]
        sure = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in MODES.values()]
        if asked.layout is None and len(sure) == 1:
            return sure[0]
    else:
        fitting = []
    if not fitting:
        raise SettingsError(
            f"--model: wants a batch of {wanted}, which is no batch of images",
            "Give a model of images: batch x height x width x channels, batch x channels x height x width, or "
            "batch x values.",
        )
    if asked.layout is not None and asked.layout not in fitting:
        raise _refused("layout", asked.layout, wanted, f"Leave --layout out, or give {' or '.join(fitting)}.")
    if asked.layout is None and len(fitting) > 1:
        raise SettingsError(
            f"--model: wants a batch of {wanted}, which does not tell where the channels are",
            f"Add --layout {' or --layout '.join(fitting)}.",
        )
    return asked.layout or fitting[0]


def _sides(text: str | None) -> tuple[int, int] | None:
    """HxW, or one number for both."""
    if text is None:
        return None
    sides = text.lower().split("x")
    sides = sides * 2 if len(sides) == 1 else sides
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and 1 <= int(side) <= 16384 for side in sides):
        raise SettingsError(f"--size {text}: no size", "Write HxW in pixels, such as 224x224, each side 1 to 16384.")
    return int(sides[0]), int(sides[1])


def _fixed(wanted: Wanted, layout: str) -> tuple[int, int, int]:
    """Height, width and channels that the model's shape fixes; 0 where it does not."""
    if wanted.shape is None or layout == "flat":
        return 0, 0, 0
    height, width, channels = (wanted.shape[axis] or 0 for axis in ((2, 3, 1) if layout == "nchw" else (1, 2, 3)))
    return height, width, channels


def _flat_channels(wanted: Wanted, height: int, width: int) -> int:
    """Channels of a flat model's images of this size; 0 where the model leaves the number of values open."""
    values = wanted.shape[1] if wanted.shape else None
    if not values:
        return 0
    channels = values // (height * width)
    if channels in MODES.values() and channels * height * width == values:
        return channels
    sides = [f"{side}x{side} ({mode})" for mode, c in MODES.items() if c * (side := isqrt(values // c)) ** 2 == values]
    hint = f"It fits square images of {' or '.join(sides)}: " if sides else ""
    raise SettingsError(
        f"--model: wants {values} values an image, and {height}x{width} images have {height * width} (L) or "
        f"{3 * height * width} (RGB)",
        f"{hint}give the size that it was trained on with --size HxW.",
    )


def _numbers(name: str, text: str, count: int, *, nonzero: bool = False) -> tuple[float, ...]:
    """One number, or one a channel: 0.5 or 1/255 or 0.49,0.48,0.45."""
    try:
        values = [float(Fraction(part.strip())) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError):
        values = []
    if not values or not all(map(isfinite, values)) or (nonzero and 0.0 in values):
        what = "a number other than 0" if nonzero else "a number"
        example = "--scale 1/255" if name == "scale" else f"--{name} 0.5 or --{name} 0.49,0.48,0.45"
        raise SettingsError(f"--{name} {text}: not {what}", f"Write it such as {example}.")
    if len(values) == 1:
        return tuple(values * count)
    if len(values) != count:
        of = "one" if count == 1 else f"one or {count}"
        raise SettingsError(f"--{name} {text}: {len(values)} numbers", f"Give {of}.")
    return tuple(values)
