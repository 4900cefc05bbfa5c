"""Stacks of images in ``.npy``, ``.npz`` and Zarr: (n, h, w) or (n, h, w, c), channels last."""

from __future__ import annotations

import contextlib
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.lib import format as npy_format

from daskim.errors import SourceError
from daskim.lake.cache import SHARED
from daskim.lake.failures import failure_of_store
from daskim.lake.names import unescape
from daskim.lake.place import Place
from daskim.lake.rowsource import MemoryRows, RangeRows, RowSource, ZarrRows
from daskim.npy import PARSING, header_of
from daskim.remote import open_options

__all__ = ["is_label_name", "label_names", "open_array", "pair_keys", "read_labels", "split_of_key"]

_LABEL = re.compile(r"(?i)(?:^|[_\-./])(?:labels?|targets?|classes|y)(?=$|[_\-.])")
_SPLIT = re.compile(r"(?i)(?:^|[_\-./])(train|test|val|valid|validation)(?=$|[_\-.])")
_MAX_UNPACKED = 16_000_000_000
_AHEAD = 4_000_000  # bytes that a store is asked for at once
_EXTS = (".npy", ".npz", ".zarr")


def is_label_name(name: str) -> bool:
    """Whether an array's name (of a file or key) says that it holds labels: labels, y_train, train_targets ..."""
    return _LABEL.search(_stem(name)) is not None


def _stem(name: str) -> str:
    base = name.rpartition("/")[2]
    return next((base[: -len(ext)] for ext in _EXTS if base.lower().endswith(ext)), base)


def split_of_key(name: str) -> str | None:
    """The split that an array's name holds as a word: x_train, test_images, val."""
    match = _SPLIT.search(_stem(name))
    return match.group(1).lower() if match else None


def label_names(name: str) -> list[str]:
    """Names under which the labels of the array `name` may be found beside it, the most telling first.

    ``NAME_labels``, then ``images`` for ``labels`` and ``x`` for ``y`` within the name, then ``labels``.
    """
    stem = _stem(name)
    found = [f"{stem}_labels"]
    for old, new in (("images", "labels"), ("image", "label"), ("data", "labels"), ("data", "target")):
        found.append(re.sub(rf"(?i)(^|[_\-.]){old}(?=$|[_\-.])", rf"\g<1>{new}", stem))
    found.append(re.sub(r"(?i)(^|[_\-.])x(?=$|[_\-.])", r"\g<1>y", stem))
    found += [re.sub(r"(^|[_\-.])X(?=$|[_\-.])", r"\g<1>y", stem), "labels"]
    return [name for name in dict.fromkeys(found) if name != stem]


def pair_keys(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str | None]:
    """Which arrays of an npz or Zarr group are images, each with the key of its labels or None.

    Images are arrays of 3 or 4 dimensions that are not named as labels. Labels are looked for under `label_names`.
    """
    images = [key for key, shape in shapes.items() if len(shape) in (3, 4) and not is_label_name(key)]
    pairs: dict[str, str | None] = {}
    for key in sorted(images):
        folder = key[: len(key) - len(key.rpartition("/")[2])]
        names = [folder + name for name in label_names(key)]
        if len(images) > 1:
            names = [name for name in names if name != folder + "labels"]  # whose would they be?
        pairs[key] = next((name for name in names if name in shapes), None)
    return pairs


