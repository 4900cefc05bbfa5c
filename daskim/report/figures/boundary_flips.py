"""Where on the lines between images the class changes."""

from __future__ import annotations

import numpy as np

from daskim.report.figures.ink import BLUE, Drawing, Ink, panel, sheet
from daskim.report.words import counted
from daskim.results import FinishedRun

__all__ = ["draw"]


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Bars of the number of flips by their place on the line, for each kind of pair."""
    summary = run.store.read_json("boundaries", "summary.json")
    kinds = {kind: told for kind, told in (summary or {"kinds": {}})["kinds"].items() if sum(told["flips"])}
    if not kinds:
        return None
    height = 0.85
    canvas = sheet(0.45 + height * len(kinds))
    told = []
    for index, (kind, facts) in enumerate(kinds.items()):
        below = len(kinds) - 1 - index
        axes = panel(canvas, 0.45, 0.45 + height * below, 0.45, 0.28 + height * index)
        flips = np.array(facts["flips"])
        edges = np.linspace(0, 1, len(flips) + 1)
        axes.bar((edges[:-1] + edges[1:]) / 2, flips, width=0.86 / len(flips), color=BLUE)
        axes.set_xlim(0, 1)
        axes.set_yticks([])
        axes.set_xticks([0, 0.5, 1], [] if below else ["one image", "middle", "the other"])
        axes.set_title(
            f"{kind}: {counted(int(flips.sum()), 'flip')}, at most {flips.max():,} a bar", fontsize=9, loc="left"
        )
        middle = int(flips[len(flips) // 4 : len(flips) - len(flips) // 4].sum())
        told.append(f"{kind}: {counted(int(flips.sum()), 'flip')}, {middle:,} of them in the middle half of the line")
    return Drawing(
        canvas,
        "Where the class changes",
        "Flips by their place on the line from one image to the other.",
        f"{'; '.join(told)}.",
    )
