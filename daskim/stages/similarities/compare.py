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
# The share of a tile, one in so many, from which on its parts are made for all of it.
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


class _Tile:
    """Parts of some images, made as they are asked for.

    Attributes
    ----------
    rows : ndarray, int64, ascending
    parts : tuple of ndarray
        One entry for each of the rows; only those that have been made are written, and take memory.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.bytes = rows, 0
        self.parts: Parts = ()
        self.made = np.zeros(len(rows), dtype=np.bool_)
        self.lock = Lock()

    def fill(self, job: Job, similarity: Similarity, rows: np.ndarray, *, whole: bool) -> None:
        """Make what is missing of these rows; or of all, where a good part of the tile will have been asked for."""
        with self.lock:
            asked = self.made.copy()
            asked[self.places(rows)] = True
            if whole and WHOLE * int(asked.sum()) >= len(asked):
                asked[:] = True
            missing = np.flatnonzero(asked & ~self.made)
            if not len(missing):
                return
            made = _made(job, similarity, self.rows[missing])
            self.parts = self.parts or tuple(np.empty((len(asked), *part.shape[1:]), part.dtype) for part in made)
            for mine, part in zip(self.parts, made):
                mine[missing] = part
            self.made[missing] = True
            self.bytes += _size(made)

    def places(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.rows, rows)


class _PartsCache:
    """Tiles of images with their parts, the latest of them, shared by the threads of a process."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: OrderedDict[tuple[str, int], _Tile] = OrderedDict()
        self.lock = Lock()

    @property
    def bytes(self) -> int:
        return sum(tile.bytes for tile in self.held.values())

    def tile(self, key: tuple[str, int], rows: np.ndarray) -> _Tile:
        """The tile of that name, which holds these rows and may be empty yet."""
        with self.lock:
            tile = self.held.setdefault(key, _Tile(rows))
            self.held.move_to_end(key)
            return tile

    def fit(self) -> None:
        """Let go of the tiles that were used least lately, but one."""
        with self.lock:
            while self.bytes > self.limit and len(self.held) > 1:
                self.held.popitem(last=False)

    def clear(self) -> None:
        with self.lock:
            self.held.clear()


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


def _tile_parts(job: Job, similarity: Similarity, rows: np.ndarray, *, whole: bool) -> _Tile:
    """The tile that all of some rows are in, with their parts."""
    number = int(rows[0]) // job.tile
    end = (number + 1) * job.tile
    if job.shown.made is None:
        end = min(end, job.shown.count)
    tile = _CACHE.tile((job.token, number), np.arange(number * job.tile, end))
    tile.fill(job, similarity, rows, whole=whole and job.shown.made is None)
    _CACHE.fit()
    return tile


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
    """Positions of pairs, and what `score` says of them; tile pair by tile pair.

    Candidates come as they are ordered here: one tile of the larger rows after another, with all of a range of smaller
    rows. So the tiles of that range are asked for again and again, and are made whole; those of the others once.
    """
    similarity = job.similarity()
    left, right = a // job.tile, b // job.tile
    order = np.lexsort((left, right))
    edges = np.flatnonzero(np.diff(left[order]) | np.diff(right[order])) + 1
    held: tuple[int, _Tile] | None = None
    for mine in np.split(order, edges):
        if not len(mine):
            continue
        other = int(right[mine[0]])
        if held is None or held[0] != other:
            rows = np.unique(b[order[right[order] == other]])
            held = other, _tile_parts(job, similarity, rows, whole=False)
        tile_b = held[1]
        tile_a = _tile_parts(job, similarity, np.unique(a[mine]), whole=True)
        one_side, other_side = ((tile.parts, tile.places(x), x) for tile, x in ((tile_a, a[mine]), (tile_b, b[mine])))
        yield mine, _scored(job, similarity, one_side, other_side)


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
        tile = _CACHE.tile((job.token, -1 - number), some)  # they meet all others, task by task
        tile.fill(job, similarity, some, whole=True)
        _CACHE.fit()
        parts = tile.parts
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
