"""One task: the similarity of some pairs, with what is computed for an image made once for those held together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from daskim.kernels.splits import across
from daskim.plugins import similarity_of
from daskim.similarities import NEAR, Parts, Similarity, score, score_images
from daskim.stages.similarities.pictures import NAME, Shown
from daskim.store import Run, block_bounds

__all__ = ["PIECE", "READ_BYTES", "Job", "compare_part", "compare_sample", "compare_tile", "part_bytes", "shown_bytes"]

# Images whose parts are made together.
PIECE = 64
# Images read together for them, bytes: each time the array of the run is opened and its blocks are looked up.
READ_BYTES = 2**22
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
    most : int
        Images whose parts are held by a task, two at least.
    across : bool
        Only pairs of images of different splits.
    """

    shown: Shown
    name: str
    exact: bool
    threshold: float
    most: int
    across: bool = False

    def similarity(self) -> Similarity:
        return similarity_of(self.name, self.shown.shape, screen=not self.exact)

    @property
    def dtype(self) -> type:
        return np.float64 if self.exact else np.float32


def part_bytes(similarity: Similarity, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> int:
    """Bytes of the parts of one image."""
    blank = np.zeros((1, *shape), dtype=np.uint8 if similarity.of == "pixels" else np.float64)
    return max(1, sum(part.nbytes for part in similarity.parts(blank, dtype)))


def shown_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of what a similarity is shown of one image: pixels, or coefficients in float64."""
    return math.prod(shape) * (1 if len(shape) == 3 else 8)


def _made(job: Job, similarity: Similarity, places: np.ndarray) -> Parts:
    """Parts of some images (one at least), piece by piece: in the making they take several times their size."""
    out: Parts = ()
    read = max(PIECE, READ_BYTES // shown_bytes(job.shown.shape))
    for first in range(0, len(places), read):
        images = job.shown.at(places[first : first + read])
        for start in range(0, len(images), PIECE):
            made = similarity.parts(images[start : start + PIECE], job.dtype)
            out = out or tuple(np.empty((len(places), *part.shape[1:]), part.dtype) for part in made)
            for whole, part in zip(out, made):
                whole[first + start : first + start + len(part)] = part
    return out


def _of_few(a: np.ndarray, b: np.ndarray, most: int) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Runs of pairs that lie among at most so many images: [lo, hi), the images, and which of them each pair is."""
    todo = [(0, len(a))] if len(a) else []
    while todo:
        lo, hi = todo.pop()
        used, at = np.unique(np.stack([a[lo:hi], b[lo:hi]]), return_inverse=True)
        if len(used) > most and hi - lo > 1:
            half = (lo + hi) // 2
            todo += [(half, hi), (lo, half)]
        else:
            yield lo, hi, used, at.reshape(2, -1)


def compared(job: Job, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What `score` says of pairs of rows.

    Candidates come in an order in which pairs of the same images are near one another.
    """
    similarity = job.similarity()
    out = np.empty((len(a), 1 + len(similarity.reports)))
    for lo, hi, used, (one, other) in _of_few(job.shown.places(a), job.shown.places(b), job.most):
        parts = _made(job, similarity, used)
        out[lo:hi] = _scored(job, similarity, (parts, one, a[lo:hi]), (parts, other, b[lo:hi]))
    return out


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
    parts_rows = _made(job, similarity, job.shown.places(rows))
    hits: list[list[int]] = []
    pairs = 0
    for first, last in block_bounds(len(drawn), max(1, job.most // 2)):
        some = drawn[first:last]
        parts = _made(job, similarity, job.shown.places(some))
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
    out = compared(job, a, b)
    done = np.flatnonzero(np.isfinite(out[:, 0]))
    done = done[np.lexsort((b[done], a[done]))]
    table: dict[str, Any] = {"a": a[done], "b": b[done], "similarity": out[done, 0], "source": source[done].astype(str)}
    for at, name in enumerate(similarity.reports):
        if not (similarity.screens and at == len(similarity.reports) - 1):
            table[name] = out[done, 1 + at]
    run.write_part("pairs", key, pa.table(table))
    blocks = len(np.unique(np.concatenate([job.shown.places(a), job.shown.places(b)]) // job.shown.block))
    return {
        "pairs": len(a),
        "listed": len(done),
        "near": int((out[done, 0] >= job.threshold).sum()),
        "blocks": blocks,
        "engine": engine_of(similarity),
        "levels": {str(level): count for level, count in _levels(similarity, out).items()},
    }
