"""Connected graphs of any number of images, made block by block: a torus of known spectrum, nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from scipy.fft import rfftn
from scipy.spatial import KDTree

from daskim.store import Run
from tests.bench.watch import cores

__all__ = ["Torus", "write_neighbours"]

# Pairs of one part of the table.
PART = 1_000_000
# Of the directed edges to k nearest neighbours in three dimensions, how many are left when both directions count once.
UNION = 0.6


def _write_images(run: Run, n: int) -> None:
    for key, lo in enumerate(range(0, n, PART)):
        rows = np.arange(lo, min(lo + PART, n))
        run.write_part(
            "images", f"{key:06d}", pa.table({"row": rows, "status": pa.array(["ok"]).take([0] * len(rows))})
        )
    run.write_json({"fingerprint": "made", "recipe": {}}, "state", "similarities", "stage.json")
    facts = {"min_similarity": 0.0, "name": "made"}
    run.write_json({"fingerprint": "made", "facts": facts}, "state", "similarities", "sealed.json")


def _write_pairs(run: Run, parts: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> int:
    total = 0
    for key, (one, other, similarity) in enumerate(parts):
        a, b = np.minimum(one, other), np.maximum(one, other)
        run.write_part("pairs", f"{key:06d}", pa.table({"a": a, "b": b, "similarity": similarity}))
        total += len(a)
    return total


class Torus:
    """Points of a cubic grid that closes upon itself, each linked to all points up to a distance.

    Similarities fall with the distance as a Gaussian. The Laplacian is a convolution: its eigenvalues are the Fourier
    transform of the stencil.
    """

    def __init__(self, n: int, edges: float) -> None:
        self.side = int(np.ceil(n ** (1 / 3) - 1e-9))
        self.n = self.side**3
        reach = (self.side - 1) // 2
        axis = np.arange(-min(reach, 12), min(reach, 12) + 1)
        offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        squared = (offsets**2).sum(axis=1)
        counts = np.cumsum(np.bincount(squared)) - 1
        last = int(np.searchsorted(counts, 2 * edges / self.n))
        if last > min(reach, 12) ** 2:
            raise SystemExit(f"{edges:g} edges are too many for a torus of {self.n:,} points")
        near = (squared > 0) & (squared <= last)
        self.offsets, self.weights = offsets[near], np.exp(-squared[near] / last)
        self.edges = self.n * len(self.offsets) // 2

    def write(self, run: Run) -> int:
        """Leave it in the run as the stage before `spectrum` would; its edges."""
        _write_images(run, self.n)
        return _write_pairs(run, self._parts())

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        half = len(self.offsets) // 2  # offsets are in order, so that the other half is the first, reversed
        nodes = max(1, PART // half)
        for lo in range(0, self.n, nodes):
            one = np.arange(lo, min(lo + nodes, self.n))
            place = np.stack(np.unravel_index(one, (self.side,) * 3), axis=1)
            there = (place[:, None] + self.offsets[half:]) % self.side
            other = np.ravel_multi_index(tuple(np.moveaxis(there, -1, 0)), (self.side,) * 3).ravel()
            yield np.repeat(one, half), other, np.tile(self.weights[half:], len(one))

    def eigenvalues(self) -> tuple[np.ndarray, np.ndarray]:
        """All of them, and how often each counts: the transform of a real stencil is given by one half of it."""
        stencil = np.zeros((self.side,) * 3)
        stencil[tuple((self.offsets % self.side).T)] = self.weights
        value = self.weights.sum() - rfftn(stencil).real
        twice = np.full(value.shape[-1], 2.0)
        twice[0] = 1.0
        if self.side % 2 == 0:
            twice[-1] = 1.0
        return value.ravel(), np.broadcast_to(twice, value.shape).ravel()


def write_neighbours(run: Run, n: int, edges: float, seed: int = 0) -> int:
    """Nearest neighbours among points of a mixture of Gaussians, similarities in (0, 1]; the number of edges.

    Points are in the order of a k-d tree, as images of one folder are alike, and each is linked to the next, so that
    the graph is connected.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((200, 3))
    spread = rng.uniform(0.1, 0.5, 200)
    of = rng.integers(0, 200, n)
    points = centres[of] + spread[of, None] * rng.standard_normal((n, 3))
    points = points[KDTree(points).indices]
    tree = KDTree(points)
    k = max(2, min(round(edges / (UNION * n)), n - 1))
    rows = max(1, PART // k)
    radius = np.empty(n)  # squared, to the last neighbour
    _write_images(run, n)
    with TemporaryDirectory(dir=run.local) as folder:
        for lo in range(0, n, rows):
            found = tree.query(points[lo : lo + rows], k + 1, workers=cores())[1][:, 1:]
            radius[lo : lo + rows] = _squared(points, np.arange(lo, lo + len(found))[:, None], found).max(axis=1)
            np.save(Path(folder) / f"{lo}.npy", found.astype(np.int32))
        return _write_pairs(run, _linked(Path(folder), points, radius, rows))


def _squared(points: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return ((points[one] - points[other]) ** 2).sum(axis=-1)


def _linked(
    folder: Path, points: np.ndarray, radius: np.ndarray, rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each edge once: from its first end, or from its last where that is not among the first one's neighbours."""
    n = len(points)
    for lo in range(0, n, rows):
        other = np.load(folder / f"{lo}.npy").astype(np.int64)
        one = np.repeat(np.arange(lo, lo + len(other)), other.shape[1])
        other = other.ravel()
        squared = _squared(points, one, other)
        kept = (one < other) | (squared > radius[other])
        here = np.arange(lo, min(lo + rows, n - 1))
        apart = _squared(points, here, here + 1)
        lone = here[apart > np.maximum(radius[here], radius[here + 1])]
        ends = np.concatenate([one[kept], lone]), np.concatenate([other[kept], lone + 1])
        squared = _squared(points, *ends)
        yield *ends, np.maximum(np.exp(-squared / np.sqrt(radius[ends[0]] * radius[ends[1]])), 1e-3)
