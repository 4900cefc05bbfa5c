"""Nearest images in coarse coefficients, mean and contrast apart, whatever their mirror and centre crop.

Up to `candidates.all_blocks` images, every image is compared with every other by blocked matrix products; above, only
inside k-means cells, each form of an image in the `candidates.probes` cells nearest to it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import dask.array as da
import numpy as np

from daskim.engine import Fold, total
from daskim.kept import take
from daskim.kernels.coarse import forms, width
from daskim.kernels.kmeans import nearest_centres, seed_centres
from daskim.kernels.nearest import Best, Nearest, best_products
from daskim.kernels.neighbours import principal_directions
from daskim.kernels.splits import across, splits_in
from daskim.lloyd import dask_ml_steps
from daskim.settings import Candidates
from daskim.stages import Context
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["BLOCK", "QUERY", "best_of_splits", "form_count", "join_pairs", "views_bytes"]

# Images whose forms are made together, that are projected by one task, of one leaf of the Gram matrix, of one block of
# products, and looked up by one task. Constants: the last bits of products may depend on them, and nothing may depend
# on the blocks of the run. The first three are fewer where images are large: so many values of pixels at most.
VIEW, VIEW_PIXELS = 256, 2**21
PIXELS = 2**25
PROJECT = 2048
LEAF = 8192
BLOCK = 16_384
QUERY = 2048
# Images from which the cells are seeded, for each cell, and steps of Lloyd's algorithm on them.
SEED_ROWS = 32
LLOYD_STEPS = 8


def form_count(settings: Candidates) -> int:
    """Forms in which each image is looked up."""
    return (1 + len(settings.crops)) * (2 if settings.mirror else 1)


def _rows(most: int, pixels: int, bound: int) -> int:
    return max(1, min(most, bound // pixels))


def views_bytes(n: int, pixels: int, channels: int, forms: int, k: int) -> int:
    """What a task holds at most while it makes forms of images and projects them, or adds up their products."""
    view = min(n, _rows(VIEW, pixels, VIEW_PIXELS)) * (16 * pixels + 24 * forms * width(channels))
    project = min(n, _rows(PROJECT, pixels, PIXELS)) * (2 * pixels + 8 * forms * k)
    leaf = min(n, _rows(LEAF, pixels, PIXELS)) * (2 * pixels + 20 * width(channels))
    return view + max(project, leaf)


def join_pairs(context: Context, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Pairs a < b of images near each other, with their correlation, ordered by (a, b).

    Parameters
    ----------
    rows : ndarray, shape (p,), int64
        Images that are searched.

    Returns
    -------
    a, b : ndarray, int64
    correlation : ndarray, float32
    facts : dict
    """
    run, settings = context.run, context.settings.candidates
    _features(context)
    run.save(rows, "partial", NAME, "rows.npy")
    if len(rows) <= settings.all_blocks:
        bounds = block_bounds(len(rows), QUERY)
        keys = [f"{index:06d}" for index in range(len(bounds))]
        calls = [(lo, hi, settings) for lo, hi in bounds]
        context.engine.each(NAME, "nearest", keys, calls, nearest_of_all)
        facts: dict[str, Any] = {"join": "all blocks", "coarse_share": 1.0}
    else:
        keys, facts = _cells(context, rows)
    parts = [run.load("partial", NAME, f"nearest-{key}.npy") for key in keys] or [np.zeros((3, 0))]
    query, row, score = np.concatenate(parts, axis=1)
    return *_merged(query.astype(np.int64), row.astype(np.int64), score), facts


