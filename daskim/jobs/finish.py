"""What commands do when a run is finished: its report; and when they end, however: tell those who watch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from json import dumps
from typing import Any

from daskim.jobs.options import TellOptions, size_text
from daskim.jobs.terminal import exit_code_of, plain

__all__ = ["leave_report", "remember", "reported", "show_report"]


def leave_report(found: Any, options: Mapping[str, Any]) -> Any:
    """Make RUN/report.html: its `PageInfo`, or why there is none. A finished run does not fail for its report.

    Parameters
    ----------
    found : FinishedRun
    options : mapping
        For fsspec, of the source.
    """
    from daskim.report.page import try_write_page

    return try_write_page(found, storage_options=options)


def show_report(page: Any, *, json: bool, quiet: bool) -> None:
    """Where the report is, or why there is none; the last line of a command."""
    if isinstance(page, str):
        if json:
            print(dumps({"event": "note", "text": f"report: not made: {page}"}), flush=True)
        elif not quiet:
            print(plain(f"The report was not made: {page}"))
        return
    if json:
        facts = {"bytes": page.bytes, "pictures": page.thumbnails, "left_out": list(page.left_out)}
        told = {"event": "report", "format": "html", "path": page.path, **facts, "seconds": round(page.seconds, 3)}
        print(dumps(told), flush=True)
    elif not quiet:
        print(
            plain(
                f"The report is in {page.path} ({size_text(page.bytes)}, {page.seconds:.1f} s): open it in a browser."
            )
        )


_SUMMARY: ContextVar[Mapping[str, Any] | None] = ContextVar("summary", default=None)


def remember(found: Any) -> None:
    """Note the `FinishedRun` of a command that is `reported`."""
    _SUMMARY.set(found.summary)


def reported(command: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Decorator of a command with the parameters `run` and `tell`: its end is told as asked.

    It calls `remember` when its run is finished. A command that ends well without that was a preview, or only worked
    for another: nothing is told of it.

    Parameters
    ----------
    command : str
        reduce or compare.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)
        def work(*args: Any, **kwargs: Any) -> int:
            bound = signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            tell: TellOptions = given["tell"]
            tell.check()
            if not tell.asked:
                return function(*args, **kwargs)
            began, error, code = time.monotonic(), None, 0
            _SUMMARY.set(None)
            try:
                code = function(*args, **kwargs)
            except BaseException as raised:
                error, code = raised, exit_code_of(raised)
                raise
            finally:
                if code or _SUMMARY.get() is not None:
                    _tell(command, given["run"], tell, code, error, time.monotonic() - began)
            return code

        return work

    return decorate


def _tell(command: str, run: str, tell: TellOptions, code: int, error: BaseException | None, seconds: float) -> None:
    """Write the metrics and call the webhook; what does not succeed is said."""
    from daskim.outcome import WAITS, Outcome, notify, write_metrics

    where = run if "://" in run else os.path.abspath(run)
    outcome = Outcome(command, where, code, seconds, time.time(), error, _SUMMARY.get())
    if tell.metrics is not None:
        try:
            write_metrics(outcome, tell.metrics)
        except OSError as failed:
            print(plain(f"--metrics {tell.metrics}: not written: {failed}"), file=sys.stderr)
    if tell.notify is not None:
        hurry = isinstance(error, KeyboardInterrupt)  # whoever ends a process does not wait for long
        failure = notify(outcome, tell.notify, waits=() if hurry else WAITS)
        if failure:
            print(plain(f"--notify: not sent: {failure}"), file=sys.stderr)
