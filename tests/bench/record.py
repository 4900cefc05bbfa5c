"""A run of a benchmark as a JSON file, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measured import Measured
from tests.bench.table import Table, Target

__all__ = ["Record", "load", "save"]


@dataclass(frozen=True)
class Record:
    """What one run of one benchmark gave.

    Attributes
    ----------
    benchmark : str
    repeat : int
    small : bool
    context : dict
        As `context.machine` gives it.
    tables : list of Table
    """

    benchmark: str
    repeat: int
    small: bool
    context: Mapping[str, Any]
    tables: Sequence[Table]


def save(record: Record, path: Path) -> None:
    """Write a record. Cells that know their rounds are written as `{"median": ..., "rounds": [...]}`."""
    told = {**vars(record), "tables": [_told(table) for table in record.tables]}
    text = json.dumps(told, indent=1, default=lambda number: number.item())  # numpy's own numbers
    path.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> Record:
    """Read a record; one of an earlier layout lacks rounds, targets and units."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        tables = [_table(one) for one in told["tables"]]
        return Record(told["benchmark"], told["repeat"], told["small"], told["context"], tables)
    except OSError as error:
        raise SystemExit(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} is no record of a benchmark ({error!r}); --json writes one") from None


def _told(table: Table) -> dict[str, Any]:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return {**vars(table), "rows": rows, "targets": [vars(target) for target in table.targets]}


def _cell(cell: Any) -> Any:
    return {"median": float(cell), "rounds": list(cell.rounds)} if isinstance(cell, Measured) else cell


def _table(told: dict[str, Any]) -> Table:
    rows = [[Measured(cell["rounds"]) if isinstance(cell, dict) else cell for cell in row] for row in told["rows"]]
    return Table(
        title=told["title"],
        facts=told["facts"],
        columns=told["columns"],
        rows=rows,
        checks=[(claim, holds) for claim, holds in told["checks"]],
        targets=[Target(**target) for target in told.get("targets", [])],
        units=told.get("units", {}),
    )
