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
import os
import posixpath
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, BinaryIO, TypeVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore, WrapperStore

from daskim.errors import SettingsError, SourceError
from daskim.npy import PARSING, header_of
from daskim.remote import Options, blot, has_folders, missing_package, open_options, refuse_credentials, secrets_of
from daskim.retry import STORE, http_status, transient
from daskim.zarrstore import PatientStore

__all__ = ["Run", "block_bounds", "bytes_read"]

T = TypeVar("T")

# An inner chunk of about 1 MB: one row costs at most that to read, and the codec runs inside the cache.
INNER_BYTES = 1_000_000


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
class Run:
    """A run at a path or URL. Small and picklable: workers open their own connection.

    Parameters
    ----------
    url : str
        A directory or any fsspec URL.
    options : dict
        For fsspec; credentials stay in memory and are never written.

    Notes
    -----
    What fails for the moment in an object store is tried again, for two minutes at most (`daskim.retry.STORE`); then
    the run ends with a SourceError and goes on when it is started again.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=Options, hash=False, repr=False)

    @property
    def local(self) -> Path | None:
        """The directory, or None for a URL."""
        return Path(self.url) if "://" not in self.url else None

    def _fs(self) -> tuple[Any, str]:
        return _filesystem(self.url, json.dumps(dict(self.options), sort_keys=True))

    def path(self, *parts: str) -> str:
        return posixpath.join(self._fs()[1], *parts)

    def below(self) -> tuple[Run, int] | None:
        """The run whose arrays hold the first rows of this one's, and how many; None for a run of its own."""
        return _below(self.url, json.dumps(dict(self.options), sort_keys=True))

    def forget_below(self) -> None:
        """Read `below.json` again: it was written."""
        _below.cache_clear()

    # files ------------------------------------------------------------------------------------------------------

    def _ask(self, ask: Callable[[Any], T]) -> T:
        """`ask(file system)`, patiently; what goes wrong beyond a missing file is told as this run's error."""
        fs, _ = self._fs()
        try:
            return ask(fs) if self.local is not None else STORE.call(ask, fs)
        except FileNotFoundError:
            raise
        except Exception as error:
            if not _of_store(error):
                raise
            raise SourceError(
                f"run {self.url}: cannot be reached ({self._words(error)})", "Choose another with --run."
            ) from None

    def _words(self, error: BaseException) -> str:
        """What a store says, without credentials: a chained exception would be printed with them."""
        return blot(str(error) or type(error).__name__, secrets_of(self.options))

    def exists(self, *parts: str) -> bool:
        try:
            self._ask(lambda fs: fs.info(self.path(*parts)))  # `fs.exists` takes any failure for an absence
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, *parts: str) -> bytes:
        return self._ask(lambda fs: bytes(fs.cat_file(self.path(*parts))))

    def write(self, data: bytes, *parts: str, content_type: str | None = None) -> None:
        """Write one file so that it is there whole or not at all.

        Parameters
        ----------
        content_type : str, optional
            What an object store says the file is, where it can be told: without it S3 gives application/octet-stream,
            which a browser saves instead of showing.
        """
        local = self.local
        if local is not None:
            with self._whole(local.joinpath(*parts)) as temporary:
                temporary.write_bytes(data)
            return
        self._put(data, *parts, **_typed(self._fs()[0].protocol, content_type))

    def _put(self, data: bytes, *parts: str, **how: str) -> None:
        """Write one object, patiently."""
        fs, _ = self._fs()

        def put() -> None:
            if has_folders(fs.protocol):  # s3fs would make a bucket that is not there
                fs.makedirs(posixpath.dirname(self.path(*parts)), exist_ok=True)
            fs.pipe_file(self.path(*parts), data, **how)

        try:
            STORE.call(put)
        except FileExistsError:
            raise
        except Exception as error:
            if "mode" in how and (isinstance(error, TypeError) or http_status(error) == 501):
                raise NotImplementedError("no conditional write") from None
            if not _of_store(error):
                raise
            raise self._unwritable(posixpath.join(*parts), error) from None

    def create(self, data: bytes, *parts: str) -> bool:
        """Write one file that must not be there yet: whether it was not. Who is first, the store decides.

        Raises
        ------
        NotImplementedError
            The store has no conditional write.

        Notes
        -----
        Atomic on file systems, and in object stores that know a conditional write (`mode="create"` of fsspec). A first
        attempt whose answer was lost may be refused by its own file: read it to see whose it is.
        """
        local = self.local
        if local is None:
            try:
                self._put(data, *parts, mode="create")
            except FileExistsError:
                return False
            return True
        target = local.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
            temporary.write_bytes(data)
            try:
                os.link(temporary, target)  # there with all its content at once
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                with target.open("xb") as file:
                    file.write(data)
            finally:
                temporary.unlink()
        except FileExistsError:
            return False
        except OSError as error:
            raise self._unwritable(str(target), error) from error
        return True

    @contextmanager
    def _whole(self, target: Path) -> Iterator[Path]:
        """A temporary name that becomes the file when all is written."""
        temporary = target.with_name(f".{target.name}.{os.getpid()}.{get_ident()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise self._unwritable(str(target), error) from error

    def _unwritable(self, what: str, error: BaseException) -> SourceError:
        return SourceError(
            f"run {self.url}: cannot write {what} ({self._words(error)})",
            "The same command goes on where it was; or choose another place with --run.",
        )

    def remove(self, *parts: str) -> None:
        if self.exists(*parts):
            with suppress(FileNotFoundError):
                self._ask(lambda fs: fs.rm(self.path(*parts), recursive=True))

    def names(self, *parts: str) -> list[str]:
        """File and folder names directly below a folder, sorted; empty where there is none."""

        def list_fresh(fs: Any) -> list[str]:
            try:
                return list(fs.ls(self.path(*parts), detail=False, refresh=True))
            except TypeError:
                return list(fs.ls(self.path(*parts), detail=False))

        try:
            listed = self._ask(list_fresh)
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(str(name).rstrip("/")) for name in listed)

    def read_json(self, *parts: str) -> dict[str, Any] | None:
        try:
            return json.loads(self.read(*parts))
        except FileNotFoundError:
            return None

    def write_json(self, value: Mapping[str, Any], *parts: str) -> None:
        self.write((json.dumps(value, indent=1, default=_plain, allow_nan=False) + "\n").encode(), *parts)

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
        self.write(json.dumps(info, default=_plain).encode(), "state", stage, "blocks", f"{key}.json")

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


