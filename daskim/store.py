"""The only door to Zarr and Parquet: one run, in a directory or at any fsspec URL.

    RUN/arrays            one Zarr group: `images`, `wavelets`, ...
    RUN/tables/NAME/      Parquet, one part a block, in the order of the part names
    RUN/state/STAGE/      stage.json (what was asked), blocks/KEY.json (markers), sealed.json (facts and times)
    RUN/partial/STAGE/    small results on their way to a fold; gone when the stage is sealed

A marker is written after the data of its block, and a seal after all markers, so that whatever is marked is whole.
Zarr does not store a chunk that equals its fill value: counting chunks would be no rule for resuming.
"""

from __future__ import annotations

import io
import json
import math
import posixpath
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore, WrapperStore

from daskim.errors import SourceError
from daskim.files import Files, to_json
from daskim.npy import PARSING, header_of
from daskim.remote import Options, open_options, secrets_of
from daskim.zarrstore import PatientStore

__all__ = ["Run", "block_bounds", "bytes_read", "even_rows"]

# An inner chunk of about 1 MB: one row costs at most that to read, and the codec runs inside the cache.
INNER_BYTES = 1_000_000
# Rows of a block come in so many, where they are more: chunks divide it, and a prime number of rows has chunks of one
# (1,259 rows of 6 kB: 8.4 s to write 62 MB, against 0.3 s for 1,280).
EVEN = 64


def even_rows(rows: int) -> int:
    """So many rows of a block, or a few less, so that it falls into large chunks."""
    return rows - rows % EVEN if rows > EVEN else rows


def block_bounds(n: int, rows: int) -> list[tuple[int, int]]:
    """[lo, hi) of each block of `rows` rows."""
    return [(lo, min(lo + rows, n)) for lo in range(0, n, rows)]


_READ: Counter[str] = Counter()
_READ_LOCK = Lock()


def bytes_read() -> dict[str, int]:
    """Bytes of each array of runs that this process has read so far, as stored (compressed)."""
    with _READ_LOCK:
        return dict(_READ)


