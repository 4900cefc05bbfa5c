"""A run as other tools read it: one module a format, each with `write(run, path, options) -> Written`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskim.errors import SettingsError, nearest
from daskim.report.exports import cleanlab, csv, fiftyone
from daskim.results import FinishedRun

__all__ = ["KINDS", "export", "parse_export"]

KINDS = {"fiftyone": fiftyone.write, "cleanlab": cleanlab.write, "csv": csv.write}


def parse_export(text: str) -> tuple[str, str]:
    """KIND=PATH of the command line.

    Raises
    ------
    SettingsError
        It is none, or of a kind that there is not.
    """
    kind, sign, path = text.partition("=")
    if not sign or not path:
        raise SettingsError(f"--export {text!r} is not KIND=PATH", f"Kinds: {', '.join(sorted(KINDS))}.")
    if kind not in KINDS:
        raise SettingsError(f"--export {kind}: no such kind", nearest(kind, KINDS))
    return kind, path


def export(run: FinishedRun, kind: str, path: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Write a run for another tool; the files.

    Parameters
    ----------
    kind : {"fiftyone", "cleanlab", "csv"}
    path : str
        A path or fsspec URL of the file; one that is there is replaced.
    storage_options : mapping, optional
        For fsspec, of `path`.
    """
    kind, path = parse_export(f"{kind}={path}")
    return KINDS[kind](run, path, storage_options)
