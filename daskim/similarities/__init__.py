"""One file, one similarity F of two images. The file exports it as `PLUGIN`.

A similarity is a class made with the shape of what it compares, which has

    lowest : float                  end of its range; the other end is 1, the value of an image with itself
    threshold : float               from where on two images count as near-duplicates, if nothing else is asked for
    of : "pixels" or "coefficients" what it is shown: (b, h, w, c) uint8, or (b, m) kept coefficients of W, scaled so
                                    that their Euclidean distance is the RMS difference in grey levels
    batch : int                     pairs that are compared together; their parts should stay in the cache
    pair_bytes : int                bytes that `compare` holds for each pair of a batch, at most, in float64
    reports : tuple of str          what it tells of a pair besides the similarity
    versions : dict                 what its output depends on; part of the fingerprint
    screens : bool                  whether it gives up hopeless pairs early: their similarity is NaN; the constructor
                                    then takes `screen=False`, and the last of `reports` is the level that was reached
    parts(images, dtype)            what is computed once for an image: arrays whose first axis is the image
    compare(left, right)            similarity of pairs, from the parts of their images
    compare_at(left, right, i, j)   optional, else None: the same of images i[t] of `left` and j[t] of `right`, with
                                    nothing taken out of the parts; no pair depends on the others
    engine : str                    optional: what it runs as in this process, where it has several forms

`score` is the one place that calls `compare`; `decided` is the one place that tells which side of a threshold a pair
is on.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["NEAR", "Parts", "Similarity", "decided", "decided_bytes", "score", "score_images"]

Parts = tuple[np.ndarray, ...]
# As near to a threshold float64 decides. Float32 is within 3e-5 of it, by the test of every file of this folder.
NEAR = 1e-4
# What the parts of one block of images take, at most (more only where those of one image do).
PARTS_BYTES = 2**25


class Similarity(Protocol):
    """See the head of this page. Made with `maker(shape)`: (h, w, c), or (m,) for coefficients."""

    lowest: float
    threshold: float
    of: Literal["pixels", "coefficients"]
    batch: int
    pair_bytes: int
    reports: tuple[str, ...]
    screens: bool
    versions: dict[str, str]

    def parts(self, images: np.ndarray, dtype: DTypeLike) -> Parts:
        """Arrays of (b, ...) computed once for each image; `dtype` is float32 (to screen) or float64 (to decide).

        What only screens, and is not decided by, may stay float32 (`aligned` finds the motion so in either case).
        """
        ...

    def compare(self, left: Parts, right: Parts) -> NDArray[np.float64]:
        """Pair t is image t of `left` and image t of `right`; shape (p, 1 + len(reports)), the similarity first."""
        ...


def score(similarity: Similarity, left: Parts, right: Parts, i: np.ndarray, j: np.ndarray) -> NDArray[np.float64]:
    """Compare pairs (left[i[t]], right[j[t]]); shape (p, 1 + len(reports)).

    Always `similarity.batch` pairs together, the last batch filled up with its first pair: the last bit of a matrix
    product may depend on how many rows it has, and must not depend on how pairs were put into tasks.
    """
    together = getattr(similarity, "compare_at", None)
    if together is not None:
        found: NDArray[np.float64] = together(left, right, i, j)
        return found
    out = np.empty((len(i), 1 + len(similarity.reports)))
    for start in range(0, len(i), similarity.batch):
        some_i, some_j = i[start : start + similarity.batch], j[start : start + similarity.batch]
        count = len(some_i)
        if count < similarity.batch:
            some_i = np.concatenate([some_i, np.full(similarity.batch - count, some_i[0])])
            some_j = np.concatenate([some_j, np.full(similarity.batch - count, some_j[0])])
        found = similarity.compare(tuple(part[some_i] for part in left), tuple(part[some_j] for part in right))
        out[start : start + count] = found[:count]
    return out


def decided(
    similarity: Similarity, left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray, threshold: float
) -> NDArray[np.float64]:
    """Compare images left[i[t]] and right[j[t]]: in float32, and in float64 where that is within 1e-4 of the threshold.

    So the comparison with the threshold is that of float64, at little more than the cost of float32. Parts are made
    once for each image of `left` that occurs, and for those of `right` once for each block of `left` that they are
    compared with (one, where the parts of all fit into `PARTS_BYTES`).

    Parameters
    ----------
    left, right : ndarray, shape (b, ...)
        What the similarity is shown: images, or scaled coefficients. The same object where pairs lie within one stack:
        parts are then shared.
    i, j : ndarray, shape (p,), int
    threshold : float

    Returns
    -------
    ndarray, shape (p, 1 + len(reports)), float64
        As of `score`: within 1e-4 of the threshold accurate to float64, elsewhere to float32.
    """
    found = score_images(similarity, left, right, i, j, np.float32)
    near = np.flatnonzero(np.abs(found[:, 0] - threshold) <= NEAR)
    found[near] = score_images(similarity, left, right, i[near], j[near], np.float64)
    return found


def decided_bytes(similarity: Similarity) -> int:
    """What `decided` holds at most beyond its arguments and its result."""
    # two blocks of parts; and while parts are made, about three times as much of passing arrays
    return 5 * max(PARTS_BYTES, similarity.pair_bytes // 2) + similarity.batch * similarity.pair_bytes


def score_images(
    similarity: Similarity, left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray, dtype: DTypeLike
) -> NDArray[np.float64]:
    """`score` of pairs of images left[i[t]] and right[j[t]], whose parts are made block by block in `dtype`."""
    out = np.empty((len(i), 1 + len(similarity.reports)))
    if not len(i):
        return out
    rows = max(1, 2 * PARTS_BYTES // similarity.pair_bytes)  # which counts the parts of both images
    if left is right:
        used_left = used_right = np.unique(np.concatenate([i, j]))
    else:
        used_left, used_right = np.unique(i), np.unique(j)
    at_left, at_right = np.searchsorted(used_left, i), np.searchsorted(used_right, j)
    block_left, block_right = at_left // rows, at_right // rows
    order = np.lexsort((block_right, block_left))
    starts = np.flatnonzero(np.diff(block_left[order], prepend=-1) | np.diff(block_right[order], prepend=-1))
    own = -1
    for mine in np.split(order, starts[1:]):
        one, other = int(block_left[mine[0]]), int(block_right[mine[0]])
        if one != own:
            parts_left = similarity.parts(left[used_left[one * rows : (one + 1) * rows]], dtype)
            own = one
        if left is right and one == other:
            parts_right, at = parts_left, at_right[mine] - one * rows
        else:
            there, at = np.unique(at_right[mine], return_inverse=True)
            parts_right = similarity.parts(right[used_right[there]], dtype)
        out[mine] = score(similarity, parts_left, parts_right, at_left[mine] - one * rows, at)
    return out
