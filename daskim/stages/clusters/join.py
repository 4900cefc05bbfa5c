"""Regime join: all pairs within a radius, Ward on them, one common cut. For n_clusters near n."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskim.errors import SettingsError
from daskim.kept import Kept, take
from daskim.kernels.neighbours import box_order, candidate_pairs
from daskim.kernels.ward import Merges
from daskim.scatter import Scattered, scatter
from daskim.stages import Context
from daskim.stages.clusters.features import LEAF, heads
from daskim.stages.clusters.forest import (
    DENSE_PAIRS,
    DENSE_POINTS,
    grow_forest,
    whole_forest,
)
from daskim.stages.clusters.pairs import Pairs, level_file, levels_of
from daskim.stages.clusters.points import STAGE, Points, load
from daskim.store import Run, block_bounds

__all__ = ["TILE", "TooManyPairs", "join_merges", "tile_rows"]

# Points of the sample, and points whose distances to them one task works out.
SAMPLE, SAMPLED = 1024, 4096
# Bits of a float32 that name the bin of a squared distance: sign, exponent and 3 bits of the mantissa, so that the
# distances of a bin differ by 3 to 6 %.
BIN_SHIFT = 20
BINS = 1 << (32 - BIN_SHIFT)
# Points in a tile of the join: at least, and until there are 300 of them.
TILE, MOST_TILE = 8192, 32_768
# Points above which the radius is bounded by the pairs that may be kept. Below, images are looked up in cells instead,
# which would take hours.
MANY = 250_000
# Pairs whose levels are worked out at a time, whose features (4 MB) stay in the cache.
LEVELLED = 2048
# Attempts with a radius before the full tree of a set that is small enough for it.
TRIES = 2


class TooManyPairs(Exception):
    """More pairs lie within the radius than may be kept."""

    def __init__(self, pairs: float, radius: float) -> None:
        super().__init__(pairs, radius)
        self.pairs = pairs
        self.radius = radius


def join_merges(
    context: Context, kept: Kept, points: Points, count: int, near: float, unit: float
) -> tuple[Merges, dict[str, Any]]:
    """At least `count` lowest Ward merges, and all merges up to height `near`, over all components.

    Parameters
    ----------
    count : int
        Merges wanted; fewer come back only where all points are one cluster, and of more than `MANY` points where
        more would need a radius with too many pairs.
    near : float
        Height in units of stored coefficients.
    unit : float
        RMS grey levels for one unit of distance; for messages.

    Raises
    ------
    TooManyPairs
        More than `clusters.max_pairs` within the radius that is needed.
    """
    run, p = context.run, len(points.rows)
    run.save(points.rows, "partial", STAGE, "rows.npy")
    run.save(points.weights, "partial", STAGE, "weights.npy")
    bound = 2 * context.settings.clusters.most_pairs(p)  # a sample's estimate may be off by that
    guess, estimate = first_radius(context, points, count)
    radius = max(guess, near)
    if p > DENSE_POINTS and guess < near and estimate(near) > bound >= estimate(guess):
        context.say(f"clusters: about {estimate(near):,.0f} pairs are nearly identical: they are not all looked at")
        radius = guess
    limited, last = p > MANY and context.settings.clusters.regime == "auto", 0.0
    attempts: list[dict[str, Any]] = []
    for attempt in range(12):
        if p <= DENSE_POINTS and (estimate(radius) > DENSE_PAIRS or attempt == TRIES):
            merges = whole_forest(context, kept, attempt)
            return merges, {"attempts": [*attempts, {"radius_rms": None, "merges": len(merges.height)}]}
        while limited and estimate(radius) > bound / 2:
            radius *= 0.98
        if last >= radius:
            context.say(
                f"clusters: {len(merges.height):,} merges are made where {count:,} were asked for: beyond "
                f"{last * unit:.1f} grey levels lie more pairs than clusters.max_pairs = {bound // 2:,}"
            )
            return merges, {"attempts": attempts}
        if estimate(radius) > bound:
            raise TooManyPairs(estimate(radius), radius)
        pairs, place = pairs_within(context, points, radius, attempt)
        if pairs.total > 2 * bound:
            raise TooManyPairs(pairs.total, radius)
        forest = grow_forest(context, kept, points, pairs, place, radius, f"ward{attempt}")
        merges = forest.merges
        attempts.append({"radius_rms": radius * unit, "pairs": forest.pairs, "merges": len(merges.height)})
        attempts[-1] |= forest.tell(context, pairs.total, f" within {radius * unit:.1f} grey levels", unit)
        if len(merges.height) >= min(count, p - 1):
            return merges, {"attempts": attempts}
        context.say(
            f"clusters: {len(merges.height)} merges within {radius * unit:.1f} grey levels, {count} needed: "
            "larger radius"
        )
        last, radius = radius, radius * 1.1
    raise SettingsError(
        f"the neighbour join found no radius that gives {count} merges of {p} images",
        "Set clusters.regime = cells, or more clusters.",
    )


def first_radius(context: Context, points: Points, count: int) -> tuple[float, Callable[[float], float]]:
    """A radius at which `count` merges are likely, and an estimate of the pairs within a radius, from a sample.

    Three points in a hundred with a neighbour within r give about one merge in a hundred (measured on CIFAR-10: 17 %
    and 6 %); too small a guess only costs a second try, and the lower bounds are a little short.
    """
    run, p = context.run, len(points.rows)
    sample = np.sort(np.random.default_rng(context.settings.clusters.seed).permutation(p)[:SAMPLE])
    run.save(sample, "partial", STAGE, "sample.npy")
    run.save(take(run, "features", points.rows[sample]), "partial", STAGE, "sample-features.npy")
    bounds = block_bounds(p, SAMPLED)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    context.engine.each(STAGE, "sample", keys, list(bounds), sample_distances)
    nearest = np.full(len(sample), np.inf)
    histogram = np.zeros(BINS)
    for key in keys:
        part = load(run, f"sample-{key}.npy")
        nearest = np.minimum(nearest, part[: len(sample)])
        histogram += part[len(sample) :]
    finite = nearest[np.isfinite(nearest)]
    guess = float(np.quantile(finite, min(1.0, 3.0 * count / p))) * 1.12 if finite.size else 0.0
    total = np.cumsum(histogram)

    def estimate(radius: float) -> float:
        at = np.array([min(radius, 1e18) ** 2], dtype=np.float32).view(np.uint32)[0] >> BIN_SHIFT
        return float(total[at]) / len(sample) * p / 2

    return max(guess, 1e-6), estimate


def sample_distances(run: Run, key: str, lo: int, hi: int) -> dict[str, Any]:
    """Lower bounds of the distances of the sample to some points: nearest of each, and a histogram of all."""
    rows, sample = load(run, "rows.npy"), load(run, "sample.npy")
    left = load(run, "sample-features.npy")
    right = take(run, "features", rows[lo:hi])
    length = np.einsum("ij,ij->i", right, right)
    nearest, histogram = np.empty(len(sample)), np.zeros(BINS, dtype=np.int64)
    for start in range(0, len(sample), 64):  # 1 MB of distances stays in the cache
        part = left[start : start + 64]
        squared = (np.float32(-2.0) * part) @ right.T
        squared += np.einsum("ij,ij->i", part, part)[:, None]
        squared += length
        np.maximum(squared, np.float32(0.0), out=squared)
        mine = sample[start : start + 64]
        inside = np.flatnonzero((mine >= lo) & (mine < hi))
        squared[inside, mine[inside] - lo] = np.inf
        nearest[start : start + 64] = squared.min(axis=1)
        histogram += np.bincount((squared.view(np.uint32) >> BIN_SHIFT).ravel(), minlength=BINS)
    run.save(np.concatenate([np.sqrt(nearest), histogram.astype(np.float64)]), "partial", STAGE, f"sample-{key}.npy")
    return {}


def pairs_within(context: Context, points: Points, radius: float, attempt: int) -> tuple[Pairs, np.ndarray]:
    """Every pair of points whose lower bound of the Ward height is within the radius; and the place of each point.

    The points are put in an order in which neighbours have small bounding boxes, in their leading features. Two tiles
    of that order are compared only where their boxes are within the radius, and so are, inside, a row and 64 others.
    """
    run, p = context.run, len(points.rows)
    head = heads(run, context.known.n)[points.rows]
    bounds = block_bounds(p, tile_rows(p))
    if "sorted" not in run.marked(STAGE):
        run.save(box_order(head, LEAF), "partial", STAGE, "order.npy")
        run.mark(STAGE, "sorted", {})
    order = load(run, "order.npy")
    place = np.argsort(order)
    tile = np.searchsorted(np.array([hi for _, hi in bounds]), place, side="right")
    rows = scatter(context.engine, STAGE, "features", points.rows, tile, "sorted-read")
    keys = [f"{index:06d}" for index in range(len(bounds))]
    parts = [(lo, hi, rows[index]) for index, (lo, hi) in enumerate(bounds)]
    context.engine.each(STAGE, "sorted-tile", keys, parts, sort_tile)
    head = head[order].astype(np.float64)
    low = np.array([head[lo:hi].min(axis=0) for lo, hi in bounds])
    high = np.array([head[lo:hi].max(axis=0) for lo, hi in bounds])
    gap = [np.square(np.maximum(np.maximum(low - high[i], low[i] - high), 0.0)).sum(axis=1) for i in range(len(bounds))]
    limit = radius**2 * 1.001 + 1e-5 * np.square(np.maximum(np.abs(low), np.abs(high))).sum(axis=1).max()
    near = [(i, j) for i in range(len(bounds)) for j in range(i, len(bounds)) if gap[i][j] <= limit]
    keys = [f"{i:04d}-{j:04d}" for i, j in near]
    pairs = [(i, j, bounds[i][0], bounds[j][0], radius, f"tile{attempt}") for i, j in near]
    infos = context.engine.each(STAGE, f"tile{attempt}", keys, pairs, tile_candidates)
    counts = {f"tile{attempt}-{key}.npy": int(info["candidates"]) for key, info in zip(keys, infos)}
    return Pairs(counts, radius), place


def tile_rows(p: int) -> int:
    """Points of a tile of the join: so many that there are about 80 tiles up to 2.6 million points, and 300 ever."""
    rows = max(TILE, min(MOST_TILE, -(-p // 80)), -(-p // 300))
    return -(-rows // 1024) * 1024


def sort_tile(run: Run, key: str, lo: int, hi: int, rows: Scattered) -> dict[str, Any]:
    """One tile of the features in the order of the join."""
    order = load(run, "order.npy")[lo:hi]
    block = rows.block(run)  # in the order of the points
    run.save(block[np.argsort(np.argsort(order))], "partial", STAGE, f"tile-{key}.npy")
    return {}


def tile_candidates(
    run: Run, key: str, left: int, right: int, first: int, second: int, radius: float, group: str
) -> dict[str, Any]:
    """Pairs of positions of two tiles, which begin at `first` and `second`, whose lower bound is within the radius."""
    block = load(run, f"tile-{left:06d}.npy")
    other = block if left == right else load(run, f"tile-{right:06d}.npy")
    i, j = candidate_pairs(block, None if left == right else other, radius)
    level = np.empty(len(i), dtype=np.uint8)
    for start in range(0, len(i), LEVELLED):
        part = slice(start, start + LEVELLED)
        difference = block[i[part]] - other[j[part]]
        level[part] = levels_of(np.einsum("ij,ij->i", difference, difference), radius)
    name = f"{group}-{key}.npy"
    run.save(level, "partial", STAGE, level_file(name))
    order = load(run, "order.npy")
    a, b = order[i + first], order[j + second]
    small = np.int32 if len(order) < 2**31 else np.int64
    run.save(np.stack([np.minimum(a, b), np.maximum(a, b)]).astype(small), "partial", STAGE, name)
    return {"candidates": len(a)}