def _typed(protocol: str | Sequence[str], content_type: str | None) -> dict[str, Any]:
    """How a file system is told the type of a file; nothing where it has no word for it."""
    names = {protocol} if isinstance(protocol, str) else set(protocol)
    if content_type is None:
        return {}
    if names & {"s3", "s3a"}:
        return {"ContentType": content_type}
    if names & {"az", "abfs", "abfss"}:
        return {"content_settings": {"content_type": content_type}}
    return {"content_type": content_type} if names & {"gs", "gcs"} else {}


def _of_store(error: BaseException) -> bool:
    """Whether an error comes from a store, and is no bug: those of botocore and others are no OSError."""
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or transient(error) or module in _CLIENTS


_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "azure", "gcsfs", "google")


@lru_cache(maxsize=16)
def _filesystem(url: str, options: str) -> tuple[Any, str]:
    refuse_credentials(url)
    if url.startswith(("http://", "https://")):
        raise SettingsError(
            f"run {url}: nothing can be written over http", "A run is a directory or a URL such as s3://bucket/run."
        )
    given = json.loads(options)
    try:
        return fsspec.core.url_to_fs(url, **open_options(url, given))
    except SettingsError:
        raise
    except Exception as error:
        hint = missing_package(url, error) or "A run is a directory or an fsspec URL such as s3://bucket/run."
        raise SourceError(f"run {url}: {blot(str(error), secrets_of(given))}", hint) from None


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


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON")
