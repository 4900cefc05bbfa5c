"""Which wavelet coefficients were kept, at their places in the image."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba

from daskim.report.figures.ink import BLUE, GREY, Drawing, Ink, bare, panel, sheet
from daskim.report.words import listed, share
from daskim.results import FinishedRun

__all__ = ["draw", "mosaic"]

# Where the details of a level stand beside the approximation: (down, right).
PLACES = {"cA": (0, 0), "cH": (0, 1), "cV": (1, 0), "cD": (1, 1)}
NAMES = {"cA": "approximation", "cH": "horizontal", "cV": "vertical", "cD": "diagonal"}
# Values along a side of the picture of one channel, at most.
SIDE = 256


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """For each channel the mosaic of its bands, kept columns filled."""
    facts = run.summary.get("columns")
    if not facts or not run.has("columns"):
        return None
    table = run.table("columns").sort_values("column")
    if not {"channel", "band", "level"} <= set(table.columns) or not set(table["band"]) <= set(PLACES):
        return None
    size = run.summary["size"]
    channels = [group for _, group in table.groupby("channel", sort=True)]
    pictures = [mosaic(group, int(size["height"]), int(size["width"])) for group in channels]
    if any(picture is None for picture in pictures):
        return None
    names = ["red", "green", "blue"] if len(channels) == 3 else ["luma"] if len(channels) == 1 else []
    width = min(1.75, 5.4 / len(pictures))
    height = width * pictures[0].shape[0] / pictures[0].shape[1]  # type: ignore[union-attr]
    canvas = sheet(height + 0.45)
    for index, picture in enumerate(pictures):
        left = 0.1 + index * (width + 0.12)
        axes = panel(canvas, left, 0.1, 5.8 - left - width, 0.35)
        axes.imshow(_coloured(_smaller(picture)), interpolation="none", aspect="auto")  # type: ignore[arg-type]
        bare(axes)
        kept, of = int(channels[index]["kept"].sum()), len(channels[index])
        name = names[index] if names else f"channel {index}"
        axes.set_title(f"{name}: {kept:,} of {of:,}", fontsize=9, loc="left")
    by_band = table.groupby(["level", "band"])["kept"].agg(["sum", "size"])
    told = [
        f"{NAMES[band]}{f' level {level}' if facts_levels(table) > 1 else ''} {int(kept):,} of {int(of):,} "
        f"({share(kept, of)})"
        for (level, band), kept, of in by_band.sort_index(ascending=[False, True]).itertuples()
    ]
    return Drawing(
        canvas,
        "Wavelet coefficients that were kept",
        "Each square is a channel: the approximation at the top left, then horizontal, vertical and diagonal details; "
        "filled where a coefficient is kept.",
        f"{int(facts['m']):,} of {int(facts['d']):,} coefficients are kept: {listed(told)}.",
    )


def facts_levels(table: pd.DataFrame) -> int:
    return int(table["level"].nunique())


def mosaic(table: pd.DataFrame, height: int, width: int) -> np.ndarray | None:
    """Kept columns of one channel at the places of their bands; float64, NaN where no column is.

    None where the bands do not have the sizes that images of this size give.
    """
    last = int(table["level"].max())
    unit = 2**last
    height, width = -(-height // unit) * unit, -(-width // unit) * unit
    lowest = int(table["level"].min())
    rows, columns = height >> (lowest - 1), width >> (lowest - 1)
    if set(table["band"]) == {"cA"}:
        rows, columns = height >> last, width >> last
    out = np.full((rows, columns), np.nan)
    for (level, band), group in table.groupby(["level", "band"]):
        h, w = height >> int(level), width >> int(level)
        if len(group) != h * w:
            return None
        down, right = PLACES[str(band)]
        out[down * h : (down + 1) * h, right * w : (right + 1) * w] = group["kept"].to_numpy().reshape(h, w)
    return out


def _smaller(picture: np.ndarray) -> np.ndarray:
    """Shares of kept columns where there are more than `SIDE` along a side."""
    step = -(-max(picture.shape) // SIDE)
    if step == 1:
        return picture
    h, w = (side // step * step for side in picture.shape)
    return picture[:h, :w].reshape(h // step, step, w // step, step).mean(axis=(1, 3))


def _coloured(picture: np.ndarray) -> np.ndarray:
    """Kept in blue, left out as a faint grey, so that it can be seen on white and on black; RGBA, uint8."""
    known = np.nan_to_num(picture)[..., None]
    colour = known * np.array(to_rgba(BLUE)) + (1 - known) * np.array(to_rgba(GREY, 0.25))
    colour[np.isnan(picture)] = 0
    return np.round(colour * 255).astype(np.uint8)
