"""Exact eigenvalues of parts of the graph: dense for a large component, stacks of equal size for small ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.kernels.graph import ComponentBlocks, similarity_matrix
from daskim.kernels.spectral import block_spectra, dense_spectrum
from daskim.stages import Context
from daskim.stages.spectrum.edges import NAME, part_name
from daskim.stages.spectrum.graph import Graph
from daskim.store import Run

__all__ = ["entries", "exact_values"]


def exact_values(context: Context, graph: Graph, parts: list[int]) -> np.ndarray:
    """Eigenvalues of the unnormalised Laplacian of some parts and of the single images.

    Returns
    -------
    ndarray, shape (n,), float64
        The images of a component have its eigenvalues, ascending; NaN in other parts.
    """
    values = np.full(graph.n, np.nan)
    values[graph.part[graph.component] < 0] = 0.0
    keys = [part_name(part) for part in parts]
    calls = [(graph.pieces[part], graph.inside(part)) for part in parts]
    context.engine.each(NAME, "exact", keys, calls, part_spectrum)
    for part, key in zip(parts, keys):
        images = graph.order[graph.start[part] : graph.start[part + 1]]
        values[images] = context.run.load("partial", NAME, f"exact-{key}.npy")
    return values


def part_spectrum(run: Run, key: str, pieces: tuple[str, ...], sizes: np.ndarray) -> dict[str, Any]:
    """Eigenvalues of the components of one part."""
    i, j, value = entries(run, pieces)
    m = int(sizes.sum())
    if len(sizes) == 1:
        dense = np.zeros((m, m))
        dense[i, j] = dense[j, i] = value
        del i, j, value
        values = dense_spectrum(dense)
    else:
        matrix = similarity_matrix(m, i, j, value, negative="signed")  # what is stored are entries of S
        start = np.concatenate([[0], np.cumsum(sizes)])
        blocks = ComponentBlocks(np.repeat(np.arange(len(sizes)), sizes), np.arange(m), start, matrix)
        values = block_spectra(blocks, largest=int(sizes.max()))
    run.save(values, "partial", NAME, f"exact-{key}.npy")
    return {"images": m, "components": len(sizes)}


def entries(run: Run, pieces: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of S above the diagonal of one part: places i < j and similarity."""
    columns = ("i", "j", "similarity")
    found = [[np.asarray(column) for column in run.read_part("graph", key, list(columns)).columns] for key in pieces]
    i, j, value = (np.concatenate(column) for column in zip(*found))
    return i, j, value
