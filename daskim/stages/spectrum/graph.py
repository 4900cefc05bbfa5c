"""The similarity graph of a run, its components, and the parts of it that one task works on.

Leaves two tables. `components`: row, component, size, part, degree (sum of |S|); a row for each readable image;
components are numbered by their first image; part -1 for images without an edge. `graph`: a < b, similarity (as it
enters S), and i < j, the places of a and b in their part. A part holds whole components one after the other, the images
of each ascending, so that S among its images is block diagonal. It is stored in pieces, PART-PIECE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from daskim.kernels.ward import components
from daskim.stages.spectrum.edges import EDGE, HELD, Edges, Pieces
from daskim.store import Run

__all__ = ["Graph", "similarity_graph"]

# Floating-point operations of the components that one task solves together: a few seconds on one core. A component of
# an eighth of it is a part of its own. A constant: parts do not depend on workers.
WORK = 2e10


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
    links : list of tuple of int
        Edges of each of them.
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
    links: list[tuple[int, ...]]
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
    """Make the graph and leave it in the run. Holds O(n) and some `HELD` edges; more of them lie in files meanwhile.

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
    edges = Edges(run, len(rows))
    component = near = np.arange(len(rows))  # one array for as long as they are the same
    for batch in _listed(run, rows, -np.inf if everything else least):
        alike = batch["value"] >= least
        kept = batch["value"] > 0 if negative == "clip" else batch["value"] != 0
        one = near is component and bool((alike == kept).all())
        near = _joined(near, batch[alike])
        batch = batch[kept]
        if negative == "absolute":
            batch["value"] = np.abs(batch["value"])
        component = near if one else _joined(component, batch)
        edges.add(batch)
    sizes = np.bincount(component).astype(np.int64)
    part = parts_of(sizes, alone)
    order, start = _arranged(component, part[component])
    pieces = Pieces(run, rows, part[component], order, start)
    degree, below, squares = np.zeros(len(rows)), np.zeros(len(rows)), 0.0
    for batch in edges.sorted():
        weight = np.abs(batch["value"])
        np.add.at(degree, batch["a"], weight)
        np.add.at(below, batch["b"], weight)
        squares += 2.0 * float((batch["value"] ** 2).sum())
        pieces.add(batch)
    degree += below
    columns = {"row": rows, "component": component, "size": sizes[component], "part": part[component], "degree": degree}
    run.write_part("components", "000000", pa.table(columns))
    keys, links = pieces.finish()
    near_components = int(near.max()) + 1
    return Graph(component, sizes, part, order, start, keys, links, degree, edges.count, squares, near_components)


def _listed(run: Run, rows: np.ndarray, least: float) -> Iterator[np.ndarray]:
    """Pairs of at least this similarity by their places among the rows, some `HELD` / 2 at a time."""
    found: list[np.ndarray] = []
    for key in run.parts("pairs"):
        a, b, value = (np.asarray(column) for column in run.read_part("pairs", key, ["a", "b", "similarity"]).columns)
        kept = value >= least
        part = np.empty(int(kept.sum()), dtype=EDGE)
        part["a"], part["b"] = np.searchsorted(rows, a[kept]), np.searchsorted(rows, b[kept])
        part["value"] = value[kept]
        found.append(part)
        if sum(map(len, found)) >= HELD // 2:
            yield np.concatenate(found)
            found.clear()
    if found:
        yield np.concatenate(found)


def _joined(component: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Components when some edges come to those that made `component`."""
    return components(len(component), component[edges["a"]], component[edges["b"]])[component]


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


def _arranged(component: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images by part, component and row; and where each part starts. `part` is that of each image."""
    linked = np.flatnonzero(part >= 0)
    order = linked[np.lexsort((component[linked], part[linked]))]
    return order, np.searchsorted(part[order], np.arange(int(part.max(initial=-1)) + 2))
