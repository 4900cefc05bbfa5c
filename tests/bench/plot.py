"""A run as a picture: bars by row and figure, or lines over n on logarithmic axes; SVG or PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from daskim.report.figures.ink import BLUE, GREY, ORANGE, TEAL, TEXT, Ink, drawing, panel, sheet
from daskim.report.figures.svg import svg_of
from tests.bench.record import Record
from tests.bench.table import Table, text_of
from tests.bench.units import better

__all__ = ["draw", "slope"]

COLOURS = (BLUE, ORANGE, TEAL, GREY, "#9467bd", "#b5476b", "#7a8b2c", "#5c6bc0")
# Inches: the sheet, room for the names of the rows at the left, one bar, what stands around the bars.
WIDTH, LEFT, BAR, ROUND = 8.0, 2.9, 0.155, 0.85
DPI = 160
# Columns by which a table grows.
SIZES = ("n", "images", "nodes", "edges", "tasks", "workers")
POINTS = 3  # sizes that make a line
GROWTH = 3.4  # inches of a panel of lines


@dataclass(frozen=True)
class Picture:
    """One panel: the figures of one unit in one table.

    Attributes
    ----------
    series : list of (str, list of float)
        Name and values; None where a row has none.
    over : list of float, optional
        Sizes at which the values of every series stand; bars named `rows` where there are none.
    """

    title: str
    unit: str
    rows: list[str]
    series: list[tuple[str, list[float | None]]]
    over: list[float] | None = None

    @property
    def height(self) -> float:
        """Inches."""
        return GROWTH if self.over else ROUND + BAR * self.places()[-1][0]

    def places(self) -> list[tuple[float, int, int]]:
        """Where each bar stands: place from above, row, series; the last entry is the end of all."""
        found, at = [], 0.0
        for row in range(len(self.rows)):
            for index, (_, values) in enumerate(self.series):
                if values[row] is not None:
                    found.append((at, row, index))
                    at += 1
            at += 0.7
        return [*found, (at, -1, -1)]


def draw(record: Record, path: Path) -> None:
    """Write the pictures of all tables below each other; SVG or PNG by the name's ending, on white."""
    shown = [picture for table in record.tables for picture in pictures(table)]
    if not shown:
        raise SystemExit(f"{record.benchmark} has no table with times, sizes, rates or shares: nothing to draw")
    height = sum(picture.height for picture in shown)
    ink = Ink("svg" if path.suffix == ".svg" else "png")
    with drawing():
        canvas = sheet(height, WIDTH)
        top = 0.0
        for picture in shown:
            bottom = height - top - picture.height
            left = 0.9 if picture.over else LEFT
            axes = panel(canvas, left, bottom + 0.3, 1.9 if picture.over else 0.7, top + 0.5)
            (_lines if picture.over else _bars)(axes, picture, ink)
            top += picture.height
        if path.suffix == ".png":
            canvas.set_dpi(DPI)
            FigureCanvasAgg(canvas).print_png(path, metadata={"Software": None})
            return
        alt = f"Benchmark {record.benchmark}: " + "; ".join(f"{one.title} ({one.unit})" for one in shown)
        svg = svg_of(canvas, record.benchmark, alt, ink.texts)
    start = svg.index(">") + 1
    white = '<rect width="100%" height="100%" fill="#fff" />'
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{svg[:start]}{white}{svg[start:]}\n', encoding="utf-8")


def pictures(table: Table) -> list[Picture]:
    """One picture for each unit of the table's costs, rates and shares."""
    units: dict[str, list[int]] = {}
    for at in table.numeric:
        unit = table.unit(at)
        if at not in table.keys and better(table.columns[at], unit):
            units.setdefault(unit or "share", []).append(at)
    size = next((at for at in (*table.keys, *table.numeric) if table.columns[at] in SIZES), None)
    sizes = {row[size] for row in table.rows} if size is not None else set()
    if size is not None and len(sizes) >= POINTS and all(isinstance(one, Real) for one in sizes):
        return [_growth(table, unit, columns, size) for unit, columns in units.items()]
    if len(table.keys) == 2:
        return [_pivoted(table, unit, columns[0]) for unit, columns in units.items()]
    rows = [", ".join(text_of(row[at]) for at in table.keys) for row in table.rows]
    return [
        Picture(table.title, unit, rows, [(table.columns[at], [row[at] for row in table.rows]) for at in columns])
        for unit, columns in units.items()
    ]


def _pivoted(table: Table, unit: str, figure: int) -> Picture:
    """Rows by the second key (stages), series by the first (contenders); of the figures of one unit, the first."""
    one, other = table.keys
    groups, rows = (list(dict.fromkeys(text_of(row[at]) for row in table.rows)) for at in (one, other))
    values = {(text_of(row[one]), text_of(row[other])): row[figure] for row in table.rows}
    series = [(group, [values.get((group, row)) for row in rows]) for group in groups]
    return Picture(f"{table.title}: {table.columns[figure]}", unit, rows, series)


