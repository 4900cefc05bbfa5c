"""Removal that can be taken back: dropped images move to a prefix, each move noted before it is made.

Only files of one image can be moved. An image that was reached by a link moves as that link. A file that any image
which stays is read from stays too. Before an image goes, it and the image that is kept for it are read once more:
what cannot be read, or is not what the run has seen, ends the removal there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from daskim.apply.moves import UndoFile, move
from daskim.apply.names import column_of, paths_for
from daskim.apply.selection import FILES, Request
from daskim.apply.sources import Outcome
from daskim.errors import SettingsError, SourceError, StaleRun
from daskim.lake import Folder, Place, digest_of_file, escape, failure_of_store, locate, unescape
from daskim.results import FinishedRun

__all__ = ["plan_moves", "quarantine"]


def plan_moves(
    found: FinishedRun,
    table: pd.DataFrame,
    mine: pd.Series,
    folder: Folder,
    undo_file: UndoFile,
    options: Mapping[str, Any],
) -> tuple[pd.DataFrame, Outcome]:
    """Where each image goes.

    Returns
    -------
    moves : DataFrame
        Rows of `table` with kind ("file" or "link"), entry (place of what moves, stored form), path (in the folder) and
        moved (by an earlier attempt); links first, since they are read through what they point to.
    outcome : Outcome
        With those that stay, and why.
    """
    inside = sorted(set(table["format"]) - set(FILES))
    if inside:
        raise SettingsError(
            f"images of this run lie inside others ({', '.join(inside)}): single ones cannot be moved",
            "Write the reduced set with --to instead.",
        )
    outcome = Outcome()
    staying = set(table.loc[~mine, "container"])
    inputs = [_root(given, options) for given in found.settings.source.inputs]
    records = undo_file.records() if undo_file.exists() else {}
    kinds, entries = [], []
    for row in table[mine].itertuples():
        kind, entry = _entry(row, inputs, found.prefix)
        if entry in records:
            kind = records[entry]["kind"]  # a link that has moved can no longer be seen to be one
        why = ""
        if row.file_digest == b"":
            why = f"it could not be read ({row.status})"
        elif kind == "file" and row.container in staying:
            why = "an image that stays is read from the same file"
        if why:
            outcome.stays.append((row.id, why))
        kinds.append("" if why else kind)
        entries.append(entry)
    moves = table[mine].assign(kind=kinds, entry=entries)
    moves = moves[moves["kind"] != ""].drop_duplicates("entry")
    named = paths_for(
        moves["id"].tolist(),
        moves["label"].tolist(),
        moves["split"].tolist(),
        [""] * len(moves),
        portable=not folder.local,
        fold=folder.local and folder.folds_case(),  # type: ignore[attr-defined]
    )
    moves = moves.assign(path=column_of(named, moves.index))
    gone = [entry in records and not _there(entry, options) for entry in moves["entry"]]
    moves = moves.assign(moved=gone, noted=[entry in records for entry in moves["entry"]])
    return moves.sort_values(["kind", "row"], ascending=[False, True]), outcome


def _root(given: str, options: Mapping[str, Any]) -> tuple[Place, bool]:
    """An INPUT as it was walked, and whether it is a folder."""
    place = locate(given, options)
    if place.fs is None:
        place = place.at(os.path.realpath(place.path))
    return place, place.info()[0]


def _entry(row: Any, inputs: list[tuple[Place, bool]], prefix: str) -> tuple[str, str]:
    """What is to be moved for an image, "file" or "link", and its place in stored form."""
    root, folder = inputs[row.source]
    if row.format == "folder" and folder:
        place = root.join(unescape(row.id.removeprefix(prefix)))
        if place.fs is None and os.path.islink(place.path):
            return "link", place.url
        return "file", place.url
    return "file", str(row.container)


def _there(entry: str, options: Mapping[str, Any]) -> bool:
    place = locate(entry, options, stored=True)
    return os.path.lexists(place.path) if place.fs is None else place.exists()


def quarantine(
    found: FinishedRun,
    request: Request,
    table: pd.DataFrame,
    moves: pd.DataFrame,
    folder: Folder,
    undo_file: UndoFile,
    options: Mapping[str, Any],
    advance: Callable[[], None],
    outcome: Outcome,
) -> Outcome:
    """Move the images of `moves` that were not moved yet.

    Raises
    ------
    SourceError, StaleRun
        An image, or the one kept for it, cannot be read, or is not what the run has seen: nothing more is moved.
    """
    outcome.before = int(moves["moved"].sum())
    by_id = table.set_index("id")
    sound: set[str] = set()
    going = set(moves["id"])  # flat copies, where all flat images are asked to go
    if not undo_file.exists():
        prefix = {"event": "quarantine", "run": found.run, "plan_hash": found.summary.get("plan_hash")}
        undo_file.add({**prefix, "prefix": folder.root.url})
    for row in moves[~moves["moved"]].itertuples():
        kept = by_id.loc[row.kept_id] if row.kept_id is not None else None
        try:
            _check(row.id, row.container, row.file_digest, options)
            if kept is not None and row.kept_id not in sound and row.kept_id not in going:
                _check(row.kept_id, kept["container"], kept["file_digest"], options)
                sound.add(row.kept_id)
        except _Changed as error:
            if not request.skip_changed:
                raise _stopped(StaleRun, str(error), outcome, undo_file) from None
            outcome.changed.append((row.id, str(error)))
            continue
        except Exception as error:  # stores raise classes of their own
            reason = failure_of_store(error).reason
            raise _stopped(
                SourceError, f"cannot read {row.id!r} or its kept image: {reason}", outcome, undo_file
            ) from None
        _move(row, folder, undo_file, options, outcome)
        advance()
    return outcome


class _Changed(Exception):
    """A file that holds other bytes than the run has seen."""


def _check(id: str, container: str, digest: bytes, options: Mapping[str, Any]) -> None:
    if digest_of_file(locate(container, options, stored=True)) != digest:
        raise _Changed(f"{id!r} holds other bytes than the run has seen")


def _stopped(kind: type[Exception], what: str, outcome: Outcome, undo_file: UndoFile) -> Exception:
    return kind(
        f"the removal stopped after {outcome.done + outcome.before} moves: {what}",
        f"What was moved is noted in {undo_file.path}; --undo puts it back, and the same command goes on. For a source "
        "that changed run reduce anew, or leave it where it is with --skip-changed.",
    )


def _move(row: Any, folder: Folder, undo_file: UndoFile, options: Mapping[str, Any], outcome: Outcome) -> None:
    source = locate(row.entry, options, stored=True)
    if source.fs is None and os.path.realpath(os.path.dirname(source.path)) != os.path.dirname(source.path):
        raise SourceError(f"the folder of {escape(source.path)} is a link now", "Restore it, or run reduce anew.")
    link = row.kind == "link"
    record = {"event": "move", "id": row.id, "row": int(row.row), "kind": row.kind, "from": source.url}
    record |= {"to": folder.place(row.path).url, "bytes": int(row.bytes), "digest": row.file_digest.hex()}
    record["text"] = os.readlink(source.path) if link else ""
    undo_file.add(record)
    try:
        move(source, folder, row.path, row.file_digest.hex(), link=link)
    except FileExistsError as error:
        raise SettingsError(str(error), "Nothing is overwritten. Choose another --quarantine prefix.") from None
    except OSError as error:
        raise _stopped(SourceError, f"{row.id!r}: {failure_of_store(error).reason}", outcome, undo_file) from None
    outcome.done += 1
    outcome.bytes += 0 if link else int(row.bytes)
