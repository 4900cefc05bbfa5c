"""Pairs of images against pairs that were judged: recall, precision and F1.

A judgment is 0 (exact), 1 (near-duplicate: the same shot, post-processed), 2 (very similar but another shot) or N (not
a duplicate). 0 and 1 are positive, N is a false alarm, 2 is left out, and a pair nobody judged is counted apart. Only
pairs between the kinds of image that the truth covers are looked at; the first folder of an id is its kind (train,
test). The truth is pooled and not exhausted, so recall is read by image: an image of the truth's column a is found when
any of its positive pairs is listed.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Figures", "Judged", "Scored", "judged", "score"]

POSITIVE = ("0", "1")


@dataclass(frozen=True)
class Judged:
    """Judged pairs, as their file lists them: ids and judgments."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    judgment: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        """Every image of a judged pair, once: those of positive pairs first."""
        pairs = sorted(zip(self.a, self.b, self.judgment), key=lambda pair: pair[2] not in POSITIVE)
        return list(dict.fromkeys(one for pair in pairs for one in pair[:2]))


@dataclass(frozen=True)
class Figures:
    """What a list of pairs is worth when it is cut at a score.

    Attributes
    ----------
    threshold : float
        The least score that is listed.
    found, total : int
        Images with a positive pair that have one listed, and all of them.
    false, unjudged : int
        Listed pairs of judgment N, and without a judgment.
    """

    threshold: float
    found: int
    total: int
    false: int
    unjudged: int

    @property
    def recall(self) -> float:
        return self.found / self.total if self.total else 0.0

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.false)

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True)
class Scored:
    """A list of pairs against the truth, cut at each of its scores, the highest first."""

    cuts: tuple[Figures, ...]
    total: int

    def at(self, threshold: float) -> Figures:
        """All pairs whose score is at least the threshold."""
        above = [cut for cut in self.cuts if cut.threshold >= threshold]
        return above[-1] if above else Figures(threshold, 0, self.total, 0, 0)

    @property
    def all(self) -> Figures:
        return self.at(-np.inf)

    @property
    def best(self) -> Figures:
        """The cut with the highest F1, of equal ones the strictest."""
        return max(self.cuts, key=lambda cut: cut.f1, default=self.all)


def judged(path: Path) -> Judged:
    """Read a CSV with columns a, b (ids) and judgment."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return Judged(*(tuple(row[name] for row in rows) for name in ("a", "b", "judgment")))


def score(ids: Sequence[str], a: np.ndarray, b: np.ndarray, scores: np.ndarray, truth: Judged) -> Scored:
    """Score pairs.

    Parameters
    ----------
    ids : sequence of str
        The images; judged pairs with an image that is not among them do not count.
    a, b : ndarray, shape (k,), int64
        The pairs, as places in `ids`, in either order; a pair listed twice counts once, with its higher score.
    scores : ndarray, shape (k,), float64
        Higher is more alike.
    """
    n, place = len(ids), {name: at for at, name in enumerate(ids)}
    known = [
        (place[x], place[y], judgment)
        for x, y, judgment in zip(truth.a, truth.b, truth.judgment)
        if x in place and y in place
    ]
    kinds = np.unique([name.split("/")[0] for name in ids], return_inverse=True)[1].astype(np.int64)
    verdicts = {_key(x, y, n): (judgment, x) for x, y, judgment in known}
    total = len({x for judgment, x in verdicts.values() if judgment in POSITIVE})
    covered = np.array(sorted({_key(int(kinds[x]), int(kinds[y]), n) for x, y, _ in known}), dtype=np.int64)

    low, high = np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64)
    sides = np.minimum(kinds[low], kinds[high]) * n + np.maximum(kinds[low], kinds[high])
    inside = np.isin(sides, covered)
    keys, values = (low * n + high)[inside], np.asarray(scores, dtype=np.float64)[inside]
    order = np.lexsort((keys, -values))
    keys, values = keys[order], values[order]
    first = np.sort(np.unique(keys, return_index=True)[1])
    keys, values = keys[first], values[first]

    judged_keys = np.fromiter(verdicts, dtype=np.int64, count=len(verdicts))
    found, false, seen = np.zeros(keys.size, bool), np.zeros(keys.size, bool), set()
    listed = np.isin(keys, judged_keys)
    for at in np.flatnonzero(listed).tolist():
        judgment, owner = verdicts[int(keys[at])]
        false[at] = judgment == "N"
        if judgment in POSITIVE and owner not in seen:
            seen.add(owner)
            found[at] = True
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True)) if values.size else np.empty(0, np.int64)
    counts = [np.cumsum(part)[ends].tolist() for part in (found, false, ~listed)]
    cuts = [Figures(t, got, total, wrong, new) for t, got, wrong, new in zip(values[ends].tolist(), *counts)]
    return Scored(tuple(cuts), total)


def _key(x: int, y: int, n: int) -> int:
    return min(x, y) * n + max(x, y)
