"""Pairs drawn at random, half of them within one label and half across, and the least similar of many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daskim.boundaries.pool import Images, Pool, order_of
from daskim.errors import SettingsError
from daskim.plugins import find, similarity_of
from daskim.resolve import foreign_code
from daskim.results import FinishedRun
from daskim.similarities import score_images

__all__ = ["dissimilar", "drawn"]

# Up to so many pairs of images all are made, and drawn from; above that images are.
ALL = 1 << 20
# Of so many drawn pairs one is kept as dissimilar.
DRAWN = 20
# Pairs compared together.
PIECE = 256
# What the drawn pairs are compared by where the run has no similarity of pixels.
PLAIN = "ssim"

Found = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], str]
Rows = tuple[NDArray[np.int64], NDArray[np.int64]]


def drawn(images: Images, limit: int, seed: int) -> Found:
    """At most `limit` pairs of different images at random, half within a label, half across; with words."""
    within, across = _halves(images, limit)
    parts = [_some(images, count, seed, same=same) for count, same in ((within, True), (across, False)) if count]
    a, b = (np.concatenate(side) for side in zip(*parts))
    order = np.lexsort((b, a))
    return a[order], b[order], np.full(len(a), np.nan), f"drawn at random, seed {seed}{_how(within, across)}"


def dissimilar(run: FinishedRun, images: Images, limit: int, seed: int) -> Found:
    """At most `limit` of the least similar pairs; with words that say among which."""
    within, across = _halves(images, limit)
    facts = run.summary.get("similarities")
    if facts is not None and run.settings.candidates.method == "all":
        name, pools = facts["name"], _lowest_listed(run, images, within, across)
        basis = f"the lowest {name} of all {sum(pool.seen for pool in pools):,} pairs that the run compared"
    else:
        name, pools = _lowest_drawn(run, images, within, across, seed)
        what = "pairs of different clusters" if (images.cluster >= 0).any() else "pairs"
        basis = f"the lowest {name} of {sum(pool.seen for pool in pools):,} {what} drawn at random, seed {seed}"
    a, b, similarity = (np.concatenate(column) for column in zip(*(pool.by_row() for pool in pools)))
    order = np.lexsort((b, a))
    return a[order], b[order], similarity[order], basis + _how(within, across)


def _halves(images: Images, limit: int) -> tuple[int, int]:
    """How many pairs within a label, and across; where there is but one label, or none, all are `within`."""
    if len(np.unique(images.code[images.textured & (images.code >= 0)])) < 2:
        return limit, 0
    return limit // 2, limit - limit // 2


def _how(within: int, across: int) -> str:
    return "; half of them within a label, half across" if within and across else ""


def _agree(images: Images, a: NDArray[np.int64], b: NDArray[np.int64], same: bool) -> NDArray[np.bool_]:
    """Pairs of one label (or none at all), or of two known ones; never exact duplicates."""
    alike = images.code[a] == images.code[b]
    known = (images.code[a] >= 0) & (images.code[b] >= 0)
    right = alike & (known | (images.code.max(initial=-1) < 0)) if same else known & ~alike
    return right & ~images.same(a, b)


def _some(images: Images, count: int, seed: int, *, same: bool, apart: bool = False) -> Rows:
    """`count` pairs at random, or as many as there are; with `apart` of different clusters where there are clusters."""
    rows = np.flatnonzero(images.textured)

    def fit(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        right = _agree(images, a, b, same)
        return right & ((images.cluster[a] != images.cluster[b]) | (images.cluster[a] < 0)) if apart else right

    if len(rows) * (len(rows) - 1) // 2 <= ALL:
        a, b = (rows[side] for side in np.triu_indices(len(rows), 1))
        right = fit(a, b)
        pool = Pool(count)
        pool.take(a[right], b[right], np.zeros(int(right.sum())), order_of(a[right], b[right], seed))
        return pool.by_row()[:2]
    rng = np.random.default_rng([seed, int(same), int(apart)])
    n, keys = len(images.ids), np.zeros(0, dtype=np.int64)
    for _ in range(64):  # enough for any set in which such pairs are not a rare exception
        a, b = _partners(images, rows, 4 * count, rng, same)
        a, b = np.minimum(a, b), np.maximum(a, b)
        right = (a < b) & fit(a, b)
        more = np.concatenate([keys, a[right] * n + b[right]])
        keys = more[np.sort(np.unique(more, return_index=True)[1])][:count]
        if len(keys) == count:
            break
    keys = np.sort(keys)
    return keys // n, keys % n


def _partners(images: Images, rows: NDArray[np.int64], count: int, rng: np.random.Generator, same: bool) -> Rows:
    """`count` images at random, and for each another one: of its label, or any."""
    a = rows[rng.integers(len(rows), size=count)]
    if not same:
        return a, rows[rng.integers(len(rows), size=count)]
    ordered = rows[np.argsort(images.code[rows], kind="stable")]
    codes = images.code[ordered]
    low, high = (np.searchsorted(codes, images.code[a], side=side) for side in ("left", "right"))
    return a, ordered[low + (rng.random(count) * (high - low)).astype(np.int64)]


def _lowest_listed(run: FinishedRun, images: Images, within: int, across: int) -> list[Pool]:
    """The lowest of all pairs, which the run has compared."""
    pools = [(same, Pool(count)) for count, same in ((within, True), (across, False)) if count]
    for part in run.store.batches("pairs", ["a", "b", "similarity"]):
        a, b, similarity = (np.asarray(part[name]) for name in ("a", "b", "similarity"))
        for same, pool in pools:
            right = _agree(images, a, b, same) & images.textured[a] & images.textured[b]
            pool.take(a[right], b[right], similarity[right], similarity[right])
    return [pool for _, pool in pools]


def _lowest_drawn(run: FinishedRun, images: Images, within: int, across: int, seed: int) -> tuple[str, list[Pool]]:
    """The lowest of pairs drawn at random: candidates are no sample of the dissimilar ones."""
    name = run.settings.similarities.name if run.summary.get("similarities") else PLAIN
    # A run is data: code that its settings name is not run for having been named there.
    if foreign_code({"similarities.name": name}) or find("similarities", name).of != "pixels":
        name = PLAIN
    facts = run.summary["size"]
    try:
        judge = similarity_of(name, (facts["height"], facts["width"], facts["channels"]), screen=False)
    except SettingsError:
        raise SettingsError(
            f"--pairs dissimilar: {name} cannot compare the run's standard images of "
            f"{facts['height']}x{facts['width']}",
            "Leave dissimilar out of --pairs.",
        ) from None
    pools = []
    for count, same in ((within, True), (across, False)):
        if not count:
            continue
        pools.append(Pool(count))
        a, b = _some(images, DRAWN * count, seed, same=same, apart=True)
        for at in range(0, len(a), PIECE):
            left, right = a[at : at + PIECE], b[at : at + PIECE]
            rows, where = np.unique(np.stack([left, right]), return_inverse=True)
            i, j = where.reshape(2, -1)
            pixels = run.standard(rows)
            value = score_images(judge, pixels, pixels, i, j, np.float32)[:, 0]
            pools[-1].take(left, right, value, value)
    return name, pools
