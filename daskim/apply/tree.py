"""Copies and links in folders [split/][label/]name, as ImageFolder and daskim read them, with a table beside them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from daskim.apply.names import KEPT, column_of, paths_for
from daskim.apply.selection import FILES, Request
from daskim.apply.sources import extensions_of
from daskim.apply.work import Planned, Work, batches_of, write_files
from daskim.errors import SettingsError
from daskim.lake import Folder, digest_of, escape, is_local, locate, unescape
from daskim.results import FinishedRun

__all__ = ["plan_manifest", "plan_tree", "write_manifest", "write_tree"]

_COLUMNS = ("label", "split", "daskim_id", "bytes", "digest")


def _files_only(table: pd.DataFrame, form: str) -> None:
    inside = sorted(set(table["format"]) - set(FILES))
    if inside:
        raise SettingsError(
            f"{form} name single files, and images of this run lie inside others ({', '.join(inside)})",
            "Choose --as copies, webdataset or parquet.",
        )


def plan_tree(
    found: FinishedRun, table: pd.DataFrame, request: Request, folder: Folder, options: dict[str, Any]
) -> Planned:
    """Paths for copies or links, and the table of them, `KEPT`."""
    if request.form != "copies":
        _files_only(table, request.form)
        _linkable(table, request, folder)
    named = paths_for(
        table["id"].tolist(),
        table["label"].tolist(),
        table["split"].tolist(),
        extensions_of(found, table, options),
        portable=not folder.local,
        fold=folder.local and folder.folds_case(),  # type: ignore[attr-defined]
    )
    table = table.assign(path=column_of(named, table.index))
    notes = []
    untold = sum(not name.told for name in named)
    if untold:
        notes.append(f"{untold} images have labels or splits that folders cannot tell: {KEPT} tells them")
    renamed = sum(unescape(id) != name.path for id, name in zip(table["id"], named))
    if renamed:
        notes.append(f"{renamed} images get other names than their ids: {KEPT} holds the ids, and daskim reads it")
    if request.form == "symlinks":
        notes.append(f"daskim follows no link that leads out of its INPUT: give it {KEPT}")
    return Planned((*table["path"], KEPT), table, tuple(notes))


def _linkable(table: pd.DataFrame, request: Request, folder: Folder) -> None:
    """Links need local files and a local target; hard links one device."""
    if not folder.local or not all(map(is_local, table["container"])):
        raise SettingsError(f"{request.form} need files and a target on a disk", "Choose --as copies or manifest.")
    if request.form == "hardlinks":
        here = folder.device()  # type: ignore[attr-defined]
        for url in table["container"]:
            path = locate(url, stored=True).path
            if os.path.exists(path) and os.stat(path).st_dev != here:
                raise SettingsError(
                    f"{url} is on another device than {request.target}: no hard link leads there",
                    "Choose --as copies or symlinks.",
                )


def write_tree(work: Work, planned: Planned) -> None:
    """Write all files that are not there, and then `KEPT`."""
    before = work.journal.done(work.folder)
    todo = planned.table[[path not in before for path in planned.table["path"]]]
    work.outcome.before = len(planned.table) - len(todo)
    digests = {path: digest for path, (_, digest, _) in work.journal.noted().items()}
    if work.request.form == "copies":
        digests |= _copy(work, todo)
    else:
        _link(work, todo)
    complete = not work.outcome.changed or work.request.skip_changed
    if complete and not work.outcome.unread and not work.outcome.unsupported and KEPT not in before:
        gone = {id for id, _ in work.outcome.changed}
        table = planned.table[~planned.table["id"].isin(gone)]
        if work.request.form == "copies":
            sizes = {path: size for path, (size, _, _) in work.journal.noted().items()}
            table = table.assign(
                digest=[digests[path] for path in table["path"]], bytes=[sizes[path] for path in table["path"]]
            )
        name, column = ("uri", "container") if work.request.form == "symlinks" else ("file_name", "path")
        _write_table(work, KEPT, _rows(table, name, column))


def _copy(work: Work, todo: pd.DataFrame) -> dict[str, str]:
    paths = todo["path"].tolist()
    digests = {}
    for batch in batches_of(work.pictures(todo)):
        files = []
        for picture in batch:
            path = paths[picture.at]
            digests[path] = picture.digest.hex()
            note = (path, len(picture.data), picture.digest.hex())
            files.append((note, partial(work.folder.write, path, picture.data)))
        write_files(work, files)
        work.outcome.done += len(batch)
        work.outcome.bytes += sum(len(picture.data) for picture in batch)
    return digests


def _link(work: Work, todo: pd.DataFrame) -> None:
    """Links: nothing is read, so that the size and time of the source alone tell that it is the same."""
    files: list[tuple[tuple[str, int, str], Callable[[], None]]] = []
    for path, url, size, digest in zip(todo["path"], todo["container"], todo["bytes"], todo["file_digest"]):
        source = locate(url, stored=True).path
        if work.request.form == "symlinks":
            make = partial(work.folder.symlink, path, source)  # type: ignore[attr-defined]
            files.append(((path, int(size), f"link:{source}"), make))
        else:
            make = partial(work.folder.hardlink, path, source)  # type: ignore[attr-defined]
            files.append(((path, int(size), digest.hex()), make))
        work.advance()
        if len(files) == 256:
            write_files(work, files)
            files = []
    write_files(work, files)
    work.outcome.done += len(todo)


def plan_manifest(
    found: FinishedRun, table: pd.DataFrame, request: Request, folder: Folder, options: dict[str, Any]
) -> Planned:
    """One table of where the images are; nothing is copied."""
    _files_only(table, "a manifest")
    return Planned((_manifest_name(request),), table)


def _manifest_name(request: Request) -> str:
    base = request.target.rstrip("/").rpartition("/")[2]
    return base if base.lower().endswith((".csv", ".jsonl")) else KEPT


def write_manifest(work: Work, planned: Planned) -> None:
    """Write the manifest."""
    name = planned.files[0]
    if work.journal.done(work.folder):
        work.outcome.before = len(planned.table)
        return
    rows = _rows(planned.table, "uri", "container")
    _write_table(work, name, rows)
    work.outcome.done = len(planned.table)
    for _ in range(len(planned.table)):
        work.advance()


def _rows(table: pd.DataFrame, name: str, column: str) -> list[dict[str, Any]]:
    """Rows of a manifest; text in stored form."""
    digests = table["digest"] if "digest" in table else table["file_digest"].map(bytes.hex)
    where = [escape(text) if name == "file_name" else text for text in table[column]]
    ordered = zip(where, table["label"], table["split"], table["id"], table["bytes"], digests)
    return [dict(zip((name, *_COLUMNS), row)) for row in ordered]


def _write_table(work: Work, name: str, rows: list[dict[str, Any]]) -> None:
    out = io.StringIO(newline="")
    if name.lower().endswith(".jsonl"):
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=True) + "\n")
    else:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(rows[0] if rows else ("file_name", *_COLUMNS))
        writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    data = out.getvalue().encode()
    note = (name, len(data), digest_of(data).hex())
    write_files(work, [(note, partial(work.folder.write, name, data))])
    work.outcome.bytes += len(data)
