"""Nearest images in coarse coefficients, mean and contrast apart, whatever their mirror and centre crop.

Up to `candidates.all_blocks` images, every image is compared with every other by blocked matrix products; above, only
inside k-means cells, each form of an image in the `candidates.probes` cells nearest to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from daskim.kernels.kmeans import nearest_centres, seed_centres
from daskim.kernels.nearest import Best, Found, best_products, nearest_of
from daskim.kernels.splits import across, splits_in
from daskim.lloyd import dask_ml_steps
from daskim.settings import Candidates
from daskim.stages import Context
from daskim.stages.candidates import cells
from daskim.stages.candidates.features import LENGTH, forms_of, odd_of, plain_of, with_mirrored
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["BLOCK", "Search", "best_of_splits"]

# Images of one block of products.
BLOCK = 16_384
# Images from which the cells are seeded, for each cell, images of one block there, and steps of Lloyd's algorithm.
SEED_ROWS = 32
LEAF = 8192
LLOYD_STEPS = 8
# Where the centres of the cells stay for later deliveries, and the growth after which they are made anew.
CENTRES = ("frozen", NAME, "centres.npy")
GROWTH = 4


class Search:
    """Looks images up among the searched ones: in all of them, or above `candidates.all_blocks` in k-means cells.

    Parameters
    ----------
    rows : ndarray, shape (p,), int64
        Images that are searched, ascending.
    mark : str
        What the names of its blocks and files begin with.
    """

    def __init__(self, context: Context, rows: np.ndarray, mark: str = "") -> None:
        self.context, self.rows, self.mark = context, rows, mark
        self.run, self.settings = context.run, context.settings.candidates
        self.renewed = False
        self.facts: dict[str, Any] = {"join": "all blocks", "coarse_share": 1.0}
        self._cells = len(rows) > self.settings.all_blocks
        if self._cells:
            self._assign()

    def nearest(self, name: str, queries: np.ndarray, columns: np.ndarray) -> list[str]:
        """Look the images `queries` up among `columns`; files that hold image, nearest, score, (3, found), float64."""
        name = f"{self.mark}{name}"
        self.run.save(columns, "partial", NAME, f"{name}-columns.npy")
        bounds = block_bounds(len(queries), cells.QUERY)
        keys = [f"{index:06d}" for index in range(len(bounds))]
        if self._cells:
            same = len(queries) == len(columns) and bool((queries == columns).all())
            theirs = self._place(f"{name}-columns", columns)
            ours = theirs if same else self._place(f"{name}-queries", queries)
            calls = [(name, ours, theirs, self.settings) for _ in keys]
            self.context.engine.each(NAME, name, keys, calls, nearest_in_cells)
        else:
            self.run.save(queries, "partial", NAME, f"{name}-queries.npy")
            spans = [(name, lo, hi, self.settings) for lo, hi in bounds]
            self.context.engine.each(NAME, name, keys, spans, nearest_of_all)
        return [f"{name}-{key}.npy" for key in keys]

    def _assign(self) -> None:
        """Sort the searched images into cells."""
        run, rows = self.run, self.rows
        run.save(rows, "partial", NAME, f"{self.mark}rows.npy")
        centres = self._centres()
        probes = min(self.settings.probes, len(centres))
        bounds = block_bounds(len(rows), cells.QUERY)
        keys = [f"{index:06d}" for index in range(len(bounds))]
        name = f"{self.mark}assign"
        calls = [(name, lo, hi, probes, self.settings, f"{self.mark}rows.npy") for lo, hi in bounds]
        self.context.engine.each(NAME, name, keys, calls, assign_cells)
        self.count = len(centres)
        self.probed = [f"{name}-{key}.npy" for key in keys]
        self.own = np.zeros(len(rows), dtype=np.int32)
        for (lo, hi), probed in zip(bounds, self._probed()):
            self.own[lo:hi] = probed[:, 0, 0]
        sizes = np.bincount(self.own, minlength=self.count).astype(np.float64)
        compared = 0.0
        for probed in self._probed():
            distinct = np.sort(probed.reshape(len(probed), -1), axis=1)
            fresh = np.ones(distinct.shape, dtype=bool)
            fresh[:, 1:] = distinct[:, 1:] != distinct[:, :-1]
            compared += float((sizes[distinct] * fresh).sum()) / 2
        share = min(1.0, compared / max(1.0, len(rows) * (len(rows) - 1) / 2))
        self.facts = {"join": "cells", "cells": self.count, "probes": probes, "coarse_share": share}

    def _probed(self) -> Iterator[np.ndarray]:
        return (self.run.load("partial", NAME, name) for name in self.probed)

    def _centres(self) -> np.ndarray:
        """Those of the run, unless it has none or has outgrown them."""
        import dask.array as da

        run, rows, settings = self.run, self.rows, self.settings
        if run.exists(*CENTRES):
            held = run.load(*CENTRES)
            if len(rows) <= GROWTH * held[0, -1]:
                return held[:, :-1]
        self.renewed = True
        count = min(settings.cells or round(len(rows) ** 0.5), len(rows))
        sample = np.sort(np.random.default_rng(settings.seed).permutation(len(rows))[: SEED_ROWS * count])
        block = plain_of(run, rows[sample], settings).astype(np.float64)
        seeds = block[seed_centres(block, count, seed=settings.seed)]
        chunks = da.from_array(block.astype(np.float32), chunks=(LEAF, -1))
        _, centres, _ = dask_ml_steps(self.context.engine.place, chunks, seeds, LLOYD_STEPS)
        run.save(np.column_stack([centres, np.full(count, float(len(rows)))]), *CENTRES)  # and for how many images
        return centres

    def _place(self, name: str, rows: np.ndarray) -> str:
        """Leave features and probed cells of images in the order of their cells (`cells.place`); under which name."""
        at = np.searchsorted(self.rows, rows)
        order = np.argsort(self.own[at], kind="stable")
        place = np.empty(len(rows), dtype=np.int64)
        place[order] = np.arange(len(rows))
        ends = np.searchsorted(self.own[at[order]], np.arange(self.count + 1))
        self.run.save(ends, "partial", NAME, f"{name}-ends.npy")
        cells.place_in_cells(self.context, name, rows, place, at, self.probed)
        return name


def nearest_of_all(run: Run, key: str, name: str, lo: int, hi: int, settings: Candidates) -> dict[str, Any]:
    """The nearest images of some images, among all columns."""
    mine = run.load("partial", NAME, f"{name}-queries.npy")[lo:hi]
    columns = run.load("partial", NAME, f"{name}-columns.npy")
    if settings.across == "splits":
        return _nearest_across(run, key, name, mine, columns, settings)
    queries, odd = forms_of(run, mine, settings), odd_of(run, settings)
    nearest = nearest_of(len(mine), settings.neighbours, _least(settings), mine)
    for start, end in block_bounds(len(columns), BLOCK):
        block = plain_of(run, columns[start:end], settings)
        best_products(nearest, queries, columns[start:end], block, odd)
    return _save(run, f"{name}-{key}", _named(mine, nearest))


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
        self.near = nearest_of(len(rows), settings.neighbours, _least(settings), rows)
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

    def save(self, run: Run, key: str, name: str) -> dict[str, Any]:
        """Leave both: image, nearest, score; and image, split, nearest, score."""
        found = [np.zeros((4, 0))]
        for bit, best in self.best.items():
            row, other, score = _named(self.rows, best)
            found.append(np.stack([row, np.full(len(row), float(bit)), other, score]))
        run.save(np.concatenate(found, axis=1), "partial", NAME, f"best-{key}.npy")
        return _save(run, f"{name}-{key}", _named(self.rows, self.near))


def _nearest_across(
    run: Run, key: str, name: str, mine: np.ndarray, rows: np.ndarray, settings: Candidates
) -> dict[str, Any]:
    """The nearest images of other splits, of some images of which those of one split are looked up together."""
    masks = run.load("partial", NAME, "masks.npy")
    mine = mine[np.argsort(masks[mine], kind="stable")]
    nearest = _Across(mine, masks, settings)
    for mask in np.unique(masks[mine]).tolist():
        at = np.flatnonzero(masks[mine] == mask)
        others = rows[across(masks[rows], np.array(mask))]
        queries, odd = forms_of(run, mine[at], settings), odd_of(run, settings)
        for start, end in block_bounds(len(others), BLOCK):
            block = plain_of(run, others[start:end], settings)
            best_products(_From(nearest, int(at[0])), queries, others[start:end], block, odd)
    return nearest.save(run, key, name)


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


def _least(settings: Candidates) -> float:
    """The inner product from which on images are near; a rounded form may be longer than `LENGTH`."""
    return settings.correlation * LENGTH**2 if settings.correlation > -1 else -np.inf


def _named(rows: np.ndarray, nearest: Found) -> np.ndarray:
    """Image, nearest, correlation; shape (3, found), float64."""
    query, row, score = nearest.result()
    correlation = np.minimum(score.astype(np.float64) / LENGTH**2, 1.0)  # a rounded form may be longer
    return np.stack([rows[query].astype(np.float64), row.astype(np.float64), correlation])


def _save(run: Run, key: str, found: np.ndarray) -> dict[str, Any]:
    run.save(found, "partial", NAME, f"{key}.npy")
    return {"found": found.shape[1]}


def assign_cells(
    run: Run, key: str, name: str, lo: int, hi: int, probes: int, settings: Candidates, searched: str
) -> dict[str, Any]:
    """The nearest cells of each form of some images; shape (images, forms, probes)."""
    rows, centres = run.load("partial", NAME, searched), run.load(*CENTRES)[:, :-1]
    block = with_mirrored(forms_of(run, rows[lo:hi], settings), odd_of(run, settings))
    found = nearest_centres(block.reshape(-1, block.shape[2]).astype(np.float64), centres, probes)
    run.save(found.reshape(*block.shape[:2], probes).astype(np.int32), "partial", NAME, f"{name}-{key}.npy")
    return {}


def nearest_in_cells(run: Run, key: str, name: str, ours: str, theirs: str, settings: Candidates) -> dict[str, Any]:
    """The nearest images of some images (in the order of their cells), in the cells that their forms probe."""
    mine, found, here = cells.asked_of(run, ours, int(key), settings)
    queries = with_mirrored(found, odd_of(run, settings))
    members = cells.Members(run, theirs)
    nearest: Found | _Across
    if settings.across == "splits":
        nearest = _Across(mine, run.load("partial", NAME, "masks.npy"), settings)
    else:
        nearest = nearest_of(len(mine), settings.neighbours, _least(settings), mine)
    for cell in np.unique(here).tolist():
        query, form = np.nonzero((here == cell).any(axis=2))
        for inside, block in members.of(cell):
            for start in range(0, len(query), cells.QUERY):
                some = slice(start, start + cells.QUERY)
                nearest.offer(query[some], inside, queries[query[some], form[some]] @ block.T)
    if isinstance(nearest, _Across):
        return nearest.save(run, key, name)
    return _save(run, f"{name}-{key}", _named(mine, nearest))
