"""Files of a run, in a directory or at any fsspec URL: whole or not at all, and patient with a store.

The only door to a run's file system; `daskim.store` puts tables and arrays in them.
"""

from __future__ import annotations

import json
import os
import posixpath
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import Any, TypeVar

import fsspec
import numpy as np

from daskim.errors import SettingsError, SourceError
from daskim.remote import Options, blot, has_folders, missing_package, open_options, refuse_credentials, secrets_of
from daskim.retry import STORE, http_status, transient

__all__ = ["Files", "to_json"]

T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """The files below a path or URL. Small and picklable: workers open their own connection.

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
        self.write((json.dumps(value, indent=1, default=to_json, allow_nan=False) + "\n").encode(), *parts)


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


def to_json(value: Any) -> Any:
    """What `json` asks of values of numpy."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON")
