"""The condition number of the chosen coefficients, with tau and m."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from daskim.report.figures.ink import BLUE, GREY, ORANGE, Drawing, Ink, panel, sheet
from daskim.results import FinishedRun

__all__ = ["draw"]

SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Condition number against the number of columns, in the order of the pivots."""
    facts = run.summary.get("columns")
    if not facts or not run.has("condition"):
        return None
    table = run.table("condition").sort_values("m")
    finite = table[np.isfinite(table["cond"])]
    if len(finite) < 2:
        return None
    m, d, tau = int(facts["m"]), int(facts["d"]), float(facts["tau"])
    columns, cond = finite["m"].to_numpy(), finite["cond"].to_numpy()
    canvas = sheet(2.6)
    axes = panel(canvas, 0.5, 0.5, 0.3, 0.3)
    axes.set_yscale("log")
    axes.plot(columns, cond, color=BLUE, linewidth=1.8)
    high = max(float(cond.max()), tau)
    axes.set_xlim(0, d)
    axes.set_ylim(0.7, high * 10)
    axes.axhline(tau, color=GREY, linewidth=1)
    axes.annotate(f"tau = {tau:,.0f}", (0, tau), (2, 4), textcoords="offset points", fontsize=9)
    axes.plot([m, m], [0.7, np.interp(m, columns, cond)], color=ORANGE, linewidth=1)
    axes.plot([m], [np.interp(m, columns, cond)], "o", color=ORANGE, markersize=5)
    left = m > d / 2
    axes.annotate(
        f"m = {m:,}", (m, 1), (-5 if left else 5, 0), textcoords="offset points", ha="right" if left else "left",
        fontsize=9,
    )  # fmt: skip
    decades = [10.0**k for k in range(0, int(np.log10(high)) + 1, 1 + int(np.log10(high)) // 5)]
    axes.yaxis.set_major_locator(FixedLocator(decades))
    axes.yaxis.set_major_formatter(FixedFormatter([power(value) for value in decades]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted({0, d}), [f"{value:,}" for value in sorted({0, d})])
    axes.set_xlabel("columns kept, in the order of the pivots", fontsize=9)
    below = "numerically infinite" if facts["cond"] is None else f"{facts['cond']:,.0f}"
    above = "numerically infinite" if facts["cond_next"] is None else f"{facts['cond_next']:,.0f}"
    more = "" if m >= d else f"; with one more it would be {above}"
    return Drawing(
        canvas,
        "Condition number of the kept coefficients",
        f"Columns are kept as long as the condition number stays below tau = {tau:,.0f}"
        + ("." if facts["method"] != "laplacian-score" else "; here they were chosen by Laplacian score, without tau."),
        f"m = {m:,} of {d:,} columns are kept, with condition number {below}{more}; tau = {tau:,.0f}.",
    )


def power(value: float) -> str:
    """10⁴ for 10000."""
    return "10" + str(round(float(np.log10(value)))).translate(SUPERSCRIPT)
