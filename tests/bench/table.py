"""The table that sets contenders side by side, what they must agree on, and which targets they meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from tests.bench.units import unit_of

__all__ = ["Table", "Target", "markdown", "show", "text_of"]


@dataclass(frozen=True)
class Target:
    """A figure that is aimed at. One that is missed is shown as such and does not fail the command.

    Attributes
    ----------
    what : str
    value, limit : float
    least : bool
        The value is to be at least the limit, else at most.
    unit : str
    unjudged : str
        Why the figure says nothing about the target ("n is 1,000, not 50,000"); empty where it does.
    """

    what: str
    value: float
    limit: float
    least: bool = False
    unit: str = ""
    unjudged: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        told = f"{text_of(float(self.value))} {self.unit}".rstrip()
        asked = f"{'at least' if self.least else 'at most'} {text_of(float(self.limit))} {self.unit}".rstrip()
        word = "not judged" if self.unjudged else "target met" if self.met else "TARGET MISSED"
        return f"{word}: {self.what}: {told} ({asked})" + (f"; {self.unjudged}" if self.unjudged else "")


@dataclass
class Table:
    """One comparison.

    Attributes
    ----------
    title : str
    facts : dict
        n, d, block rows, the data: what besides the machine the figures depend on.
    columns : list of str
        The first names the row, where needed together with those after it.
    rows : list of list
        Text or numbers; None prints as a dash. A `Measured` number carries its rounds into the saved record.
    checks : list of (str, bool)
        What the contenders must agree on. One that does not hold ends the command with code 1.
    targets : list of Target
    units : dict
        Unit of a column where its name does not tell it (see `units.unit_of`); "" for a bare number.
    """

    title: str
    facts: dict[str, Any]
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    checks: list[tuple[str, bool]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)

    @property
    def numeric(self) -> list[int]:
        """Places of the columns that hold numbers (or nothing) in every row, and a number in some."""
        found = []
        for at in range(1, len(self.columns)):
            cells = [row[at] for row in self.rows if row[at] is not None]
            if cells and all(isinstance(cell, Real) and not isinstance(cell, bool) for cell in cells):
                found.append(at)
        return found

    @property
    def keys(self) -> list[int]:
        """Places of the columns that name a row: the first, and as many of those after it as tell all rows apart."""
        for count in range(1, len(self.columns)):
            if len({tuple(map(str, row[:count])) for row in self.rows}) == len(self.rows):
                return list(range(count))
        return [0]

    def unit(self, at: int) -> str:
        """Unit of a column; "" for a bare number."""
        name = self.columns[at]
        return self.units[name] if name in self.units else unit_of(name)


def show(table: Table, context: Mapping[str, Any], *, first: bool) -> None:
    """Print one table as Markdown, its context line before it; versions once."""
    if first:
        print("Versions: " + ", ".join(f"{name} {text}" for name, text in context["versions"].items()))
    print(f"\n### {table.title}\n")
    threads = ", ".join(f"{name} {count} thread{'s' * (count > 1)}" for name, count in context["threads"].items())
    facts = "; ".join(f"{name}: {text_of(value)}" for name, value in table.facts.items())
    print(f"{context['cores']} cores, {context['cpu']}, load {context['load']} at the start; {threads}; {facts}\n")
    print(markdown(table.columns, table.rows))
    for claim, holds in table.checks:
        print(f"\n{'holds' if holds else 'DOES NOT HOLD'}: {claim}", end="")
    for target in table.targets:
        print(f"\n{target}", end="")
    print(flush=True)


def markdown(columns: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown, its columns padded; the first is flush left."""
    cells = [columns, *([text_of(value) for value in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    lines = []
    for index, row in enumerate(cells):
        padded = [cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        lines.append("| " + " | ".join(padded) + " |")
        if index == 0:
            rule = (("-" * (width + 1) + (":" if at else "-")) for at, width in enumerate(widths))
            lines.append("|" + "|".join(rule) + "|")
    return "\n".join(lines)


def text_of(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{float(value):,.0f}" if abs(value) >= 1000 else f"{float(value):.4g}"
    return str(value).replace("|", "\\|")
