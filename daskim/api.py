"""The library call behind each command."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from daskim.against import settings_of
from daskim.compute import Place, describe_place, open_place
from daskim.engine import Engine, Progress
from daskim.errors import SettingsError
from daskim.lease import held
from daskim.pipeline import StageState, execute, preview
from daskim.probe import check_workers
from daskim.remote import Options
from daskim.resolve import foreign_code, resolve
from daskim.results import FinishedRun, Scratch
from daskim.settings import Section, Settings
from daskim.stages import Context, Size
from daskim.store import Run

__all__ = [
    "absolute_inputs",
    "compare",
    "compare_settings",
    "describe_place",
    "open_place",
    "preview_run",
    "reduce",
    "run_settings",
    "values_against",
]


def reduce(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    run: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | Settings | None = None,
    cluster: str | Place = "threads",
    workers: int | None = None,
    memory: int | None = None,
    place_options: Mapping[str, Any] | None = None,
    restart: str | None = None,
    update: bool = False,
    against: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    run_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    report: bool = False,
) -> FinishedRun:
    """Which images of a set may go, and which are alike but labelled differently.

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
    place_options : mapping, optional
        Further options of the place, such as {"tls": True}: see `daskim.compute.open_place`.
    restart : str, optional
        A stage to be done again, with the later ones.
    update : bool
        List the source of a finished run again, and take in what is new, changed and gone.
    against : path or fsspec URL, optional
        A finished run that the images are compared with, without becoming part of it (`daskim.against`); its settings
        are those of this one, but for the plan.
    storage_options, run_options : mapping, optional
        For fsspec: of the source and of the run.
    report : bool
        Leave a page to look at, `report.html`, in the run. If it cannot be made, that is said, and no error.

    Returns
    -------
    FinishedRun

    Raises
    ------
    DaskimError
        See `daskim.errors`.
    """
    folder = Scratch() if run is None else None
    where = folder.name if folder is not None else os.fspath(run)  # type: ignore[arg-type]
    if update and against is not None:
        raise SettingsError("update and against go not together", "Take the delivery in, or compare it.")
    below = None if against is None else absolute_inputs([os.fspath(against)])[0]
    if isinstance(settings, Settings):
        checked = settings
    else:
        values = {} if below is None else values_against(below, run_options, foreign_code(settings or {}))
        checked = run_settings(source, {**values, **(settings or {})})
    place = cluster
    if isinstance(place, str):
        place = open_place(place, workers=workers, memory=memory, options=place_options)
    try:
        context = _context(where, checked, place, storage_options, run_options, progress)
        for note in place.notes:
            context.say(note)
        with held(context.run, context.engine.progress.say) as lease:
            context.engine.held = lease.check
            others = [] if below is None else [Run(below, context.run.options)]
            check_workers(place, context.run, checked.source.inputs, context.source_options, others=others)
            summary = execute(context, restart=restart, update=update, against=below)
    finally:
        if isinstance(cluster, str):
            place.close()
    found = FinishedRun(context.run.url, summary, dict(run_options or {}), folder)
    if report:
        from daskim.report.page import try_write_page

        page = try_write_page(found, storage_options=storage_options)
        if isinstance(page, str):
            context.engine.progress.say(f"report: not made: {page}")
    return found


def values_against(url: str, run_options: Mapping[str, Any] | None, trusted: Collection[str] = ()) -> dict[str, Any]:
    """The settings of a run that others are compared with, as `stage.key` values, without its source.

    Parameters
    ----------
    trusted : collection of str
        Plug-ins from outside that they may name (`daskim.resolve.refuse_code`).
    """
    settings = settings_of(url, dict(run_options or {}), trusted)
    values: dict[str, Any] = {"method": settings.method}
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if name != "source" and isinstance(section, Section):
            values.update({f"{name}.{key}": value for key, value in section if value is not None})
    return values


def compare(
    train: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    test: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    settings: Mapping[str, Any] | Settings | None = None,
    **options: Any,
) -> FinishedRun:
    """Which images of one split have a twin in another: leaks from test into train.

    Parameters
    ----------
    train : path or fsspec URL, or several
        The training images, or, without `test`, a source with splits of its own.
    test : path or fsspec URL, or several, optional
    settings : mapping of "stage.key" to value, or Settings
    **options
        run, cluster, workers, memory, place_options, restart, storage_options, run_options, progress, report: see
        `reduce`.

    Returns
    -------
    FinishedRun
        With the tables `leakage` and `coverage` (`daskim.stages.leakage`), and `summary["leakage"]`.

    Raises
    ------
    DaskimError
        See `daskim.errors`.
    """
    if not isinstance(settings, Settings):
        settings = compare_settings(_items(train), [] if test is None else _items(test), settings or {})
    return reduce(settings.source.inputs, settings=settings, **options)


def compare_settings(train: Sequence[str], test: Sequence[str], values: Mapping[str, Any]) -> Settings:
    """Settings of a comparison of two sources, or of the splits of one (`test` empty)."""
    splits = {"source.splits": ("train",) * len(train) + ("test",) * len(test)} if test else {}
    common = {"candidates.method": "auto", "candidates.across": "splits", **splits}
    return run_settings([*train, *test], {**common, **values, "method": "compare"})


def _items(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    items = [source] if isinstance(source, str | os.PathLike) else list(source)
    return [os.fspath(item) for item in items]


def run_settings(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], values: Mapping[str, Any]
) -> Settings:
    """Settings for a source: local paths made absolute, so that a run can go on from another directory."""
    inputs = absolute_inputs(_items(source))
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
    store = Run(run if "://" in run else os.path.abspath(run), Options(run_options or {}))
    engine = Engine(place, store, progress or Progress())
    return Context(store, engine, settings, Options(storage_options or {}))
