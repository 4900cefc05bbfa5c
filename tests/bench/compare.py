"""Two runs of a benchmark side by side: what got slower by more than the spread, and where the two can be compared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.measured import Measured
from tests.bench.record import Record
from tests.bench.table import Table, markdown, text_of
from tests.bench.units import better

__all__ = ["Change", "changes", "compared", "obstacles"]

# A difference below this share is none, however narrow the rounds are; without rounds nobody knows the spread.
LEAST, BLIND = 0.05, 0.15
# Facts of a table that are no condition of its figures.
LOOSE = ("rounds",)
# From this load for each core on, other work took time from what was measured.
BUSY = 0.75


@dataclass(frozen=True)
class Change:
    """One figure in both runs; `verdict` is "slower", "faster", "more", "less", "worse", "better" or ""."""

    row: str
    column: str
    before: float
    now: float
    verdict: str

    @property
    def ratio(self) -> float | None:
        return float(self.now) / float(self.before) if self.before else None


def obstacles(old: Record, new: Record, then: Table, now: Table) -> list[str]:
    """Why the times of two tables of one title say nothing about the code; empty where they do."""
    found = [
        f"{name} was {old.context.get(name)}, is {new.context.get(name)}"
        for name in ("cpu", "cores", "threads")
        if old.context.get(name) != new.context.get(name)
    ]
    conditions = [name for name in {**then.facts, **now.facts} if name not in LOOSE]
    found += [
        f"{name} was {text_of(then.facts.get(name))}, is {text_of(now.facts.get(name))}"
        for name in conditions
        if not _alike(then.facts.get(name), now.facts.get(name))
    ]
    return found


def _alike(was: Any, is_: Any) -> bool:
    """Counts and texts are equal or not; a fraction may itself be measured (the speed of a server)."""
    if isinstance(was, float) and isinstance(is_, float):
        return math.isclose(was, is_, rel_tol=0.2)
    return text_of(was) == text_of(is_)


def changes(then: Table, now: Table) -> Iterator[Change]:
    """Every number that stands in the same row and column of both tables."""
    before = {_key(then, row): row for row in then.rows}
    for row in now.rows:
        old = before.get(_key(now, row))
        if old is None:
            continue
        for at in now.numeric:
            name = now.columns[at]
            if at in now.keys or name not in then.columns:
                continue
            was, is_ = old[then.columns.index(name)], row[at]
            if was is not None and is_ is not None:
                yield Change(", ".join(_key(now, row)), name, was, is_, _verdict(was, is_, name, now.unit(at)))


def _key(table: Table, row: list[Any]) -> tuple[str, ...]:
    return tuple(text_of(row[at]) for at in table.keys)


def _verdict(was: float, is_: float, column: str, unit: str) -> str:
    """What a difference beyond the spread is called."""
    sense = better(column, unit)
    if not sense:
        return "" if was == is_ else "differs"
    low, high = _range(was)
    least, most = _range(is_)
    if least > high and is_ > was * (1 + LEAST):
        more = True
    elif most < low and was > is_ * (1 + LEAST):
        more = False
    else:
        return ""
    if unit in ("s", "ms", "us", "ns", "min", "h"):
        return "slower" if more else "faster"
    if sense < 0:
        return "more" if more else "less"
    return "better" if more else "worse"


def _range(value: float) -> tuple[float, float]:
    """Least and most of the rounds; a figure of one round could have come out this much lower or higher."""
    if isinstance(value, Measured) and len(value.rounds) > 1:
        return value.least, value.most
    return value / (1 + BLIND / 2), value * (1 + BLIND / 2)


def compared(old: Record, new: Record) -> Iterator[str]:
    """The comparison as text, table by table, and at its end what got slower or takes more."""
    if old.benchmark != new.benchmark:
        raise SystemExit(f"one record is of benchmark {old.benchmark}, the other of {new.benchmark}")
    versions = [
        f"{name} {was} -> {new.context['versions'].get(name)}"
        for name, was in old.context["versions"].items()
        if new.context["versions"].get(name) != was
    ]
    if versions:
        yield "Versions that differ: " + ", ".join(versions)
    for name, record in (("before", old), ("now", new)):
        cores, end = record.context["cores"], record.context.get("load_at_end") or 0.0
        load = max(record.context.get("load") or 0.0, end - cores)  # at the end its own work is counted too
        if load > BUSY * cores:
            where = f"load {load:.1f} on {cores} cores"
            yield f"Other work ran {name} ({where}): trust ratios within one run."
    earlier = dict(_titled(old.tables))
    verdicts: list[str] = []
    for title, table in _titled(new.tables):
        if title not in earlier:
            yield f"\n### {table.title}\n\nnot in the earlier record"
            continue
        then = earlier.pop(title)
        why = obstacles(old, new, then, table)
        yield f"\n### {table.title}\n\n{_side_by_side(then, table, fair=not why)}"
        if why:
            yield "\nNot comparable, so no verdict: " + "; ".join(why)
            verdicts.append(f"{table.title}: not comparable ({'; '.join(why)})")
            continue
        verdicts += [
            f"{table.title}: {one.row}: {one.column} {one.verdict}: {text_of(one.before)} -> {text_of(one.now)}"
            for one in changes(then, table)
            if one.verdict in ("slower", "more", "worse")
        ]
    for title, _ in earlier:
        yield f"\n### {title}\n\nonly in the earlier record"
    yield "\n" + ("\n".join(verdicts) if verdicts else "Nothing got slower or takes more beyond the spread.")


def _titled(tables: Sequence[Table]) -> Iterator[tuple[tuple[str, int], Table]]:
    """Tables with what tells them apart: title, and place among those of the same title."""
    seen: Counter[str] = Counter()
    for table in tables:
        yield (table.title, seen[table.title]), table
        seen[table.title] += 1


def _side_by_side(then: Table, now: Table, *, fair: bool) -> str:
    """Costs and rates of both tables with their ratio; other numbers only where they differ."""
    shown = [one for one in changes(then, now) if one.verdict or better(one.column, _unit(now, one.column))]
    rows = [
        [one.row, one.column, _spread(one.before), _spread(one.now), one.ratio, one.verdict if fair else None]
        for one in shown
    ]
    return markdown(["row", "figure", "before", "now", "ratio", "beyond the spread"], rows) if rows else "equal"


def _unit(table: Table, column: str) -> str:
    return table.unit(table.columns.index(column))


def _spread(value: float) -> str:
    if isinstance(value, Measured) and len(value.rounds) > 1:
        return f"{text_of(value)} ({text_of(value.least)} to {text_of(value.most)})"
    return text_of(value)