def open_array(place: Place, member: str | None, storage_options: Mapping[str, Any] | None) -> RowSource:
    """The array `member` of the file or Zarr hierarchy at `place` (None: the file is the array).

    Raises
    ------
    SourceError
        It is not an array of images, or cannot be read.
    """
    name = place.name.lower()
    if name.endswith(".npz"):
        return _open_npz(place, member or "")
    if name.endswith(".npy"):
        with place.open() as file:
            shape, fortran, dtype = _npy_header(file, place.url)
            offset = file.tell()
        _check(place.url, shape, dtype, fortran)
        _, size, _ = place.info()
        step = dtype.itemsize * math.prod(shape[1:])
        whole = -1 if size < 0 else min(shape[0], max(0, size - offset) // step) if step else shape[0]
        return RangeRows(place, offset, dtype, shape, whole)
    node = open_zarr(place, storage_options)
    array = node[member] if member else node
    _check(place.url, array.shape, array.dtype, False)
    return ZarrRows(array, array.shape)


def shapes_inside(place: Place, storage_options: Mapping[str, Any] | None) -> dict[str, tuple[int, ...]] | None:
    """Shape of each array in an npz or Zarr group, by key; None when `place` is itself one array."""
    name = place.name.lower()
    if name.endswith(".npy"):
        return None
    if name.endswith(".npz"):
        with place.open() as file, _zip(file, place.url) as archive:
            return {
                info.filename[:-4]: _member_header(archive, info, place.url)[0]
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
    node = open_zarr(place, storage_options)
    _refuse_links(place)
    if isinstance(node, zarr.Array):
        return None
    return {key: child.shape for key, child in node.members(max_depth=None) if isinstance(child, zarr.Array)}


def open_zarr(place: Place, storage_options: Mapping[str, Any] | None) -> Any:
    """The Zarr array or group at `place`, for reading."""
    try:
        if place.fs is None:
            return zarr.open(place.path, mode="r")
        url = unescape(place.url)
        return zarr.open(url, mode="r", storage_options=open_options(url, storage_options or {}))
    except Exception as error:
        reason = failure_of_store(error, place.secrets).reason
        raise SourceError(f"cannot open {place.url} as Zarr: {reason}") from None


def _refuse_links(place: Place) -> None:
    """End where a part of a Zarr hierarchy on a disk is a link that leads out of it: any file would be an image."""
    todo = [place.path] if place.fs is None else []
    root = os.path.realpath(place.path)
    while todo:
        with os.scandir(todo.pop()) as scan:
            for item in scan:
                if item.is_symlink() and os.path.commonpath([root, os.path.realpath(item.path)]) != root:
                    raise SourceError(f"{place.url}: {item.name} is a link that leads out of it", "Copy what it holds.")
                if item.is_dir(follow_symlinks=False):
                    todo.append(item.path)


def read_labels(
    place: Place, member: str | None, count: int, storage_options: Mapping[str, Any] | None
) -> list[str | None]:
    """`count` labels as text, from a 1-d array (or (n, 1)); nan and NaT are no label.

    Raises
    ------
    SourceError
        Another shape, or another number of labels than of images.
    """
    name = place.name.lower()
    if name.endswith(".npz"):
        values = _load_npz(place, member or "")
    elif name.endswith(".npy"):
        with place.open() as file:
            values = _load(file, place.url)
    else:
        node = open_zarr(place, storage_options)
        _refuse_links(place)
        values = np.asarray((node[member] if member else node)[...])
    where = f"{place.url}{'/' + member if member else ''}"
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != count:
        raise SourceError(f"{where} has shape {values.shape}: {count} labels, one for each image, are expected")
    return [_label(value) for value in values.tolist()]


def _label(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if value is None or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check(where: str, shape: Sequence[int], dtype: Any, fortran: bool) -> None:
    kind = np.dtype(dtype).kind
    if kind not in "biuf":
        raise SourceError(f"{where} holds values of type {dtype}; images are numbers")
    if len(shape) not in (3, 4):
        raise SourceError(f"{where} has shape {tuple(shape)}; a stack of images is (n, h, w) or (n, h, w, c)")
    if len(shape) == 4 and shape[3] not in (1, 2, 3, 4):
        first = " Its channels seem to come first: numpy.moveaxis(x, 1, -1)." if shape[1] in (1, 2, 3, 4) else ""
        raise SourceError(f"{where} has shape {tuple(shape)}", "The last axis holds 1 to 4 channels." + first)
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[1] > 4:
        raise SourceError(f"{where} has shape {tuple(shape)}: one image, not a stack", "Save x[None] instead.")
    if fortran:
        raise SourceError(f"{where} is stored in Fortran order", "Save numpy.ascontiguousarray(x) instead.")


def _npy_header(file: Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        return header_of(file)
    except (ValueError, OSError, SyntaxError, TypeError) as error:
        raise SourceError(f"{where} is not a NumPy file: {error}") from None


def _load(file: Any, where: str) -> np.ndarray:
    try:
        with PARSING:
            return npy_format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, zipfile.BadZipFile) as error:
        raise SourceError(f"cannot read {where}: {error}", "Object arrays are refused: they run code.") from None


@contextlib.contextmanager
def _zip(file: Any, where: str) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SourceError(f"{where} is not an npz file: {error}") from None
    with archive:
        yield archive


def _member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> tuple[tuple[int, ...], bool, Any]:
    try:
        with archive.open(info) as file:
            return _npy_header(file, f"{where}/{info.filename}")
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise SourceError(f"cannot read {info.filename} in {where}: {error}") from None


def _open_npz(place: Place, member: str) -> RowSource:
    """Rows in place where the member is stored as it is (`numpy.savez`); else the whole array, in the cache."""
    with place.open() as file, _zip(file, place.url) as archive:
        info = archive.getinfo(member + ".npy")
        shape, fortran, dtype = _member_header(archive, info, place.url)
        _check(f"{place.url}/{member}", shape, dtype, fortran)
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            file.seek(info.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            start = info.header_offset + 30 + name + extra
            file.seek(start)
            _npy_header(file, place.url)
            step = dtype.itemsize * math.prod(shape[1:])
            offset = file.tell()
            whole = max(0, info.file_size - (offset - start)) // step if step else shape[0]
            return RangeRows(place, offset, dtype, shape, min(shape[0], whole))
    return MemoryRows(_load_npz(place, member), shape)


def _load_npz(place: Place, member: str) -> np.ndarray:
    _, size, mtime = place.info()

    def load() -> tuple[np.ndarray, int]:
        with place.open(ahead=_AHEAD) as file, _zip(file, place.url) as archive:
            info = archive.getinfo(member + ".npy")
            if info.file_size > _MAX_UNPACKED:
                raise SourceError(
                    f"{place.url}/{member} claims {info.file_size} bytes, more than {_MAX_UNPACKED}",
                    "Save it with numpy.savez (no compression): then it is read row by row.",
                )
            with archive.open(info) as inner:
                array = _load(inner, f"{place.url}/{member}")
        place.verify()
        return array, array.nbytes

    return SHARED.get(("npz", place.url, member, size, mtime), load)
