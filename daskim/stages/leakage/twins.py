"""Pairs of images across two splits, from the evaluated image's side, read one part of the table `pairs` at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from daskim.kept import exact_groups
from daskim.store import Run

__all__ = ["Best", "Images", "images_of", "told", "twins_and_best"]

MOTION = ("scale_y", "scale_x", "shift_y", "shift_x")
# Columns that every twin has; the others are what the similarity reports.
COLUMNS = {"pair": "int64", "row": "int64", "other_row": "int64", "similarity": "float64"}

# For each two splits the most alike image of every image, -1 where none, and their similarity.
Best = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Images:
    """All images by row.

    Attributes
    ----------
    table : DataFrame
        row, id, label, split, status.
    names : tuple of str
        Splits.
    split, label, group : ndarray, shape (n,), int64
        Number of the split in `names` and of the label, and group of exact duplicates; -1 for none.
    flat : ndarray, shape (n,), bool
        Nearly constant.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    split: np.ndarray
    label: np.ndarray
    group: np.ndarray
    flat: np.ndarray

    def of(self, split: str) -> np.ndarray:
        """Which images are of a split; shape (n,), bool."""
        return np.asarray(self.split == self.names.index(split))


def images_of(run: Run) -> Images:
    """What the stages `images` and `exact` left."""
    table = run.read_table("images", ["row", "id", "label", "split", "status"]).to_pandas()
    table = table.sort_values("row", ignore_index=True)
    split, names = pd.factorize(table["split"], sort=True)
    group = exact_groups(run, len(table))
    flat = (table["status"] == "flat").to_numpy()
    return Images(table, tuple(names), split, pd.factorize(table["label"])[0], group, flat)


def told(images: Images, rows: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    """id, split and label of some images; None where there is no image (-1)."""
    there = rows >= 0
    found: dict[str, np.ndarray] = {}
    for name in ("id", "split", "label"):
        values = images.table[name].to_numpy(dtype=object)[np.where(there, rows, 0)]
        values[~there] = None
        found[prefix + name] = values
    return found


def twins_and_best(
    run: Run, images: Images, wanted: list[tuple[str, str]], least: float, different: np.ndarray
) -> tuple[pd.DataFrame, Best]:
    """All twins, each pair once, ordered by evaluated image and rank; and the most alike image of each.

    Parameters
    ----------
    wanted : list of (evaluated split, other split)
    least : float
        From which similarity on two images are twins. Exact duplicates are, whatever it is.
    different : ndarray, int64
        Pairs that a person called different, as a * n + b with a < b: no twins, unless they are exact duplicates.

    Returns
    -------
    DataFrame
        pair (index into `wanted`), row, other_row, similarity, kind, agreement, and what the similarity reports.
    dict
    """
    n = len(images.table)
    best: Best = {pair: (np.full(n, -1, dtype=np.int64), np.full(n, -np.inf)) for pair in wanted}
    held: list[pd.DataFrame] = []
    for part in _directed(run, images, wanted):
        _take(*best[wanted[int(part["pair"].iloc[0])]], part)
        exact = _exact(images, part)
        one, other = part["row"].to_numpy(), part["other_row"].to_numpy()
        apart = np.isin(np.minimum(one, other) * n + np.maximum(one, other), different)
        held.append(part[exact | ((part["similarity"].to_numpy() >= least) & ~apart)])
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    twins = pd.concat([part for part in held if len(part)] or [empty], ignore_index=True)
    twins["kind"] = np.where(_exact(images, twins), "exact", "near")
    one, other = images.label[twins["row"]], images.label[twins["other_row"]]
    twins["agreement"] = np.where((one < 0) | (other < 0), "unknown", np.where(one == other, "same", "conflict"))
    order = ["row", "pair", "similarity", "kind", "other_row"]
    return twins.sort_values(order, ascending=[True, True, False, True, True], ignore_index=True), best


def _exact(images: Images, pairs: pd.DataFrame) -> np.ndarray:
    one, other = images.group[pairs["row"]], images.group[pairs["other_row"]]
    return np.asarray((one >= 0) & (one == other))


def _directed(run: Run, images: Images, wanted: list[tuple[str, str]]) -> Iterator[pd.DataFrame]:
    """Pairs between two splits of `wanted`, each part of one of these and from the evaluated image's side.

    Flat images are alike to all flat ones by any measure: of theirs only exact duplicates count.
    """
    sides = [(images.names.index(one), images.names.index(other)) for one, other in wanted]
    for key in run.parts("pairs"):
        table = run.read_part("pairs", key)
        a, b = np.asarray(table["a"]), np.asarray(table["b"])
        good = ~(images.flat[a] | images.flat[b]) | ((images.group[a] >= 0) & (images.group[a] == images.group[b]))
        for at, (one, other) in enumerate(sides):
            for swap, (row, twin) in enumerate(((a, b), (b, a))):
                mine = np.flatnonzero(good & (images.split[row] == one) & (images.split[twin] == other))
                if mine.size:
                    some = table.take(mine).to_pandas().drop(columns=["a", "b", "source"])
                    some.insert(0, "pair", at)
                    some.insert(1, "row", row[mine])
                    some.insert(2, "other_row", twin[mine])
                    yield _turned(some) if swap else some


def _turned(pairs: pd.DataFrame) -> pd.DataFrame:
    """The inverse motion: what was told of the first image of a pair, told of the second."""
    if not {"mirrored", *MOTION} <= set(pairs.columns):
        return pairs
    pairs = pairs.copy()
    for axis in ("y", "x"):
        sign = np.where(pairs["mirrored"] == 1, 1.0, -1.0) if axis == "x" else -1.0  # a mirror turns the shift along x
        pairs[f"shift_{axis}"] = sign * pairs[f"shift_{axis}"] / pairs[f"scale_{axis}"]
        pairs[f"scale_{axis}"] = 1.0 / pairs[f"scale_{axis}"]
    return pairs


def _take(other: np.ndarray, best: np.ndarray, pairs: pd.DataFrame) -> None:
    """Count in some pairs; of equal similarities the lower row."""
    order = np.lexsort((pairs["other_row"], -pairs["similarity"], pairs["row"]))
    row, twin, value = (pairs[name].to_numpy()[order] for name in ("row", "other_row", "similarity"))
    row, at = np.unique(row, return_index=True)
    twin, value = twin[at], value[at]
    better = (value > best[row]) | ((value == best[row]) & (twin < other[row]))
    other[row[better]], best[row[better]] = twin[better], value[better]
