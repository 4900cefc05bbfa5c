"""What a command that proposes before it acts says: words, or JSON lines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from daskim.jobs.terminal import plain, print_table

__all__ = ["Voice"]

_SECRET = ("--storage-option", "--target-option")


class Voice:
    """Says things on standard output.

    Parameters
    ----------
    name : str
        How the command is called.
    given : sequence of str
        The words that followed.
    as_json, quiet : bool
        JSON lines only; nothing.
    """

    def __init__(self, name: str, given: Sequence[str], as_json: bool, quiet: bool) -> None:
        self.name, self.given, self.as_json, self.quiet = name, list(given), as_json, quiet

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """A JSON line, with `as_json`."""
        if self.as_json:
            print(dumps({"event": name, **facts}), flush=True)

    def line(self, text: str) -> None:
        """A line of words."""
        if not self.as_json and not self.quiet:
            print(plain(text), flush=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], numbers: int) -> None:
        """A table; its last columns are numbers."""
        if not self.as_json and not self.quiet:
            print_table("", header, rows, numbers=numbers)

    def command(self, *extra: str) -> None:
        """The command that would do what was proposed: this one without what shapes the output, and `extra`."""
        words = [*self.name.split(), *self._words(), *extra]
        self.line("Nothing was written. To do it:\n  " + shlex.join(words))
        self.event("dry-run", {"command": words})

    def _words(self) -> list[str]:
        kept, secret = [], False
        for word in self.given:
            if secret:
                secret = False
            elif word in _SECRET:
                kept += [word, "KEY=VALUE"]
                secret = True
            elif word.startswith(tuple(f"{name}=" for name in _SECRET)):
                kept.append(word.partition("=")[0] + "=KEY=VALUE")
            elif word not in ("--json", "--quiet"):
                kept.append(word)
        return kept
