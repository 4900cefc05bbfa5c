"""How much of each class is redundant."""

from __future__ import annotations

from daskim.report.facts import classes_of
from daskim.report.figures.ink import BLUE, TEXT, Drawing, Ink, panel, sheet
from daskim.report.words import counted, listed, share, visible
from daskim.results import FinishedRun

__all__ = ["draw"]

# Classes that are drawn.
MOST = 15


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Bars of the share of redundant images, the worst classes first."""
    found = classes_of(run)
    redundant = sum(gone for _, _, gone in found)
    if len(found) < 2 or not redundant:
        return None
    shown = [entry for entry in found if entry[2]][:MOST]
    canvas = sheet(0.45 + 0.23 * len(shown))
    labels = [ink.label(label, 22) for label, _, _ in shown]
    axes = panel(canvas, 0.25 + 0.078 * max(map(len, labels)), 0.1, 1.35, 0.1)
    shares = [gone / of for _, of, gone in shown]
    places = range(len(shown))
    axes.barh(places, shares, height=0.66, color=BLUE)
    axes.set_xlim(0, max(shares))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(places, labels)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for place, (_, of, gone) in enumerate(shown):
        axes.annotate(
            f"{share(gone, of)}  ({gone:,} of {of:,})", (shares[place], place), (5, 0), textcoords="offset points",
            va="center", fontsize=9, color=TEXT,
        )  # fmt: skip
    left = len(found) - len(shown)
    more = f"; {counted(left, 'class has', 'classes have')} less or none" if left else ""
    told = listed([f"{visible(label)} {share(gone, of)} ({gone:,} of {of:,})" for label, of, gone in shown[:3]])
    return Drawing(
        canvas,
        "Redundant images by class",
        f"Share of each class that may go, the largest first{more}.",
        f"{counted(redundant, 'redundant image')} in {counted(len(found), 'class', 'classes')}; the largest shares: "
        f"{told}.",
    )
