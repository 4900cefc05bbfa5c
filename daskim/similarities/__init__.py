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

`score` is the one place that calls `compare`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Parts", "Similarity", "score"]

Parts = tuple[np.ndarray, ...]


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
        """Arrays of (b, ...) computed once for each image; `dtype` is float32 (to screen) or float64 (to decide)."""
        ...

    def compare(self, left: Parts, right: Parts) -> NDArray[np.float64]:
        """Pair t is image t of `left` and image t of `right`; shape (p, 1 + len(reports)), the similarity first."""
        ...


def score(similarity: Similarity, left: Parts, right: Parts, i: np.ndarray, j: np.ndarray) -> NDArray[np.float64]:
    """Compare pairs (left[i[t]], right[j[t]]); shape (p, 1 + len(reports)).

    Always `similarity.batch` pairs together, the last batch filled up with its first pair: the last bit of a matrix
    product may depend on how many rows it has, and must not depend on how pairs were put into tasks.
    """
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
