"""The influential images as a table to be relabelled: nothing moves."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from daskim.apply.journal import in_the_way
from daskim.errors import SettingsError, SourceError
from daskim.lake import digest_of, digest_of_file, failure_of_store, locate, open_folder
from daskim.results import FinishedRun

__all__ = ["COLUMNS", "Review", "propose_review", "write_review"]

COLUMNS = (
    "cluster", "row", "id", "uri", "label", "labels", "split", "nearest_id", "nearest_label", "rms", "similarity",
    "new_label",
)  # fmt: skip
_MOST = 4096  # images of a group that are compared with one another
_NAME = "influential.csv"
# What spreadsheets take for the beginning of a formula; the last four are full-width forms of the others.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Review:
    """A review that would be written: where to, its bytes, how many images in how many groups; whether it is there."""

    def __init__(self, found: FinishedRun, target: str, options: Mapping[str, Any] | None) -> None:
        place = locate(target, options)
        if not place.name.lower().endswith(".csv"):
            place = place.join(_NAME)
        self.folder, self.name = open_folder(place.parent()), place.name
        self.url = place.url
        table = review_table(found)
        self.images, self.groups = len(table), int(table["cluster"].nunique())
        self.data = _csv(table)
        try:
            self.finished = self._finished()
        except OSError as error:
            reason = failure_of_store(error, place.secrets).reason
            raise SourceError(f"cannot read {self.url}: {reason}", "Choose another --review.") from None

    def _finished(self) -> bool:
        state = self.folder.state(self.name)
        if state is None:
            return False
        if state.kind != "file" or digest_of_file(self.folder.place(self.name)) != digest_of(self.data):
            raise in_the_way([self.name], self.folder.root.url)
        return True


def propose_review(found: FinishedRun, target: str, options: Mapping[str, Any] | None = None) -> Review:
    """The review that `write_review` would write to a file (``.csv``) or into a directory.

    Raises
    ------
    SettingsError
        The run has no plan; another file is in the way.
    """
    if not found.has("influential"):
        raise SettingsError(f"run {found.run} holds no plan", "Give a run of `python -m daskim.jobs.reduce`.")
    return Review(found, target, options)


def write_review(review: Review) -> None:
    """Write it, unless it is there."""
    if review.finished:
        return
    try:
        review.folder.write(review.name, review.data)
    except FileExistsError:
        raise in_the_way([review.name], review.folder.root.url) from None
    except OSError as error:
        reason = failure_of_store(error, review.folder.root.secrets).reason
        raise SourceError(f"cannot write {review.url}: {reason}", "Choose another --review.") from None


def review_table(found: FinishedRun) -> pd.DataFrame:
    """One row an influential image, of `COLUMNS`: with the nearest image of another label in its group, by RMS
    difference of the standard pixels in grey levels, and their similarity where the run has compared them.
    """
    table = found.influential.reset_index(drop=True)
    near, rms = np.full(len(table), -1), np.full(len(table), np.nan)
    label = pd.factorize(table["label"])[0]
    for members in table.groupby("cluster").indices.values():
        if len(members) > _MOST:
            continue
        pixels = found.standard(table["row"].to_numpy()[members]).reshape(len(members), -1).astype(np.float64)
        square = (pixels**2).sum(axis=1)
        distance = np.maximum(square[:, None] + square[None] - 2 * pixels @ pixels.T, 0.0)
        own = label[members]
        distance[(own[:, None] == own[None]) | (own < 0)[:, None] | (own < 0)[None]] = np.inf
        best = distance.argmin(axis=1)
        value = distance[np.arange(len(members)), best]
        known = np.isfinite(value)
        near[members[known]] = members[best[known]]
        rms[members[known]] = np.sqrt(value[known] / pixels.shape[1])
    for name in ("id", "label"):
        values = table[name].to_numpy(dtype=object)
        table[f"nearest_{name}"] = np.where(near >= 0, values[near], None) if len(table) else []
    table["rms"] = rms
    table["similarity"] = _similarity(found, table, near)
    table["new_label"] = None
    return table[list(COLUMNS)]


def _similarity(found: FinishedRun, table: pd.DataFrame, near: np.ndarray) -> np.ndarray:
    out = np.full(len(table), np.nan)
    if not len(table) or not found.has("pairs"):
        return out
    row = table["row"].to_numpy()
    known: dict[tuple[int, int], float] = {}
    inside = set(row.tolist())
    for key in found.store.parts("pairs"):
        part = found.store.read_part("pairs", key, ["a", "b", "similarity"]).to_pandas()
        part = part[part["a"].isin(inside) & part["b"].isin(inside)]
        known.update(zip(zip(part["a"].tolist(), part["b"].tolist()), part["similarity"].tolist()))
    for at, other in enumerate(near.tolist()):
        if other >= 0:
            pair = sorted((int(row[at]), int(row[other])))
            out[at] = known.get((pair[0], pair[1]), np.nan)
    return out


def _csv(table: pd.DataFrame) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(COLUMNS)
    for values in table.itertuples(index=False):
        writer.writerow([_cell(value) for value in values])
    return out.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula: text that begins like one gets an apostrophe before it."""
    if value is None or value is pd.NA or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and (value[:1] in ("\t", "\r", "\n") or value.lstrip().startswith(_FORMULA)):
        return "'" + value
    return value
