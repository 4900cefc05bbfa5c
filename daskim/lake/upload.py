"""A local folder brought to where workers can read it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from daskim.errors import SourceError
from daskim.lake.place import Place, failure_of_store, size_of
from daskim.remote import has_folders
from daskim.retry import STORE

__all__ = ["upload"]

# Files under way at a time: small files in a store cost a round trip each.
PARALLEL = 16


def upload(folder: Path, place: Place) -> int:
    """Write all files of a folder below a place in a store; returns how many.

    Files that are there with the same size are left as they are, so that their time and entity tag stay.

    Parameters
    ----------
    folder : Path
    place : Place
        Of a store: `place.fs` is an fsspec file system.

    Raises
    ------
    SourceError
        The store refuses or cannot be reached.
    """
    try:
        base = place.path.rstrip("/") + "/"
        there = {path[len(base) :]: size_of(entry) for path, entry in _found(place).items() if path.startswith(base)}
        names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        todo = {name: path for name, path in names.items() if there.get(name) != path.stat().st_size}
        if has_folders(place.fs.protocol):  # an object store would make a bucket of that name
            for parent in sorted({place.join(name).parent().path for name in todo}):
                place.fs.makedirs(parent, exist_ok=True)
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="daskim-upload") as pool:
            for _ in pool.map(partial(_put, place), todo.items()):
                pass
    except Exception as error:
        reason = failure_of_store(error, place.secrets).reason
        raise SourceError(f"cannot write below {place.url}: {reason}", "Check --run and its options.") from None
    return len(todo)


def _put(place: Place, item: tuple[str, Path]) -> None:
    STORE.call(place.fs.pipe_file, place.join(item[0]).path, item[1].read_bytes())


def _found(place: Place) -> dict[str, dict]:
    try:
        found: dict[str, dict] = place.fs.find(place.path, detail=True)
    except FileNotFoundError:
        return {}
    return found
