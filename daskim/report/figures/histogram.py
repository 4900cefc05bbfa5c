"""How alike the listed pairs are, with the threshold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from daskim.report.figures.ink import BLUE, GREY, ORANGE, Drawing, Ink, panel, sheet
from daskim.report.near import measure, threshold
from daskim.report.words import counted
from daskim.results import FinishedRun

__all__ = ["draw"]

BINS = 40
# Foot of the bars on the logarithmic scale: a single pair still shows.
BASE = 0.6


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Bars of the number of pairs by similarity, on a logarithmic scale."""
    if not run.has("pairs"):
        return None
    least = threshold(run)
    lowest, above, total = 1.0, 0, 0
    for batch in run.store.batches("pairs", ["similarity"]):
        value = _values(batch)
        total, above = total + len(value), above + int((value >= least).sum())
        lowest = min(lowest, float(value.min(initial=1.0)))
    if not total:
        return None
    # whole hundredths, so that the threshold lies between two bars
    width = max(0.005, np.ceil((1 - min(lowest, least)) / BINS * 200) / 200)
    bins = int(np.ceil((1 - lowest) / width * (1 - 1e-9)))
    edges = 1 - width * np.arange(max(bins, 4), -1, -1)
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    alike = np.zeros_like(counts)
    for batch in run.store.batches("pairs", ["similarity"]):
        value = np.clip(_values(batch), edges[0], 1.0)
        counts += np.histogram(value, edges)[0]
        alike += np.histogram(value[value >= least], edges)[0]
    canvas = sheet(2.4)
    axes = panel(canvas, 0.5, 0.5, 0.3, 0.35)
    axes.set_yscale("log")
    middle = (edges[:-1] + edges[1:]) / 2
    for number, colour in ((counts, BLUE), (alike, ORANGE)):
        some = number > 0
        axes.bar(middle[some], number[some] - BASE, width=width * 0.86, bottom=BASE, color=colour)
    axes.set_ylim(BASE, max(10.0, float(counts.max())) * 2)
    axes.set_xlim(edges[0], 1.0)
    axes.minorticks_off()
    ticks = [t for t in (1, 10, 100, 1000, 10**4, 10**5, 10**6, 10**7, 10**8) if t <= 2 * counts.max()]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    if edges[0] < least <= 1:
        axes.axvline(least, color=GREY, linewidth=1)
        at_left = (least - edges[0]) > 0.5 * (1 - edges[0])
        axes.annotate(
            f"min_similarity = {least:g}", (least, 1), (-4 if at_left else 4, -8),
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="right" if at_left else "left",
            fontsize=9,
        )  # fmt: skip
    name = measure(run)
    axes.set_xlabel(f"similarity ({ink.label(name)})", fontsize=9)
    axes.set_title("pairs", fontsize=9, loc="left")
    return Drawing(
        canvas,
        "Similarity of the listed pairs",
        _caption(run),
        f"{above:,} of {counted(total, 'listed pair')} have a similarity ({name}) of at least {least:g}; the lowest "
        f"is {lowest:.3f}.",
    )


def _values(batch: pa.Table) -> np.ndarray:
    value = np.asarray(batch["similarity"], dtype=np.float64)
    return value[np.isfinite(value)]


def _caption(run: FinishedRun) -> str:
    if run.summary.get("similarities") is None:
        return "Each redundant image with the image kept for it; near-duplicates in orange, on a logarithmic scale."
    if run.has("leakage"):
        return "Pairs of images of different splits that were compared. Near-duplicates in orange; logarithmic scale."
    if run.settings.candidates.method == "all":
        return "All pairs of images. Those in orange are near-duplicates; logarithmic scale."
    return (
        "Pairs that were followed to the end; most others were ruled out earlier. Those in orange are near-duplicates; "
        "logarithmic scale."
    )
