"""Which pairs of a run are looked at, and how they were found, in words."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daskim.boundaries.drawn import dissimilar, drawn
from daskim.boundaries.pool import Images, Pool, order_of
from daskim.errors import SettingsError, SourceError
from daskim.results import FinishedRun

__all__ = ["CHOICES", "Chosen", "Images", "choose", "read_pairs"]

CHOICES = ("similar", "influential", "dissimilar", "random")
# Pairs made at once of the members of a cluster.
PIECE = 1 << 20


@dataclass(frozen=True)
class Chosen:
    """Pairs of one kind.

    Attributes
    ----------
    a, b : ndarray, shape (p,), int64
        Rows.
    similarity : ndarray, shape (p,), float64
        NaN where unknown.
    basis : str
        How they were found, in words.
    available : int or None
        How many the run has; None where pairs are drawn.
    """

    kind: str
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    similarity: NDArray[np.float64]
    basis: str
    available: int | None

    def part(self, which: slice) -> Chosen:
        return Chosen(
            self.kind, self.a[which], self.b[which], self.similarity[which], self.basis, self.available
        )  # fmt: skip


def choose(
    run: FinishedRun, images: Images, kinds: Sequence[str], limit: int, seed: int, say: Callable[[str], None]
) -> list[Chosen]:
    """At most `limit` pairs of each kind; of more, those are drawn, the same for the same seed and run.

    Exact duplicates are left out: the line between them is a point.

    Raises
    ------
    SettingsError
        The run has not one pair of any of these kinds.
    """
    made = []
    for kind in kinds:
        if kind in ("similar", "influential"):
            made.append(_alike(run, images, kind, limit, seed))
        elif kind == "dissimilar":
            made.append(Chosen(kind, *dissimilar(run, images, limit, seed), None))
        else:
            made.append(Chosen(kind, *drawn(images, limit, seed), None))
        if not len(made[-1].a):
            say(f"boundaries: the run has no {kind} pairs ({made[-1].basis})")
    if not any(len(chosen.a) for chosen in made):
        raise SettingsError(
            f"the run has no {' or '.join(kinds)} pairs", f"Known --pairs: {', '.join(CHOICES)}, FILE.csv."
        )
    return made


def _alike(run: FinishedRun, images: Images, kind: str, limit: int, seed: int) -> Chosen:
    """Pairs that the run found alike, of labels that agree or are unknown (similar), or that differ (influential)."""
    pool = Pool(limit)
    conflict = kind == "influential"
    pieces, basis = _found(run, images, conflict)
    for a, b, similarity in pieces:
        known = (images.code[a] >= 0) & (images.code[b] >= 0)
        differ = known & (images.code[a] != images.code[b])
        right = (differ if conflict else ~differ) & images.readable[a] & images.readable[b] & ~images.same(a, b)
        pool.take(a[right], b[right], similarity[right], order_of(a[right], b[right], seed))
    if pool.seen > limit:
        basis += f"; {limit:,} drawn of {pool.seen:,}"
    return Chosen(kind, *pool.by_row(), basis, pool.seen)


Piece = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _found(run: FinishedRun, images: Images, conflict: bool) -> tuple[Iterator[Piece], str]:
    """Pairs that the run calls alike, piece by piece, and what that means."""
    labels = "labels that differ" if conflict else "labels that do not differ"
    facts = run.summary.get("similarities")
    if run.summary.get("method") == "compare" and run.has("leakage"):
        least = run.summary["leakage"]["min_similarity"]
        name = run.summary["leakage"]["similarity"]
        return _leaks(run), f"{name} of at least {least:g} between splits, {labels}"
    if facts is not None and run.has("pairs"):
        least = float(facts["min_similarity"])
        return _listed(run, least), f"{facts['name']} of at least {least:g}, {labels}"
    if conflict:
        if not run.has("influential"):
            return iter(()), "the run lists no influential images"
        return _conflicts(run, images), "in one cluster, labels that differ"
    if not run.has("pairs"):
        return iter(()), "the run lists no pairs"
    return _listed(run, -np.inf), "an image that may go and the one kept for it"


def _listed(run: FinishedRun, least: float) -> Iterator[Piece]:
    for part in run.store.batches("pairs", ["a", "b", "similarity"]):
        a, b, similarity = (np.asarray(part[name]) for name in ("a", "b", "similarity"))
        near = (similarity >= least) | (least == -np.inf)  # NaN where the run compared nothing but distances
        yield a[near], b[near], similarity[near]


def _leaks(run: FinishedRun) -> Iterator[Piece]:
    for part in run.store.batches("leakage", ["row", "other_row", "similarity"]):
        one, other, similarity = (np.asarray(part[name]) for name in ("row", "other_row", "similarity"))
        yield np.minimum(one, other), np.maximum(one, other), similarity


def _conflicts(run: FinishedRun, images: Images) -> Iterator[Piece]:
    """Pairs of differing labels within the clusters of several labels."""
    table = run.influential.sort_values(["cluster", "row"])
    for _, group in table.groupby("cluster", sort=False):
        rows = group["row"].to_numpy(dtype=np.int64)
        lines = max(1, PIECE // len(rows))
        for at in range(0, len(rows), lines):
            a, b = np.repeat(rows[at : at + lines], len(rows)), np.tile(rows, len(rows[at : at + lines]))
            right = (a < b) & (images.code[a] != images.code[b])
            yield a[right], b[right], np.full(int(right.sum()), np.nan)


def read_pairs(path: str, images: Images) -> Chosen:
    """The pairs of a CSV with columns a and b, which hold ids; other columns are not looked at.

    Raises
    ------
    SourceError
        The file cannot be read.
    SettingsError
        It is no such CSV, or names an image that the run has not.
    """
    hint = "It must be CSV in UTF-8 with the header a,b and two ids a line."
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"a", "b"} <= set(reader.fieldnames or ()):
                raise SettingsError(f"--pairs {path}: no columns a and b", hint)
            lines = [(reader.line_num, row["a"], row["b"]) for row in reader]
    except OSError as error:
        raise SourceError(f"--pairs {path}: cannot be read ({error.strerror})", hint) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"--pairs {path}: {error}", hint) from None
    at = {name: row for row, name in enumerate(images.ids)}
    for line, *pair in lines:
        for name in pair:
            if name not in at:
                raise SettingsError(
                    f"--pairs {path}, line {line}: the run has no image {name!r}", "Give ids of the run."
                )
        if pair[0] == pair[1]:
            raise SettingsError(f"--pairs {path}, line {line}: {pair[0]!r} with itself", hint)
    if not lines:
        raise SettingsError(f"--pairs {path}: holds no pairs", hint)
    rows = np.array([[at[a], at[b]] for _, a, b in lines], dtype=np.int64)
    return Chosen("listed", rows[:, 0], rows[:, 1], np.full(len(rows), np.nan), f"listed in {path}", len(rows))
