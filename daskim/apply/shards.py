"""WebDataset and Parquet: files of many images, planned by what the run knows of their sizes, each written whole."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from daskim.apply.journal import in_the_way
from daskim.apply.names import plain_name
from daskim.apply.selection import Request
from daskim.apply.sources import Picture
from daskim.apply.work import Planned, Work
from daskim.lake import Digest, Folder, digest_of
from daskim.results import FinishedRun

__all__ = ["plan_shards", "write_parquet", "write_webdataset"]

_SPLIT = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_GROUP_ROWS, _GROUP_BYTES = 256, 32_000_000  # of a Parquet row group
_MOST_CLASSES = 10_000
_CLASSES = "classes.json"


class _Incomplete(Exception):
    """A shard that lacks an image: it is not written."""


def plan_shards(
    found: FinishedRun, table: pd.DataFrame, request: Request, folder: Folder, options: dict[str, Any]
) -> Planned:
    """The shard of each image: split by split, in order of rows, cut where `shard_bytes` are full."""
    ext = ".tar" if request.form == "webdataset" else ".parquet"
    names = np.full(len(table), "", dtype=object)
    split = table["split"].where(table["split"].notna(), "").to_numpy(dtype=object)
    size = table["bytes"].clip(lower=0).to_numpy(dtype=np.int64)
    for word in sorted(set(split)):
        mine = np.flatnonzero(split == word)
        shard = np.maximum(np.cumsum(size[mine]) - 1, 0) // request.shard_bytes
        shard = np.unique(shard, return_inverse=True)[1]
        count = int(shard.max()) + 1
        base = word if _SPLIT.fullmatch(word) else plain_name(word, word).replace("~", "-")
        form = f"{base}-%05d-of-{count:05d}{ext}" if word else f"images-%06d{ext}"
        names[mine] = [form % number for number in shard.tolist()]
    table = table.assign(path=names)
    files = sorted(set(names.tolist()))
    if request.form == "webdataset" and table["label"].notna().any():
        files.append(_CLASSES)
    bare = int((split == "").sum())
    notes = []
    if 0 < bare < len(table):
        notes.append(
            f"{bare} images have no split and go to images-*{ext}, passed over by load_dataset beside named splits"
        )
    return Planned(tuple(files), table, tuple(notes))


def _classes(work: Work) -> tuple[list[str], bool]:
    """All labels of the run (not of the kept images only: numbers must not shift), and whether they are numbers."""
    labels = {label for label in work.found.table("plan", ["label"])["label"] if isinstance(label, str)}
    if labels and all(re.fullmatch(r"0|[1-9][0-9]{0,17}", label) for label in labels):
        return sorted(labels, key=int), True
    return sorted(labels), False


def _shards(work: Work, planned: Planned) -> Iterator[tuple[str, pd.DataFrame]]:
    """The shards that are not there yet."""
    before = work.journal.done(work.folder)
    for path, rows in planned.table.groupby("path", sort=True):
        if path in before:
            work.outcome.before += len(rows)
            for _ in range(len(rows)):
                work.advance()
        else:
            yield str(path), rows


def _all(work: Work, rows: pd.DataFrame) -> Iterator[Picture]:
    """The images of a shard. Those that changed are left out where that was asked for; else the shard is given up,
    after all of its images have been looked at.
    """
    bad = 0
    for picture in work.pictures(rows):
        if picture is not None:
            yield picture
        else:
            bad += 1
    if bad and (work.outcome.unread or work.outcome.unsupported or not work.request.skip_changed):
        raise _Incomplete


class _Hashed:
    """A file for writing that knows the digest of what went through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest, self.size = file, Digest(), 0
        self.closed = False

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(memoryview(data).cast("B"))
        self.file.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        """The file is closed by whoever opened it."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _write(work: Work, path: str, rows: pd.DataFrame, fill: Any) -> None:
    """One shard: made under another name, noted, and then there."""
    count = 0
    try:
        with work.folder.create(path) as file:
            hashed = _Hashed(file)
            count = fill(hashed, rows)
            work.journal.expect([(path, hashed.size, hashed.digest.hexdigest())])
    except _Incomplete:
        return
    except FileExistsError:
        raise in_the_way([path], work.folder.root.url) from None
    work.outcome.done += count
    work.outcome.bytes += hashed.size


def write_webdataset(work: Work, planned: Planned) -> None:
    """Tar files: for each image its file, ``.cls`` (number of the class) and ``.json`` (id, label, split).

    Members have fixed times, owners and modes: the same images give the same bytes. Numbers in ``.cls`` are those of
    ``classes.json``, or the labels themselves where all are numbers.
    """
    names, numbers = _classes(work)
    number = {name: int(name) if numbers else index for index, name in enumerate(names)}

    def fill(file: Any, rows: pd.DataFrame) -> int:
        count = 0
        row = rows[["row", "id", "label", "split"]].to_numpy(dtype=object)
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for picture in _all(work, rows):
                at, id, label, split = row[picture.at]
                key = f"{at:09d}"
                _add(tar, key + picture.ext, picture.data)
                if label is not None:
                    _add(tar, f"{key}.cls", str(number[label]).encode())
                about = {"daskim_id": id, "label": label, "split": split}
                _add(tar, f"{key}.json", json.dumps(about, ensure_ascii=True).encode())
                count += 1
        return count

    for path, rows in _shards(work, planned):
        _write(work, path, rows, fill)
    if _CLASSES in planned.files and _CLASSES not in work.journal.done(work.folder):
        data = json.dumps(names, ensure_ascii=True).encode()
        work.journal.expect([(_CLASSES, len(data), digest_of(data).hex())])
        try:
            work.folder.write(_CLASSES, data)
        except FileExistsError:
            raise in_the_way([_CLASSES], work.folder.root.url) from None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 0
    tar.addfile(info, io.BytesIO(data))


def _schema(names: list[str], numbers: bool) -> pa.Schema:
    """Columns, and what the `datasets` library is told about them under the key "huggingface"."""
    label: tuple[pa.DataType, dict[str, Any]] = (pa.string(), {"dtype": "string", "_type": "Value"})
    if numbers:
        label = pa.int64(), {"dtype": "int64", "_type": "Value"}
    elif 0 < len(names) <= _MOST_CLASSES:
        label = pa.int64(), {"names": names, "_type": "ClassLabel"}
    text = {"dtype": "string", "_type": "Value"}
    features = {"image": {"_type": "Image"}, "label": label[1], "split": text, "daskim_id": text}
    return pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", label[0]),
            ("split", pa.string()),
            ("daskim_id", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def write_parquet(work: Work, planned: Planned) -> None:
    """Parquet files as Hugging Face's `datasets` writes and reads them, in row groups of bounded size."""
    names, numbers = _classes(work)
    schema = _schema(names, numbers)
    by_number = pa.types.is_integer(schema.field("label").type)
    number = {name: int(name) if numbers else index for index, name in enumerate(names)}

    def fill(file: Any, rows: pd.DataFrame) -> int:
        row = rows[["id", "label", "split"]].to_numpy(dtype=object)
        held: list[dict[str, Any]] = []
        size = count = 0
        with pq.ParquetWriter(file, schema, compression="none", use_dictionary=False) as writer:
            for picture in _all(work, rows):
                id, label, split = row[picture.at]
                value = number[label] if by_number and label is not None else label
                image = {"bytes": picture.data, "path": id}
                held.append({"image": image, "label": value, "split": split, "daskim_id": id})
                size, count = size + len(picture.data), count + 1
                if len(held) >= _GROUP_ROWS or size >= _GROUP_BYTES:
                    writer.write_table(pa.Table.from_pylist(held, schema))
                    held, size = [], 0
            if held:
                writer.write_table(pa.Table.from_pylist(held, schema))
        return count

    for path, rows in _shards(work, planned):
        _write(work, path, rows, fill)
