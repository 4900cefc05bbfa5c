"""A finished run as it is read: its tables, settings and images, without Dask."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.errors import SettingsError, SourceError
from daskim.kept import NAMES, take
from daskim.lake import Raw, read_images
from daskim.resolve import from_toml
from daskim.settings import Settings
from daskim.statuses import DELETED
from daskim.store import Run

if TYPE_CHECKING:
    from daskim.kernels.lsh import Index

__all__ = ["FinishedRun", "Scratch", "open_run"]


# Signatures that go into an index together.
INDEXED = 8192


class Scratch:
    """A directory that goes with this object. (`tempfile.TemporaryDirectory` warns where it is not closed by hand.)"""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="daskim-")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes
    ----------
    run : str
        Its directory or URL.
    summary : dict
        The contents of `summary.json`.
    images, plan, pairs, influential, clusters : DataFrame
        Tables of the run, read when asked for. `plan` has one row an image: row, id, uri, label, split, decision
        (keep, drop, review), kept_id, similarity, rms (grey levels), rule, cluster, status.
    """

    run: str
    summary: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # keeps a run without a name alive as long as its tables may be read
    _folder: Scratch | None = field(default=None, repr=False, compare=False)

    @property
    def store(self) -> Run:
        """The run as files: other tables, arrays, lists."""
        return Run(self.run, self.options)

    @cached_property
    def settings(self) -> Settings:
        """What the run was made with."""
        return from_toml(self.store.read("settings.toml").decode(), f"settings.toml of run {self.run}")

    def has(self, name: str) -> bool:
        """Whether the run holds a table of this name."""
        return bool(self.store.parts(name))

    def table(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Any table of the run."""
        return self.store.read_table(name, columns).to_pandas()

    @cached_property
    def prefix(self) -> str:
        """What the ids of the images begin with beside their names in the source: of a run that is against another."""
        return str((self.store.read_json(*NAMES) or {"prefix": ""})["prefix"])

    def present(self, columns: list[str] | None = None) -> pd.DataFrame:
        """The table `images` without tombstones of deleted images, and without those of a run that it is against."""
        asked = None if columns is None else list(dict.fromkeys([*columns, "row", "status"]))
        table = self.table("images", asked)
        below = self.store.below()
        table = table[(table["status"] != DELETED) & (table["row"] >= (0 if below is None else below[1]))]
        return table if columns is None else table[columns]

    def standard(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images of the run in standard form: shape (len(rows), h, w, c), uint8; zeros where one is broken."""
        return take(self.store, "images", np.asarray(rows, dtype=np.int64))

    def listing(self, rows: Sequence[int] | np.ndarray) -> pa.Table:
        """Where the images `rows` (ascending) were found: a part of the table `index`, as the lake reads it."""
        wanted = np.asarray(rows, dtype=np.int64)
        if (np.diff(wanted) <= 0).any():
            raise ValueError("rows must ascend")
        parts = []
        for key in self.store.parts("index"):
            part = self.store.read_part("index", key)
            held = part["row"].to_numpy()
            mine = wanted[(wanted >= held[0]) & (wanted <= held[-1])] if len(held) else wanted[:0]
            if len(mine):
                parts.append(part.take(pa.array(mine - held[0])))
        if not parts:
            return self.store.read_table("index").slice(0, 0)
        return pa.concat_tables(parts)

    def originals(
        self, rows: Sequence[int] | np.ndarray, storage_options: Mapping[str, Any] | None = None
    ) -> Iterator[Raw]:
        """The images `rows` (ascending) as the source holds them now: a file's bytes, an array, or a `Failure`.

        Parameters
        ----------
        storage_options : mapping, optional
            For fsspec, of the source.
        """
        return read_images(self.listing(rows), storage_options, max_bytes=self.settings.images.max_bytes)

    @cached_property
    def images(self) -> pd.DataFrame:
        images = self.table("images")
        return images[images["status"] != DELETED]  # also those of a run that this one is against: pairs name them

    @cached_property
    def plan(self) -> pd.DataFrame:
        return self.table("plan")

    @cached_property
    def pairs(self) -> pd.DataFrame:
        return self.table("pairs")

    @cached_property
    def influential(self) -> pd.DataFrame:
        return self.table("influential")

    @cached_property
    def clusters(self) -> pd.DataFrame:
        return self.table("clusters")

    def index(self, storage: Mapping[str, Any] | None = None) -> Index:
        """An index of the images' MinHash signatures for single look-ups (method similarity with lsh or union).

        Parameters
        ----------
        storage : mapping, optional
            `storage_config` of datasketch, such as {"type": "redis", "basename": b"set", "redis": {"host": "::1"}};
            in memory without it.
        """
        from daskim.kernels.lsh import Index

        signatures = self.store.array("signatures")
        facts = signatures.attrs
        count = int(str(facts["permutations"]))
        found = Index(
            int(str(facts["bands"])), int(str(facts["rows"])), count, seed=int(str(facts["seed"])), storage=storage
        )
        rows = np.asarray(self.table("representatives")["row"])
        readable = np.asarray(self.table("representatives")["first"]) >= 0
        for lo in range(0, len(rows), INDEXED):
            some = rows[lo : lo + INDEXED][readable[lo : lo + INDEXED]]
            found.insert(some.tolist(), np.asarray(signatures[lo : lo + INDEXED, :count])[some - lo])
        return found

    def look_up(self, image: np.ndarray, index: Index) -> pd.DataFrame:
        """Images of the run that may be near-duplicates of one more image: row, id, label, split.

        Parameters
        ----------
        image : ndarray, shape (h, w, c), uint8
            Of the run's standard size and mode.
        index : Index
            As `index()` makes it.
        """
        from daskim.kernels.coarse import luma
        from daskim.kernels.lsh import signed_top_coefficients

        facts = self.store.array("signatures").attrs
        side = int((index.universe // 2) ** 0.5)
        tokens = signed_top_coefficients(luma(image[None], side), int(str(facts["coefficients"])))[0]
        rows = index.query_tokens(tokens)
        return self.images.set_index("row").loc[rows, ["id", "label", "split"]].reset_index()

    @cached_property
    def anomalies(self) -> pd.DataFrame:
        """The most isolated images (method similarity)."""
        return self.table("anomalies")

    @cached_property
    def extremes(self) -> pd.DataFrame:
        """The most similar and most dissimilar pairs, and the most similar group (method similarity)."""
        return self.table("extremes")


def open_run(run: str | os.PathLike[str], *, run_options: Mapping[str, Any] | None = None) -> FinishedRun:
    """A run that was finished earlier.

    Raises
    ------
    SourceError
        There is none.
    """
    where = os.fspath(run)
    if not where:
        raise SettingsError("the run has no name", "Give the directory or URL that --run named.")
    summary = Run(where, dict(run_options or {})).read_json("summary.json")
    if summary is None:
        raise SourceError(f"{where} holds no finished run", "Give the directory that --run named.")
    return FinishedRun(where, summary, dict(run_options or {}))
