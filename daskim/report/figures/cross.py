"""The cross table of leaked images: which splits, exact or near, same label or another."""

from __future__ import annotations

from matplotlib.axes import Axes

from daskim.report.figures.ink import BLUE, GREY, ORANGE, Drawing, Ink, legend, panel, sheet
from daskim.report.words import counted, visible
from daskim.results import FinishedRun

__all__ = ["draw"]

COLOURS = {"same": BLUE, "conflict": ORANGE, "unknown": GREY}
NAMES = {"same": "same label", "conflict": "another label", "unknown": "label unknown"}
# Rows that are drawn.
MOST = 12


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Bars of the number of images, one for each pair of splits and kind, parted by agreement of the labels."""
    cross = (run.summary.get("leakage") or {}).get("cross") or []
    table: dict[tuple[str, str, str], dict[str, int]] = {}
    for entry in cross:
        key = (str(entry["split"]), str(entry["other_split"]), str(entry["kind"]))
        table.setdefault(key, {})[str(entry["agreement"])] = int(entry["images"])
    rows = sorted((key for key in table if sum(table[key].values())), key=lambda key: -sum(table[key].values()))[:MOST]
    if not rows:
        return None
    canvas = sheet(0.75 + 0.3 * len(rows))
    names = [f"{ink.label(ours, 14)} in {ink.label(theirs, 14)}, {kind}" for ours, theirs, kind in rows]
    axes = panel(canvas, 0.25 + 0.075 * max(map(len, names)), 0.45, 0.7, 0.1)
    _bars(axes, [table[row] for row in rows])
    axes.set_yticks(range(len(rows)), names)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    held = [agreement for agreement in COLOURS if any(table[row].get(agreement) for row in rows)]
    legend(axes, [(NAMES[agreement], COLOURS[agreement]) for agreement in held], 90)
    told = [
        f"{counted(table[row][agreement], 'image')} of {visible(row[0])} {row[2]} in {visible(row[1])}, "
        f"{NAMES[agreement]}"
        for row in rows[:4] for agreement in held if table[row].get(agreement)
    ]  # fmt: skip
    return Drawing(
        canvas,
        "Leaked images by kind",
        "Images with a twin in another split: exact or near, with the same label there or another.",
        "; ".join(told) + ".",
    )


def _bars(axes: Axes, rows: list[dict[str, int]]) -> None:
    for place, row in enumerate(rows):
        start = 0
        for agreement, colour in COLOURS.items():
            count = row.get(agreement, 0)
            axes.barh([place], [count], left=[start], height=0.62, color=colour)
            start += count
        axes.annotate(f"{start:,}", (start, place), (5, 0), textcoords="offset points", va="center", fontsize=9)
