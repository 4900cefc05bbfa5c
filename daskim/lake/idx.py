"""IDX files, the form of MNIST: a big-endian header, then the array; plain or gzipped."""

from __future__ import annotations

import math
import re
import struct
import zlib

import numpy as np

from daskim.errors import SourceError
from daskim.lake.cache import SHARED
from daskim.lake.place import Place
from daskim.lake.rowsource import MemoryRows, RangeRows, RowSource

__all__ = ["is_idx_images", "is_idx_name", "open_idx", "plain_name", "read_idx_labels", "sibling_labels"]

_NAME = re.compile(r"(?i)(?:^|[-_.])idx[1-4](?:[-_.]ubyte)?(?:\.gz)?$|\.idx(?:\.gz)?$")
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PIECE = 1 << 20
_MAX_UNPACKED = 16_000_000_000


def is_idx_name(name: str) -> bool:
    """Whether a file's name says IDX: ``...-idx3-ubyte``, ``...idx3-ubyte.gz``, ``....idx``."""
    return _NAME.search(name) is not None


def plain_name(rel: str) -> str:
    """`rel` without ``.gz``: ids do not depend on how the file is stored."""
    return rel[:-3] if rel.lower().endswith(".gz") else rel


def is_idx_images(rel: str) -> bool:
    """Whether the name is that of a file of images, and not of labels."""
    base = rel.rpartition("/")[2].lower()
    return "label" not in base and "idx1" not in base


def sibling_labels(rel: str) -> list[str]:
    """Names that the labels of images in `rel` may have, without ``.gz``."""
    folder, slash, base = plain_name(rel).rpartition("/")
    named = re.sub("(?i)images", "labels", base)
    return [] if named == base else [folder + slash + re.sub(r"(?i)idx[2-4]", "idx1", named)]


def open_idx(place: Place) -> RowSource:
    """The array in an IDX file; damaged ones keep the rows that are there.

    Raises
    ------
    SourceError
        Not an IDX file, or one of another number of dimensions than 3 or 4.
    """
    dtype, shape, offset, gzipped = _header(place)
    if len(shape) not in (3, 4):
        raise SourceError(f"{place.url} holds {len(shape)} dimensions; images have 3 (n, h, w) or 4 (n, h, w, c)")
    step = dtype.itemsize * math.prod(shape[1:])
    if gzipped:
        data = _unpack(place, offset + step * shape[0])[offset:]
        whole = min(shape[0], len(data) // step) if step else shape[0]
        array = np.frombuffer(data, dtype, whole * math.prod(shape[1:])).reshape((whole, *shape[1:]))
        return MemoryRows(array, shape)
    _, size, _ = place.info()
    whole = -1 if size < 0 else min(shape[0], max(0, size - offset) // step) if step else shape[0]
    return RangeRows(place, offset, dtype, shape, whole)


def read_idx_labels(place: Place) -> list[str]:
    """The labels in an IDX file of one dimension, as text; fewer when it is damaged."""
    dtype, shape, offset, gzipped = _header(place)
    if len(shape) != 1:
        raise SourceError(f"{place.url} holds {len(shape)} dimensions; labels have one")
    stop = offset + dtype.itemsize * shape[0]
    data = (_unpack(place, stop) if gzipped else place.read(0, stop))[offset:]
    return [str(value) for value in np.frombuffer(data, dtype, len(data) // dtype.itemsize).tolist()]


def _header(place: Place) -> tuple[np.dtype, tuple[int, ...], int, bool]:
    """(dtype, shape, bytes of header, whether gzipped)."""
    head = place.read(0, 4096)
    gzipped = head[:2] == b"\x1f\x8b"
    if gzipped:
        try:
            head = zlib.decompressobj(31).decompress(head, 64)
        except zlib.error as error:
            raise SourceError(f"{place.url} is not a gzip file: {error}") from None
    if len(head) < 4 or head[:2] != b"\x00\x00" or head[2] not in _TYPES or not 1 <= head[3] <= 4:
        raise SourceError(f"{place.url} is not an IDX file")
    count = head[3]
    if len(head) < 4 + 4 * count:
        raise SourceError(f"{place.url} ends inside its header")
    return np.dtype(_TYPES[head[2]]), struct.unpack_from(f">{count}I", head, 4), 4 + 4 * count, gzipped


def _unpack(place: Place, stop: int) -> bytes:
    """The first `stop` bytes of a gzip file's content, or what of them can be unpacked. Kept in the cache."""
    if stop > _MAX_UNPACKED:
        raise SourceError(
            f"{place.url} claims {stop} bytes unpacked, more than {_MAX_UNPACKED}", "Unpack it with gunzip."
        )
    _, size, mtime = place.info()

    def load() -> tuple[bytes, int]:
        data = _inflate(place, stop)
        return data, len(data)

    return SHARED.get(("gunzip", place.url, size, mtime), load)


def _inflate(place: Place, stop: int) -> bytes:
    parts, total = [], 0
    inflate = zlib.decompressobj(31)
    with place.open(ahead=_PIECE) as file:
        packed = file.read(_PIECE)
        while packed and total < stop:
            try:
                # max_length bounds what one small piece may blow up to
                part = inflate.decompress(packed, min(stop - total, 64 * _PIECE))
            except zlib.error:
                break
            parts.append(part)
            total += len(part)
            packed = inflate.unconsumed_tail
            if inflate.eof:
                packed, inflate = inflate.unused_data, zlib.decompressobj(31)
            if not packed:
                packed = file.read(_PIECE)
    return b"".join(parts)
