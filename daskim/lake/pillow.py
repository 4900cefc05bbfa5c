"""Pillow as a decoder that is bounded, silent, and answers with an image or a status."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from daskim.lake.convert import Unsupported
from daskim.lake.records import Failure
from daskim.lake.signature import HEAD, UNREADABLE, header_size, sniff

__all__ = ["TooLarge", "failure_of_decoder", "guarded", "open_image", "orientation_of"]

# Only raster formats that decode in process. Not EPS (runs Ghostscript), WMF, PDF, and stubs for other programs.
# Formats with no signature of their own come last, so that they do not claim the files of others.
_DECODERS = (
    "JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "QOI", "JPEG2000", "AVIF",
    "ICNS", "DDS", "PSD", "SGI", "DIB", "PCX", "TGA",
)  # fmt: skip


# Pillow logs errors about the files that it then raises for; without a handler they would land on stderr.
_logger = logging.getLogger("PIL")
_logger.addHandler(logging.NullHandler())


class TooLarge(Exception):
    """More pixels than the bound."""


class _Guard:
    """Pillow's process-wide switches, set while any thread decodes and put back when the last one leaves.

    `Image.MAX_IMAGE_PIXELS` also guards images inside images (an icon's PNG). `warnings.catch_warnings` is not
    thread-safe, so one for all threads is opened by the first and closed by the last.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bounds: list[int] = []
        self.saved: tuple[Any, bool, bool] = (None, False, True)
        self.catcher: warnings.catch_warnings[Any] | None = None

    def enter(self, max_pixels: int) -> None:
        with self.lock:
            if not self.bounds:
                self.saved = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, _logger.propagate)
                self.catcher = warnings.catch_warnings()
                self.catcher.__enter__()
                warnings.simplefilter("ignore")
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                _logger.propagate = False
            self.bounds.append(max_pixels)
            self._set_bound()

    def exit(self, max_pixels: int) -> None:
        with self.lock:
            self.bounds.remove(max_pixels)
            if self.bounds:
                self._set_bound()
                return
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, _logger.propagate = self.saved
            if self.catcher is not None:
                self.catcher.__exit__(None, None, None)
                self.catcher = None

    def _set_bound(self) -> None:
        # Pillow raises above twice this number and warns above it. Each thread checks its own bound as well.
        Image.MAX_IMAGE_PIXELS = (max(self.bounds) + 1) // 2


_guard = _Guard()


@contextlib.contextmanager
def guarded(max_pixels: int) -> Iterator[None]:
    """For a while: Pillow's warnings and logs off, truncated files refused, its pixel bound at `max_pixels`."""
    _guard.enter(max_pixels)
    try:
        yield
    finally:
        _guard.exit(max_pixels)


def open_image(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame of `data`, loaded. Inside `guarded` only.

    Raises
    ------
    TooLarge
        From the header, before memory for pixels is taken.
    Exception
        Whatever a decoder raises; see `failure_of_decoder`.
    """
    image = Image.open(io.BytesIO(data), formats=_DECODERS)
    if image.width * image.height > max_pixels:
        raise TooLarge(f"{image.width}x{image.height} pixels are more than {max_pixels}")
    if image.width < 1 or image.height < 1:
        raise Unsupported("zero-area")
    image.load()
    return image


def orientation_of(image: Image.Image) -> int:
    """Exif (or XMP) orientation 1..8 of a loaded image; unreadable metadata counts as none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_TRUNCATED = ("truncated", "unexpected end", "not enough image data", "eof", "buffer is not large enough")
_UNSUPPORTED = ("unsupported", "not supported", "unknown", "could not create decoder", "not implemented")


def failure_of_decoder(error: BaseException, data: bytes, max_pixels: int) -> Failure:
    """The status for an exception that a decoder raised on `data`."""
    words = str(error).strip() or type(error).__name__
    if isinstance(error, TooLarge | Image.DecompressionBombError):
        return Failure("too-large", words)
    if isinstance(error, MemoryError):
        return Failure("too-large", "the decoder asked for more memory than there is")
    name = sniff(data[:HEAD])
    size = header_size(data, name) if name else None
    if size is not None and 0 in size:
        return Failure("zero-area", f"its header says {size[0]}x{size[1]}")
    if size is not None and size[0] * size[1] > max_pixels:
        return Failure("too-large", f"{size[0]}x{size[1]} pixels are more than {max_pixels}")
    if name in UNREADABLE:
        return Failure("unsupported", f"no decoder here reads {name}")
    if isinstance(error, UnidentifiedImageError):
        if name is None:
            return Failure("not-an-image", _describe(data))
        short = len(data) < HEAD
        return Failure("truncated" if short else "corrupt", f"starts as {name}, but its header cannot be read")
    low = words.lower()
    if "too large" in low:
        return Failure("too-large", words)
    if isinstance(error, Unsupported | NotImplementedError) or any(mark in low for mark in _UNSUPPORTED):
        return Failure("unsupported", words)
    if isinstance(error, EOFError) or any(mark in low for mark in _TRUNCATED):
        return Failure("truncated", words)
    return Failure("corrupt", f"{type(error).__name__}: {words}"[:300])


def _describe(data: bytes) -> str:
    return "no image signature; it starts with " + repr(bytes(data[:12]))
