"""One task: the similarity of some pairs, tile by tile, with what is computed once for an image kept in between."""

from __future__ import annotations

import math
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
from daskim.release import kept_for_a_stage
from daskim.similarities import NEAR, Parts, Similarity, score, score_images
from daskim.stages.similarities.pictures import NAME, Shown
from daskim.store import Run, block_bounds

__all__ = [
    "PARTS_BYTES",
    "PIECE",
    "READ_BYTES",
    "Job",
    "compare_part",
    "compare_sample",
    "compare_tile",
    "part_bytes",
    "shown_bytes",
]

# Per-image parts that a process keeps, bytes: at 32 x 32 some 24,000 images, more than stand together among candidates.
PARTS_BYTES = 320_000_000
# Images whose parts are made together.
PIECE = 64
# Images read together for them, bytes: each time the array of the run is opened and its blocks are looked up.
READ_BYTES = 2**22
# The share of a tile, one in so many, from which on its parts are made for all of it. For 60,000 images of CIFAR-10
# 226,000 parts are made at 4, 471,000 at 2, 340,000 at 8.
WHOLE = 4
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

    def clear(self) -> None:
        with self.lock:
            self.held.clear()
            self.bytes = 0


_CACHE = _PartsCache(PARTS_BYTES)
kept_for_a_stage(_CACHE.clear)


def _size(parts: Parts) -> int:
    return sum(part.nbytes for part in parts)


def part_bytes(similarity: Similarity, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> int:
    """Bytes of the parts of one image."""
    blank = np.zeros((1, *shape), dtype=np.uint8 if similarity.of == "pixels" else np.float64)
    return max(1, _size(similarity.parts(blank, dtype)))


def shown_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of what a similarity is shown of one image: pixels, or coefficients in float64."""
    return math.prod(shape) * (1 if len(shape) == 3 else 8)


def _tile_parts(job: Job, similarity: Similarity, rows: np.ndarray) -> tuple[np.ndarray, Parts]:
    """Rows of one tile (ascending) and their parts: of the whole tile, for later, where a part of it is asked for."""
    tile = int(rows[0]) // job.tile
    key = (job.token, tile)
    kept = _CACHE.get(key)
    whole = np.arange(tile * job.tile, (tile + 1) * job.tile)
    if kept is not None:
        return whole[: len(kept[0])], kept
    if job.shown.made is None and WHOLE * len(rows) >= job.tile:
        whole = whole[whole < job.shown.count]
        parts = _made(job, similarity, whole)
        _CACHE.put(key, parts)
        return whole, parts
    return rows, _made(job, similarity, rows)


def _made(job: Job, similarity: Similarity, rows: np.ndarray) -> Parts:
    """Parts of some images (one at least), piece by piece: in the making they take several times their size."""
    out: Parts = ()
    read = max(PIECE, READ_BYTES // shown_bytes(job.shown.shape))
    for first in range(0, len(rows), read):
        images = job.shown.take(rows[first : first + read])
        for start in range(0, len(images), PIECE):
            made = similarity.parts(images[start : start + PIECE], job.dtype)
            out = out or tuple(np.empty((len(rows), *part.shape[1:]), part.dtype) for part in made)
            for whole, part in zip(out, made):
                whole[first + start : first + start + len(part)] = part
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
        yield mine, _scored(job, similarity, (parts_a, i, a[mine]), (parts_b, j, b[mine]))


def _scored(
    job: Job,
    similarity: Similarity,
    left: tuple[Parts, np.ndarray, np.ndarray],
    right: tuple[Parts, np.ndarray, np.ndarray],
) -> np.ndarray:
    """What `score` says of pairs, decided in float64 near the threshold; each side: parts, places in them, rows."""
    found = score(similarity, left[0], right[0], left[1], right[1])
    near = np.flatnonzero(np.abs(found[:, 0] - job.threshold) <= NEAR)
    if near.size and not job.exact:
        found[near] = _decided(job, similarity, left[2][near], right[2][near])
    return found


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


def _crossing(run: Run, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which pairs lie across splits."""
    masks = run.load("partial", NAME, "masks.npy")
    return across(masks[a], masks[b])


def compare_sample(run: Run, key: str, job: Job, lo: int, hi: int) -> dict[str, Any]:
    """Near-duplicates of the drawn images among some of the searched rows (to estimate the recall).

    Each pair once: a drawn image meets another drawn one as the smaller of the two.
    """
    rows, drawn = run.load("partial", NAME, "rows.npy")[lo:hi], run.load("partial", NAME, "drawn.npy")
    similarity = job.similarity()
    parts_rows = _made(job, similarity, rows)
    hits: list[list[int]] = []
    pairs = 0
    for number, (first, last) in enumerate(block_bounds(len(drawn), job.tile)):
        some = drawn[first:last]
        place = (job.token, -1 - number)  # no tile: they meet all others, task by task
        parts = _CACHE.get(place) or _made(job, similarity, some)
        _CACHE.put(place, parts)
        # the drawn images in the inner loop: each of the others is fetched once
        at, of = np.repeat(np.arange(len(rows)), len(some)), np.tile(np.arange(len(some)), len(rows))
        one, other = some[of], rows[at]
        ahead = one < other
        behind = (one > other) & ~np.isin(other, drawn)
        if job.across:
            ahead, behind = (each & _crossing(run, one, other) for each in (ahead, behind))
        pairs += int(ahead.sum() + behind.sum())
        mine, others = (parts, of, one), (parts_rows, at, other)
        for (left, i, a), (right, j, b), which in ((mine, others, ahead), (others, mine, behind)):
            found = _scored(job, similarity, (left, i[which], a[which]), (right, j[which], b[which]))
            near = np.flatnonzero(found[:, 0] >= job.threshold)
            hits += np.stack([a[which][near], b[which][near]], axis=1).tolist()
    return {"pairs": pairs, "hits": sorted(hits), "engine": engine_of(similarity)}


def engine_of(similarity: Similarity) -> str:
    """What computes a similarity in this process."""
    return str(getattr(similarity, "engine", "numpy"))


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
        "engine": engine_of(similarity),
        "levels": {str(level): count for level, count in _levels(similarity, out).items()},
    }
