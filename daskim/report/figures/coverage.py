"""How well the evaluated images are covered by the others (method compare)."""

from __future__ import annotations

import numpy as np

from daskim.report.figures.ink import BLUE, GREY, ORANGE, Drawing, Ink, panel, sheet
from daskim.report.near import threshold
from daskim.report.words import counted, share
from daskim.results import FinishedRun

__all__ = ["draw"]

BINS = 25


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Bars of the number of evaluated images by their best similarity."""
    if not run.has("coverage"):
        return None
    best = np.asarray(run.store.read_table("coverage", ["similarity"])["similarity"].to_numpy(), dtype=np.float64)
    known = best[np.isfinite(best)]
    if not known.size:
        return None
    least = threshold(run)
    low = min(0.0, float(np.floor(known.min() * 10) / 10))
    edges = np.linspace(low, 1.0, BINS + 1)
    counts = np.histogram(np.clip(known, low, 1.0), edges)[0]
    alike = np.histogram(np.clip(known[known >= least], low, 1.0), edges)[0]
    canvas = sheet(2.4)
    axes = panel(canvas, 0.5, 0.5, 0.3, 0.35)
    middle, width = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    axes.bar(middle, counts, width=width * 0.86, color=BLUE)
    axes.bar(middle, alike, width=width * 0.86, color=ORANGE)
    top = int(counts.max())
    axes.set_xlim(low, 1.0)
    axes.set_ylim(0, top * 1.15)
    axes.set_yticks([0, top], ["0", f"{top:,}"])
    if low < least <= 1:
        axes.axvline(least, color=GREY, linewidth=1)
        axes.annotate(
            f"min_similarity = {least:g}", (least, 1), (-4, -8), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", fontsize=9,
        )  # fmt: skip
    axes.set_title("images", fontsize=9, loc="left")
    axes.set_xlabel("highest similarity to an image of another split", fontsize=9)
    unknown = best.size - known.size
    twins = int((known >= least).sum())
    return Drawing(
        canvas,
        "How well the evaluated images are covered",
        "Each evaluated image by its most similar image of another split: orange ones have a twin there; models often "
        "fail on those at the left."
        + (f" {counted(unknown, 'image is', 'images are')} near none and not shown." if unknown else ""),
        f"{twins:,} of {counted(best.size, 'evaluated image')} ({share(twins, best.size)}) are covered at "
        f"{least:g} or more; the median of the highest similarity is {np.median(known):.2f}, the lowest "
        f"{known.min():.2f}{f'; {unknown:,} have none' if unknown else ''}.",
    )