def _growth(table: Table, unit: str, columns: Sequence[int], size: int) -> Picture:
    """A series for each figure over the sizes; of several contenders, or stages, for each its first figure."""
    sizes = sorted({row[size] for row in table.rows})
    others = [at for at in table.keys if at != size]
    groups: dict[str, dict[float, list[float | None]]] = {}
    for row in table.rows:
        name = ", ".join(text_of(row[at]) for at in others)
        groups.setdefault(name, {})[row[size]] = row
    series = []
    for name, found in groups.items():
        for at in columns[:1] if len(groups) > 1 else columns:
            figure = "" if name and (len(groups) > 1 or len(columns) == 1) else table.columns[at]
            label = ", ".join(part for part in (name, figure) if part)
            series.append((label, [found[value][at] if value in found else None for value in sizes]))
    what = f": {table.columns[columns[0]]}" if len(groups) > 1 else ""
    return Picture(
        f"{table.title}{what}, over {table.columns[size]}", unit, [], series, [float(value) for value in sizes]
    )


def slope(x: Sequence[float], y: Sequence[float | None]) -> float | None:
    """Exponent b of y = a x^b by least squares of the logarithms; None from fewer than three positive values."""
    known = [(u, v) for u, v in zip(x, y) if v is not None and v > 0 and u > 0]
    if len(known) < POINTS:
        return None
    u, v = np.log(np.array(known, dtype=np.float64)).T
    u = u - u.mean()
    return float(u @ v / (u @ u))


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Round numbers on a logarithmic axis, some seven of them, and their names."""
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ([1 + at / 2 for at in range(18)], range(1, 10), (1, 2, 5), (1,)):
        found = [step * 10.0**ten for ten in tens for step in steps if low <= step * 10.0**ten <= high]
        if len(found) <= 7:
            break
    return found, [f"{value:,.0f}" if value >= 1 else f"{value:g}" for value in found]


def _bars(axes: Axes, picture: Picture, ink: Ink) -> None:
    """Rows from above, in each a bar for every series, with its value beside it."""
    *bars, (end, _, _) = picture.places()
    most = max((float(picture.series[index][1][row] or 0) for _, row, index in bars), default=0.0) or 1.0
    middle: dict[int, list[float]] = {}
    for place, row, index in bars:
        value = float(picture.series[index][1][row] or 0)
        axes.barh(place, value, height=0.86, color=COLOURS[index % len(COLOURS)])
        told = text_of(value if value % 1 else int(value))
        axes.annotate(told, (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
        middle.setdefault(row, []).append(place)
    places = [(found[0] + found[-1]) / 2 for found in middle.values()]
    axes.set_yticks(places, [ink.label(picture.rows[row], 46) for row in middle], fontsize=8)
    axes.set_xlim(0, most * 1.12)
    axes.set_xticks([])
    axes.set_ylim(end - 0.5, -0.8)
    many = len(picture.series) > 1
    title = picture.title if many else f"{picture.title}: {picture.series[0][0]}"
    _title(axes, ink, f"{title} [{picture.unit}]", [name for name, _ in picture.series] if many else [])


def _title(axes: Axes, ink: Ink, title: str, names: Sequence[str]) -> None:
    """The title, and below it what each colour stands for."""
    width = axes.figure.get_size_inches()[0] * 72
    left = 8 - axes.get_position().x0 * width  # points from the axes' left edge to the sheet's
    at = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(ink.label(title, 110), (0, 1), (left, 20), fontsize=9.5, fontweight="bold", **at)
    room = (width - 16) / max(1, len(names))
    for index, name in enumerate(names):
        told = ink.label(name, max(6, int(room / 4.6) - 3))
        for text, right, colour in (("\u25cf", 0.0, COLOURS[index % len(COLOURS)]), (told, 9.0, TEXT)):
            axes.annotate(text, (0, 1), (left + index * room + right, 7), color=colour, fontsize=7.5, **at)


def _lines(axes: Axes, picture: Picture, ink: Ink) -> None:
    """A line for each series on logarithmic axes, its exponent beside its name."""
    sizes = picture.over or []
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends: list[tuple[float, str, str]] = []
    for index, (name, values) in enumerate(picture.series):
        known = [(x, float(y)) for x, y in zip(sizes, values) if y is not None and y > 0]
        if not known:
            continue
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(*zip(*known), color=colour, marker="o", markersize=3, linewidth=1.4)
        power = slope(sizes, values)
        ends.append((known[-1][1], name if power is None else f"{name}  n^{power:.2f}", colour))
    axes.set_xticks(sizes, [f"{value:,.0f}" for value in sizes])
    axes.set_yticks(*_ticks(*axes.get_ylim()))
    axes.minorticks_off()
    low, high = (math.log10(value) for value in axes.get_ylim())
    # Names at the ends of their lines, pushed apart where they would overlap.
    room, last = 0.055 * (high - low), math.inf
    for value, name, colour in sorted(ends, reverse=True):
        place = min(math.log10(value), last - room)
        last = place
        axes.annotate(
            ink.label(name, 34), (1.01, (place - low) / (high - low)), xycoords="axes fraction", va="center",
            fontsize=7, color=colour,
        )  # fmt: skip
    _title(axes, ink, f"{picture.title} [{picture.unit}]", [])
