"""Which images an apply is about: those that a plan keeps, or those that it lets go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from daskim.errors import GuardTripped, SettingsError, nearest
from daskim.lake import FILE_DIGEST
from daskim.results import FinishedRun

__all__ = ["FILES", "FORMS", "Request", "chosen", "counts_of", "guard", "table_of"]

FORMS = ("copies", "symlinks", "hardlinks", "manifest", "webdataset", "parquet", "quarantine")
# Formats of a source in which each image is a file of its own.
FILES = ("folder", "manifest")
_OF_INDEX = ("row", "source", "format", "container", "item", "member", "bytes", "mtime", "etag", "status")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes
    ----------
    form : str
        One of `FORMS`.
    target : str
        A directory or fsspec URL; for a manifest also a file name.
    influential, flat : {"keep", "leave-out"}
        What becomes of images that the plan keeps because they are influential or flat.
    broken : {"keep", "leave-out"}
        Quarantine only: broken images stay in the source, or move too.
    skip_changed : bool
        Go on without images whose source is not as it was when the run read it.
    max_drop : float
        Largest share of the readable images that may be left out or moved.
    shard_bytes : int
        Bytes of images in a WebDataset or Parquet file, about.
    undo_file : str, optional
        Where a quarantine notes its moves; by default in the run.
    """

    form: str
    target: str
    influential: str = "keep"
    flat: str = "keep"
    broken: str = "keep"
    skip_changed: bool = False
    max_drop: float = 1.0
    shard_bytes: int = 256_000_000
    undo_file: str | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise SettingsError(f"there is no form {self.form!r}", nearest(self.form, FORMS))
        for name in ("influential", "flat", "broken"):
            if getattr(self, name) not in ("keep", "leave-out"):
                raise SettingsError(f"{name} = {getattr(self, name)!r}", "Choose keep or leave-out.")
        if not self.target:
            raise SettingsError("the target is empty", "Give a directory or an fsspec URL.")
        if not 0.0 <= self.max_drop <= 1.0:
            raise SettingsError(f"max_drop = {self.max_drop:g} is no share", "Give a number from 0 to 1.")
        if self.shard_bytes < 1:
            raise SettingsError(f"shard_bytes = {self.shard_bytes}", "Give at least one byte.")


def table_of(found: FinishedRun) -> pd.DataFrame:
    """One row an image, in order of `row`, of plan, images and index.

    Returns
    -------
    DataFrame
        row, id, uri, label, split, decision, rule, kept_id, status, bytes and file_digest (of what was read), and
        source, format, container, item, member, listed_bytes, mtime, etag, listed_status (of the listing).

    Raises
    ------
    SettingsError
        The run has no plan, or its digests of files are of another kind than today's.
    """
    if not found.has("plan"):
        raise SettingsError(f"run {found.run} holds no plan", "Give a run of `python -m daskim.jobs.reduce`.")
    kind = found.store.facts("images").get("file_digest")
    if kind != FILE_DIGEST:
        raise SettingsError(
            f"run {found.run} holds file digests of another kind ({kind or 'blake2b'}, now {FILE_DIGEST}): files that "
            "changed since cannot be told from those that did not",
            "Run reduce anew, with this version of daskim, in a new run.",
        )
    plan = found.table("plan", ["row", "id", "uri", "label", "split", "decision", "kept_id", "rule", "status"])
    images = found.table("images", ["row", "bytes", "file_digest"])
    there = found.store.read_part("index", found.store.parts("index")[0]).schema.names
    index = found.table("index", [name for name in _OF_INDEX if name in there])
    index = index.rename(columns={"bytes": "listed_bytes", "status": "listed_status"})
    if "etag" not in index:
        index["etag"] = None
    table = plan.merge(images, on="row", validate="1:1").merge(index, on="row", validate="1:1")
    for name in ("label", "split", "kept_id", "member", "etag"):
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    return table.sort_values("row", ignore_index=True)


def chosen(table: pd.DataFrame, request: Request) -> pd.Series:
    """Which rows are written, or for a quarantine which are moved; shape (n,), bool."""
    influential, flat = table["rule"] == "influential", table["status"] == "flat"
    out = pd.Series(np.zeros(len(table), dtype=bool))
    if request.influential == "leave-out":
        out |= influential
    if request.flat == "leave-out":
        out |= flat
    if request.form != "quarantine":
        return (table["decision"] == "keep") & ~out
    moved = (table["decision"] == "drop") | (out & (table["decision"] == "keep"))
    return moved | (table["decision"] == "review") if request.broken == "leave-out" else moved


def counts_of(table: pd.DataFrame, mine: pd.Series) -> dict[str, Any]:
    """Images and bytes: chosen; influential and flat among them; dropped by the plan; broken."""

    def part(which: pd.Series) -> dict[str, int]:
        return {"images": int(which.sum()), "bytes": int(table.loc[which, "bytes"].clip(lower=0).sum())}

    return {
        "chosen": part(mine),
        "influential": part(mine & (table["rule"] == "influential")),
        "flat": part(mine & (table["status"] == "flat")),
        "dropped": part(table["decision"] == "drop"),
        "broken": part(table["decision"] == "review"),
        "all": part(table["decision"] != ""),
    }


def guard(table: pd.DataFrame, mine: pd.Series, request: Request) -> None:
    """Refuse to leave out, or to move, more than `max_drop`.

    Raises
    ------
    GuardTripped
    """
    readable = table["decision"] != "review"
    gone = int((readable & (mine if request.form == "quarantine" else ~mine)).sum())
    if gone > request.max_drop * int(readable.sum()):
        what = "be moved" if request.form == "quarantine" else "be left out"
        raise GuardTripped(
            f"{gone} of {int(readable.sum())} images would {what}: more than --max-drop {request.max_drop:g}",
            "Nothing was written. Look at the plan, and raise --max-drop if it is right.",
        )
