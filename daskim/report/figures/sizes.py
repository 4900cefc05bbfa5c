"""How many clusters there are of each size."""

from __future__ import annotations

import numpy as np

from daskim.report.figures.ink import BLUE, GREY, Drawing, Ink, panel, sheet
from daskim.report.words import counted
from daskim.results import FinishedRun

__all__ = ["draw"]

# Sizes that have a bar of their own, and the ranges after them.
SINGLE = range(1, 9)
RANGES = ((9, 16), (17, 64), (65, 0))
# Foot of the bars on the logarithmic scale: a single cluster still shows.
BASE = 0.6


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Bars of the number of clusters by size, on a logarithmic scale."""
    if not run.has("clusters"):
        return None
    cluster = np.asarray(run.store.read_table("clusters", ["cluster"])["cluster"])
    sizes = np.bincount(cluster[cluster >= 0])
    sizes = sizes[sizes > 0]
    several = sizes[sizes > 1]
    if not several.size:
        return None
    bins = [(size, size) for size in SINGLE] + [(low, high or int(several.max())) for low, high in RANGES]
    bins = [(low, min(high, int(several.max()))) for low, high in bins if low <= several.max()]
    counts = [int(((sizes >= low) & (sizes <= high)).sum()) for low, high in bins]
    canvas = sheet(2.3)
    axes = panel(canvas, 0.2, 0.5, 0.2, 0.3)
    axes.set_yscale("log")
    heights = [max(0, count - BASE) for count in counts]
    axes.bar(range(len(bins)), heights, width=0.7, bottom=BASE, color=[GREY, *[BLUE] * (len(bins) - 1)])
    axes.set_ylim(BASE, 1.5 * max(counts))
    axes.minorticks_off()
    axes.set_xticks(range(len(bins)), [str(low) if low == high else f"{low}-{high}" for low, high in bins])
    axes.set_xlim(-0.6, max(len(bins), 6) - 0.4)
    axes.set_yticks([])
    axes.set_xlabel("images in a cluster", fontsize=9)
    for place, count in enumerate(counts):
        if count:
            axes.annotate(f"{count:,}", (place, count), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    single = int((sizes == 1).sum())
    images = int(several.sum())
    return Drawing(
        canvas,
        "Sizes of clusters",
        "Number of clusters of each size, on a logarithmic scale; in grey the images that are alone in theirs.",
        f"{counted(several.size, 'cluster')} of several images, {counted(images, 'image')} in all, the largest of "
        f"{several.max():,}; {counted(single, 'image is', 'images are')} alone in theirs.",
    )