class _Counted(WrapperStore):
    """A Zarr store whose reads are counted, by array."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        value = await super().get(key, prototype, byte_range)
        if value is not None and "/c/" in key:
            with _READ_LOCK:
                _READ[key.partition("/")[0]] += len(value)
        return value


@dataclass(frozen=True)
class Run(Files):
    """A run at a path or URL: its tables, arrays, partial results and markers, over `Files`."""

    def below(self) -> tuple[Run, int] | None:
        """The run whose arrays hold the first rows of this one's, and how many; None for a run of its own."""
        return _below(self.url, json.dumps(dict(self.options), sort_keys=True))

    def forget_below(self) -> None:
        """Read `below.json` again: it was written."""
        _below.cache_clear()

    # tables -----------------------------------------------------------------------------------------------------

    def write_part(self, table: str, key: str, data: pa.Table, compression: str = "zstd") -> int:
        """One part of a table; returns its size in bytes. A part of the same key is replaced."""
        buffer = io.BytesIO()
        pq.write_table(data, buffer, compression=compression)
        self.write(buffer.getvalue(), "tables", table, f"{key}.parquet")
        return buffer.tell()

    def read_part(self, table: str, key: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(io.BytesIO(self.read("tables", table, f"{key}.parquet")), columns=columns)

    def batches(self, table: str, columns: list[str], rows: int = 1 << 17) -> Iterator[pa.Table]:
        """All of a table's rows, at most `rows` of them in memory; columns that a table lacks are left out."""
        for key in self.parts(table):
            file = pq.ParquetFile(io.BytesIO(self.read("tables", table, f"{key}.parquet")))
            there = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=rows, columns=there):
                yield pa.Table.from_batches([batch])

    def parts(self, table: str) -> list[str]:
        """Keys of the parts of a table, in order."""
        return [name.removesuffix(".parquet") for name in self.names("tables", table) if name.endswith(".parquet")]

    def read_table(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """All parts of a table, in the order of their keys."""
        keys = self.parts(table)
        if not keys:
            raise SourceError(
                f"run {self.url}: no table {table}", "Run `python -m daskim.jobs.reduce` to the end first."
            )
        return pa.concat_tables([self.read_part(table, key, columns) for key in keys])

    # arrays -----------------------------------------------------------------------------------------------------

    def _zarr_store(self) -> WrapperStore[Any]:
        local = self.local
        if local is not None:
            return _Counted(LocalStore(str(local / "arrays")))
        self._fs()  # says what is wrong with the URL
        where = posixpath.join(self.url, "arrays")
        return _Counted(PatientStore.at(where, open_options(self.url, self.options), secrets_of(self.options)))

    def create_array(
        self, name: str, shape: tuple[int, ...], dtype: Any, rows: int, attributes: Mapping[str, Any] | None = None
    ) -> zarr.Array:
        """A new array whose shards are blocks of `rows` rows; an older one of that name goes.

        Notes
        -----
        One shard a block: tasks that write different blocks never touch one file. LZ4 with bit shuffle took 1.2 GB/s
        and 1.75 : 1 on integer Haar coefficients, against 0.4 GB/s and 2.3 : 1 of Zstandard.
        """
        row_bytes = max(1, int(np.prod(shape[1:])) * np.dtype(dtype).itemsize)
        inner = _divisor(rows, max(1, INNER_BYTES // row_bytes))
        return zarr.create_array(
            self._zarr_store(),
            name=name,
            shape=shape,
            dtype=dtype,
            chunks=(inner, *shape[1:]),
            shards=(rows, *shape[1:]),
            compressors=BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
            fill_value=0,
            attributes={"made": secrets.token_hex(8), **(attributes or {})},
            overwrite=True,
        )

    def grow_array(self, name: str, n: int) -> None:
        """Room for n rows in an array that has fewer, and another `made`: rows may be written anew. May be repeated."""
        array = self.array(name)
        if array.shape[0] < n:
            array.resize((n, *array.shape[1:]))
        array.attrs["made"] = secrets.token_hex(8)

    def block_rows(self, name: str) -> int:
        """Rows of one block (shard) of an array."""
        array = self.array(name)
        return int((array.shards or array.chunks)[0])

    def put_rows(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Write rows (ascending) of one block of an array; the others of that block stay."""
        array, lo, hi = self.array(name), int(rows[0]), int(rows[-1]) + 1
        if hi - lo != len(rows):
            whole = np.asarray(array[lo:hi])
            whole[rows - lo] = values
            values = whole
        array[lo:hi] = values

    def array(self, name: str) -> zarr.Array:
        return zarr.open_array(self._zarr_store(), path=name, mode="r+")

    # partial results --------------------------------------------------------------------------------------------

    def save(self, value: np.ndarray, *parts: str) -> None:
        """One array, whole or not at all; on a disk without a copy in memory."""
        local = self.local
        if local is not None:
            with self._whole(local.joinpath(*parts)) as temporary, temporary.open("wb") as file:
                np.save(file, value, allow_pickle=False)
            return
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        self.write(buffer.getvalue(), *parts)

    def load(self, *parts: str) -> np.ndarray:
        local = self.local
        if local is not None:
            with local.joinpath(*parts).open("rb") as file:
                return _load(file)
        data = self.read(*parts)
        with PARSING:
            return np.load(io.BytesIO(data), allow_pickle=False)

    def view(self, *parts: str) -> np.ndarray:
        """As `load`, to be read only; on a disk the array is mapped, so that what is not looked at is not read."""
        local = self.local
        if local is not None:
            with PARSING:
                return np.load(local.joinpath(*parts), mmap_mode="r", allow_pickle=False)
        return self.load(*parts)

    def save_table(self, table: pa.Table, *parts: str) -> None:
        """One table beside the tables of the run, whole or not at all."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.write(buffer.getvalue(), *parts)

    def load_table(self, *parts: str) -> pa.Table:
        return pq.read_table(io.BytesIO(self.read(*parts)))

    # markers and seals ------------------------------------------------------------------------------------------

    def mark(self, stage: str, key: str, info: Mapping[str, Any]) -> None:
        self.write(json.dumps(info, default=to_json).encode(), "state", stage, "blocks", f"{key}.json")

    def marked(self, stage: str) -> set[str]:
        return {name.removesuffix(".json") for name in self.names("state", stage, "blocks") if name.endswith(".json")}

    def facts(self, stage: str) -> dict[str, Any]:
        """What a sealed stage found."""
        found: dict[str, Any] = (self.read_json("state", stage, "sealed.json") or {})["facts"]
        return found

    def marker(self, stage: str, key: str) -> dict[str, Any]:
        return self.read_json("state", stage, "blocks", f"{key}.json") or {}


@lru_cache(maxsize=16)
def _below(url: str, options: str) -> tuple[Run, int] | None:
    """What `below.json` says, read once a process: it is there from the beginning of a run or never."""
    record = Run(url, Options(json.loads(options))).read_json("below.json")
    return None if record is None else (Run(record["url"], Options(json.loads(options))), int(record["n"]))


def _load(file: BinaryIO) -> np.ndarray:
    """An array from an open .npy file; its values are read while other threads read theirs."""
    shape, fortran, dtype = header_of(file)
    if dtype.hasobject:
        raise ValueError("an array of objects: reading it would run code")
    values = np.fromfile(file, dtype, math.prod(shape))
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _divisor(rows: int, most: int) -> int:
    """The largest divisor of `rows` that is at most `most`."""
    return max(k for k in range(1, min(rows, most) + 1) if rows % k == 0)
