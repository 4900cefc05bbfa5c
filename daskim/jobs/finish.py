"""What commands do when a run is finished: its report."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from typing import Any

from daskim.jobs.options import size_text
from daskim.jobs.terminal import plain

__all__ = ["leave_report", "show_report"]


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
