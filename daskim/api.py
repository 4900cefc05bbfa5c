"""The library call behind each command."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from daskim.compute import Place, open_place
from daskim.engine import Engine, Progress
from daskim.errors import SettingsError, SourceError
from daskim.pipeline import StageState, execute, preview
from daskim.settings import Settings, resolve
from daskim.stages import Context, Size
from daskim.store import Run

if TYPE_CHECKING:
    from daskim.kernels.lsh import Index

__all__ = ["Reduction", "absolute_inputs", "open_place", "open_run", "preview_run", "reduce", "run_settings"]


# Signatures that go into an index together.
INDEXED = 8192


class _Scratch:
    """A directory that goes with this object. (`tempfile.TemporaryDirectory` warns where it is not closed by hand.)"""

    def __init__(self) -> None:
        self.name = tempfile.mkdtemp(prefix="daskim-")
        weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)


@dataclass(frozen=True)
class Reduction:
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
    _folder: _Scratch | None = field(default=None, repr=False, compare=False)

    def table(self, name: str) -> pd.DataFrame:
        """Any table of the run."""
        return Run(self.run, self.options).read_table(name).to_pandas()

    @cached_property
    def images(self) -> pd.DataFrame:
        return self.table("images")

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

        signatures = Run(self.run, self.options).array("signatures")
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

        facts = Run(self.run, self.options).array("signatures").attrs
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


def reduce(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    run: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    cluster: str | Place = "threads",
    workers: int | None = None,
    memory: int | None = None,
    restart: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    run_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Reduction:
    """Which images of a set may go, and which are alike but labelled differently .

    Parameters
    ----------
    source : path or fsspec URL, or several
        Folders, manifests, WebDataset or Parquet shards, arrays or IDX files.
    run : path or fsspec URL, optional
        Where results stay; a run that is there goes on. Without it they live as long as the returned object.
    settings : mapping of "stage.key" to value, or Settings
        Such as {"clusters.n_clusters": 0.9}.
    cluster : str or Place
        threads, local, or address:tcp://host:port.
    workers, memory : int, optional
        Workers, and bytes of memory for all of them.
    restart : str, optional
        A stage to be done again, with the later ones.
    storage_options, run_options : mapping, optional
        For fsspec: of the source and of the run.

    Returns
    -------
    Reduction

    Raises
    ------
    DaskimError
        See `daskim.errors`.
    """
    folder = _Scratch() if run is None else None
    where = folder.name if folder is not None else os.fspath(run)  # type: ignore[arg-type]
    checked = settings if isinstance(settings, Settings) else run_settings(source, settings or {})
    place = open_place(cluster, workers=workers, memory=memory) if isinstance(cluster, str) else cluster
    try:
        context = _context(where, checked, place, storage_options, run_options, progress)
        summary = execute(context, restart=restart)
    finally:
        if isinstance(cluster, str):
            place.close()
    return Reduction(context.run.url, summary, dict(run_options or {}), folder)


def run_settings(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], values: Mapping[str, Any]
) -> Settings:
    """Settings for a source: local paths made absolute, so that a run can go on from another directory."""
    items = [source] if isinstance(source, str | os.PathLike) else list(source)
    inputs = absolute_inputs([os.fspath(item) for item in items])
    return resolve([("settings", {**values, "source.inputs": inputs})])


def absolute_inputs(items: Sequence[str]) -> tuple[str, ...]:
    """Local paths made absolute; URLs as they are."""
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise SettingsError(f"source.inputs = {items!r}: no list of texts", "Give paths or fsspec URLs.")
    if not all(items):
        raise SettingsError("an INPUT is empty", "Give a path or an fsspec URL.")
    for item in items:
        if any("\ud800" <= c <= "\udfff" for c in item):
            raise SettingsError(f"INPUT {item!r}: its name is no UTF-8", "Rename it, or give it by another path.")
    return tuple(item if "://" in item or "::" in item else os.path.abspath(item) for item in items)


def preview_run(
    settings: Settings,
    run: str,
    place: Place,
    *,
    storage_options: Mapping[str, Any] | None = None,
    run_options: Mapping[str, Any] | None = None,
) -> tuple[list[StageState], Size, Context]:
    """What a run would do; nothing is computed or written."""
    context = _context(run, settings, place, storage_options, run_options, None)
    states, size = preview(context)
    return states, size, context


def open_run(run: str | os.PathLike[str], *, run_options: Mapping[str, Any] | None = None) -> Reduction:
    """A run that was finished earlier."""
    where = os.fspath(run)
    summary = Run(where, dict(run_options or {})).read_json("summary.json")
    if summary is None:
        raise SourceError(f"{where} holds no finished run", "Give the directory that --run named.")
    return Reduction(where, summary, dict(run_options or {}))


def _context(
    run: str,
    settings: Settings,
    place: Place,
    storage_options: Mapping[str, Any] | None,
    run_options: Mapping[str, Any] | None,
    progress: Progress | None,
) -> Context:
    if not run:
        raise SettingsError("the run has no name", "Give a directory or an fsspec URL.")
    store = Run(run if "://" in run else os.path.abspath(run), dict(run_options or {}))
    engine = Engine(place, store, progress or Progress())
    return Context(store, engine, settings, dict(storage_options or {}))
