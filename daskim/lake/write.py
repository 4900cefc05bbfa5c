"""Folders that are written into: files come whole or not at all, under names that were free, and never outside.

On a disk every step below the root is taken by the descriptor of the folder above it and follows no link, so that a
link inside the folder cannot lead a file out of it. A file is written under a hidden name, flushed, and then linked to
its own: that fails where the name is taken. In a store an upload is whole by itself; the name is looked up before, and
where the store knows how to create only, it is asked to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from daskim.lake.digests import digest_of_file
from daskim.lake.place import Place, size_of
from daskim.remote import has_folders
from daskim.retry import READS, STORE

__all__ = ["PARTIAL", "Folder", "State", "open_folder"]

PARTIAL = ".daskim-partial-"
# Errors of link(2) that say that this file system has no hard links, or that one may not make them here.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


@dataclass(frozen=True)
class State:
    """What is under a name: kind "file", "folder", "link" or "other"; its size; and where a link points to."""

    kind: str
    bytes: int
    text: str = ""


class Folder:
    """A folder in a store; see `LocalFolder` for one on a disk. Names have "/" between their parts."""

    local = False

    def __init__(self, root: Place) -> None:
        self.root = root

    def place(self, rel: str) -> Place:
        """Where a name is."""
        return self.root.join(rel)

    def state(self, rel: str) -> State | None:
        """What is under a name, None for nothing. Raises what the store raises."""
        return self.state_of(self.place(rel))

    def state_of(self, place: Place) -> State | None:
        """`state` of a place."""
        try:
            entry = place.entry()
        except FileNotFoundError:
            return None
        kind = "folder" if entry.get("type") == "directory" else "file"
        return State(kind, size_of(entry))

    def files(self) -> Iterator[str]:
        """Names of everything in it but folders, in order."""
        base = self.root.path.rstrip("/") + "/"
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(READS.call(self.root.fs.find, self.root.path)):
                yield path[len(base) :] if path.startswith(base) else posixpath.basename(path)

    def write(self, rel: str, data: bytes) -> None:
        """A new file.

        Raises
        ------
        FileExistsError
            The name is taken.
        OSError
            As the store tells it.
        """
        place = self.place(rel)
        self._create(place, place.fs.pipe_file, (place.path, data), lambda: place.read(0, len(data) + 1) == data)

    def _create(
        self, place: Place, put: Callable[..., Any], words: tuple[Any, ...], is_ours: Callable[[], bool]
    ) -> None:
        """`put(*words)`, patiently, where the name is free; `is_ours` tells whether what is there is what was put."""
        if self.state_of(place) is not None:
            raise FileExistsError(f"{place.url} is there already")
        if place.parent().path and has_folders(place.fs.protocol):
            READS.call(place.fs.makedirs, place.parent().path, exist_ok=True)

        def once() -> None:
            try:
                try:
                    put(*words, mode="create")
                except (TypeError, ValueError, NotImplementedError):  # a store that does not know exclusive creation
                    put(*words)
            except FileExistsError:
                # The answer to an earlier try may be lost, here or inside the client, after the store took the file.
                if not is_ours():
                    raise

        STORE.call(once)

    @contextlib.contextmanager
    def create(self, rel: str) -> Iterator[IO[bytes]]:
        """A new file that may be large, to be written by its user; it is there when the block ends without an error.

        Raises
        ------
        FileExistsError
            The name is taken.
        """
        place = self.place(rel)
        if self.state_of(place) is not None:
            raise FileExistsError(f"{place.url} is there already")
        with tempfile.NamedTemporaryFile() as scratch:
            yield scratch
            size = scratch.tell()
            scratch.flush()
            own = Place(scratch.name)
            words = (scratch.name, place.path)
            self._create(place, place.fs.put_file, words, lambda: digest_of_file(place) == digest_of_file(own))
        found = self.state(rel)
        if found is None or found.bytes not in (-1, size):
            raise OSError(f"{place.url} holds {found and found.bytes} bytes after {size} were written")

    def remove(self, rel: str) -> None:
        """Remove one file."""
        self.place(rel).remove()

    def prune(self) -> None:
        """Remove folders that hold nothing; a store has none."""


class LocalFolder(Folder):
    """A folder on a disk."""

    local = True

    def state(self, rel: str) -> State | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._inside(rel, make=False) as (fd, name):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                return State("link", found.st_size, os.readlink(name, dir_fd=fd))
            kind = "folder" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
            return State(kind, found.st_size)
        return None

    def files(self) -> Iterator[str]:
        found = []
        todo = [""]
        while todo:
            rel = todo.pop()
            try:
                with os.scandir(os.path.join(self.root.path, rel)) as scan:
                    for item in scan:
                        if item.is_dir(follow_symlinks=False):
                            todo.append(rel + item.name + "/")
                        else:
                            found.append(rel + item.name)
            except FileNotFoundError:
                continue
        yield from sorted(found)

    @contextlib.contextmanager
    def _inside(self, rel: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that holds a name, and the name's last part; no link on the way is followed."""
        *folders, name = rel.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in [*folders, name]):
            raise PermissionError(errno.EPERM, "not a name inside a folder", rel)
        if make:
            os.makedirs(self.root.path, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        fd = os.open(self.root.path, flags)
        try:
            for part in folders:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=fd)
                inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd, name
        finally:
            os.close(fd)

    def write(self, rel: str, data: bytes) -> None:
        with self.create(rel) as file:
            file.write(data)

    @contextlib.contextmanager
    def create(self, rel: str) -> Iterator[IO[bytes]]:
        with self._inside(rel, make=True) as (fd, name):
            partial = PARTIAL + secrets.token_hex(8)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with os.fdopen(os.open(partial, flags, 0o666, dir_fd=fd), "w+b") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                _settle(fd, partial, name)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial, dir_fd=fd)

    def symlink(self, rel: str, text: str, mtime_ns: int | None = None) -> None:
        """A new symbolic link, with a time of its own. Raises FileExistsError where the name is taken."""
        with self._inside(rel, make=True) as (fd, name):
            os.symlink(text, name, dir_fd=fd)
            if mtime_ns is not None:
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=fd, follow_symlinks=False)

    def hardlink(self, rel: str, path: str) -> None:
        """A new name of the file at `path`. Raises FileExistsError where it is taken, OSError on another device."""
        with self._inside(rel, make=True) as (fd, name):
            os.link(path, name, dst_dir_fd=fd, follow_symlinks=False)
            os.fsync(fd)

    def same_file(self, rel: str, path: str) -> bool:
        """Whether a name is a hard link to the file at `path`."""
        with contextlib.suppress(OSError), self._inside(rel, make=False) as (fd, name):
            return os.path.samestat(os.stat(name, dir_fd=fd, follow_symlinks=False), os.lstat(path))
        return False

    def folds_case(self) -> bool:
        """Whether names that differ by case only are one name here, as the folders on the way to it tell."""
        path = os.path.abspath(self.root.path)
        while path != os.path.dirname(path):
            head, name = os.path.split(path)
            if name.swapcase() != name and os.path.exists(path):
                with contextlib.suppress(OSError):
                    return os.path.samefile(path, os.path.join(head, name.swapcase()))
                return False
            path = head
        return False

    def device(self) -> int:
        """Number of the device that it is on, or will be."""
        path = os.path.abspath(self.root.path)
        while not os.path.exists(path):
            path = os.path.dirname(path)
        return os.stat(path).st_dev

    def set_times(self, rel: str, mode: int, mtime_ns: int) -> None:
        """Give a file the permissions and the time of another."""
        with self._inside(rel, make=False) as (fd, name):
            inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                os.fchmod(inner, stat.S_IMODE(mode))
                os.utime(inner, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(inner)

    def remove(self, rel: str) -> None:
        with self._inside(rel, make=False) as (fd, name):
            os.unlink(name, dir_fd=fd)

    def prune(self) -> None:
        for folder, _, _ in os.walk(self.root.path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _settle(fd: int, partial: str, name: str) -> None:
    """Give a finished file its name, if that is free."""
    try:
        os.link(partial, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without hard links the name is reserved by an empty file of our own, which is then replaced.
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, dir_fd=fd))
        os.rename(partial, name, src_dir_fd=fd, dst_dir_fd=fd)


def open_folder(place: Place) -> Any:
    """The folder at a place, whether it is there yet or not: a `LocalFolder` or a `Folder`."""
    return LocalFolder(place) if place.fs is None else Folder(place)
