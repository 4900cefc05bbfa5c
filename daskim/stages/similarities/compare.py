"""One task: the similarity of some pairs, tile by tile, with what is computed once for an image kept in between."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from daskim.kernels.splits import across
from daskim.plugins import similarity_of
from daskim.similarities import NEAR, Parts, Similarity, score, score_images
from daskim.stages.similarities.pictures import NAME, Shown
from daskim.store import Run

__all__ = ["PARTS_BYTES", "PIECE", "Job", "compare_part", "compare_sample", "compare_tile", "part_bytes"]

# Per-image parts that a process keeps, bytes.
PARTS_BYTES = 256_000_000
# Images whose parts are made together.
PIECE = 64
# Pairs near the threshold that are decided together.
DECIDED = 64


@dataclass(frozen=True)
class Job:
    """What every task of a run shares.

    Attributes
    ----------
    name : str
        The similarity.
    exact : bool
        Every pair is followed to the end in float64; else float32 screens, and hopeless pairs may be given up.
    threshold : float
        Pairs near it are decided in float64.
    tile : int
        Images whose parts are computed together.
    token : str
        Names what the parts are made from.
    across : bool
        Only pairs of images of different splits.
    """

    shown: Shown
    name: str
    exact: bool
    threshold: float
    tile: int
    token: str
    across: bool = False

    def similarity(self) -> Similarity:
        return similarity_of(self.name, self.shown.shape, screen=not self.exact)

    @property
    def dtype(self) -> type:
        return np.float64 if self.exact else np.float32


class _PartsCache:
    """Parts of tiles of images, the latest of them, shared by the threads of a process."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.held: OrderedDict[tuple[str, int], Parts] = OrderedDict()
        self.lock = Lock()

    def get(self, key: tuple[str, int]) -> Parts | None:
        with self.lock:
            if key in self.held:
                self.held.move_to_end(key)
            return self.held.get(key)

    def put(self, key: tuple[str, int], parts: Parts) -> None:
        with self.lock:
            if key in self.held:
                return
            self.held[key] = parts
            self.bytes += _size(parts)
            while self.bytes > self.limit and len(self.held) > 1:
                self.bytes -= _size(self.held.popitem(last=False)[1])


_CACHE = _PartsCache(PARTS_BYTES)


def _size(parts: Parts) -> int:
    return sum(part.nbytes for part in parts)


