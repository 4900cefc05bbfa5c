"""Regime join: all pairs within a radius, Ward on them, one common cut. For n_clusters near n."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskim.errors import SettingsError
from daskim.kept import Kept, gather, take
from daskim.kernels.neighbours import candidate_pairs, squared_distances
from daskim.kernels.ward import Merges, ward_heights
from daskim.stages import Context
from daskim.stages.clusters.forest import DENSE_PAIRS, DENSE_POINTS, grow_forest, whole_forest
from daskim.stages.clusters.points import STAGE, Points, load
from daskim.store import Run, block_bounds

__all__ = ["TooManyPairs", "join_merges"]

SAMPLE = 1024
# Bits of a float32 that name the bin of a distance: its sign, exponent and 4 bits of its mantissa, steps of 3 to 6 %.
BIN_SHIFT = 19
# Points in a tile of the join, and tiles at most (then they grow).
TILE = 4096
TILES = 256
# Attempts with a radius before the full tree of a set that is small enough for it.
TRIES = 2
# Candidates verified by one task.
VERIFY = 16_384


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
        Merges wanted; fewer come back only where all points are one cluster.
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
    bound = 2 * context.settings.clusters.max_pairs  # a sample's estimate may be off by that
    guess, estimate = first_radius(context, points, count)
    radius = max(guess, near)
    if p > DENSE_POINTS and guess < near and estimate(near) > bound >= estimate(guess):
        context.say(f"clusters: about {estimate(near):,.0f} pairs are nearly identical: they are not all looked at")
        radius = guess
    attempts: list[dict[str, Any]] = []
    for attempt in range(12):
        if p <= DENSE_POINTS and (estimate(radius) > DENSE_PAIRS or attempt == TRIES):
            merges = whole_forest(context, kept, attempt)
            return merges, {"attempts": [*attempts, {"radius_rms": None, "merges": len(merges.height)}]}
        if estimate(radius) > bound:
            raise TooManyPairs(estimate(radius), radius)
        a, b, squared = pairs_within(context, kept, points, radius, attempt)
        merges = grow_forest(context, kept, a, b, squared, radius, f"ward{attempt}")
        attempts.append({"radius_rms": radius * unit, "pairs": len(a), "merges": len(merges.height)})
        if len(merges.height) >= min(count, p - 1):
            return merges, {"attempts": attempts}
        context.say(
            f"clusters: {len(merges.height)} merges within {radius * unit:.1f} grey levels, {count} needed: "
            "larger radius"
        )
        radius *= 1.1
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
    bounds = block_bounds(p, TILE)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    context.engine.each(STAGE, "sample", keys, list(bounds), sample_distances)
    nearest = np.full(len(sample), np.inf)
    histogram = np.zeros(1 << (32 - BIN_SHIFT))
    for key in keys:
        part = load(run, f"sample-{key}.npy")
        nearest = np.minimum(nearest, part[: len(sample)])
        histogram += part[len(sample) :]
    finite = nearest[np.isfinite(nearest)]
    guess = float(np.quantile(finite, min(1.0, 3.0 * count / p))) * 1.08 if finite.size else 0.0
    total = np.cumsum(histogram)

    def estimate(radius: float) -> float:
        return float(total[_bins(np.array([min(radius, 1e30)]))[0]]) / len(sample) * p / 2

    return max(guess, 1e-6), estimate


def sample_distances(run: Run, key: str, lo: int, hi: int) -> dict[str, Any]:
    """Lower bounds of the distances of the sample to some points: nearest of each, and a histogram of all."""
    rows, sample = load(run, "rows.npy"), load(run, "sample.npy")
    left = take(run, "features", rows[sample])
    right = take(run, "features", rows[lo:hi])
    squared = -2.0 * (left @ right.T)
    squared += np.einsum("ij,ij->i", left, left)[:, None]
    squared += np.einsum("ij,ij->i", right, right)[None, :]
    inside = np.flatnonzero((sample >= lo) & (sample < hi))
    squared[inside, sample[inside] - lo] = np.inf
    distance = np.sqrt(np.maximum(squared, 0.0))
    histogram = np.bincount(_bins(distance[np.isfinite(distance)]), minlength=1 << (32 - BIN_SHIFT))
    run.save(np.concatenate([distance.min(axis=1), histogram]), "partial", STAGE, f"sample-{key}.npy")
    return {}


def _bins(distance: np.ndarray) -> np.ndarray:
    """The logarithmic bin of each distance: positive floats are ordered like their bits."""
    return distance.astype(np.float32).view(np.uint32) >> BIN_SHIFT


def pairs_within(
    context: Context, kept: Kept, points: Points, radius: float, attempt: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of points (positions a < b) with Ward height within the radius, and its squared height."""
    run, p = context.run, len(points.rows)
    features = run.array("features")
    first = np.concatenate([np.asarray(features[lo:hi, 0]) for lo, hi in block_bounds(context.known.n, 1 << 20)])
    first = first[points.rows]
    order = np.argsort(first, kind="stable")
    tile = max(TILE, -(-p // (TILES * 1024)) * 1024)
    bounds = block_bounds(p, tile)
    if not any(key.startswith("sorted") for key in run.marked(STAGE)):
        run.create_array("features_sorted", (p, features.shape[1]), "f4", min(tile, p))
        run.save(order, "partial", STAGE, "order.npy")
    keys = [f"{index:06d}" for index in range(len(bounds))]
    context.engine.each(STAGE, "sorted", keys, list(bounds), sort_tile)
    reach = [(float(first[order[lo]]), float(first[order[hi - 1]])) for lo, hi in bounds]
    near = [
        (i, j) for i in range(len(bounds)) for j in range(i, len(bounds)) if reach[j][0] - reach[i][1] <= radius * 1.001
    ]
    keys = [f"{i:04d}-{j:04d}" for i, j in near]
    calls = [(bounds[i], bounds[j], radius, f"tile{attempt}") for i, j in near]
    context.engine.each(STAGE, f"tile{attempt}", keys, calls, tile_candidates)
    return verified(context, kept, points, radius, attempt, keys)


def sort_tile(run: Run, key: str, lo: int, hi: int) -> dict[str, Any]:
    """One tile of the features in the order of their first direction."""
    rows = load(run, "rows.npy")[load(run, "order.npy")[lo:hi]]
    run.array("features_sorted")[lo:hi] = take(run, "features", rows)
    return {}


def tile_candidates(
    run: Run, key: str, left: tuple[int, int], right: tuple[int, int], radius: float, group: str
) -> dict[str, Any]:
    """Pairs of positions of two tiles whose lower bound is within the radius."""
    features = run.array("features_sorted")
    block = np.asarray(features[left[0] : left[1]])
    other = None if left == right else np.asarray(features[right[0] : right[1]])
    i, j = candidate_pairs(block, other, radius)
    order = load(run, "order.npy")
    a, b = order[i + left[0]], order[j + right[0]]
    run.save(np.stack([np.minimum(a, b), np.maximum(a, b)]), "partial", STAGE, f"{group}-{key}.npy")
    return {"candidates": len(a)}


def verified(
    context: Context, kept: Kept, points: Points, radius: float, attempt: int, tiles: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact distances of the candidates, ordered so that a task looks into few blocks of W."""
    run = context.run
    a, b = np.concatenate([load(run, f"tile{attempt}-{key}.npy") for key in tiles], axis=1)
    if len(a) > 20 * context.settings.clusters.max_pairs:
        raise TooManyPairs(len(a), radius)
    rows = context.known.rows
    order = np.lexsort((b, a, points.rows[b] // rows, points.rows[a] // rows))
    a, b = a[order], b[order]
    batches = block_bounds(len(a), VERIFY)
    keys = [f"{index:06d}" for index in range(len(batches))]
    there = run.marked(STAGE)
    for key, (lo, hi) in zip(keys, batches):
        if f"verify{attempt}-{key}" not in there:
            run.save(np.stack([a[lo:hi], b[lo:hi]]), "partial", STAGE, f"candidates{attempt}-{key}.npy")
    calls = [(kept, radius, attempt) for _ in keys]
    context.engine.each(STAGE, f"verify{attempt}", keys, calls, verify_batch)
    parts = [load(run, f"pairs{attempt}-{key}.npy") for key in keys] or [np.zeros((3, 0))]
    found = np.concatenate(parts, axis=1)
    if found.shape[1] > context.settings.clusters.max_pairs:
        raise TooManyPairs(found.shape[1], radius)
    found = found[:, np.lexsort((found[1], found[0]))]
    return found[0].astype(np.int64), found[1].astype(np.int64), found[2]


def verify_batch(run: Run, key: str, kept: Kept, radius: float, attempt: int) -> dict[str, Any]:
    """Squared Ward heights of the candidates that are within the radius."""
    rows, weights = load(run, "rows.npy"), load(run, "weights.npy")
    a, b = load(run, f"candidates{attempt}-{key}.npy")
    used, position = np.unique(np.concatenate([a, b]), return_inverse=True)
    block = gather(kept, rows[used])
    i, j = position[: len(a)], position[len(a) :]
    height = ward_heights(squared_distances(block, block, i, j), weights[a], weights[b])
    inside = height <= radius**2
    run.save(
        np.stack([a[inside].astype(np.float64), b[inside].astype(np.float64), height[inside]]),
        *("partial", STAGE, f"pairs{attempt}-{key}.npy"),
    )
    return {"pairs": int(inside.sum())}
