"""JPEG by libjpeg-turbo (simplejpeg): strict, at a reduced scale where asked, with a small Exif reader.

Pillow decodes the same files to the same pixels; this way costs a fraction for small ones, and tells damage that
Pillow passes over in silence.
"""

from __future__ import annotations

import re
import struct

import numpy as np
import simplejpeg

__all__ = ["Damaged", "NotForUs", "decode_jpeg", "jpeg_header", "jpeg_orientation", "orient"]

_EXIF = b"Exif\x00\x00"
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_HEADER_SPAN = 1 << 20  # metadata is looked for in the first MiB
_SEARCHED = 4096  # bytes that are searched sooner than the segments are walked through
_ORIENTATION = 0x0112
_TYPES = {1: "B", 3: "H", 4: "I"}
_CUT = "premature end of jpeg file"
# What libjpeg reports where coefficients were lost; other warnings leave the picture whole.
_DAMAGE = ("premature end of data segment", "huffman", "found marker", "arithmetic")


class Damaged(Exception):
    """A JPEG that decodes only in part. `status` is truncated or corrupt."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class NotForUs(Exception):
    """A JPEG that this decoder refuses (CMYK, odd sampling, ...): Pillow has the last word."""


def jpeg_header(data: bytes) -> tuple[int, int, str]:
    """(width, height, colour space) of a JPEG; raises NotForUs when libjpeg-turbo cannot say."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except Exception as error:
        raise NotForUs(str(error)) from None
    if space not in ("YCbCr", "RGB", "Gray") or width < 1 or height < 1:
        raise NotForUs(f"colour space {space}")
    return width, height, space


def decode_jpeg(data: bytes, width: int, height: int, scale: int, colorspace: str) -> np.ndarray:
    """Pixels (h, w, c) uint8 at 1/scale of the full size (rounded up), not yet oriented.

    Parameters
    ----------
    data : bytes
    width, height : int
        Full size from `jpeg_header`.
    scale : int
        1, 2, 4 or 8. (libjpeg-turbo has other ratios too; these are the ones with SIMD code.)
    colorspace : {"RGB", "GRAY"}

    Raises
    ------
    Damaged
        Data is missing or contradicts itself. A file that lacks nothing but its end marker is not damaged:
        a sequential JPEG of one scan that decodes without complaint once the marker is put back. A progressive
        one may lack whole scans without any sign, so there the marker must be present.
    NotForUs
        Anything else that the decoder refuses.
    """
    least_h, least_w = -(-height // scale), -(-width // scale)
    try:
        return simplejpeg.decode_jpeg(data, colorspace, min_height=least_h, min_width=least_w)
    except Exception as error:
        message = str(error)
    low = message.lower()
    if _CUT in low:
        if not _one_scan(data):
            raise Damaged("truncated", message)
        try:
            return simplejpeg.decode_jpeg(data + b"\xff\xd9", colorspace, min_height=least_h, min_width=least_w)
        except Exception:
            raise Damaged("truncated", message) from None
    if any(mark in low for mark in _DAMAGE):
        raise Damaged("corrupt", message)
    raise NotForUs(message)


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, start of payload, end) of each segment up to and with the first start of scan."""
    found = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((marker, at + 4, end))
        if marker == 0xDA:
            break
        at = end
    return found


def _before_scan(data: bytes) -> int:
    """Where the first scan begins; `_HEADER_SPAN` where the segments do not lead to one before that."""
    found = _segments(data)
    marker, start, _ = found[-1] if found else (0, 0, 0)
    return min(start, _HEADER_SPAN) if marker == 0xDA else _HEADER_SPAN


def _one_scan(data: bytes) -> bool:
    """Whether the first scan of a sequential JPEG holds all components."""
    components = -1
    for marker, start, _ in _segments(data):
        if marker in (0xC0, 0xC1):
            components = data[start + 5] if start + 5 < len(data) else -1
        elif marker == 0xDA:
            return start < len(data) and data[start] == components
    return False


def jpeg_orientation(data: bytes) -> int:
    """Exif orientation 1..8, else that of XMP; 1 where there is none or it is not readable.

    The common file, without either, costs two searches for a byte string; of a large one only what stands before its
    first scan, where metadata is.
    """
    span = _HEADER_SPAN if len(data) <= _SEARCHED else _before_scan(data)
    if data.find(_EXIF, 0, span) >= 0:
        for marker, start, end in _segments(data):
            if marker == 0xE1 and data[start : start + 6] == _EXIF:
                found = _ifd_orientation(data[start + 6 : end])
                if found is not None:
                    return found if 1 <= found <= 8 else 1
                break
    if data.find(b"tiff:Orientation", 0, span) >= 0:
        match = _XMP.search(data, 0, span)
        return int(match.group(1)) if match else 1
    return 1


def _ifd_orientation(tiff: bytes) -> int | None:
    """The orientation tag in the first directory of a TIFF block; None when absent or out of bounds."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION and kind in _TYPES:
                return int(struct.unpack_from(order + _TYPES[kind], tiff, entry + 8)[0])
    except struct.error:
        return None
    return None


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """`pixels` (h, w, ...) turned upright: the inverse of what the Exif orientation says was done."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels if orientation == 1 else np.ascontiguousarray(pixels)
