"""From the bytes of one file, or one raw array, to its standard form."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import PIL
import simplejpeg
from PIL import Image, features

from daskim.lake.convert import Unsupported, array_to_image, deep_array, to_mode
from daskim.lake.digests import digest_of
from daskim.lake.fit import Box, draft_scale, extent, fit_image
from daskim.lake.jpeg import Damaged, NotForUs, decode_jpeg, jpeg_header, jpeg_orientation, orient
from daskim.lake.pillow import TooLarge, failure_of_decoder, guarded, open_image, orientation_of
from daskim.lake.records import Failure, ImageSpec, Raw, Standard

__all__ = ["convert", "decoder_versions", "flat_rows", "full_digest", "standardise"]

_FLAT_STRIDE = 16


class _Picture(NamedTuple):
    """A decoded image, upright, of the wanted mode."""

    image: Image.Image | np.ndarray
    width: int  # of the source
    height: int
    whole: bool  # nothing was lost to draft, mode or depth
    deep: np.ndarray | None = None  # the pixels in their own depth, where that is more than 8 bits
    box: Box | None = None  # where the source lies in `image`, if not all over it


def pixel_digest(pixels: np.ndarray) -> bytes:
    """BLAKE2b (16 bytes) of (h, w, 1 or 3) uint8 pixels and their size; grey counts as three equal channels."""
    height, width, channels = pixels.shape
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    data = np.ascontiguousarray(pixels).data
    return blake2b(data, digest_size=16, person=struct.pack("<II", height, width)).digest()


def standardise(raw: Raw, spec: ImageSpec) -> Standard:
    """One image in standard form. Bad input gives a status, never an exception.

    Parameters
    ----------
    raw : bytes, numpy.ndarray or Failure
        A file's bytes; an array (h, w) or (h, w, c), c from 1 to 4 (see `daskim.lake.convert`); or what
        reading met, which is passed on.
    spec : ImageSpec

    Returns
    -------
    Standard
    """
    standard = convert(raw, spec)
    if standard.pixels is not None and flat_rows(standard.pixels[None], spec.flat_std)[0]:
        return _with_status(standard, "flat", f"standard deviation below {spec.flat_std:g} grey levels")
    return standard


def _with_status(standard: Standard, status: str, reason: str) -> Standard:
    return Standard(**{**standard.__dict__, "status": status, "reason": reason})


def convert(raw: Raw, spec: ImageSpec) -> Standard:
    """`standardise` without the test for flat images, which is cheaper on a whole block (`flat_rows`)."""
    if isinstance(raw, Failure):
        return Standard(None, 0, 0, 0, b"", b"", False, raw.status, raw.reason)
    if isinstance(raw, np.ndarray):
        size, file_digest = raw.nbytes, digest_of(raw) if raw.dtype.kind in "biuf" else b""
    else:
        size = len(raw)
        if size > spec.max_bytes:
            reason = f"{size} bytes are more than {spec.max_bytes}"
            return Standard(None, 0, 0, size, b"", b"", False, "too-large", reason)
        file_digest = digest_of(raw)
        if size == 0:
            return Standard(None, 0, 0, 0, file_digest, b"", False, "empty", "the file holds no bytes")
    width = height = 0
    try:
        picture = _decode(raw, spec.mode, spec.max_pixels, lambda w, h: draft_scale(w, h, spec))
        if isinstance(picture, Failure):
            return Standard(None, 0, 0, size, file_digest, b"", False, picture.status, picture.reason)
        width, height = picture.width, picture.height
        same = (height, width) == (spec.height, spec.width)
        if spec.fit == "native" and not same:
            reason = f"{height}x{width} in a set of {spec.height}x{spec.width} (height x width)"
            return Standard(None, width, height, size, file_digest, b"", False, "size-mismatch", reason)
        pixels = _fitted(picture, spec, same)
        digest = pixel_digest(pixels)
    except Exception as error:
        # Not even a decoder's own bug may end a run of a million images.
        failure = failure_of_decoder(error, raw if isinstance(raw, bytes) else b"", spec.max_pixels)
        return Standard(None, width, height, size, file_digest, b"", False, failure.status, failure.reason)
    return Standard(pixels, width, height, size, file_digest, digest, same and picture.whole, "ok", "")


def _fitted(picture: _Picture, spec: ImageSpec, same: bool) -> np.ndarray:
    image = picture.image
    if isinstance(image, np.ndarray):
        if same and image.shape[:2] == (spec.height, spec.width):
            return image.reshape(spec.shape)
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    return fit_image(image, spec, (picture.width, picture.height), picture.box)


def _decode(
    raw: bytes | np.ndarray, mode: str, max_pixels: int, scale_for: Callable[[int, int], int]
) -> _Picture | Failure:
    """The image upright and in `mode`; `scale_for(width, height)` says how far a JPEG may be reduced."""
    if isinstance(raw, np.ndarray):
        return _decode_array(raw, mode, max_pixels)
    if raw[:3] == b"\xff\xd8\xff":
        try:
            return _decode_jpeg(raw, mode, max_pixels, scale_for)
        except NotForUs:
            pass
        except Damaged as error:
            return Failure(error.status, error.reason)
        except TooLarge as error:
            return Failure("too-large", str(error))
    with guarded(max_pixels):
        try:
            return _picture_of(open_image(raw, max_pixels), mode)
        except Exception as error:
            return failure_of_decoder(error, raw, max_pixels)


def _decode_jpeg(raw: bytes, mode: str, max_pixels: int, scale_for: Callable[[int, int], int]) -> _Picture:
    width, height, space = jpeg_header(raw)
    if width * height > max_pixels:
        raise TooLarge(f"{width}x{height} pixels are more than {max_pixels}")
    turned = jpeg_orientation(raw)
    upright = (height, width) if turned >= 5 else (width, height)
    scale = scale_for(*upright)
    # Colour goes to grey by the same formula as in any other format, so that a copy in PNG stays equal.
    grey = mode == "L" and space == "Gray"
    pixels = orient(decode_jpeg(raw, width, height, scale, "GRAY" if grey else "RGB"), turned)
    if mode == "L" and not grey:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    box = extent(width, height, scale, turned) if scale > 1 else None
    return _Picture(pixels, *upright, scale == 1 and (mode == "RGB" or grey), None, box)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _picture_of(image: Image.Image, mode: str) -> _Picture:
    turned = orientation_of(image)
    deep = deep_array(image)
    if deep is not None:
        deep = orient(deep, turned)
    grey = image.mode in ("1", "L", "LA", "La")
    image = to_mode(image, mode)
    if turned != 1:
        image = image.transpose(_TURNS[turned])
    return _Picture(image, *image.size, deep is None and (mode == "RGB" or grey), deep)


def _decode_array(values: np.ndarray, mode: str, max_pixels: int) -> _Picture | Failure:
    if 0 in values.shape:
        return Failure("zero-area", f"an array of shape {values.shape}")
    if values.ndim >= 2 and values.shape[0] * values.shape[1] > max_pixels:
        return Failure("too-large", f"{values.shape[1]}x{values.shape[0]} pixels are more than {max_pixels}")
    try:
        image = array_to_image(values)
    except Unsupported as error:
        return Failure("unsupported", str(error))
    deep = values if values.dtype not in (np.uint8, np.bool_) else None
    grey = image.mode in ("L", "LA")
    return _Picture(to_mode(image, mode), *image.size, deep is None and (mode == "RGB" or grey), deep)


def full_digest(raw: Raw, *, max_pixels: int = 100_000_000) -> bytes | None:
    """Digest of the full-resolution pixels, equal for equal pixels in whatever file format.

    Parameters
    ----------
    raw : bytes, numpy.ndarray or Failure
    max_pixels : int
        Bound on width * height.

    Returns
    -------
    bytes or None
        BLAKE2b, 16 bytes, of the upright 8-bit RGB pixels and their size, alpha composited over white. Images
        of more than 8 bits are digested in their own depth, and so equal only one another: two of them that
        differ in their lower bits are not the same image. None when there is nothing to decode.
    """
    if isinstance(raw, Failure):
        return None
    try:
        picture = _decode(raw, "RGB", max_pixels, lambda width, height: 1)
        if isinstance(picture, Failure):
            return None
        if picture.deep is not None:
            return digest_of(picture.deep)
        return pixel_digest(np.asarray(picture.image))
    except Exception:
        return None


def flat_rows(pixels: np.ndarray, flat_std: float) -> np.ndarray:
    """Which images are nearly constant.

    Parameters
    ----------
    pixels : numpy.ndarray of uint8, (b, h, w, c)
    flat_std : float
        Bound on the standard deviation (population) of the channel that varies most, in grey levels.

    Returns
    -------
    numpy.ndarray of bool, (b,)
        Exact (integer sums). One pixel in 16 is looked at first: the squares about the mean of a part never
        exceed those of the whole, so what varies enough there needs no second look.
    """
    count = pixels.shape[0]
    values = pixels.reshape(count, -1, pixels.shape[-1])
    total = values.shape[1]
    bound = flat_std * flat_std * total
    flat = _spread(values[:, ::_FLAT_STRIDE]) < bound
    doubtful = np.flatnonzero(flat)
    for start in range(0, len(doubtful), 64):
        rows = doubtful[start : start + 64]
        flat[rows] = _spread(values[rows]) < bound
    return flat


def _spread(values: np.ndarray) -> np.ndarray:
    """Sum of squares about the mean of each image's widest channel: (b, p, c) uint8 -> (b,) f8."""
    work = values.astype(np.int64)
    total = work.sum(axis=1)
    squares = np.einsum("bpc,bpc->bc", work, work)
    return ((values.shape[1] * squares - total * total) / values.shape[1]).max(axis=1)


@lru_cache(maxsize=1)
def decoder_versions() -> dict[str, str]:
    """Versions of everything that decides about pixels: part of a run's fingerprint."""
    versions = {"pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
    for name in ("libjpeg_turbo", "zlib_ng", "zlib", "libtiff", "webp", "avif", "jpg_2000", "littlecms2"):
        found = features.version(name)
        if found:
            versions[f"pillow.{name}"] = str(found)
    turbo = _turbo_version()
    if turbo:
        versions["simplejpeg.libjpeg_turbo"] = turbo
    return versions


def _turbo_version() -> str | None:
    """The version that simplejpeg's own libjpeg-turbo carries in its binary; it has no call for it."""
    try:
        with open(simplejpeg._jpeg.__file__, "rb") as file:
            match = re.search(rb"libjpeg-turbo version (\d+(?:\.\d+)+)", file.read())
    except (OSError, AttributeError):
        return None
    return match.group(1).decode() if match else None
