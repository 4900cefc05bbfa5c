"""The similarity graph of a run, its components, and the parts of it that one task works on.

Leaves two tables. `components`: row, component, size, part, degree (sum of |S|); a row for each readable image;
components are numbered by their first image; part -1 for images without an edge. `graph`: a < b, similarity (as it
enters S), and i < j, the places of a and b in their part. A part holds whole components one after the other, the images
of each ascending, so that S among its images is block diagonal. It is stored in pieces, PART-PIECE.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from daskim.kernels.ward import components
from daskim.store import Run

__all__ = ["NAME", "PIECE", "Graph", "part_name", "similarity_graph"]

NAME = "spectrum"
# Floating-point operations of the components that one task solves together: a few seconds on one core. A component of
# an eighth of it is a part of its own. A constant: parts do not depend on workers.
WORK = 2e10
# Edges of one piece: what is held on the way to a file.
PIECE = 1_000_000


@dataclass(frozen=True)
class Graph:
    """The graph of the n readable images; its edges are in the run.

    Attributes
    ----------
    component : ndarray, shape (n,), int64
    sizes : ndarray, shape (components,), int64
    part : ndarray, shape (components,), int64
        -1 for single images.
    order, start : ndarray, int64
        Part p holds the images order[start[p]:start[p + 1]]; single images are in none.
    pieces : list of tuple of str
        Keys of the table `graph`, by part.
    degree : ndarray, shape (n,), float64
        Sum of |S| over the other images.
    edges : int
    squares : float
        Sum of S^2 over all entries: each edge twice.
    near_components : int
        Components when only pairs at or above min_similarity count.
    """

    component: np.ndarray
    sizes: np.ndarray
    part: np.ndarray
    order: np.ndarray
    start: np.ndarray
    pieces: list[tuple[str, ...]]
    degree: np.ndarray
    edges: int
    squares: float
    near_components: int

    @property
    def n(self) -> int:
        return len(self.component)

    def inside(self, part: int) -> np.ndarray:
        """Sizes of the components of a part, in their order."""
        return self.sizes[self.part == part]


def similarity_graph(run: Run, rows: np.ndarray, least: float, *, everything: bool, negative: str, alone: int) -> Graph:
    """Make the graph and leave it in the run.

    Parameters
    ----------
    rows : ndarray, shape (n,), int64
        Readable images, ascending.
    least : float
        min_similarity. Pairs below are no edges, unless `everything` is asked for.
    negative : {"clip", "signed", "absolute"}
        What becomes of similarities below 0: see `daskim.kernels.graph.similarity_matrix`.
    alone : int
        Components of more images than this are parts of their own, whatever their work.
    """
    a, b, value = _listed(run, rows, -np.inf if everything else least)
    near = value >= least
    near_components = int(components(len(rows), a[near], b[near]).max()) + 1
    kept = value > 0 if negative == "clip" else value != 0
    a, b, value = a[kept], b[kept], value[kept]
    if negative == "absolute":
        value = np.abs(value)
    size = np.abs(value)
    degree = np.bincount(a, size, len(rows)) + np.bincount(b, size, len(rows))
    component = components(len(rows), a, b)
    sizes = np.bincount(component).astype(np.int64)
    part = parts_of(sizes, alone)
    columns = {"row": rows, "component": component, "size": sizes[component], "part": part[component], "degree": degree}
    run.write_part("components", "000000", pa.table(columns))
    order, start = _arranged(component, part[component])
    pieces = _write(run, rows, (a, b, value), part[component], order, start)
    squares = 2.0 * float((value**2).sum())
    return Graph(component, sizes, part, order, start, pieces, degree, len(a), squares, near_components)


def _listed(run: Run, rows: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of at least this similarity by their places among the rows, ordered by them: parts do not matter."""
    found: list[tuple[np.ndarray, ...]] = []
    for key in run.parts("pairs"):
        a, b, value = (np.asarray(column) for column in run.read_part("pairs", key, ["a", "b", "similarity"]).columns)
        kept = value >= least
        ends = (np.searchsorted(rows, side[kept]).astype(np.int32) for side in (a, b))
        found.append((*ends, value[kept].astype(np.float64)))
    if not found:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32), np.zeros(0)
    a, b, value = (np.concatenate(column) for column in zip(*found))
    found.clear()
    order = np.argsort(a * np.int64(len(rows)) + b)
    return a[order], b[order], value[order]


def parts_of(sizes: np.ndarray, alone: int) -> np.ndarray:
    """The part of each component: large ones by themselves, the others in turn up to `WORK`; -1 for single images."""
    work = 4.0 / 3.0 * sizes.astype(np.float64) ** 3 + 1e4 * sizes
    out = np.full(len(sizes), -1, dtype=np.int64)
    large = (work > WORK / 8) | (sizes > max(alone, 1))
    small = (sizes > 1) & ~large
    out[large] = np.arange(large.sum())
    turn = np.unique((np.cumsum(work[small]) // WORK).astype(np.int64), return_inverse=True)[1]
    out[small] = large.sum() + turn
    return out


def part_name(part: int) -> str:
    """A part as a key."""
    return f"{part:06d}"


def _arranged(component: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images by part, component and row; and where each part starts. `part` is that of each image."""
    linked = np.flatnonzero(part >= 0)
    order = linked[np.lexsort((component[linked], part[linked]))]
    return order, np.searchsorted(part[order], np.arange(int(part.max(initial=-1)) + 2))


def _write(
    run: Run,
    rows: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray, np.ndarray],
    part: np.ndarray,
    order: np.ndarray,
    start: np.ndarray,
) -> list[tuple[str, ...]]:
    """The table `graph`; its keys by part."""
    a, b, value = edges
    place = np.zeros(len(rows), dtype=np.int32)
    place[order] = np.arange(len(order)) - start[part[order]]

    def piece(key: str, mine: np.ndarray) -> str:
        one, other = a[mine], b[mine]
        columns = {"a": rows[one], "b": rows[other], "similarity": value[mine], "i": place[one], "j": place[other]}
        run.write_part("graph", key, pa.table(columns))
        return key

    run.remove("tables", "graph")  # an attempt with other settings may have ended before its first task
    owner = part[a].astype(np.int32)
    by_part = np.argsort(owner, kind="stable")
    pieces: list[tuple[str, ...]] = []
    for p, mine in enumerate(np.split(by_part, np.cumsum(np.bincount(owner, minlength=len(start) - 1))[:-1])):
        cuts = range(0, len(mine), PIECE)
        pieces.append(tuple(piece(f"{part_name(p)}-{k:04d}", mine[at : at + PIECE]) for k, at in enumerate(cuts)))
    if len(start) == 1:
        piece("none", by_part)  # a table without a row, so that it can be read
        return []
    return pieces
