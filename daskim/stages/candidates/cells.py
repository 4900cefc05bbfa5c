"""Features in the order of k-means cells: a cell is read in one piece, however many images there are.

Images are in the order of their cells (then as they come); `place` is where one stands there. A first round of tasks
goes through the images as they are stored and sorts what belongs to them by the groups of places that it goes to; a
second one puts each group in order. No task holds more than a group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from daskim.kept import take
from daskim.settings import Candidates
from daskim.stages import Context
from daskim.stages.candidates.features import form_count
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["QUERY", "Members", "asked_of", "place_in_cells"]

# Images that are looked up by one task.
QUERY = 2048
# So many times as many have their features sorted by one task: of n images n / (GROUP * QUERY), squared, files come.
GROUP = 32
# Shorts that hold a whole number of 64 bits.
LONG = 4


def place_in_cells(
    context: Context, name: str, rows: np.ndarray, place: np.ndarray, at: np.ndarray, probed: list[str]
) -> None:
    """Leave what is known of images in the order of their cells, for `asked_of` and `Members`.

    Parameters
    ----------
    rows, place, at : ndarray, shape (p,), int64
        Images; where they stand in the order of the cells; where in that of the search.
    probed : list of str
        Files of probed cells (images, forms, probes), int32, of `QUERY` images each in the order of the search.
    """
    bounds = block_bounds(len(rows), GROUP * QUERY)
    keys = [f"{index:06d}" for index in range(len(bounds))]
    calls = [(name, rows[lo:hi], place[lo:hi], at[lo:hi], probed) for lo, hi in bounds]
    infos = context.engine.each(NAME, f"{name}-leave", keys, calls, leave)
    parts = [[f"{name}-{key}-{index}.npy" for key, info in zip(keys, infos) if index in info["groups"]]
             for index in range(len(bounds))]  # fmt: skip
    forms = form_count(context.settings.candidates)
    context.engine.each(NAME, f"{name}-enter", keys, [(name, files, forms) for files in parts], enter)


def leave(
    run: Run, key: str, name: str, rows: np.ndarray, place: np.ndarray, at: np.ndarray, probed: list[str]
) -> dict[str, list[int]]:
    """Row, place, features and probed cells of some images, as shorts, into a file for each group they go to."""
    wanted = np.unique(at // QUERY)
    cells = np.concatenate([run.load("partial", NAME, probed[index]) for index in wanted.tolist()])
    mine = cells[np.searchsorted(wanted, at // QUERY) * QUERY + at % QUERY].reshape(len(rows), -1)
    named = np.stack([rows, place], axis=1).astype(np.int64)
    whole = np.concatenate([named.view(np.int16), take(run, "coarse", rows), mine.view(np.int16)], axis=1)
    owner = place // (GROUP * QUERY)
    groups = np.unique(owner).tolist()
    for index in groups:
        run.save(whole[owner == index], "partial", NAME, f"{name}-{key}-{index}.npy")
    return {"groups": groups}


def enter(run: Run, key: str, name: str, files: list[str], forms: int) -> dict[str, int]:
    """A group in order: for those who look up and for those who are found, `QUERY` images a file."""
    whole = np.concatenate([run.load("partial", NAME, file) for file in files])
    place = np.ascontiguousarray(whole[:, LONG : 2 * LONG]).view(np.int64)[:, 0]
    whole = whole[np.argsort(place)]
    k = run.array("coarse").shape[1] // forms
    for lo, hi in block_bounds(len(whole), QUERY):
        index = (int(place.min()) + lo) // QUERY
        run.save(whole[lo:hi], "partial", NAME, f"{name}-asked-{index}.npy")
        members = np.concatenate([whole[lo:hi, :LONG], whole[lo:hi, 2 * LONG : 2 * LONG + k]], axis=1)
        run.save(members, "partial", NAME, f"{name}-members-{index}.npy")
    return {}


def asked_of(run: Run, name: str, index: int, settings: Candidates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some images by cells: rows (q,); features (q, forms, k), float32; the cells (q, all forms, probes)."""
    whole = run.load("partial", NAME, f"{name}-asked-{index}.npy")
    width, forms = run.array("coarse").shape[1], form_count(settings)
    rows = np.ascontiguousarray(whole[:, :LONG]).view(np.int64)[:, 0]
    found = whole[:, 2 * LONG : 2 * LONG + width].reshape(len(rows), forms, -1).astype(np.float32)
    cells = np.ascontiguousarray(whole[:, 2 * LONG + width :]).view(np.int32)
    return rows, found, cells.reshape(len(rows), forms * (1 + settings.mirror), -1)


class Members:
    """The images of each cell, read as cells are asked for in their order."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.ends = run.load("partial", NAME, f"{name}-ends.npy")
        self._held = -1, np.zeros((0, 0), dtype=np.int16)

    def of(self, cell: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows (m,) and features (m, k), float32, `QUERY` images at a time."""
        lo, hi = self.ends[cell : cell + 2].tolist()
        for index in range(lo // QUERY, -(-hi // QUERY)):
            if index != self._held[0]:
                self._held = index, self.run.load("partial", NAME, f"{self.name}-members-{index}.npy")
            some = self._held[1][max(0, lo - index * QUERY) : hi - index * QUERY]
            if len(some):
                yield np.ascontiguousarray(some[:, :LONG]).view(np.int64)[:, 0], some[:, LONG:].astype(np.float32)
