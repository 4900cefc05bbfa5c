"""How many pairs have no decision boundary between them, by kind of pair."""

from __future__ import annotations

from typing import Any

from daskim.report.figures.ink import BLUE, GREY, Drawing, Ink, panel, sheet
from daskim.report.words import counted, share, visible
from daskim.results import FinishedRun

__all__ = ["draw"]

LABELS = {"same": "one label", "differ": "labels differ", "unknown": "label unknown"}


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Shares with their 95 % intervals: each kind, and its pairs by whether labels agree."""
    summary = run.store.read_json("boundaries", "summary.json")
    rows = _rows(summary) if summary else []
    if not rows:
        return None
    canvas = sheet(0.65 + 0.26 * len(rows))
    axes = panel(canvas, 1.95, 0.5, 1.3, 0.1)
    for place, (_, inner, none) in enumerate(rows):
        colour = GREY if inner else BLUE
        axes.plot([none["low"], none["high"]], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot([none["share"]], [place], "o", color=colour, markersize=5)
        axes.annotate(
            f"{share(none['count'], none['of'])} of {none['of']:,}", (1, place), (8, 0),
            xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=9,
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axes.set_xlabel("pairs without a boundary between them", fontsize=9)
    told = [f"{name} {share(none['count'], none['of'])} of {none['of']:,}" for name, inner, none in rows if not inner]
    assert summary is not None
    return Drawing(
        canvas,
        "Pairs without a decision boundary",
        f"On the straight line between two images {visible(summary['model'])} gives one class all along; with 95 % "
        f"intervals. {counted(summary['steps'], 'interval')} of each line were looked at.",
        f"Pairs without a boundary: {'; '.join(told)}.",
    )


def _rows(summary: dict[str, Any]) -> list[tuple[str, bool, dict[str, Any]]]:
    """Name, whether it is a part of a kind, and the share without a boundary."""
    rows = []
    for kind, told in summary["kinds"].items():
        if not told["pairs"]:
            continue
        rows.append((kind, False, told["no_boundary"]))
        if len(told["labels"]) > 1:
            rows += [(f"{kind}, {LABELS[name]}", True, part["no_boundary"]) for name, part in told["labels"].items()]
    return rows
