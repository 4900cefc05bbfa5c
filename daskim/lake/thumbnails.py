"""Small pictures of images, as WebP."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from daskim.lake.decode import convert
from daskim.lake.records import Failure, ImageSpec, Raw

__all__ = ["LOSSLESS", "Thumbnail", "thumbnail"]

# Up to this many pixels a side a picture is kept to the last bit: it is shown enlarged, where any loss is seen.
LOSSLESS = 64
# Of the lossy ones. At 128 pixels a photograph takes about 3 kB.
QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """One small picture.

    Attributes
    ----------
    webp : bytes
    width, height : int
        Of the picture, pixels.
    file_digest : bytes
        Of the source as it was read now, as the table `images` has it; of raw arrays too.
    """

    webp: bytes
    width: int
    height: int
    file_digest: bytes


def thumbnail(raw: Raw, width: int, height: int, *, side: int, max_pixels: int = 100_000_000) -> Thumbnail | Failure:
    """A picture of at most `side` pixels a side, of the image's aspect ratio; smaller images as they are.

    Parameters
    ----------
    raw : bytes, ndarray or Failure
        As `daskim.lake.read_images` yields it.
    width, height : int
        Of the image, upright, as they were when it was listed. One that has changed since is stretched to them.
    side : int
        At most so many pixels a side.
    max_pixels : int
        Larger images are not decoded.
    """
    longest = max(width, height, 1)
    small = [max(1, extent if longest <= side else round(extent * side / longest)) for extent in (width, height)]
    spec = ImageSpec(
        small[1], small[0], "RGB", filter="bicubic", fit="stretch", max_pixels=max(max_pixels, side * side)
    )
    found = convert(raw, spec)
    if found.pixels is None:
        return Failure(found.status, found.reason)
    webp = _webp(found.pixels, lossless=max(small) <= LOSSLESS)
    return Thumbnail(webp, small[0], small[1], found.file_digest)


def _webp(pixels: np.ndarray, *, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    if lossless:
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=4)
    else:
        Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
