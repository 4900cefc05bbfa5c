"""Every mode of image to 8-bit RGB or grey, by stated rules.

===================  ==================================================================================
source               becomes
===================  ==================================================================================
1 bit                0 or 255
palette              its colours
alpha, colour key    composited over white: round((value * a + 255 * (255 - a)) / 255)
CMYK, YCbCr, HSV     RGB by Pillow's formulas (no colour profile)
LAB                  sRGB by LittleCMS
16-bit grey          round(value / 257)
32-bit integer grey  clipped to 0..65535, then as 16-bit
float grey           NaN is 0; if the largest finite value is at most 1: value * 255, else the value itself;
                     rounded (half to even) and clipped to 0..255, so that infinities are 0 and 255
RGB to grey          ITU-R 601 luma, as Pillow's ``convert("L")``, after compositing and before resizing
===================  ==================================================================================

Raw arrays: uint8 as it is; bool 0 or 255; uint16 and float as above, decided for each image by itself; other
integers clipped to 0..255. One channel is grey, two are grey and alpha, three RGB, four RGB and alpha.
(16-bit *colour* PNG and TIFF reach us from Pillow with their upper 8 bits.)
"""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["Unsupported", "array_to_image", "deep_array", "to_mode", "to_uint8"]

_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


class Unsupported(Exception):
    """An image that is whole, and that no rule here converts."""


def to_uint8(values: np.ndarray, *, clip_integers: bool) -> np.ndarray:
    """`values` of any numeric dtype as uint8, by the module's rules.

    Parameters
    ----------
    values : numpy.ndarray
        One image, any shape.
    clip_integers : bool
        Integers other than uint8 and uint16: clip to 0..255 (raw arrays), or treat as 16-bit (image files).
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind in "iu":
        if clip_integers and values.dtype.newbyteorder("=") != np.uint16:
            return np.clip(values, 0, 255).astype(np.uint8)
        return ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind == "f":
        return _float_to_uint8(values)
    raise Unsupported(f"values of type {values.dtype}")


def _float_to_uint8(values: np.ndarray) -> np.ndarray:
    work = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    finite = work[np.isfinite(work)]
    scale = 255.0 if finite.size == 0 or finite.max() <= 1.0 else 1.0
    return np.rint(np.clip(work * scale, 0.0, 255.0)).astype(np.uint8)


def deep_array(image: Image.Image) -> np.ndarray | None:
    """The pixels of a 16-bit, 32-bit or float grey image in their own depth; None for 8-bit images."""
    if image.mode.startswith("I;16"):
        array = np.asarray(image)
        return array.astype(np.uint16) if array.dtype != np.uint16 else array
    return np.asarray(image) if image.mode in ("I", "F") else None


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """`image` as mode "RGB" or "L" by the module's rules."""
    deep = deep_array(image)
    if deep is not None:
        image = Image.fromarray(to_uint8(deep, clip_integers=False))
    if image.mode in _ALPHA or "transparency" in image.info:
        image = _over_white(image)
    if image.mode == mode:
        return image
    if mode == "L" and image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return image.convert(mode)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        # La and RGBa (premultiplied) and PA have no direct way; LA does.
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(image, mask=image.getchannel("A"))
    return canvas


def array_to_image(values: np.ndarray) -> Image.Image:
    """A raw array (h, w) or (h, w, c), c from 1 to 4, as an 8-bit image of mode L, LA, RGB or RGBA."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (2, 3, 4)):
        raise Unsupported(f"an array of shape {values.shape}: (h, w) or (h, w, 1 to 4 channels) is expected")
    return Image.fromarray(np.ascontiguousarray(to_uint8(values, clip_integers=True)))
