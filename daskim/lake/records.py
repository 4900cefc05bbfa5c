"""The records that flow out of the lake: what to read, what was listed, what became of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from daskim.errors import SettingsError, nearest
from daskim.statuses import STATUSES

__all__ = [
    "FILTERS",
    "FITS",
    "FORMATS",
    "LISTING_SCHEMA",
    "MODES",
    "STATUSES",
    "Failure",
    "ImageSpec",
    "Listing",
    "Raw",
    "Standard",
]

FILTERS = ("area", "bilinear", "bicubic", "lanczos")
FITS = ("stretch", "crop", "pad", "native")
MODES = ("RGB", "L")
FORMATS = ("folder", "manifest", "webdataset", "parquet", "array", "idx")


@dataclass(frozen=True)
class ImageSpec:
    """How an image becomes one standard array. Picklable.

    Attributes
    ----------
    height, width : int
        Size of the standard array in pixels, at least 1.
    mode : {"RGB", "L"}
        Colour or grey (ITU-R 601 luma, as Pillow's ``convert("L")``).
    filter : {"area", "bilinear", "bicubic", "lanczos"}
        Resize filter: Pillow's, which widen with the reduction and so do not alias; area is Pillow's BOX.
    fit : {"stretch", "crop", "pad", "native"}
        stretch: the whole image, aspect ratio ignored; crop: the largest centred part of the target's aspect
        ratio; pad: the whole image inside, the rest grey 128; native: no resize, and an image of another size
        has status ``size-mismatch``.
    draft : bool
        Decode JPEG at 1/2, 1/4 or 1/8 of its size where that still leaves twice the target (four times with
        filter area) in both directions. Standard pixels then differ by a few grey levels from those of a
        lossless copy, so that the two are not found to be exact duplicates; switch it off to find these.
    max_pixels : int
        Bound on width * height, checked from the header before memory is taken.
    max_bytes : int
        Bound on the size of one file.
    max_seconds : float
        Bound on the time that decoding one image may take.
    flat_std : float
        An image is flat when the standard deviation of its standard pixels (population, grey levels, of the
        channel that varies most) is below this.
    """

    height: int = 32
    width: int = 32
    mode: str = "RGB"
    filter: str = "area"
    fit: str = "stretch"
    draft: bool = True
    max_pixels: int = 100_000_000
    max_bytes: int = 500_000_000
    max_seconds: float = 60.0
    flat_std: float = 1.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mode", self.mode, MODES),
            ("filter", self.filter, FILTERS),
            ("fit", self.fit, FITS),
        ):
            if value not in known:
                raise SettingsError(f"images.{name} = {value!r} is not known", nearest(str(value), known))
        for name in ("height", "width", "max_pixels", "max_bytes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"images.{name} = {getattr(self, name)} must be at least 1")
        if self.height * self.width > self.max_pixels:
            raise SettingsError(
                f"a standard image of {self.height}x{self.width} has more pixels than images.max_pixels = "
                f"{self.max_pixels}",
                "Choose a smaller images.size, or raise images.max_pixels.",
            )
        if not self.max_seconds > 0:
            raise SettingsError(f"images.max_seconds = {self.max_seconds} must be more than 0")
        if not self.flat_std >= 0:
            raise SettingsError(f"images.flat_std = {self.flat_std} must not be negative")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the standard array."""
        return self.height, self.width, 3 if self.mode == "RGB" else 1


LISTING_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("source", pa.int32()),
        ("format", pa.string()),
        ("container", pa.string()),
        ("item", pa.int64()),
        ("member", pa.string()),
        ("bytes", pa.int64()),
        ("mtime", pa.float64()),
        ("etag", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Listing:
    """What the INPUTs hold; row i of `table` is image i of the run.

    Attributes
    ----------
    table : pyarrow.Table
        One row an image, of `LISTING_SCHEMA`: ``id`` (unique), ``uri``, ``label`` and ``split`` (nullable),
        ``source`` (index into `sources`), ``format``, ``container`` (the file, shard or array that holds the
        bytes), ``item`` (row of a Parquet file or array, offset of the data in a tar, else 0), ``member``
        (column, npz key or tar member; nullable), ``bytes`` (-1 unknown), ``mtime`` (seconds since the epoch,
        nan unknown), ``etag`` (of the container, as an object store or web server says; nullable), ``status`` ("ok",
        or what is known to be wrong from listing alone) and ``reason``.
    ignored : dict of str to int
        Files that are no images, counted by lower-case extension with its dot ("" for none); "hidden" counts
        files whose name, or the name of a folder above, starts with a dot, and "directory-link" links to
        folders, which are not followed.
    sources : tuple of str
        The INPUTs as given.
    """

    table: pa.Table
    ignored: dict[str, int]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """An image that could not be read: a word of `STATUSES`, and the reason in words."""

    status: str
    reason: str


Bytes = bytes  # the attribute `Standard.bytes` hides the type inside that class
Raw = bytes | np.ndarray | Failure


@dataclass(frozen=True)
class Standard:
    """One image in standard form, or why there is none.

    Attributes
    ----------
    pixels : numpy.ndarray of uint8, (h, w, c), or None
        None unless status is ok or flat.
    width, height : int
        Of the source after EXIF orientation; 0 when unknown.
    bytes : int
        Size of the file; of a raw array its nbytes.
    file_digest : bytes
        BLAKE3 (16 bytes) of the file's bytes; of an array's dtype, shape and data; b"" if unreadable.
    digest : bytes
        BLAKE2b (16 bytes) of the standard pixels and their shape, grey as three equal channels; b"" if none.
    full : bool
        True when `digest` equals `full_digest` of the image: nothing was lost to resize, draft, mode or depth.
    status, reason : str
        A word of `STATUSES`, and words of explanation ("" when ok).
    """

    pixels: np.ndarray | None
    width: int
    height: int
    bytes: int
    file_digest: Bytes
    digest: Bytes
    full: bool
    status: str
    reason: str
