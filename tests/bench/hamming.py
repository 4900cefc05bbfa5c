"""All pairs of 64-bit hashes within some bits of each other: how many, and which judged ones are among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.bench.truth import Figures, Judged, score

__all__ = ["by_distance", "pairs_by_distance"]

ROWS, COLUMNS = 256, 8192  # of a tile: the distances stay in the cache


def pairs_by_distance(hashes: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Number of pairs at each distance from 0 to 64 bits, shape (65,), int64.

    Parameters
    ----------
    hashes : ndarray, shape (n,), uint64
    others : ndarray, shape (m,), uint64, optional
        Pairs of one of `hashes` and one of these; without it, of two of `hashes`.
    """
    counts = np.zeros(65, np.int64)
    right = hashes if others is None else others
    for at in range(0, hashes.size, ROWS):
        left = hashes[at : at + ROWS, None]
        for start in range(0 if others is not None else at, right.size, COLUMNS):
            apart = np.bitwise_count(left ^ right[None, start : start + COLUMNS])
            if others is None and start < at + ROWS:  # each pair once: those right of the diagonal
                rows = np.arange(at, at + left.size)[:, None]
                apart = apart[rows < np.arange(start, start + apart.shape[1])[None]]
            counts += np.bincount(apart.ravel(), minlength=65)
    return counts


def by_distance(
    ids: Sequence[str], hashes: np.ndarray, truth: Judged, distances: Sequence[int]
) -> list[tuple[int, int, Figures]]:
    """For each distance: the pairs within it, and what they are worth against the truth (test against train)."""
    place = {name: at for at, name in enumerate(ids)}
    known = [(place[x], place[y]) for x, y in zip(truth.a, truth.b) if x in place and y in place]
    a, b = np.array(known, dtype=np.int64).reshape(-1, 2).T
    apart = np.bitwise_count(hashes[a] ^ hashes[b]).astype(np.float64)
    scored = score(ids, a, b, -apart, truth)
    sides = [np.array([name.startswith(side) for name in ids], dtype=bool) for side in ("test/", "train/")]
    every, across = pairs_by_distance(hashes), pairs_by_distance(*(hashes[side] for side in sides))
    seen = np.bincount(apart[np.unique(np.minimum(a, b) * len(ids) + np.maximum(a, b), return_index=True)[1]]
                       .astype(np.int64), minlength=65)  # fmt: skip
    found = []
    for most in distances:
        cut = scored.at(-most)
        new = int(across[: most + 1].sum() - seen[: most + 1].sum())
        found.append((most, int(every[: most + 1].sum()), Figures(-most, cut.found, cut.total, cut.false, new)))
    return found
