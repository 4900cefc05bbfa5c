"""The table that sets contenders side by side, and what they must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Table", "show"]


@dataclass
class Table:
    """One comparison.

    Attributes
    ----------
    title : str
    facts : dict
        n, d, block rows, the data: what besides the machine the figures depend on.
    columns : list of str
    rows : list of list
        Text or numbers; None prints as a dash.
    checks : list of (str, bool)
        What the contenders must agree on. One that does not hold ends the command with code 1.
    """

    title: str
    facts: dict[str, Any]
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    checks: list[tuple[str, bool]] = field(default_factory=list)


def show(table: Table, context: Mapping[str, Any], *, first: bool) -> None:
    """Print one table as Markdown, its context line before it; versions once."""
    if first:
        print("Versions: " + ", ".join(f"{name} {text}" for name, text in context["versions"].items()))
    print(f"\n### {table.title}\n")
    threads = ", ".join(f"{name} {count} thread{'s' * (count > 1)}" for name, count in context["threads"].items())
    facts = "; ".join(f"{name}: {_text(value)}" for name, value in table.facts.items())
    print(f"{context['cores']} cores, {context['cpu']}, load {context['load']} at the start; {threads}; {facts}\n")
    cells = [table.columns, *([_text(value) for value in row] for row in table.rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(table.columns))]
    for index, row in enumerate(cells):
        padded = [cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        print("| " + " | ".join(padded) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 1) + (":" if at else "-") for at, width in enumerate(widths)) + "|")
    for claim, holds in table.checks:
        print(f"\n{'holds' if holds else 'DOES NOT HOLD'}: {claim}", end="")
    print(flush=True)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")
