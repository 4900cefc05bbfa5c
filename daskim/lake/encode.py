"""Raw arrays as image files, without loss; and what a file's bytes say about its extension."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from daskim.lake.convert import Unsupported
from daskim.lake.signature import HEAD, sniff

__all__ = ["Unsupported", "encode_png", "extension_of"]

_EXTENSIONS = {"jpeg": ".jpg", "tiff": ".tif", "netpbm": ".ppm", "jpeg2000": ".jp2"}


def encode_png(values: np.ndarray) -> bytes:
    """A raw image as PNG that decodes to the same values.

    Parameters
    ----------
    values : numpy.ndarray, shape (h, w) or (h, w, c), c from 1 to 4
        uint8 or bool; other integers whose values are all 0 to 255; uint16 of one channel.

    Raises
    ------
    Unsupported
        Values that PNG cannot hold (floats, several channels of 16 bits).
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype.kind in "iu" and values.dtype.newbyteorder("=") != np.uint16 and values.dtype != np.uint8:
        if values.size and (values.min() < 0 or values.max() > 255):
            raise Unsupported(f"{values.dtype} with values outside of 0 to 255: no PNG holds them without loss")
        values = values.astype(np.uint8)
    deep = values.dtype.kind == "u" and values.dtype.itemsize == 2 and values.ndim == 2
    if values.dtype != np.uint8 and not deep:
        raise Unsupported(f"values of type {values.dtype}, shape {values.shape}: no PNG holds them without loss")
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))).save(out, "PNG")
    return out.getvalue()


def extension_of(data: bytes) -> str | None:
    """The usual extension, with its dot, of the image format that `data` begins; None for none that is known."""
    name = sniff(data[:HEAD])
    return None if name is None else _EXTENSIONS.get(name, f".{name}")