def part_bytes(similarity: Similarity, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> int:
    """Bytes of the parts of one image."""
    blank = np.zeros((1, *shape), dtype=np.uint8 if similarity.of == "pixels" else np.float64)
    return max(1, _size(similarity.parts(blank, dtype)))


def _tile_parts(job: Job, similarity: Similarity, rows: np.ndarray) -> tuple[np.ndarray, Parts]:
    """Rows of one tile (ascending) and their parts: the whole tile where most of it is asked for, or it is kept."""
    tile = int(rows[0]) // job.tile
    key = (job.token, tile)
    kept = _CACHE.get(key)
    whole = np.arange(tile * job.tile, (tile + 1) * job.tile)
    if kept is not None:
        return whole[: len(kept[0])], kept
    if job.shown.made is None and 2 * len(rows) >= job.tile:
        whole = whole[whole < job.shown.count]
        parts = _made(job, similarity, whole)
        _CACHE.put(key, parts)
        return whole, parts
    return rows, _made(job, similarity, rows)


def _made(job: Job, similarity: Similarity, rows: np.ndarray) -> Parts:
    """Parts of some images (one at least), piece by piece: in the making they take several times their size."""
    out: Parts = ()
    for start in range(0, len(rows), PIECE):
        made = similarity.parts(job.shown.take(rows[start : start + PIECE]), job.dtype)
        out = out or tuple(np.empty((len(rows), *part.shape[1:]), part.dtype) for part in made)
        for whole, part in zip(out, made):
            whole[start : start + PIECE] = part
    return out


def compared(job: Job, a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of pairs, and what `score` says of them; tile pair by tile pair."""
    similarity = job.similarity()
    left, right = a // job.tile, b // job.tile
    order = np.lexsort((right, left))
    edges = np.flatnonzero(np.diff(left[order]) | np.diff(right[order])) + 1
    held: tuple[int, np.ndarray, Parts] | None = None
    for mine in np.split(order, edges):
        if not len(mine):
            continue
        one, other = int(left[mine[0]]), int(right[mine[0]])
        if held is None or held[0] != one:
            rows = np.unique(a[order[left[order] == one]])
            held = one, *_tile_parts(job, similarity, rows)
        if one == other:
            both = np.unique(np.concatenate([a[mine], b[mine]]))
            rows_a, parts_a = _tile_parts(job, similarity, both)
            rows_b, parts_b = rows_a, parts_a
        else:
            rows_a, parts_a = held[1], held[2]
            rows_b, parts_b = _tile_parts(job, similarity, np.unique(b[mine]))
        i, j = np.searchsorted(rows_a, a[mine]), np.searchsorted(rows_b, b[mine])
        found = score(similarity, parts_a, parts_b, i, j)
        near = np.flatnonzero(np.abs(found[:, 0] - job.threshold) <= NEAR)
        if near.size and not job.exact:
            found[near] = _decided(job, similarity, a[mine[near]], b[mine[near]])
        yield mine, found


def _decided(job: Job, similarity: Similarity, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same in float64; of few pairs together, as their images are held."""
    out = []
    for start in range(0, len(a), DECIDED):
        rows, at = np.unique(np.stack([a[start : start + DECIDED], b[start : start + DECIDED]]), return_inverse=True)
        images, (one, other) = job.shown.take(rows), at.reshape(2, -1)
        out.append(score_images(similarity, images, images, one, other, np.float64))
    return np.concatenate(out)


def compare_part(run: Run, key: str, job: Job, lost: np.ndarray) -> dict[str, Any]:
    """The similarity of one part of the candidates."""
    table = run.read_part("candidates", key, ["a", "b", "source"]).to_pandas()
    table = table[~table["a"].isin(lost) & ~table["b"].isin(lost)]
    return _write(run, key, job, table["a"].to_numpy(), table["b"].to_numpy(), table["source"].to_numpy())


def compare_tile(run: Run, key: str, job: Job, left: tuple[int, int], right: tuple[int, int]) -> dict[str, Any]:
    """The similarity of all pairs of two ranges of the searched rows (which are ordered by their splits, if at all)."""
    rows = run.load("partial", NAME, "rows.npy")
    one, other = np.meshgrid(np.arange(*left), np.arange(*right), indexing="ij")
    later = one < other
    a, b = rows[one[later]], rows[other[later]]
    return _write(run, key, job, np.minimum(a, b), np.maximum(a, b), np.full(len(a), "all", dtype=object))


def _crossing(run: Run, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that lie across splits."""
    masks = run.load("partial", NAME, "masks.npy")
    some = across(masks[a], masks[b])
    return a[some], b[some]


def compare_sample(run: Run, key: str, job: Job, lo: int, hi: int) -> dict[str, Any]:
    """Near-duplicates of the drawn images among some of the searched rows (to estimate the recall).

    Each pair once: a drawn image meets another drawn one as the smaller of the two.
    """
    rows, drawn = run.load("partial", NAME, "rows.npy")[lo:hi], run.load("partial", NAME, "drawn.npy")
    one, other = np.repeat(drawn, len(rows)), np.tile(rows, len(drawn))
    fresh = (one < other) | ((one > other) & ~np.isin(other, drawn))
    a, b = np.minimum(one, other)[fresh], np.maximum(one, other)[fresh]
    if job.across:
        a, b = _crossing(run, a, b)
    hits: list[list[int]] = []
    for mine, found in compared(job, a, b):
        near = mine[found[:, 0] >= job.threshold]
        hits += np.stack([a[near], b[near]], axis=1).tolist()
    return {"pairs": len(a), "hits": sorted(hits)}


def _levels(similarity: Similarity, found: np.ndarray) -> dict[int, int]:
    """Pairs by the last level of the cascade that they reached."""
    if not similarity.screens:
        return {1: len(found)}
    level, count = np.unique(found[:, -1].astype(np.int64), return_counts=True)
    return dict(zip(level.tolist(), count.tolist()))


def _write(run: Run, key: str, job: Job, a: np.ndarray, b: np.ndarray, source: np.ndarray) -> dict[str, Any]:
    """One part of the table `pairs`: pairs that were followed to the end, ordered by (a, b)."""
    similarity = job.similarity()
    out = np.full((len(a), 1 + len(similarity.reports)), np.nan)
    tiles = 0
    for mine, found in compared(job, a, b):
        out[mine] = found
        tiles += 1
    done = np.flatnonzero(np.isfinite(out[:, 0]))
    done = done[np.lexsort((b[done], a[done]))]
    table: dict[str, Any] = {"a": a[done], "b": b[done], "similarity": out[done, 0], "source": source[done].astype(str)}
    for at, name in enumerate(similarity.reports):
        if not (similarity.screens and at == len(similarity.reports) - 1):
            table[name] = out[done, 1 + at]
    run.write_part("pairs", key, pa.table(table))
    blocks = len(np.unique(np.concatenate([a, b]) // job.shown.block)) if len(a) else 0
    return {
        "pairs": len(a),
        "listed": len(done),
        "near": int((out[done, 0] >= job.threshold).sum()),
        "blocks": blocks,
        "tiles": tiles,
        "levels": {str(level): count for level, count in _levels(similarity, out).items()},
    }
