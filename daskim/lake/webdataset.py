"""WebDataset: tar shards whose members share a key up to the first dot of their name."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterable
from typing import IO

import pyarrow as pa

from daskim.lake.entries import Entry
from daskim.lake.failures import failure_of_store
from daskim.lake.names import escape, extension, split_of_prefix, unescape
from daskim.lake.rows import broken_rows, make_rows
from daskim.lake.signature import IMAGE_EXTENSIONS

__all__ = ["list_shards"]

_MAX_SIDECAR = 1_000_000  # bytes of a .json that is looked into
_MAX_LABEL = 256  # bytes; a longer .txt is a caption, not a label
_SIDECARS = (".cls", ".txt", ".json")
_TAIL = 1 << 20
_AHEAD = 1 << 20  # bytes that a store is asked for at once: a header of 512 would be a request each


def list_shards(
    entries: Iterable[Entry], ignored: dict[str, int], progress: Callable[[int], None] | None = None
) -> list[pa.Table]:
    """Rows of each shard, in the order of `entries` and of the members in them.

    The id of an image is the shard's name, "/", and the member's name. Its label is what a sibling of the same key
    says: ``.cls``, else ``.txt`` (of at most 256 bytes: more is a caption), else the "label" of ``.json``. A ``.json``
    with a "daskim_id" (`daskim.jobs.apply` writes it) says the id, the label and the split before all others. What a
    damaged shard still gives is listed; the rest is one row with a status.
    """
    tables, done = [], 0
    for entry in entries:
        if entry.status != "ok":
            tables.append(broken_rows(entry.rel, entry.place.url, "webdataset", entry.status, entry.reason))
            continue
        tables += _list_shard(entry, ignored)
        done += tables[-1].num_rows
        if progress is not None:
            progress(done)
    return tables


def _list_shard(entry: Entry, ignored: dict[str, int]) -> list[pa.Table]:
    members: list[tuple[str, int, int, str, str]] = []  # name, offset, size, status, reason
    labels: dict[str, tuple[int, str]] = {}
    told: dict[str, dict[str, str | None]] = {}
    trouble: tuple[str, str] | None
    try:
        with entry.place.open(ahead=_AHEAD) as file:
            trouble = _scan(file, members, labels, told, ignored)
    except Exception as error:
        failure = failure_of_store(error, entry.place.secrets)
        status = "corrupt" if isinstance(error, tarfile.TarError | ValueError) else failure.status
        status = "truncated" if "unexpected end" in str(error) else status
        trouble = status, f"after {len(members)} images: {failure.reason}"
    url, tables = entry.place.url, []
    if members:
        tables.append(_rows(entry, url, members, labels, told))
    if trouble is not None:
        tables.append(broken_rows(entry.rel, url, "webdataset", *trouble, mtime=entry.mtime, etag=entry.etag))
    return tables


def _rows(
    entry: Entry,
    url: str,
    members: list[tuple[str, int, int, str, str]],
    labels: dict[str, tuple[int, str]],
    told: dict[str, dict[str, str | None]],
) -> pa.Table:
    names = [escape(member[0]) for member in members]
    split = split_of_prefix(entry.rel)
    about = []
    for member, name in zip(members, names):
        key = key_of(member[0])
        plain = {"daskim_id": f"{entry.rel}/{name}", "label": labels.get(key, (0, None))[1], "split": split}
        about.append(told.get(key, plain))
    return make_rows(
        len(members),
        id=[one["daskim_id"] for one in about],
        uri=[f"{url}#{name}" for name in names],
        label=[one["label"] for one in about],
        split=[one["split"] for one in about],
        format="webdataset",
        container=url,
        item=[member[1] for member in members],
        member=names,
        bytes=[member[2] for member in members],
        mtime=entry.mtime,
        etag=entry.etag,
        status=[member[3] for member in members],
        reason=[member[4] for member in members],
    )


def key_of(name: str) -> str:
    """What siblings share: the path up to the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _scan(
    file: IO[bytes],
    members: list[tuple[str, int, int, str, str]],
    labels: dict[str, tuple[int, str]],
    told: dict[str, dict[str, str | None]],
    ignored: dict[str, int],
) -> tuple[str, str] | None:
    """Fill `members`, `labels` and `told`; what is wrong with the archive as a whole, if anything."""
    size = file.seek(0, 2)
    head = _at(file, 0, 6)
    if head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\x00":
        return "unsupported", "a compressed tar: images in it cannot be read by offset; unpack it to plain .tar"
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every member; a shard may hold a million
            _take(tar, info, size, members, labels, told, ignored)
        end = tar.offset
    return _ending(file, end, size)


def _take(
    tar: tarfile.TarFile,
    info: tarfile.TarInfo,
    size: int,
    members: list[tuple[str, int, int, str, str]],
    labels: dict[str, tuple[int, str]],
    told: dict[str, dict[str, str | None]],
    ignored: dict[str, int],
) -> None:
    name = info.name.removeprefix("./")
    ext = extension(name)
    if info.isdir():
        return
    if ext in IMAGE_EXTENSIONS and not name.rpartition("/")[2].startswith("."):
        status, reason = "ok", ""
        if not info.isfile():
            status, reason = "not-a-file", "an archive link or device: not followed"
        elif info.issparse():
            status, reason = "unsupported", "a sparse archive member"
        elif info.size == 0:
            status, reason = "empty", "the member holds no bytes"
        elif info.offset_data + info.size > size:
            status, reason = "truncated", "the shard ends inside this member"
        members.append((name, info.offset_data, info.size, status, reason))
        return
    if ext in _SIDECARS and info.isfile():
        label = _label(tar, info, ext, told, key_of(name))
        rank = _SIDECARS.index(ext)
        key = key_of(name)
        if label is not None and (key not in labels or rank < labels[key][0]):
            labels[key] = rank, label
        return
    ignored[ext] = ignored.get(ext, 0) + 1


def _label(
    tar: tarfile.TarFile, info: tarfile.TarInfo, ext: str, told: dict[str, dict[str, str | None]], key: str
) -> str | None:
    if info.size > (_MAX_SIDECAR if ext == ".json" else _MAX_LABEL):
        return None
    file = tar.extractfile(info)
    if file is None:
        return None
    text = file.read().decode("utf-8", "backslashreplace").strip()
    if ext != ".json":
        return text or None
    try:
        about = json.loads(text)
        value = about.get("label")
    except (ValueError, AttributeError, RecursionError):
        return None
    label = None if value is None or isinstance(value, list | dict) else str(value)
    own, split = about.get("daskim_id"), about.get("split")
    if isinstance(own, str) and own:
        split = split if isinstance(split, str) else None
        told[key] = {"daskim_id": escape(unescape(own)), "label": label, "split": split}
    return label


def _at(file: IO[bytes], offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _ending(file: IO[bytes], end: int, size: int) -> tuple[str, str] | None:
    """Whether the archive ends as it should: `tarfile` stops in silence at a header that it cannot read."""
    if end >= size:
        return "truncated", "the shard has no end marker: it was cut, or not closed"
    block = _at(file, end, 512)
    if block.strip(b"\x00"):
        return "corrupt", f"no tar header at byte {end} of {size}: what follows is lost"
    if _at(file, end, min(size - end, _TAIL)).strip(b"\x00"):
        return "corrupt", f"data after the end marker at byte {end} of {size} (shards joined without tar -A?)"
    return None
