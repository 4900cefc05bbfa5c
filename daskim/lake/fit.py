"""From an image of any size to the standard size: the four fits, and the scale at which a JPEG is decoded."""

from __future__ import annotations

import numpy as np
from PIL import Image

from daskim.lake.records import ImageSpec

__all__ = ["Box", "draft_scale", "extent", "fit_image", "inner_size"]

_RESAMPLE = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Box = tuple[float, float, float, float]
_GREY = 128
# Least ratio of decoded size to target size. Below 2 the DCT's own cut-off would show. Pillow's BOX counts each pixel
# wholly or not at all, so it needs more of them (photographs at 32 x 32: 2.3 grey levels off the full decode with 2,
# 0.6 to 1.6 with 4; bilinear 0.6 with 2).
_DRAFT_MARGIN = {"area": 4, "bilinear": 2, "bicubic": 2, "lanczos": 2}


def inner_size(width: int, height: int, spec: ImageSpec) -> tuple[int, int]:
    """(width, height) of the whole image inside a letterbox (fit = pad): at least 1, one side is the target's."""
    if width * spec.height >= height * spec.width:
        return spec.width, max(1, (2 * height * spec.width + width) // (2 * width))
    return max(1, (2 * width * spec.height + height) // (2 * height)), spec.height


def _crop_size(width: int, height: int, spec: ImageSpec) -> tuple[float, float]:
    """(width, height) of the largest part of the target's aspect ratio (fit = crop)."""
    if width * spec.height >= height * spec.width:
        return height * spec.width / spec.height, float(height)
    return float(width), width * spec.height / spec.width


def _crop_box(box: Box, spec: ImageSpec, width: int, height: int) -> Box:
    """The centred part of `box`, which shows a source of width x height, that fit = crop keeps."""
    left, top, right, bottom = box
    keep_w, keep_h = _crop_size(width, height, spec)
    trim_x = (right - left) * (1 - keep_w / width) / 2
    trim_y = (bottom - top) * (1 - keep_h / height) / 2
    return left + trim_x, top + trim_y, right - trim_x, bottom - trim_y


def draft_scale(width: int, height: int, spec: ImageSpec) -> int:
    """1, 2, 4 or 8: how far a JPEG of this size (orientation applied) may be reduced while it is decoded."""
    if not spec.draft or spec.fit == "native":
        return 1
    need_w, need_h, used_w, used_h = spec.width, spec.height, float(width), float(height)
    if spec.fit == "pad":
        need_w, need_h = inner_size(width, height, spec)
    elif spec.fit == "crop":
        used_w, used_h = _crop_size(width, height, spec)
    margin = _DRAFT_MARGIN[spec.filter]
    for scale in (8, 4, 2):
        if used_w >= margin * need_w * scale and used_h >= margin * need_h * scale:
            return scale
    return 1


def extent(width: int, height: int, scale: int, orientation: int) -> Box:
    """Where a picture lies in its reduced and turned decode: (left, top, right, bottom) in decoded pixels.

    A side that is no multiple of `scale` is rounded up, so the last column or row covers less than a pixel. To
    stretch it to a full one would shift the picture by up to a pixel of the target.

    Parameters
    ----------
    width, height : int
        Full size as stored, before orientation.
    scale, orientation : int
        Of the decode; Exif orientation 1 to 8, already applied to the pixels.
    """
    across, down = -(-width // scale), -(-height // scale)
    spare_x, spare_y = across - width / scale, down - height / scale
    if orientation >= 5:
        across, down, spare_x, spare_y = down, across, spare_y, spare_x
    left = spare_x if orientation in (2, 3, 6, 7) else 0.0
    top = spare_y if orientation in (3, 4, 7, 8) else 0.0
    return left, top, left + across - spare_x, top + down - spare_y


def fit_image(image: Image.Image, spec: ImageSpec, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """`image` (mode of the spec, orientation applied) as the standard array (h, w, c) uint8.

    Parameters
    ----------
    image : PIL.Image.Image
    spec : ImageSpec
    size : (width, height)
        Of the source: what the fit is reckoned from. A source of the target's size is not resampled.
    box : (left, top, right, bottom), optional
        Where the source lies in `image`, if not all over it (`extent`).
    """
    target = (spec.width, spec.height)
    method = _RESAMPLE[spec.filter]
    box = (0.0, 0.0, float(image.width), float(image.height)) if box is None else box
    if size != target:
        if spec.fit == "crop":
            box = _crop_box(box, spec, *size)
        if spec.fit == "pad":
            inner = inner_size(*size, spec)
            small = image.resize(inner, method, box=box) if size != inner else image
            image = Image.new(spec.mode, target, _GREY if spec.mode == "L" else (_GREY,) * 3)
            image.paste(small, ((spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2))
        else:
            image = image.resize(target, method, box=box)
    return np.asarray(image).reshape(spec.shape)
