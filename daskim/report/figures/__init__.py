"""Figures of a finished run, as SVG that may stand in a page and as files.

One module draws one figure: its `draw(run, ink)` gives a `Drawing`, or None where the run has no data for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg

from daskim.report.figures import (
    bands,
    boundary_flips,
    boundary_lines,
    boundary_shares,
    classes,
    condition,
    coverage,
    cross,
    eigenvalues,
    graph,
    histogram,
    matrix,
    sizes,
)
from daskim.report.figures.graphml import graphml_of
from daskim.report.figures.ink import Drawing, Ink, drawing
from daskim.report.figures.svg import svg_of
from daskim.report.files import put_in
from daskim.results import FinishedRun

__all__ = ["DRAWN", "Figure", "figures_of", "write_figures"]

# In the order of a report: name, and what draws it.
DRAWN: tuple[tuple[str, Callable[[FinishedRun, Ink], Drawing | None]], ...] = (
    ("cross", cross.draw),
    ("coverage", coverage.draw),
    ("classes", classes.draw),
    ("matrix", matrix.draw),
    ("graph", graph.draw),
    ("histogram", histogram.draw),
    ("sizes", sizes.draw),
    ("eigenvalues", eigenvalues.draw),
    ("condition", condition.draw),
    ("bands", bands.draw),
    ("boundary-shares", boundary_shares.draw),
    ("boundary-flips", boundary_flips.draw),
    ("boundary-lines", boundary_lines.draw),
)
# Of PNG files: the same figure at 1,160 pixels of width.
DPI = 200


@dataclass(frozen=True)
class Figure:
    """A figure for a page.

    Attributes
    ----------
    name : str
        Short; begins the ids in `svg` and names its files.
    title, caption, alt : str
        Plain texts. `alt` tells the finding with its numbers.
    svg : str
        An `<svg>` element: no script, style sheet or outside reference; text and axes in `currentColor`.
    """

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def figures_of(run: FinishedRun, names: Collection[str] | None = None) -> list[Figure]:
    """Every figure, or those of some names, that the run has data for, in the order of a report.

    The same run gives the same bytes.
    """
    found = []
    for name, draw in DRAWN:
        if names is not None and name not in names:
            continue
        ink = Ink("svg")
        with drawing():
            made = draw(run, ink)
            if made is None:
                continue
            svg = svg_of(made.canvas, name, made.alt, ink.texts)
        found.append(Figure(name, made.title, made.caption, made.alt, svg))
    return found


def write_figures(
    run: FinishedRun,
    folder: str,
    *,
    names: Collection[str] | None = None,
    option: str = "--figures",
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Every figure as NAME.svg and NAME.png (on white), and the graph of near-duplicates as graph.graphml.

    Parameters
    ----------
    folder : str
        A directory or fsspec URL; it is made, and files of these names are replaced.
    names : collection of str, optional
        Only these figures, without the graph's file.
    option : str
        What named the folder: for errors.
    storage_options : mapping, optional
        For fsspec, of the folder.

    Returns
    -------
    list of str
        The files.
    """
    files: dict[str, bytes] = {}
    for figure in figures_of(run, names):
        files[f"{figure.name}.svg"] = f'<?xml version="1.0" encoding="utf-8"?>\n{figure.svg}\n'.encode()
        files[f"{figure.name}.png"] = _png(run, figure.name)
    graph_file = graphml_of(run) if names is None else None
    if graph_file is not None:
        files["graph.graphml"] = graph_file
    return put_in(files, folder, option, storage_options)


def _png(run: FinishedRun, name: str) -> bytes:
    written = io.BytesIO()
    with drawing():
        made = dict(DRAWN)[name](run, Ink("png"))
        assert made is not None, f"{name} was drawn as SVG"
        made.canvas.set_dpi(DPI)
        FigureCanvasAgg(made.canvas).print_png(written, metadata={"Software": None})
    return written.getvalue()
