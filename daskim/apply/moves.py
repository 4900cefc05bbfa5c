"""The notes of a quarantine, one line a move and written before it, and how every file comes back.

    {"event": "quarantine", "run", "plan_hash", "prefix"}
    {"event": "move", "id", "row", "kind": "file" | "link", "from", "to", "bytes", "digest", "text"}
    {"event": "undone"}

Paths are in stored form (`daskim.lake.names`), digests hexadecimal, `text` is where a link points to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from daskim.apply.sources import Outcome
from daskim.errors import SettingsError, SourceError
from daskim.lake import Folder, Place, digest_of_file, failure_of_store, locate, open_folder

__all__ = ["Moves", "UndoFile", "inspect", "move", "undo"]


_FIELDS = ("id", "row", "kind", "from", "to", "digest", "text")


class UndoFile:
    """The notes on a disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.prefix = ""  # known once the records were read

    def records(self) -> dict[str, dict[str, Any]]:
        """The last move of each source path; none after everything was undone. A torn last line is a move not begun.

        Raises
        ------
        SourceError, SettingsError
            There is no such file; it is no undo file.
        """
        try:
            with open(self.path, "rb") as file:
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            raise SourceError(
                f"there is no undo file {self.path}", "It is RUN/apply/KEY/undo.jsonl, as the quarantine said."
            ) from None
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error}", "Check its permissions.") from None
        found: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if record["event"] == "move":
                    found[record["from"]] = {name: record[name] for name in _FIELDS}
                elif record["event"] == "quarantine":
                    self.prefix = str(record["prefix"])
                elif record["event"] == "undone":
                    found = {}
            except (ValueError, KeyError, TypeError):
                raise SettingsError(
                    f"line {number} of {self.path} is no note of a move", "Give the undo.jsonl of a quarantine."
                ) from None
        return found

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def add(self, record: Mapping[str, Any]) -> None:
        """One more line, on the disk when this returns. What a crash left of a line is cut off first."""
        folder = os.path.dirname(os.path.abspath(self.path))
        os.makedirs(folder, exist_ok=True)
        with open(self.path, "a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if end and file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(dict(record)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def move(source: Place, folder: Folder, rel: str, digest: str, *, link: bool = False) -> None:
    """Move one file, or link, to a name that is free; what was half done by an earlier attempt is finished.

    On one device the file gets its second name before the first goes. Elsewhere it is copied, the copy read back, and
    only then the original removed.

    Raises
    ------
    FileExistsError
        Something else has the name.
    OSError
        As the store tells it.
    """
    if link:
        text = os.readlink(source.path)
        state = folder.state(rel)
        if state is None and not _rename(source, folder, rel):
            folder.symlink(rel, text, os.lstat(source.path).st_mtime_ns)  # type: ignore[attr-defined]
        elif state is not None and (state.kind != "link" or state.text != text):
            raise FileExistsError(f"{folder.place(rel).url} is there already")
        os.unlink(source.path)
        return
    if folder.state(rel) is not None:
        same = folder.local and source.fs is None and folder.same_file(rel, source.path)  # type: ignore[attr-defined]
        if not same and digest_of_file(folder.place(rel)).hex() != digest:
            raise FileExistsError(f"{folder.place(rel).url} is there already")
    elif not (folder.local and source.fs is None and _rename(source, folder, rel)):
        _copy(source, folder, rel)
        if digest_of_file(folder.place(rel)).hex() != digest:
            folder.remove(rel)
            raise OSError(f"{folder.place(rel).url}: the copy is not what was read")
    if source.fs is None:
        os.unlink(source.path)
    else:
        source.remove()


def _rename(source: Place, folder: Folder, rel: str) -> bool:
    """A second name on the same device; False where there can be none."""
    try:
        folder.hardlink(rel, source.path)  # type: ignore[attr-defined]
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _copy(source: Place, folder: Folder, rel: str) -> None:
    target = folder.place(rel)
    if source.fs is not None and source.fs is target.fs:
        source.copy(target)
        return
    with source.open() as file, folder.create(rel) as out:
        while piece := file.read(4_000_000):
            out.write(piece)
    if folder.local and source.fs is None:
        about = os.stat(source.path)
        folder.set_times(rel, about.st_mode, about.st_mtime_ns)  # type: ignore[attr-defined]


@dataclass
class Moves:
    """What an undo file says against what is there.

    Attributes
    ----------
    back : list of dict
        Moves to be taken back.
    there : int
        Sources that are in their place.
    wrong : list of (id, why)
        What cannot be taken back.
    prefix : str
        The quarantine, stored form.
    """

    back: list[dict[str, Any]] = field(default_factory=list)
    there: int = 0
    prefix: str = ""
    wrong: list[tuple[str, str]] = field(default_factory=list)


def _places(record: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Place, Place]:
    """Where a file was, and where it was moved to."""
    return locate(record["from"], options, stored=True), locate(record["to"], options, stored=True)


def _at(place: Place) -> tuple[Folder, str]:
    return open_folder(place.parent()), place.name


def _is(place: Place, record: Mapping[str, Any]) -> bool:
    """Whether the noted file, or link, lies at a place."""
    folder, name = _at(place)
    state = folder.state(name)
    if state is None:
        return False
    if record["kind"] == "link":
        return state.kind == "link" and state.text == record["text"]
    return state.kind == "file" and digest_of_file(place).hex() == record["digest"]


def inspect(file: UndoFile, options: Mapping[str, Any] | None) -> Moves:
    """What `undo` would do; digests of all files are read."""
    records = file.records()
    moves = Moves(prefix=file.prefix)
    for record in records.values():
        source, kept = _places(record, options or {})
        try:
            here, moved = _is(source, record), _is(kept, record)
            taken = _at(source)[0].state(source.name) is not None
        except Exception as error:  # stores raise classes of their own
            moves.wrong.append((record["id"], failure_of_store(error, source.secrets).reason))
            continue
        if moved and (here or not taken):
            moves.back.append(record)  # also where an attempt ended between the second name and the end of the first
        elif here:
            moves.there += 1
        elif moved:
            moves.wrong.append((record["id"], f"something else lies at {record['from']}"))
        else:
            moves.wrong.append((record["id"], f"{record['to']} is gone or changed"))
    return moves


def undo(
    file: UndoFile, moves: Moves, options: Mapping[str, Any] | None, advance: Callable[[], None] = lambda: None
) -> Outcome:
    """Put everything back, and read it again where it lies then."""
    outcome = Outcome(before=moves.there, stays=list(moves.wrong))
    for record in moves.back:
        source, kept = _places(record, options or {})
        folder, name = _at(source)
        try:
            move(kept, folder, name, record["digest"], link=record["kind"] == "link")
            if not _is(source, record):
                raise OSError("it is not what it was")
            outcome.done += 1
        except Exception as error:  # stores raise classes of their own
            outcome.stays.append((record["id"], failure_of_store(error, source.secrets).reason))
        advance()
    if moves.prefix:
        open_folder(locate(moves.prefix, options, stored=True)).prune()
    if not outcome.stays:
        file.add({"event": "undone"})
    return outcome
