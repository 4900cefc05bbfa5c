"""Eigenvalues of the graph Laplacian, their gaps, and the number of clusters they suggest."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from daskim.report.figures.condition import power
from daskim.report.figures.ink import BLUE, GREY, ORANGE, Drawing, Ink, panel, sheet, strokes
from daskim.report.words import counted
from daskim.results import FinishedRun

__all__ = ["draw"]

# Points of a line, and gaps that are drawn, at most.
POINTS, MARKS = 400, 250


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Sorted eigenvalues with the gaps above gamma; and nc for each gamma."""
    facts = run.summary.get("spectrum")
    if not facts or not run.has("spectrum"):
        return None
    table = run.table("spectrum").sort_values("value")
    value, weight = table["value"].to_numpy(), table["weight"].to_numpy()
    if value.size < 2:
        return None
    curve = run.table("gaps_curve").sort_values("gamma") if run.has("gaps_curve") else None
    gamma, gaps = float(facts["gamma"]), int(facts["gaps"]["count"])
    exact, wanted = not int(facts["by_lanczos"]), int(facts["n_clusters"])
    canvas = sheet(3.3 if exact else 2.5)
    right = 2.3 if curve is not None else 0.3
    _values(panel(canvas, 0.55, 1.55 if exact else 0.5, right, 0.4), value, np.cumsum(weight), labelled=not exact)
    if exact:
        _gaps(panel(canvas, 0.55, 0.5, right, 2.05), np.diff(value), gamma)
    if curve is not None:
        _numbers(panel(canvas, 4.05, 0.5, 0.3, 0.4), curve, gamma, wanted, str(facts["why"]))
    n = int(facts["images"])
    how = "all eigenvalues" if exact else f"estimated by Lanczos for {int(facts['by_lanczos']):,} images"
    between = "" if exact else f" (between {facts['gaps']['lower']:,} and {facts['gaps']['upper']:,})"
    return Drawing(
        canvas,
        "Eigenvalues of the similarity graph",
        f"Eigenvalues of the graph Laplacian ({how})"
        + (f", the gaps between them with those above gamma = {gamma:g} in orange" if exact else "")
        + ", and the number of clusters that another gamma would give. "
        f"Taken: {_first_sentence(str(facts['why']))}.",
        f"nc = {wanted:,} clusters of {counted(n, 'image')}: {gaps:,} of {n - 1:,} gaps between eigenvalues exceed "
        f"gamma = {gamma:g}{between}; the largest eigenvalue is {float(facts['largest']):.4g}.",
    )


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _values(axes: Axes, value: np.ndarray, place: np.ndarray, *, labelled: bool) -> None:
    """Eigenvalue against its place in ascending order."""
    some = np.unique(np.linspace(0, value.size - 1, POINTS).astype(np.int64))
    axes.plot(place[some], value[some], color=BLUE, linewidth=1.8)
    total, top = float(place[-1]), float(value[-1])
    axes.set_xlim(0, total * 1.01)
    axes.set_xticks([1, total] if labelled else [], ["1", f"{total:,.0f}"] if labelled else [])
    axes.set_ylim(min(0.0, float(value[0])) - 0.02 * top, top * 1.06)
    axes.set_yticks([0, top], ["0", f"{top:.3g}"])
    axes.set_title("eigenvalues in ascending order", fontsize=9, loc="left")


def _gaps(axes: Axes, gap: np.ndarray, gamma: float) -> None:
    """Each gap between neighbouring eigenvalues; where there are many, the widest of neighbours and those above."""
    bounds = np.unique(np.linspace(0, gap.size, min(MARKS, gap.size) + 1).astype(np.int64))
    at = np.array([lo + int(np.argmax(gap[lo:hi])) for lo, hi in pairwise(bounds.tolist())])
    wide = np.flatnonzero(gap > gamma)
    at = np.union1d(at, wide[np.argsort(-gap[wide], kind="stable")[:MARKS]])
    low, high = gamma / 300, max(float(gap.max()), gamma) * 1.5
    axes.set_yscale("log")
    for above, colour in ((False, BLUE), (True, ORANGE)):
        some = at[((gap[at] > gamma) == above) & (gap[at] > low)]
        strokes(axes, [[(x + 1.0, low), (x + 1.0, float(gap[x]))] for x in some.tolist()], color=colour, linewidth=1)
    axes.axhline(gamma, color=GREY, linewidth=1)
    axes.minorticks_off()
    axes.set_xlim(0, (gap.size + 1) * 1.01)
    axes.set_ylim(low, high)
    axes.set_xticks([1, gap.size + 1], ["1", f"{gap.size + 1:,}"])
    axes.set_yticks([gamma], [f"{gamma:g}"])
    axes.set_title(f"gaps between them (line: gamma = {gamma:g})", fontsize=9, loc="left")


def _numbers(axes: Axes, curve: pd.DataFrame, gamma: float, wanted: int, why: str) -> None:
    """nc(gamma) by the rule that counts, and what was taken."""
    rule = "literal" if why.endswith("rule literal") else "complement"
    x, y = curve["gamma"].to_numpy(), curve[rule].to_numpy()
    axes.set_xscale("log")
    axes.plot(x, y, color=BLUE, linewidth=1.6, drawstyle="steps-post")
    axes.axvline(gamma, color=GREY, linewidth=1)
    low, high = min(float(y.min()), wanted), max(float(y.max()), wanted)
    room = max(1.0, high - low)
    axes.set_ylim(low - 0.12 * room, high + 0.15 * room)
    axes.plot([gamma], [wanted], "o", color=ORANGE, markersize=5)
    right = gamma > np.sqrt(x[0] * x[-1])
    axes.annotate(
        f"nc = {wanted:,}", (gamma, wanted), (-7 if right else 7, -3), textcoords="offset points",
        ha="right" if right else "left", fontsize=9,
    )  # fmt: skip
    decades = [10.0**k for k in range(int(np.ceil(np.log10(x[0]))), int(np.log10(x[-1])) + 1, 2)]
    axes.xaxis.set_major_locator(FixedLocator(decades))
    axes.xaxis.set_major_formatter(FixedFormatter([power(value) for value in decades]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks([])
    axes.set_title("clusters", fontsize=9, loc="left")
    axes.set_xlabel(f"gamma (taken: {gamma:g})", fontsize=9)
