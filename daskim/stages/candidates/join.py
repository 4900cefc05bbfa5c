"""Nearest images in coarse coefficients, mean and contrast apart, whatever their mirror and centre crop.

Up to `candidates.all_blocks` images, every image is compared with every other by blocked matrix products; above, only
inside k-means cells, each form of an image in the `candidates.probes` cells nearest to it.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np

from daskim.kernels.kmeans import nearest_centres, seed_centres
from daskim.kernels.nearest import Best, Nearest, best_products
from daskim.kernels.splits import across, splits_in
from daskim.lloyd import dask_ml_steps
from daskim.settings import Candidates
from daskim.stages import Context
from daskim.stages.candidates.features import forms_of
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["BLOCK", "QUERY", "Search", "best_of_splits"]

# Images of one block of products, and looked up by one task. Constants: the last bits of products may depend on them.
BLOCK = 16_384
QUERY = 2048
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

    def nearest(self, name: str, queries: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The nearest of the images `columns` of each of `queries`: image, nearest, score; (3, found), float64."""
        name = f"{self.mark}{name}"
        self.run.save(columns, "partial", NAME, f"{name}-columns.npy")
        if self._cells:
            queries = queries[np.argsort(self.own[np.searchsorted(self.rows, queries)], kind="stable")]
            self._members(name, columns)
        self.run.save(queries, "partial", NAME, f"{name}-queries.npy")
        bounds = block_bounds(len(queries), QUERY)
        keys = [f"{index:06d}" for index in range(len(bounds))]
        calls = [(name, lo, hi, self.settings, f"{self.mark}rows.npy") for lo, hi in bounds]
        look_up = nearest_in_cells if self._cells else nearest_of_all
        self.context.engine.each(NAME, name, keys, calls, look_up)
        parts = [self.run.load("partial", NAME, f"{name}-{key}.npy") for key in keys]
        return np.concatenate([np.zeros((3, 0)), *parts], axis=1)

    def _assign(self) -> None:
        """Sort the searched images into cells."""
        run, rows = self.run, self.rows
        run.save(rows, "partial", NAME, f"{self.mark}rows.npy")
        centres = self._centres()
        probes = min(self.settings.probes, len(centres))
        bounds = block_bounds(len(rows), QUERY)
        keys = [f"{index:06d}" for index in range(len(bounds))]
        name = f"{self.mark}assign"
        calls = [(name, lo, hi, probes, self.settings, f"{self.mark}rows.npy") for lo, hi in bounds]
        self.context.engine.each(NAME, name, keys, calls, assign_cells)
        probed = np.concatenate([run.load("partial", NAME, f"{name}-{key}.npy") for key in keys])
        run.save(probed, "partial", NAME, "probed.npy")
        self.own = probed[:, 0, 0]
        self.count = len(centres)
        sizes = np.bincount(self.own, minlength=self.count).astype(np.float64)
        distinct = np.sort(probed.reshape(len(rows), -1), axis=1)
        fresh = np.ones(distinct.shape, dtype=bool)
        fresh[:, 1:] = distinct[:, 1:] != distinct[:, :-1]
        compared = float((sizes[distinct] * fresh).sum()) / 2
        share = min(1.0, compared / max(1.0, len(rows) * (len(rows) - 1) / 2))
        self.facts = {"join": "cells", "cells": self.count, "probes": probes, "coarse_share": share}

    def _centres(self) -> np.ndarray:
        """Those of the run, unless it has none or has outgrown them."""
        run, rows, settings = self.run, self.rows, self.settings
        if run.exists(*CENTRES):
            held = run.load(*CENTRES)
            if len(rows) <= GROWTH * held[0, -1]:
                return held[:, :-1]
        self.renewed = True
        count = min(settings.cells or round(len(rows) ** 0.5), len(rows))
        sample = np.sort(np.random.default_rng(settings.seed).permutation(len(rows))[: SEED_ROWS * count])
        block = forms_of(run, rows[sample], settings)[:, 0].astype(np.float64)
        seeds = block[seed_centres(block, count, seed=settings.seed)]
        chunks = da.from_array(block.astype(np.float32), chunks=(LEAF, -1))
        _, centres, _ = dask_ml_steps(self.context.engine.place, chunks, seeds, LLOYD_STEPS)
        run.save(np.column_stack([centres, np.full(count, float(len(rows)))]), *CENTRES)  # and for how many images
        return centres

    def _members(self, name: str, columns: np.ndarray) -> None:
        """Leave the images `columns` in the order of their cells, and where each cell begins."""
        own = self.own[np.searchsorted(self.rows, columns)]
        order = np.argsort(own, kind="stable")
        self.run.save(columns[order], "partial", NAME, f"{name}-members.npy")
        self.run.save(np.searchsorted(own[order], np.arange(self.count + 1)), "partial", NAME, f"{name}-ends.npy")


