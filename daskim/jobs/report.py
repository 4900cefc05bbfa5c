"""python -m daskim.jobs.report: a finished run as a page, JSON, Markdown, figures, or a table for another tool."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from json import dumps
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from daskim.errors import SettingsError
from daskim.jobs.options import Json, RunOptions, run_options_of, size_text, storage_options
from daskim.jobs.terminal import command_app, plain, run_app

__all__ = ["app", "main"]

EPILOGUE = """\
Exit codes: 0 finished, 1 bug, 2 usage or settings, 4 the run cannot be read or the report not be written.
"""

app = command_app(
    "report",
    """Show what a finished run found.

    Makes RUN/report.html anew: one page with everything in it, which works offline. With --format json or markdown it
    prints a report for programs or for the comment of a pull request. --figures and --export write files beside it, and
    without --format they are all that is done. The run itself is not changed.""",
    EPILOGUE,
)


@app.default
def report(
    run: Annotated[str, Parameter(name="RUN", help="Directory or URL of a finished run.")] = "daskim-run",
    /,
    *,
    format: Annotated[
        Literal["html", "json", "markdown"] | None, Parameter(help="[html] A page, or text on standard output.")
    ] = None,
    output: Annotated[
        str | None, Parameter(help="File or URL of the report instead of RUN/report.html or standard output.")
    ] = None,
    figures: Annotated[
        str | None, Parameter(help="Directory or URL for the figures as SVG and PNG, and the graph as GraphML.")
    ] = None,
    export: Annotated[
        list[str] | None,
        Parameter(help="KIND=PATH, KIND being fiftyone, cleanlab or csv; repeat for more.", negative=""),
    ] = None,
    storage_option: Annotated[
        list[str] | None,
        Parameter(
            help="key=value for fsspec: for RUN, and for the source and other files of its kind; repeat.", negative=""
        ),
    ] = None,
    run_option: RunOptions = None,
    quiet: Annotated[bool, Parameter(help="Say nothing of what was written.", negative="")] = False,
    json: Json = False,
) -> int:
    """Show what a finished run found."""
    options = storage_options(storage_option or [])
    if output == "" or figures == "":
        raise SettingsError("--output or --figures is empty", "Give a file for --output, a directory for --figures.")
    if output is not None and format is None and (figures or export):
        format = "html"
    from daskim.report.exports import export as write_export
    from daskim.report.exports import parse_export
    from daskim.results import open_run

    exports = [parse_export(text) for text in export or []]  # a mistake is told before anything is written
    found = open_run(run, run_options=run_options_of(run, [run], options, run_option) if "://" in run else {})
    say = _Say(as_json=json, quiet=quiet)
    if format is not None or not (figures or exports):
        shared = run_options_of(found.run, found.settings.source.inputs, options)
        source_options = options if run_option or "://" not in found.run else shared
        _report(found, format or "html", output, options, source_options, say)
    if figures:
        from daskim.report.figures import write_figures

        say.written("figures", write_figures(found, figures, storage_options=_options(figures, found, options)))
    for kind, path in exports:
        paths = write_export(found, kind, path, _options(path, found, options))
        say.written(kind, paths)
    return 0


class _Say:
    """What the command tells of what it wrote."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet

    def event(self, event: str, text: str, **facts: Any) -> None:
        if self.as_json:
            print(dumps({"event": event, **facts}), flush=True)
        elif not self.quiet:
            print(plain(text))

    def written(self, kind: str, paths: Iterable[str]) -> None:
        files = list(paths)
        told = files[0] if len(files) == 1 else f"{len(files)} files, the first {files[0]}" if files else "nothing"
        self.event("written", f"{kind}: {told}", kind=kind, files=files)


def _report(
    found: Any, format: str, output: str | None, options: dict[str, Any], source_options: dict[str, Any], say: _Say
) -> None:
    """The report in one form, to its file or to standard output."""
    from daskim.report.files import put
    from daskim.report.formats import as_json, as_markdown
    from daskim.report.page import render, write_page

    before = time.monotonic()
    if format == "html":
        if output is None:
            page = write_page(found, storage_options=source_options)
            where, size, count, left_out = page.path, page.bytes, page.thumbnails, list(page.left_out)
        else:
            data, count, left_out = render(found, source_options)
            where, size = put(data, output, "--output", _options(output, found, options)), len(data)
        seconds = time.monotonic() - before
        text = f"The report is in {where} ({size_text(size)}, {count:,} pictures, {seconds:.1f} s)."
        if left_out:
            text += "\nIt leaves out: " + "; ".join(left_out) + "."
        facts = {"path": where, "bytes": size, "pictures": count, "left_out": left_out, "seconds": round(seconds, 3)}
        say.event("report", text, format=format, **facts)
        return
    value: Any = as_json(found) if format == "json" else as_markdown(found)
    text = dumps(value, indent=1) + "\n" if format == "json" else value
    if output is not None:
        where = put(text.encode(), output, "--output", _options(output, found, options))
        say.event("report", f"The report is in {where}.", format=format, path=where, bytes=len(text.encode()))
    elif say.as_json:
        say.event("report", "", format=format, report=value)
    else:
        print(text, end="")


def _options(target: str, found: Any, options: dict[str, Any]) -> dict[str, Any]:
    """fsspec options for a file: those of the run and its source, where it is of the same kind as one of them."""
    return run_options_of(target, [found.run, *found.settings.source.inputs], options) if "://" in target else {}


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