def _merged(query: np.ndarray, row: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pair once, with its better score."""
    a, b = np.minimum(query, row), np.maximum(query, row)
    order = np.lexsort((-score, b, a))
    a, b, score = a[order], b[order], score[order]
    first = np.ones(len(a), dtype=bool)
    first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return a[first], b[first], score[first].astype(np.float32)


class _Projector:
    """All forms of a block of images in the leading directions; the directions are read once a process."""

    def __init__(self, run: Run, token: str, settings: Candidates) -> None:
        self.run, self.token, self.settings = run, token, settings

    def __call__(self, block: np.ndarray) -> np.ndarray:
        return project(block, _directions(self.run, self.token), self.settings)


def project(images: np.ndarray, directions: np.ndarray, settings: Candidates) -> np.ndarray:
    """Forms of images in the leading directions, unit norm; shape (b, forms * k), float32."""
    out = np.empty((len(images), form_count(settings), directions.shape[1]), dtype=np.float32)
    view = _rows(VIEW, math.prod(images.shape[1:]), VIEW_PIXELS)
    for start in range(0, len(images), view):
        found = forms(images[start : start + view], settings.crops, mirror=settings.mirror) @ directions
        norm = np.sqrt(np.einsum("bfk,bfk->bf", found, found))
        out[start : start + view] = found / np.where(norm > 1e-3, norm, np.inf)[..., None].astype(np.float32)
    return out.reshape(len(images), -1)


@lru_cache(maxsize=2)
def _directions(run: Run, token: str) -> np.ndarray:
    return run.load("partial", NAME, "directions.npy")


def _gram(block: np.ndarray) -> np.ndarray:
    view = _rows(VIEW, math.prod(block.shape[1:]), VIEW_PIXELS)
    parts = [forms(block[start : start + view], (), mirror=False)[:, 0] for start in range(0, len(block), view)]
    whole = np.concatenate(parts).astype(np.float64)
    return whole.T @ whole


def _features(context: Context) -> None:
    """Leave the array `coarse` (n, forms * k) in the run."""
    run, size, settings = context.run, context.known, context.settings.candidates
    images = da.from_zarr(run.array("images"))
    if not run.exists("partial", NAME, "directions.npy"):
        leaves = images.rechunk((_rows(LEAF, size.pixels, PIXELS), -1, -1, -1))
        gram = context.engine.fold(NAME, "coarse-gram", leaves, Fold(_gram, total))
        directions = principal_directions(gram, min(settings.directions, width(size.channels)))
        run.save(directions.astype(np.float32), "partial", NAME, "directions.npy")
    columns = form_count(settings) * run.load("partial", NAME, "directions.npy").shape[1]
    record = run.read_json("state", NAME, "stage.json") or {}
    project_rows = _rows(PROJECT, size.pixels, PIXELS)
    token = f"{record.get('fingerprint', '')} {run.array('images').attrs['made']}"
    if not any(key.startswith("coarse-0") for key in run.marked(NAME)):
        run.create_array("coarse", (size.n, columns), "f4", min(project_rows, size.n))
    images = images.rechunk((project_rows, -1, -1, -1))
    coarse = images.map_blocks(
        _Projector(run, token, settings),
        dtype="f4",
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(images.chunks[0], (columns,)),
        meta=np.empty((0, 0), dtype="f4"),
    )
    context.engine.materialise(NAME, "coarse", coarse, "coarse")


def _forms_of(run: Run, rows: np.ndarray, settings: Candidates) -> np.ndarray:
    """Features of some images, shape (len(rows), forms, k)."""
    return take(run, "coarse", rows).reshape(len(rows), form_count(settings), -1)


def nearest_of_all(run: Run, key: str, lo: int, hi: int, settings: Candidates) -> dict[str, Any]:
    """The nearest images of some images, among all."""
    rows = run.load("partial", NAME, "rows.npy")
    if settings.across == "splits":
        return _nearest_across(run, key, rows[lo:hi], rows, settings)
    queries = _forms_of(run, rows[lo:hi], settings)
    nearest = Nearest(hi - lo, settings.neighbours, settings.correlation, rows[lo:hi])
    for start, end in block_bounds(len(rows), BLOCK):
        block = np.ascontiguousarray(_forms_of(run, rows[start:end], settings)[:, 0])
        best_products(nearest, queries, rows[start:end], block)
    return _save_nearest(run, key, rows[lo:hi], nearest)


class _Across:
    """The nearest images of other splits; and of each other split the very nearest, however far.

    Parameters
    ----------
    rows : ndarray, shape (q,), int64
        The queries.
    masks : ndarray, shape (n,), int64
        Splits of every image (`daskim.kernels.splits`).
    """

    def __init__(self, rows: np.ndarray, masks: np.ndarray, settings: Candidates) -> None:
        self.rows, self.masks, self.own = rows, masks, masks[rows]
        self.near = Nearest(len(rows), settings.neighbours, settings.correlation, rows)
        self.best = {bit: Best(len(rows)) for bit in splits_in(masks)}

    def offer(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """Scores (q, r) of some queries with some rows, ascending; those of one split do not count."""
        own, theirs = self.own[queries], self.masks[rows]
        for bit, best in self.best.items():
            asks, some = (own >> bit) & 1 == 0, (theirs >> bit) & 1 == 1
            if asks.any() and some.any():
                whole = asks.all() and some.all()
                best.offer(queries[asks], rows[some], scores if whole else scores[np.ix_(asks, some)])
        apart = across(own[:, None], theirs[None]) if len(np.unique(own)) > 1 else across(own[:1], theirs)[None]
        self.near.offer(queries, rows, scores if apart.all() else np.where(apart, scores, np.float32(-np.inf)))

    def save(self, run: Run, key: str) -> dict[str, Any]:
        """Leave both: image, nearest, score; and image, split, nearest, score."""
        found = [np.zeros((4, 0))]
        for bit, best in self.best.items():
            row, other, score = _named(self.rows, best)
            found.append(np.stack([row, np.full(len(row), float(bit)), other, score]))
        run.save(np.concatenate(found, axis=1), "partial", NAME, f"best-{key}.npy")
        return _save(run, key, _named(self.rows, self.near))


def _nearest_across(run: Run, key: str, mine: np.ndarray, rows: np.ndarray, settings: Candidates) -> dict[str, Any]:
    """The nearest images of other splits, of some images of which those of one split are looked up together."""
    masks = run.load("partial", NAME, "masks.npy")
    mine = mine[np.argsort(masks[mine], kind="stable")]
    nearest = _Across(mine, masks, settings)
    for mask in np.unique(masks[mine]).tolist():
        at = np.flatnonzero(masks[mine] == mask)
        others = rows[across(masks[rows], np.array(mask))]
        queries = _forms_of(run, mine[at], settings)
        for start, end in block_bounds(len(others), BLOCK):
            block = np.ascontiguousarray(_forms_of(run, others[start:end], settings)[:, 0])
            best_products(_From(nearest, int(at[0])), queries, others[start:end], block)
    return nearest.save(run, key)


class _From:
    """Offers to queries that are counted from a later one on."""

    def __init__(self, of: _Across, start: int) -> None:
        self.of, self.start = of, start

    def offer(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        self.of.offer(queries + self.start, rows, scores)


def best_of_splits(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image, bit of another split, the nearest image there, and their correlation: what `_Across` left."""
    names = [name for name in run.names("partial", NAME) if name.startswith("best-")]
    parts = [run.load("partial", NAME, name) for name in names] or [np.zeros((4, 0))]
    row, bit, other, score = np.concatenate(parts, axis=1)
    return row.astype(np.int64), bit.astype(np.int64), other.astype(np.int64), score.astype(np.float32)


def _save_nearest(run: Run, key: str, rows: np.ndarray, nearest: Nearest) -> dict[str, Any]:
    return _save(run, key, _named(rows, nearest))


def _named(rows: np.ndarray, nearest: Nearest | Best) -> np.ndarray:
    """Image, nearest, score; shape (3, found), float64."""
    query, row, score = nearest.result()
    return np.stack([rows[query].astype(np.float64), row.astype(np.float64), score.astype(np.float64)])


def _save(run: Run, key: str, found: np.ndarray) -> dict[str, Any]:
    run.save(found, "partial", NAME, f"nearest-{key}.npy")
    return {"found": found.shape[1]}


def _cells(context: Context, rows: np.ndarray) -> tuple[list[str], dict[str, Any]]:
    """Sort the images into k-means cells and look each up in some; keys of the results."""
    run, settings = context.run, context.settings.candidates
    count = min(settings.cells or round(len(rows) ** 0.5), len(rows))
    probes = min(settings.probes, count)
    if not run.exists("partial", NAME, "centres.npy"):
        sample = np.sort(np.random.default_rng(settings.seed).permutation(len(rows))[: SEED_ROWS * count])
        block = _forms_of(run, rows[sample], settings)[:, 0].astype(np.float64)
        seeds = block[seed_centres(block, count, seed=settings.seed)]
        chunks = da.from_array(block.astype(np.float32), chunks=(LEAF, -1))
        _, centres, _ = dask_ml_steps(context.engine.place, chunks, seeds, LLOYD_STEPS)
        run.save(centres, "partial", NAME, "centres.npy")
    bounds = block_bounds(len(rows), QUERY)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    context.engine.each(NAME, "assign", keys, [(lo, hi, probes, settings) for lo, hi in bounds], assign_cells)
    probed = np.concatenate([run.load("partial", NAME, f"assign-{key}.npy") for key in keys])
    own = probed[:, 0, 0]
    run.save(probed, "partial", NAME, "probed.npy")
    order = np.argsort(own, kind="stable")
    run.save(order, "partial", NAME, "order.npy")
    run.save(np.searchsorted(own[order], np.arange(count + 1)), "partial", NAME, "ends.npy")
    sizes = np.bincount(own, minlength=count).astype(np.float64)
    distinct = np.sort(probed.reshape(len(rows), -1), axis=1)
    fresh = np.ones(distinct.shape, dtype=bool)
    fresh[:, 1:] = distinct[:, 1:] != distinct[:, :-1]
    compared = float((sizes[distinct] * fresh).sum()) / 2
    calls = [(lo, hi, settings) for lo, hi in bounds]
    context.engine.each(NAME, "nearest", keys, calls, nearest_in_cells)
    share = min(1.0, compared / max(1.0, len(rows) * (len(rows) - 1) / 2))
    return keys, {"join": "cells", "cells": count, "probes": probes, "coarse_share": share}


def assign_cells(run: Run, key: str, lo: int, hi: int, probes: int, settings: Candidates) -> dict[str, Any]:
    """The nearest cells of each form of some images; shape (images, forms, probes)."""
    rows, centres = run.load("partial", NAME, "rows.npy"), run.load("partial", NAME, "centres.npy")
    block = _forms_of(run, rows[lo:hi], settings)
    found = nearest_centres(block.reshape(-1, block.shape[2]).astype(np.float64), centres, probes)
    run.save(found.reshape(*block.shape[:2], probes).astype(np.int32), "partial", NAME, f"assign-{key}.npy")
    return {}


def nearest_in_cells(run: Run, key: str, lo: int, hi: int, settings: Candidates) -> dict[str, Any]:
    """The nearest images of some images (in the order of their cells), in the cells that their forms probe."""
    rows, order = run.load("partial", NAME, "rows.npy"), run.load("partial", NAME, "order.npy")
    ends, probed = run.load("partial", NAME, "ends.npy"), run.load("partial", NAME, "probed.npy")
    masks = run.load("partial", NAME, "masks.npy") if settings.across == "splits" else None
    mine = order[lo:hi]
    queries = _forms_of(run, rows[mine], settings)
    nearest: Nearest | _Across
    if masks is None:
        nearest = Nearest(len(mine), settings.neighbours, settings.correlation, rows[mine])
    else:
        nearest = _Across(rows[mine], masks, settings)
    here = probed[mine]
    for cell in np.unique(here).tolist():
        members = rows[order[ends[cell] : ends[cell + 1]]]
        if not len(members):
            continue
        query, form = np.nonzero((here == cell).any(axis=2))
        for lo_row, hi_row in block_bounds(len(members), QUERY):  # a cell may be large
            some_members = members[lo_row:hi_row]
            block = np.ascontiguousarray(_forms_of(run, some_members, settings)[:, 0])
            for start in range(0, len(query), QUERY):
                some = slice(start, start + QUERY)
                nearest.offer(query[some], some_members, queries[query[some], form[some]] @ block.T)
    if isinstance(nearest, _Across):
        return nearest.save(run, key)
    return _save_nearest(run, key, rows[mine], nearest)