def nearest_of_all(
    run: Run, key: str, name: str, lo: int, hi: int, settings: Candidates, searched: str
) -> dict[str, Any]:
    """The nearest images of some images, among all columns."""
    mine = run.load("partial", NAME, f"{name}-queries.npy")[lo:hi]
    columns = run.load("partial", NAME, f"{name}-columns.npy")
    if settings.across == "splits":
        return _nearest_across(run, key, name, mine, columns, settings)
    queries = forms_of(run, mine, settings)
    nearest = Nearest(len(mine), settings.neighbours, settings.correlation, mine)
    for start, end in block_bounds(len(columns), BLOCK):
        block = np.ascontiguousarray(forms_of(run, columns[start:end], settings)[:, 0])
        best_products(nearest, queries, columns[start:end], block)
    return _save_nearest(run, f"{name}-{key}", mine, nearest)


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
        queries = forms_of(run, mine[at], settings)
        for start, end in block_bounds(len(others), BLOCK):
            block = np.ascontiguousarray(forms_of(run, others[start:end], settings)[:, 0])
            best_products(_From(nearest, int(at[0])), queries, others[start:end], block)
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


def _save_nearest(run: Run, key: str, rows: np.ndarray, nearest: Nearest) -> dict[str, Any]:
    return _save(run, key, _named(rows, nearest))


def _named(rows: np.ndarray, nearest: Nearest | Best) -> np.ndarray:
    """Image, nearest, score; shape (3, found), float64."""
    query, row, score = nearest.result()
    return np.stack([rows[query].astype(np.float64), row.astype(np.float64), score.astype(np.float64)])


def _save(run: Run, key: str, found: np.ndarray) -> dict[str, Any]:
    run.save(found, "partial", NAME, f"{key}.npy")
    return {"found": found.shape[1]}


def assign_cells(
    run: Run, key: str, name: str, lo: int, hi: int, probes: int, settings: Candidates, searched: str
) -> dict[str, Any]:
    """The nearest cells of each form of some images; shape (images, forms, probes)."""
    rows, centres = run.load("partial", NAME, searched), run.load(*CENTRES)[:, :-1]
    block = forms_of(run, rows[lo:hi], settings)
    found = nearest_centres(block.reshape(-1, block.shape[2]).astype(np.float64), centres, probes)
    run.save(found.reshape(*block.shape[:2], probes).astype(np.int32), "partial", NAME, f"{name}-{key}.npy")
    return {}


def nearest_in_cells(
    run: Run, key: str, name: str, lo: int, hi: int, settings: Candidates, searched: str
) -> dict[str, Any]:
    """The nearest images of some images (in the order of their cells), in the cells that their forms probe."""
    mine = run.load("partial", NAME, f"{name}-queries.npy")[lo:hi]
    members, ends = run.load("partial", NAME, f"{name}-members.npy"), run.load("partial", NAME, f"{name}-ends.npy")
    here = run.load("partial", NAME, "probed.npy")[np.searchsorted(run.load("partial", NAME, searched), mine)]
    queries = forms_of(run, mine, settings)
    nearest: Nearest | _Across
    if settings.across == "splits":
        nearest = _Across(mine, run.load("partial", NAME, "masks.npy"), settings)
    else:
        nearest = Nearest(len(mine), settings.neighbours, settings.correlation, mine)
    for cell in np.unique(here).tolist():
        inside = members[ends[cell] : ends[cell + 1]]
        if not len(inside):
            continue
        query, form = np.nonzero((here == cell).any(axis=2))
        for lo_row, hi_row in block_bounds(len(inside), QUERY):  # a cell may be large
            some_members = inside[lo_row:hi_row]
            block = np.ascontiguousarray(forms_of(run, some_members, settings)[:, 0])
            for start in range(0, len(query), QUERY):
                some = slice(start, start + QUERY)
                nearest.offer(query[some], some_members, queries[query[some], form[some]] @ block.T)
    if isinstance(nearest, _Across):
        return nearest.save(run, key, name)
    return _save_nearest(run, f"{name}-{key}", mine, nearest)
