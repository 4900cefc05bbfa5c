"""What a command shows: progress, tables, errors; on a terminal, in a log, or as JSON lines."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from cyclopts import App, CycloptsError

from daskim import __version__
from daskim.errors import DaskimError, SettingsError

__all__ = ["Display", "command_app", "exit_code_of", "plain", "print_table", "run_app", "run_command"]

# Off a terminal, at most one line about progress in this many seconds.
LOG_SECONDS = 30.0

# A signal whose exception was dropped is sent again after this many seconds: by then the finalizer has returned.
AGAIN_SECONDS = 0.05


def plain(text: object) -> str:
    """Text that cannot drive a terminal: control and direction characters made visible."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs") else f"\\u{ord(c):04x}"
        for c in str(text)
    )


class Display:
    """Progress of a run. Rich bars on a terminal, plain lines elsewhere, JSON lines with `as_json`, nothing if `quiet`.

    It has the methods of `daskim.engine.Progress` without importing the engine, which takes a while.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.stream = stream or sys.stderr
        self.terminal = not quiet and not as_json and self.stream.isatty()
        self._bars: Any = None
        self._task: Any = None
        self._stage = ""
        self._total = self._done = 0
        self._said = time.monotonic()

    def __enter__(self) -> Display:
        if self.terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description:<24}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(file=self.stream, markup=False, highlight=False),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, stage: str, title: str, total: int, done: int) -> None:
        self._stage, self._total, self._done = f"{stage} {title}", total, done
        if self.as_json:
            self._line({"event": "begin", "stage": stage, "group": title, "blocks": total, "done": done})
        elif self._bars is not None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(self._stage, total=max(1, total), completed=done)
        self._log()

    def advance(self, stage: str) -> None:
        self._done += 1
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task)
        self._log()

    def say(self, text: str) -> None:
        if self.as_json:
            self._line({"event": "note", "text": text})
        elif self._bars is not None:
            self._bars.console.print(plain(text), soft_wrap=True)
        elif not self.quiet:
            print(plain(text), file=self.stream, flush=True)

    def _log(self) -> None:
        """A line now and then for logs, also while nothing else is said."""
        if self.quiet or self.terminal or time.monotonic() - self._said < LOG_SECONDS:
            return
        self._said = time.monotonic()
        if self.as_json:
            self._line({"event": "progress", "stage": self._stage, "done": self._done, "blocks": self._total})
        else:
            print(f"{self._stage}: {self._done} of {self._total} blocks", file=self.stream, flush=True)

    def _line(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), flush=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: int = 0) -> None:
    """A table on standard output; the last `numbers` columns are set flush right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 110)
    heading = Text(plain(title)) if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index >= len(header) - numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(plain(cell)) for cell in row])
    console.print(table)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): by a scheduler of jobs, a container engine, or `kill`."""


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within it the first SIGTERM ends the work as Ctrl-C does; later ones do not disturb the clean end.

    A handler raises wherever the main thread happens to be. In a finalizer or the callback of a weak reference Python
    reports the exception and drops it, and the work would go on: such a signal is sent once more.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:  # only there may a handler be set
        yield
        return

    def end(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    def dropped(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt) or main.ident is None:
            report(unraisable)
            return
        number = signal.SIGINT
        if issubclass(unraisable.exc_type, Terminated):
            number = signal.SIGTERM
            signal.signal(signal.SIGTERM, end)
        again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main.ident, number))
        again.daemon = True
        again.start()

    report, sys.unraisablehook = sys.unraisablehook, dropped
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        sys.unraisablehook = report
        if signal.getsignal(signal.SIGTERM) is end:  # else it came, and the process has only its last words to say
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that ends by this error."""
    if isinstance(error, DaskimError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 143 if isinstance(error, Terminated) else 130
    return 141 if isinstance(error, BrokenPipeError) else 1


def run_command(work: Callable[[], int], *, as_json: bool) -> int:
    """Run a command's work; its exit code. Errors that a user can act on are told without a traceback."""
    try:
        with _ended_by_signals():
            return work()
    except DaskimError as error:
        if as_json:
            print(
                json.dumps({"event": "error", "kind": type(error).__name__, "what": error.what, "hint": error.hint}),
                flush=True,
            )
        print(plain(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_code_of(BrokenPipeError())
    except KeyboardInterrupt as interruption:
        word, code = "terminated" if isinstance(interruption, Terminated) else "interrupted", exit_code_of(interruption)
        what = f"{word}: finished blocks are kept; the same command goes on from there"
        if as_json:
            print(json.dumps({"event": "error", "kind": word.capitalize(), "what": what, "hint": ""}), flush=True)
        print(what, file=sys.stderr)
        return code


def command_app(name: str, help: str, epilogue: str) -> App:
    """The command `python -m daskim.jobs.NAME`; a function is made its work by `@app.default`."""
    return App(
        name=f"python -m daskim.jobs.{name}",
        help=help,
        help_epilogue=epilogue,
        help_format="plaintext",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )


def run_app(app: App, arguments: list[str] | None = None) -> int:
    """Read the words of a command line and do what they say; the exit code."""
    words = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        try:
            result = app(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            raise SettingsError(str(error), f"See {app.name[0]} --help.") from None
        return result if isinstance(result, int) else 0

    code = run_command(work, as_json="--json" in words)
    if arguments is None:  # the process is about to end, and would look through a million objects for nothing
        gc.freeze()
    return code
