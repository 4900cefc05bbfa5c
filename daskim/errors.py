"""The errors that daskim raises on purpose, each with the exit code of the command line.

Every error says what is wrong, where, and what to do next. Anything that is not a `DaskimError` is a bug
and leaves the process with exit code 1 and its traceback.

Exit codes: 0 finished, 1 bug, 2 usage or settings, 3 too many bad files, 4 a source or run that cannot be
reached, 5 a block failed, 6 a condition of --fail-on is met, 7 a stale run, 8 a guard of the plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BadInputs",
    "BlockFailed",
    "ConditionMet",
    "DaskimError",
    "GuardTripped",
    "SettingsError",
    "SourceError",
    "StaleRun",
    "nearest",
]


class DaskimError(Exception):
    """Base of all errors that a user can act on.

    Parameters
    ----------
    what : str
        What is wrong, and where.
    hint : str
        What to do next; may be empty when `what` says it.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class SettingsError(DaskimError):
    """A command line, job file or setting that cannot be carried out."""

    exit_code = 2


class BadInputs(DaskimError):
    """More broken images than `images.max_bad` allows."""

    exit_code = 3


class SourceError(DaskimError):
    """A source, run directory or cluster that cannot be reached or read at all."""

    exit_code = 4


class BlockFailed(DaskimError):
    """A block of work raised; the run is left so that it resumes."""

    exit_code = 5


class ConditionMet(DaskimError):
    """The run is finished, and what it found meets a condition that its caller set (`--fail-on`)."""

    exit_code = 6


class StaleRun(DaskimError):
    """The run was made with other settings than those asked for now."""

    exit_code = 7


class GuardTripped(DaskimError):
    """The plan would break a bound that the user set (`plan.max_drop`)."""

    exit_code = 8


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence naming the known words closest to `word`, or all of them when none is close."""
    choices = sorted(known)
    close = get_close_matches(word, choices, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(close) + "?"
    return "Known: " + ", ".join(choices) + "."
