"""The scores of a model along the lines between a few pairs of images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from daskim.report.figures.ink import BLUE, GREY, ORANGE, TEAL, Drawing, Ink, panel, sheet
from daskim.report.words import counted, visible
from daskim.results import FinishedRun

__all__ = ["draw"]

# Pairs that are drawn: one of each kind, at most so many.
MOST = 5
COLOURS = (BLUE, ORANGE, TEAL)


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """For the first pair of each kind: the scores of the classes it meets, and where they change places."""
    if not run.has("boundary_lines"):
        return None
    lines = run.table("boundary_lines").drop_duplicates(["kind", "a", "b", "column"])
    pairs = lines.drop_duplicates("kind")[["kind", "a", "b", "a_id", "b_id"]][:MOST].to_dict("records")
    if not pairs:
        return None
    paths = run.table("boundaries", ["kind", "a", "b", "alphas", "classes"])
    height = 1.5
    canvas = sheet(0.45 + height * len(pairs))
    told = []
    for index, pair in enumerate(pairs):
        below = len(pairs) - 1 - index
        axes = panel(canvas, 0.5, 0.45 + height * below, 0.9, 0.3 + height * index)
        path = _same(paths, pair).iloc[0]
        classes = path["classes"].tolist()
        _lines(axes, _same(lines, pair), path["alphas"], classes)
        axes.set_xticks([0, 0.5, 1], [] if below else ["one image", "middle", "the other"])
        title = f"{pair['kind']}: {ink.label(pair['a_id'], 22)} to {ink.label(pair['b_id'], 22)}"
        axes.set_title(title, fontsize=9, loc="left")
        crossed = counted(len(classes) - 1, "boundary", "boundaries")
        told.append(f"{pair['kind']}, {visible(pair['a_id'])} to {visible(pair['b_id'])}: {crossed}")
    return Drawing(
        canvas,
        "Scores along the line",
        "What the model gives to the classes that a line meets, and to the nearest other (grey), for one pair of each "
        "kind; thin lines mark flips.",
        f"{'; '.join(told)}.",
    )


def _same(table: pd.DataFrame, pair: dict[str, object]) -> pd.DataFrame:
    return table[(table["kind"] == pair["kind"]) & (table["a"] == pair["a"]) & (table["b"] == pair["b"])]


def _lines(axes: Axes, lines: pd.DataFrame, alphas: np.ndarray, classes: list[int]) -> None:
    met = list(dict.fromkeys(classes))
    colours = dict(zip(met, COLOURS))
    ends = []
    for column, scores in zip(lines["column"].tolist(), lines["scores"]):
        colour = colours.get(column, GREY)
        axes.plot(np.linspace(0, 1, len(scores)), scores, color=colour, linewidth=1.6 if column in colours else 1.0)
        ends.append((float(scores[-1]), column, colour))
    for alpha in alphas:
        axes.axvline(alpha, color=GREY, linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.margins(y=0.08)
    low, high = axes.get_ylim()
    axes.set_yticks([low + 0.08 * (high - low), high - 0.08 * (high - low)])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    place = -np.inf
    for score, column, colour in sorted(ends):  # names beside the lines' ends, pushed up where they would overlap
        place = max(score, place + 0.14 * (high - low))
        axes.annotate(f"class {column}", (1, place), (5, 0), textcoords="offset points", va="center", fontsize=8,
                      color=colour, annotation_clip=False)  # fmt: skip
