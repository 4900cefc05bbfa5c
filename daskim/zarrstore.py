"""Zarr's store in an object store, with the patience of `daskim.retry`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from fsspec.core import url_to_fs
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.storage import FsspecStore

from daskim.errors import SourceError
from daskim.remote import blot, protocol_of
from daskim.retry import STORE, GaveUp

__all__ = ["PatientStore"]

T = TypeVar("T")


async def _all(names: Callable[..., AsyncIterator[str]], *args: str) -> list[str]:
    return [name async for name in names(*args)]


class PatientStore(FsspecStore):
    """An `FsspecStore` whose requests are made again while they fail for the moment.

    A chunk is written whole by one request, so that writing it twice does no harm.
    """

    secrets: tuple[str, ...] = ()

    @classmethod
    def at(cls, url: str, options: Mapping[str, Any], secrets: Sequence[str]) -> PatientStore:
        """The store at a URL; `secrets` are blotted out of its errors."""
        if protocol_of(url) in ("az", "abfs", "abfss"):
            # adlfs made for another loop complains at exit; in threads, its usual form serves as well.
            fs, path = url_to_fs(url, **options)
            store = cls(AsyncFileSystemWrapper(fs, asynchronous=True), path=path)
        else:
            store = cast(PatientStore, cls.from_url(url, storage_options=dict(options)))
        store.secrets = tuple(secrets)
        return store

    def with_read_only(self, read_only: bool = False) -> PatientStore:
        store = cast(PatientStore, super().with_read_only(read_only))
        store.secrets = self.secrets
        return store

    async def _patiently(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        try:
            return await STORE.acall(function, *args, **kwargs)
        except (GaveUp, PermissionError) as error:
            raise SourceError(
                f"arrays of the run at {self.path}: {blot(str(error), self.secrets)}",
                "The same command goes on where it was, when the store can be reached.",
            ) from None

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        return await self._patiently(super().get, *args, **kwargs)

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        return await self._patiently(super().get_partial_values, prototype, list(key_ranges))

    async def set(self, *args: Any, **kwargs: Any) -> None:
        await self._patiently(super().set, *args, **kwargs)

    async def exists(self, key: str) -> bool:
        return await self._patiently(super().exists, key)

    async def getsize(self, key: str) -> int:
        return await self._patiently(super().getsize, key)

    async def delete(self, key: str) -> None:
        await self._patiently(super().delete, key)

    async def delete_dir(self, prefix: str) -> None:
        await self._patiently(super().delete_dir, prefix)

    async def clear(self) -> None:
        await self._patiently(super().clear)

    async def list(self) -> AsyncIterator[str]:
        for name in await self._patiently(_all, super().list):
            yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._patiently(_all, super().list_dir, prefix):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._patiently(_all, super().list_prefix, prefix):
            yield name
