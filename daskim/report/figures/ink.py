"""The look of all figures: colours that stand out on white and on black, few lines, direct labels.

Text and axes are drawn in `TEXT`, which becomes `currentColor` in SVG: the colour of the page around it. What comes
from the data set (labels, ids) passes through `Ink.label`: matplotlib sees a stand-in, and the SVG gets the text
itself, so that no mathematics is parsed and no glyph is missing.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from daskim.report.words import shortened, visible

__all__ = ["BLUE", "FONT", "GREY", "ORANGE", "TEXT", "Drawing", "Ink", "bare", "drawing", "legend", "panel", "sheet"]
__all__ += ["TEAL", "strokes"]

# Contrast of each with #ffffff and with #111418 is at least 3 (WCAG 1.4.11); a test reckons it.
BLUE, ORANGE, GREY, TEAL = "#3b7dd8", "#d9730d", "#858b94", "#1f9488"
TEXT = "#010203"
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
SIZE = 10.0
WIDTH = 5.8  # inches; 72 points each

# Settings of matplotlib that decide how a figure looks, whatever the user's own matplotlibrc says.
LOOK: tuple[str, ...] = ("agg.", "axes.", "date.", "figure.", "font.", "grid.", "hatch.", "hist.", "image.", "legend.")
LOOK += (
    "lines.",
    "markers.",
    "mathtext.",
    "patch.",
    "path.",
    "savefig.",
    "scatter.",
    "svg.",
    "text.",
    "xtick.",
    "ytick.",
)
OURS: dict[str, Any] = {
    "agg.path.chunksize": 0,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.linewidth": 0.8,
    "font.size": SIZE,
    "path.simplify": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "daskim",
    "text.color": TEXT,
    "text.parse_math": False,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}
# matplotlib's settings are global: one figure of ours at a time.
_LOCK = Lock()


@contextmanager
def drawing() -> Iterator[None]:
    """Within it matplotlib has our settings; afterwards those of before."""
    look: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if key.startswith(LOOK)}
    look.update(OURS)
    with _LOCK, matplotlib.rc_context(look):
        yield


@dataclass
class Ink:
    """How texts of the data set get into a figure.

    Attributes
    ----------
    kind : {"svg", "png"}
        svg: as stand-ins, which `texts` maps to what they stand for. png: as they are, but for characters that the
        font lacks, which become codes.
    """

    kind: Literal["svg", "png"] = "svg"
    texts: dict[str, str] = field(default_factory=dict)

    def label(self, text: object, most: int = 28) -> str:
        """A text from the data set, at most so many characters."""
        shown = shortened(visible(text), most)
        if self.kind == "png":
            return "".join(c if ord(c) in _glyphs() else f"\\u{ord(c):04x}" for c in shown)
        name = f"q{len(self.texts)}j"
        name += "x" * (columns(shown) - len(name))
        self.texts[name] = shown
        return name


def columns(text: str) -> int:
    """Width of a text in columns of a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)


def _glyphs() -> Collection[int]:
    return font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()


@dataclass(frozen=True)
class Drawing:
    """A figure as matplotlib holds it, and its words."""

    canvas: Canvas
    title: str
    caption: str
    alt: str


def sheet(height: float, width: float = WIDTH) -> Canvas:
    """An empty figure, in inches."""
    return Canvas(figsize=(width, height))


def panel(canvas: Canvas, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes with so much room around them, in inches; only the lower line is drawn."""
    width, height = canvas.get_size_inches()
    axes = canvas.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    )
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_alpha(0.4)
    axes.tick_params(length=0, labelsize=SIZE - 1)
    return axes


def bare(axes: Axes) -> None:
    """No lines and no ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def legend(axes: Axes, entries: Sequence[tuple[str, str]], step: int = 80) -> None:
    """A line below the axes that says what each colour is: (name, colour), so many points apart."""
    for index, (name, colour) in enumerate(entries):
        for text, right, ink in (("●", 0, colour), (name, 12, TEXT)):
            axes.annotate(
                text,
                (0, 0),
                (2 + step * index + right, -16),
                xycoords="axes fraction",
                textcoords="offset points",
                color=ink,
                fontsize=9,
            )


def strokes(axes: Axes, lines: Iterable[Sequence[tuple[float, float]]], **look: Any) -> None:
    """Many lines as one path: a tenth of the size of as many paths."""
    x: list[float] = []
    y: list[float] = []
    for line in lines:
        for u, v in line:
            x.append(u)
            y.append(v)
        x.append(math.nan)
        y.append(math.nan)
    if x:
        axes.plot(x, y, **look)
