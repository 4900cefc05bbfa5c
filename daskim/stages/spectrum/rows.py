"""The Laplacian of a giant block as blocks of rows in the run, made out of core.

Edges are read in groups of about `GROUP`: counted by row, which decides the blocks; laid out by block, in both
directions; and gathered, block by block. A task holds a group or a block, never the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from daskim.stages import Context
from daskim.stages.spectrum.edges import NAME
from daskim.store import Run

__all__ = ["GROUP", "NONZEROS", "SINGLE", "Giant", "Rows", "laplacian_rows", "load_rows"]

# Entries of one block of rows, and edges of one group. Constants: neither workers nor blocks of the run decide a bit.
NONZEROS = 2**23
GROUP = 2_000_000
# Entries of a Laplacian above which it, and the vectors, are float32: 8 bytes an entry instead of 12.
SINGLE = 2**26


@dataclass(frozen=True)
class Giant:
    """One block: some parts of the graph, one after the other.

    Attributes
    ----------
    pieces : tuple of tuple of str
        By part.
    links : tuple of tuple of int
        Edges of each piece.
    sizes : tuple of int
        Images of each part.
    """

    key: str
    pieces: tuple[tuple[str, ...], ...]
    links: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @property
    def images(self) -> int:
        return sum(self.sizes)

    @property
    def nonzeros(self) -> int:
        """Entries of its Laplacian."""
        return 2 * sum(map(sum, self.links)) + self.images

    @property
    def dtype(self) -> str:
        return "f4" if self.nonzeros > SINGLE else "f8"

    def groups(self) -> list[list[tuple[str, int]]]:
        """Pieces, each with the place of its part in the block, in groups of about `GROUP` edges."""
        found: list[list[tuple[str, int]]] = [[]]
        held, offset = 0, 0
        for pieces, links, size in zip(self.pieces, self.links, self.sizes):
            for piece, edges in zip(pieces, links):
                if found[-1] and held + edges > GROUP:
                    found.append([])
                    held = 0
                found[-1].append((piece, offset))
                held += edges
            offset += size
        return found


@dataclass(frozen=True)
class Rows:
    """Where the rows of a Laplacian lie.

    Attributes
    ----------
    giant : str
    images : int
    dtype : str
    bounds : tuple of int
        Block k has the rows bounds[k] .. bounds[k + 1].
    """

    giant: str
    images: int
    dtype: str
    bounds: tuple[int, ...]

    @property
    def blocks(self) -> int:
        return len(self.bounds) - 1


def laplacian_rows(context: Context, giants: Sequence[Giant]) -> list[Rows]:
    """The Laplacians of some blocks in the run, by blocks of rows."""
    run, each = context.run, context.engine.each
    groups = [(giant, f"{giant.key}-{at:05d}", group) for giant in giants for at, group in enumerate(giant.groups())]
    keys = [key for _, key, _ in groups]
    each(NAME, "count", keys, [(giant.images, group) for giant, _, group in groups], count_entries)
    there = run.marked(NAME)
    out = []
    for giant in giants:
        mine = [key for owner, key, _ in groups if owner is giant]
        name = f"bounds-{giant.key}"
        if name not in there:
            bounds = _bounds(run, mine, giant.images)
            run.mark(NAME, name, {"bounds": bounds})
            for key in mine:
                run.remove("partial", NAME, f"count-{key}.npy")
        out.append(Rows(giant.key, giant.images, giant.dtype, tuple(run.marker(NAME, name)["bounds"])))
    of = {rows.giant: rows for rows in out}
    laid = each(NAME, "lay", keys, [(of[giant.key], group) for giant, _, group in groups], lay_out)
    where: dict[tuple[str, int], list[str]] = {(rows.giant, at): [] for rows in out for at in range(rows.blocks)}
    for (giant, key, _), info in zip(groups, laid):
        for at in info["blocks"]:
            where[giant.key, at].append(f"laid-{key}-{at:05d}.npy")
    blocks = [(rows, at) for rows in out for at in range(rows.blocks)]
    calls = [(rows, at, where[rows.giant, at]) for rows, at in blocks]
    each(NAME, "rows", [f"{rows.giant}-{at:05d}" for rows, at in blocks], calls, gather_rows)
    for names in where.values():
        for name in names:
            run.remove("partial", NAME, name)
    return out


def _bounds(run: Run, keys: list[str], images: int) -> list[int]:
    """Blocks of about `NONZEROS` entries: a row is in the block in which it starts."""
    entries = np.ones(images, dtype=np.int64)  # the diagonal
    for key in keys:
        entries += run.load("partial", NAME, f"count-{key}.npy")
    block = (np.cumsum(entries) - entries) // NONZEROS
    return [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), images]


def _edges(run: Run, group: list[tuple[str, int]], *columns: str) -> list[np.ndarray]:
    """Places of both ends in the block, and other columns, of the edges of a group."""
    found: list[list[np.ndarray]] = []
    for piece, offset in group:
        part = [np.asarray(column) for column in run.read_part("graph", piece, ["i", "j", *columns]).columns]
        found.append([part[0] + np.int32(offset), part[1] + np.int32(offset), *part[2:]])
    return [np.concatenate(column) for column in zip(*found)]


def count_entries(run: Run, key: str, images: int, group: list[tuple[str, int]]) -> dict[str, Any]:
    """Edges at each image of a block, of one group."""
    i, j = _edges(run, group)
    count = np.bincount(i, minlength=images).astype(np.int32)
    count += np.bincount(j, minlength=images).astype(np.int32)
    run.save(count, "partial", NAME, f"count-{key}.npy")
    return {}


def lay_out(run: Run, key: str, rows: Rows, group: list[tuple[str, int]]) -> dict[str, Any]:
    """The entries of S of one group, a file for each block of rows that has some.

    The groups in turn give a row its columns in ascending order: an edge (i, j) comes after all (k, i), and edges are
    sorted. Within a group what lies below the diagonal comes first.
    """
    i, j, value = _edges(run, group, "similarity")
    row, column = np.concatenate([j, i]), np.concatenate([i, j])
    del i, j
    block = (np.searchsorted(rows.bounds, row, side="right") - 1).astype(np.uint16)
    order = np.argsort(block, kind="stable")
    ends = np.cumsum(np.bincount(block, minlength=rows.blocks))
    del block
    written = []
    for at, (lo, hi) in enumerate(pairwise([0, *ends.tolist()])):
        if lo == hi:
            continue
        mine = order[lo:hi]
        laid = np.empty(hi - lo, dtype=[("row", "i4"), ("column", "i4"), ("value", rows.dtype)])
        laid["row"], laid["column"], laid["value"] = row[mine] - rows.bounds[at], column[mine], value[mine % len(value)]
        run.save(laid, "partial", NAME, f"laid-{key}-{at:05d}.npy")
        written.append(at)
    return {"blocks": written}


def gather_rows(run: Run, key: str, rows: Rows, at: int, names: list[str]) -> dict[str, Any]:
    """One block of rows of D - S, degrees from |S| as `daskim.kernels.graph.laplacian` has them."""
    lo, hi = rows.bounds[at], rows.bounds[at + 1]
    own = np.empty(hi - lo, dtype=[("row", "i4"), ("column", "i4"), ("value", rows.dtype)])
    own["row"], own["column"], own["value"] = np.arange(hi - lo), np.arange(lo, hi), 0.0
    laid = np.concatenate([*(run.load("partial", NAME, name) for name in names), own])
    off = csr_array((laid["value"], (laid["row"], laid["column"])), shape=(hi - lo, rows.images))
    del laid
    off.sort_indices()
    diagonal = off.indices == np.repeat(np.arange(lo, hi, dtype=np.int32), np.diff(off.indptr))
    degree = np.abs(off.data[~diagonal].astype(np.float64))
    degree = np.add.reduceat(degree, off.indptr[:-1] - np.arange(hi - lo))  # each image has an edge
    np.negative(off.data, out=off.data)
    off.data[diagonal] = degree
    for name in ("indptr", "indices", "data"):
        run.save(getattr(off, name), "partial", NAME, f"rows-{rows.giant}-{at:05d}-{name}.npy")
    return {"nonzeros": int(off.nnz)}


def load_rows(run: Run, rows: Rows, at: int) -> csr_array:
    """One block of rows of D - S."""
    indptr, indices, data = (
        run.view("partial", NAME, f"rows-{rows.giant}-{at:05d}-{name}.npy") for name in ("indptr", "indices", "data")
    )
    return csr_array((data, indices, indptr), shape=(len(indptr) - 1, rows.images))
