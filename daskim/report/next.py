"""The commands that a reader of a report may want to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daskim.report.words import command, counted, near_path
from daskim.results import FinishedRun

__all__ = ["next_commands"]


def next_commands(
    run: FinishedRun, counts: Mapping[str, Any], leakage: Mapping[str, Any] | None, judged: Sequence[tuple[str, int]]
) -> list[tuple[str, str]]:
    """(purpose, command), the most useful first; each can be typed into a POSIX shell as it is."""
    where = near_path(run.run).rstrip("/") or "/"
    found: list[tuple[str, str]] = []
    if counts["redundant"]:
        found.append(
            (
                f"See what the reduced set of {counted(counts['kept'], 'image')} would be; --execute writes it.",
                command("apply", where, "--to", f"{where}-reduced"),
            )
        )
    if counts["influential"]:
        found.append(
            (
                f"List {counted(counts['influential'], 'image')} to be looked at and relabelled; --execute writes it.",
                command("apply", where, "--review", f"{where}-influential.csv"),
            )
        )
    inputs = [near_path(item) for item in run.settings.source.inputs]
    if leakage is not None:
        again = inputs if "://" in where else ["--job", f"{where}/settings.toml", "--run", where]
        if leakage["images"]:
            found.append(
                (
                    "End a pipeline with exit code 6 while there is any leak.",
                    command("compare", *again, "--fail-on", "leakage>0"),
                )
            )
    elif inputs and _splits(run) > 1:
        found.append(("Look for images of one split with a twin in another.", command("compare", *inputs)))
    found.append(("Write the figures as SVG and PNG.", command("report", where, "--figures", f"{where}-figures")))
    return found


def _splits(run: FinishedRun) -> int:
    return int(run.table("images", ["split"])["split"].nunique())
