"""An apply in two steps: `propose` looks at everything and writes nothing, `carry_out` does what was proposed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from daskim.apply import shards, tree
from daskim.apply.journal import Journal, in_the_way, key_of
from daskim.apply.moves import UndoFile
from daskim.apply.quarantine import plan_moves, quarantine
from daskim.apply.selection import Request, chosen, counts_of, guard, table_of
from daskim.apply.sources import GONE, Found, Outcome, changes_since
from daskim.apply.work import Planned, Work
from daskim.errors import SettingsError, SourceError, StaleRun
from daskim.lake import PARTIAL, Folder, Place, escape, failure_of_store, locate, open_folder
from daskim.results import FinishedRun

__all__ = ["Proposal", "carry_out", "propose", "refuse_changed"]

# What may be given anew when an apply goes on.
_NOT_IN_KEY = ("skip_changed", "max_drop", "undo_file")
_PLANS: Mapping[str, Callable[..., Planned]] = {
    "copies": tree.plan_tree,
    "symlinks": tree.plan_tree,
    "hardlinks": tree.plan_tree,
    "manifest": tree.plan_manifest,
    "webdataset": shards.plan_shards,
    "parquet": shards.plan_shards,
}
_WRITERS: Mapping[str, Callable[[Work, Planned], None]] = {
    "copies": tree.write_tree,
    "symlinks": tree.write_tree,
    "hardlinks": tree.write_tree,
    "manifest": tree.write_manifest,
    "webdataset": shards.write_webdataset,
    "parquet": shards.write_parquet,
}


@dataclass
class Proposal:
    """What an apply would do.

    Attributes
    ----------
    counts : dict
        Images and bytes: chosen, influential, flat, dropped, broken, all (see `selection.counts_of`).
    changed : list of (id, why)
        Sources that are not as they were; without `skip_changed` they stop it.
    new : int
        Images of the source that the run has not seen.
    table : DataFrame
        All images.
    planned : Planned
        The chosen ones; for a quarantine with what moves and where to.
    stays : list of (id, why)
        Quarantine: what stays though it was chosen.
    before : int
        Images that an earlier attempt has done.
    finished : bool
        Nothing is left to do.
    """

    found: FinishedRun
    request: Request
    folder: Folder
    journal: Journal
    counts: dict[str, Any]
    changed: Found
    new: int
    table: pd.DataFrame
    planned: Planned
    stays: Found
    before: int
    finished: bool
    undo_file: UndoFile | None = None


def propose(
    found: FinishedRun,
    request: Request,
    *,
    storage_options: Mapping[str, Any] | None = None,
    target_options: Mapping[str, Any] | None = None,
) -> Proposal:
    """What would be done. Sources are listed anew; nothing is written.

    Parameters
    ----------
    storage_options, target_options : mapping, optional
        For fsspec: of the source and of the target.

    Raises
    ------
    GuardTripped
        More would go than `max_drop`.
    SettingsError
        Somebody else's files are in the target; the target and a source lie inside one another; a form that the source
        does not allow.
    SourceError
        The source or the target cannot be reached.
    """
    options = dict(storage_options or {})
    table = table_of(found)
    mine = chosen(table, request)
    guard(table, mine, request)
    folder = open_folder(_target(request, target_options))
    _refuse_overlap(found, request, folder.root, options)
    facts = {"plan": found.summary.get("plan_hash"), "target": folder.root.url, **asdict(request)}
    key = key_of({name: value for name, value in facts.items() if name not in _NOT_IN_KEY})
    journal = Journal(found.store, key)
    if request.form == "quarantine":
        return _propose_moves(found, request, folder, journal, table, mine, options)
    matters = mine | (table["decision"] == "drop")
    changed, new = changes_since(found, table, matters, options)
    kept = set(table.loc[mine, "id"])
    changed = [(id, why) for id, why in changed if id in kept or why != GONE]  # what was dropped may be gone
    counts = counts_of(table, mine)
    gone = {id for id, _ in changed}
    planned = _PLANS[request.form](found, table[mine].reset_index(drop=True), request, folder, options)
    if request.skip_changed:
        planned = Planned(planned.files, planned.table[~planned.table["id"].isin(gone)], planned.notes)
    before, finished = _state(folder, journal, planned)
    return Proposal(found, request, folder, journal, counts, changed, new, table, planned, [], before, finished)


def _target(request: Request, options: Mapping[str, Any] | None) -> Place:
    place = locate(request.target, options)
    if request.form == "manifest" and place.name.lower().endswith((".csv", ".jsonl")):
        return place.parent()
    return place


def _state(folder: Folder, journal: Journal, planned: Planned) -> tuple[int, bool]:
    """Images done before, and whether all is; refuses a target that holds what is not of this apply."""
    try:
        root = folder.root.fs is None and os.path.lexists(folder.root.path) and not os.path.isdir(folder.root.path)
        if root:
            raise in_the_way([folder.root.url], folder.root.url)
        wanted = set(planned.files)
        alone = len(wanted) == 1 and next(iter(wanted)).endswith((".csv", ".jsonl"))  # a manifest may have company
        there = {path for path in wanted if folder.state(path) is not None} if alone else set(folder.files())
        done = journal.done(folder)
    except OSError as error:
        reason = failure_of_store(error, folder.root.secrets).reason
        raise SourceError(f"cannot read the target {folder.root.url}: {reason}", "Choose another target.") from None
    strange = sorted(
        escape(path)
        for path in there - done
        if path in wanted or not any(part.startswith(".") for part in path.split("/"))
    )
    if strange:
        raise in_the_way(strange, folder.root.url)
    before = sum(path in done for path in planned.table["path"]) if "path" in planned.table else 0
    return before, journal.finished is not None and wanted <= done


def _refuse_overlap(found: FinishedRun, request: Request, target: Place, options: Mapping[str, Any]) -> None:
    """A target inside a source would be read as part of it (unless hidden); a source inside a target mixed with it."""
    if request.form == "manifest":
        return
    for given in found.settings.source.inputs:
        source = locate(given, options)
        one, other = (_comparable(place) for place in (source, target))
        if one == other or one.startswith(other + "/"):
            raise SettingsError(f"{target.url} holds the source {given}", "Choose a target outside of the source.")
        if other.startswith(one + "/"):
            inner = other[len(one) + 1 :].split("/")
            if not any(part.startswith(".") for part in inner):
                raise SettingsError(
                    f"{target.url} lies inside the source {given}, and the next run would read it",
                    "Choose a place outside, or a hidden one (a folder whose name starts with a dot).",
                )


def _comparable(place: Place) -> str:
    return os.path.realpath(place.path) if place.fs is None else place.url.rstrip("/")


def _propose_moves(
    found: FinishedRun,
    request: Request,
    folder: Folder,
    journal: Journal,
    table: pd.DataFrame,
    mine: pd.Series,
    options: Mapping[str, Any],
) -> Proposal:
    undo_file = _undo_file(found, request, journal)
    records = undo_file.records() if undo_file.exists() else {}
    moved = {record["row"] for record in records.values()}
    matters = (mine & ~table["row"].isin(moved)) | table["id"].isin(set(table.loc[mine, "kept_id"].dropna()))
    changed, new = changes_since(found, table, matters, options)
    moves, outcome = plan_moves(found, table, mine, folder, undo_file, options)
    gone = {id for id, _ in changed}
    # an attempt that was stopped inside a move has changed nothing: the file is under both names
    changed = [(id, why) for id, why in changed if id not in set(moves.loc[moves["moved"], "id"])]
    if request.skip_changed:
        moves = moves[moves["moved"] | ~(moves["id"].isin(gone) | moves["kept_id"].isin(gone))]
    taken = [
        escape(path)
        for path, noted in zip(moves["path"], moves["noted"])
        if not noted and folder.state(path) is not None
    ]
    if taken:
        raise in_the_way(taken, folder.root.url)
    before = int(moves["moved"].sum())
    planned = Planned(tuple(moves["path"]), moves)
    return Proposal(
        found,
        request,
        folder,
        journal,
        counts_of(table, mine),
        changed,
        new,
        table,
        planned,
        outcome.stays,
        before,
        before == len(moves) and before > 0,
        undo_file,
    )


def _undo_file(found: FinishedRun, request: Request, journal: Journal) -> UndoFile:
    if request.undo_file is not None:
        return UndoFile(request.undo_file)
    local = found.store.local
    if local is None:
        raise SettingsError(
            "a run in a store cannot hold the notes of a quarantine, which are flushed line by line",
            "Say where they go, on a disk: --undo-file FILE.",
        )
    return UndoFile(str(local / "apply" / journal.key / "undo.jsonl"))


def refuse_changed(proposal: Proposal) -> None:
    """Refuse to go on where sources changed, unless those are to be skipped.

    Raises
    ------
    StaleRun
    """
    if proposal.changed and not proposal.request.skip_changed:
        raise StaleRun(
            f"sources are not as the run has seen them ({len(proposal.changed)}): {_named(proposal.changed)}",
            "Nothing was done. Run reduce anew, or go on without them: --skip-changed.",
        )


def _named(found: Found) -> str:
    words = "; ".join(f"{id} {why}" for id, why in found[:3])
    return words + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def carry_out(
    proposal: Proposal,
    *,
    storage_options: Mapping[str, Any] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Do what was proposed; goes on where an earlier attempt ended.

    Raises
    ------
    StaleRun
        Sources changed: before the first write where listing shows it; after all others where only their bytes do.
    SourceError
        Images could not be read: told after all others are written; a quarantine ends at the first.
    """
    refuse_changed(proposal)
    if proposal.finished:
        return Outcome(before=proposal.before or len(proposal.planned.table))
    found, request, folder, journal = proposal.found, proposal.request, proposal.folder, proposal.journal
    options = dict(storage_options or {})
    if proposal.undo_file is not None:
        outcome = Outcome(stays=list(proposal.stays), changed=list(proposal.changed))
        moves = proposal.planned.table
        return quarantine(found, request, proposal.table, moves, folder, proposal.undo_file, options, advance, outcome)
    journal.begin({**asdict(request), "run": found.run, "plan_hash": found.summary.get("plan_hash")})
    for path in list(folder.files()):
        if path.rpartition("/")[2].startswith(PARTIAL):
            folder.remove(path)  # left by an attempt that was killed
    work = Work(found, request, folder, journal, options, advance)
    try:
        _WRITERS[request.form](work, proposal.planned)
    except OSError as error:
        reason = failure_of_store(error, folder.root.secrets).reason
        raise SourceError(
            f"cannot write to {folder.root.url}: {reason}", "The same command goes on from there."
        ) from None
    _complete(work, proposal)
    return work.outcome


def _complete(work: Work, proposal: Proposal) -> None:
    """Note the end; or say what is missing.

    Raises
    ------
    SourceError, StaleRun, SettingsError
    """
    outcome, request = work.outcome, work.request
    written = f"{outcome.done + outcome.before} images are written, and the same command goes on"
    if outcome.unread:
        raise SourceError(f"{len(outcome.unread)} images could not be read: {_named(outcome.unread)}", written + ".")
    if outcome.unsupported:
        raise SettingsError(
            f"{len(outcome.unsupported)} arrays cannot be written as images: {_named(outcome.unsupported)}",
            "Convert them to uint8 or to grey uint16; keep.txt names those to keep.",
        )
    if outcome.changed and not request.skip_changed:
        raise StaleRun(
            f"{len(outcome.changed)} images hold other bytes than the run has seen: {_named(outcome.changed)}",
            f"{written}. Run reduce anew, or go on without them: --skip-changed.",
        )
    outcome.changed = [*proposal.changed, *outcome.changed]
    work.journal.finish({"images": outcome.done + outcome.before, "skipped": [id for id, _ in outcome.changed]})
