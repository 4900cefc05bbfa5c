"""python -m daskim.jobs.reduce: which images may go, and which are alike but labelled differently."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from daskim.errors import SettingsError
from daskim.gates import check, parse_condition, refuse_blind
from daskim.jobs.demo import Demo, make_demo, show_demo
from daskim.jobs.finish import leave_report, remember, reported, show_report
from daskim.jobs.options import (
    Assignments,
    CostOptions,
    Format,
    Json,
    MaxBad,
    Mode,
    PlaceOptions,
    Preview,
    Quiet,
    Report,
    Restart,
    RunOptions,
    RunPlace,
    SimilaritySize,
    SourceOptions,
    StandardSize,
    TellOptions,
    Update,
    number_of,
    run_options_of,
    size_text,
    storage_options,
)
from daskim.jobs.preview import show_plan
from daskim.jobs.terminal import Display, command_app, plain, print_table, run_app
from daskim.statuses import READABLE

if TYPE_CHECKING:
    from daskim.settings import Settings

__all__ = ["app", "main"]

EPILOGUE = """\
Exit codes: 0 finished, 1 bug, 2 usage or settings, 3 too many broken images (--max-bad), 4 source, run or cluster
cannot be reached, 5 a block failed, 6 a condition of --fail-on is met, 7 the run was made with other settings, 8 a
guard tripped (--max-drop), 130 interrupted, 143 terminated (SIGTERM). A run that ended early goes on where it
was when the same command is given again.
"""

app = command_app(
    "reduce",
    """Find redundant, influential and anomalous images before training.

    Reads images from folders, manifests, WebDataset or Parquet shards, arrays or IDX files, on disk or in object
    storage, and leaves a plan (keep, drop, review for each image) in a run directory. Nothing is ever altered or
    deleted. Without INPUT it runs a demo on photographs that ship with its dependencies.""",
    EPILOGUE,
)


@app.default
@reported("reduce")
def reduce(
    *inputs: Annotated[str, Parameter(name="INPUT", help="Paths or fsspec URLs; several make one set.")],
    run: RunPlace = "daskim-run",
    job: Annotated[str | None, Parameter(help="Job file (TOML), or the name of one that ships with daskim.")] = None,
    method: Annotated[
        Literal["wavelet", "similarity"] | None,
        Parameter(
            help="[wavelet] Wavelets and clustering (Algorithm 1), or similarity: pairs of images (Algorithm 2), which "
            "also finds mirrored, cropped, shifted and brightened copies, and anomalies."
        ),
    ] = None,
    set: Assignments = None,
    place: PlaceOptions = PlaceOptions(),  # noqa: B008
    plan: Preview = False,
    cost: CostOptions = CostOptions(),  # noqa: B008
    restart: Restart = None,
    update: Update = False,
    against: Annotated[
        str | None, Parameter(help="Finished run that INPUT is compared with, without becoming part of it.")
    ] = None,
    format: Format = None,
    storage_option: SourceOptions = None,
    run_option: RunOptions = None,
    limit: Annotated[int | None, Parameter(help="Only the first N images.")] = None,
    sample: Annotated[int | None, Parameter(help="N images drawn at random.")] = None,
    size: StandardSize = None,
    mode: Mode = None,
    max_bad: MaxBad = None,
    wavelet: Annotated[str | None, Parameter(help="[db1] Any discrete wavelet of PyWavelets.")] = None,
    level: Annotated[int | None, Parameter(help="[1] Levels of the transform.")] = None,
    tau: Annotated[float | None, Parameter(help="[1e5] Bound on the condition number of the kept columns.")] = None,
    n_clusters: Annotated[
        str | None,
        Parameter(help="Number of clusters, their share of the images, or auto [0.94; method similarity: auto]."),
    ] = None,
    verify: Annotated[
        str | None,
        Parameter(help="[ssim] Method wavelet: nothing is dropped unless this similarity confirms it; none: no check."),
    ] = None,
    similarity: Annotated[
        str | None,
        Parameter(
            help="[aligned] Method similarity: aligned, ssim, ssim_volume, ms_ssim, cw_ssim, haarpsi, stsim, wavelet "
            "or your own as module.Class."
        ),
    ] = None,
    min_similarity: Annotated[
        float | None, Parameter(help="From where on images are near-duplicates [the similarity's own].")
    ] = None,
    similarity_size: SimilaritySize = None,
    candidates: Annotated[
        Literal["all", "lsh", "join", "union"] | None,
        Parameter(help="[union] Pairs that get a similarity: all of a small set, by MinHash, by coarse join, or both."),
    ] = None,
    spectrum: Annotated[
        Literal["auto", "exact", "lanczos"] | None, Parameter(help="[auto] How eigenvalues of the graph are found.")
    ] = None,
    gamma: Annotated[float | None, Parameter(help="[0.4] Eigen-gaps above this count.")] = None,
    gap_rule: Annotated[
        Literal["auto", "complement", "literal", "components"] | None,
        Parameter(help="[auto] n_clusters = auto: images less the gaps above gamma, the gaps, or graph components."),
    ] = None,
    cluster_by: Annotated[
        Literal["spectral", "threshold", "medoids"] | None,
        Parameter(help="[spectral] Method similarity: spectral clustering, links above --min-similarity or k-medoids."),
    ] = None,
    per_class: Annotated[bool | None, Parameter(help="Cluster each class by itself.", negative="")] = None,
    policy: Annotated[
        str | None, Parameter(help="[centre] Kept image: centre, first, largest, newest, 'prefer-split NAME'.")
    ] = None,
    max_rms: Annotated[
        float | None, Parameter(help="Nothing is dropped farther than this from its kept image (RMS, grey levels).")
    ] = None,
    protect: Annotated[
        list[str] | None, Parameter(help="Split of which nothing is dropped; repeat.", negative="")
    ] = None,
    min_per_class: Annotated[int | None, Parameter(help="[0] Images of a class that stay at least.")] = None,
    max_drop: Annotated[float | None, Parameter(help="[1] Share of drops above which no plan is made.")] = None,
    reviewed: Annotated[
        str | None, Parameter(help="CSV of pairs that a person called same, different, keep-a or keep-b.")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        Parameter(help="Condition on the result, such as 'drop_share>0.1': exit code 6; repeat.", negative=""),
    ] = None,
    tell: TellOptions = TellOptions(),  # noqa: B008
    report: Report = True,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Find redundant and influential images before training."""
    from daskim.resolve import foreign_code, job_file, parse_assignment

    if not plan and place.serves():
        return 0
    flags = {
        "method": method,
        "source.format": format,
        "source.limit": limit,
        "source.sample": sample,
        "images.size": size,
        "images.mode": mode,
        "images.max_bad": max_bad,
        "wavelets.name": wavelet,
        "wavelets.level": level,
        "columns.tau": tau,
        "clusters.n_clusters": number_of(n_clusters),
        "clusters.by": cluster_by,
        "clusters.verify": verify,
        "candidates.method": candidates,
        "similarities.name": similarity,
        "similarities.size": similarity_size,
        "similarities.min_similarity": min_similarity,
        "spectrum.method": spectrum,
        "spectrum.gamma": gamma,
        "spectrum.gap_rule": gap_rule,
        "clusters.per_class": per_class,
        "plan.policy": policy,
        "plan.max_rms": max_rms,
        "plan.protect": protect,
        "plan.min_per_class": min_per_class,
        "plan.max_drop": max_drop,
        "plan.reviewed": reviewed,
    }
    named: list[tuple[str, Mapping[str, Any]]] = [
        ("--set", dict(parse_assignment(text) for text in set or [])),
        ("command line", {key: value for key, value in flags.items() if value is not None}),
    ]
    trusted = foreign_code(named[0][1]) | foreign_code(named[1][1])
    layers = [(f"job file {job}", job_file(job, trusted)), *named] if job is not None else named
    conditions = [parse_condition(text) for text in fail_on or []]
    cost.check(plan)
    options = storage_options(storage_option or [])
    if not run:
        raise SettingsError("--run is empty", "Give a directory or an fsspec URL.")
    if against is not None and not inputs:
        raise SettingsError("--against needs INPUT", "Name the images that are compared with that run.")
    if plan and (update or against is not None):
        raise SettingsError("--plan tells nothing of deliveries", "Leave out --plan, or --update and --against.")
    if against is not None:
        from daskim.api import values_against

        values = values_against(against, run_options_of(against, inputs, options, run_option), trusted)
        layers.insert(0, (f"run {against}", values))
    with Display(quiet=quiet, as_json=json) as display, tempfile.TemporaryDirectory() as scratch:
        beside = run_options_of(run, (run,), options, run_option)
        settings, demo = _settings(inputs, layers, lambda: make_demo(run, Path(scratch), beside, plan=plan))
        if demo is not None:
            options = beside
        if settings.method == "compare":
            raise SettingsError("method compare is a command of its own", "Use python -m daskim.jobs.compare.")
        refuse_blind(conditions, settings.method, plans=True, against=against is not None)
        if plan:
            return show_plan(settings, run, place, cost, options, json, run_option)
        from daskim.api import reduce as library_call

        found = library_call(
            settings.source.inputs,
            run=run,
            settings=settings,
            **place.arguments(),
            restart=restart,
            update=update,
            against=against,
            storage_options=options,
            run_options=run_options_of(run, settings.source.inputs, options, run_option),
            progress=display,  # type: ignore[arg-type]
        )
    remember(found)
    page = leave_report(found, options) if report else None
    if page is not None and json:  # the summary is the last line
        show_report(page, json=json, quiet=quiet)
    _show_result(found, demo, json, quiet)
    if page is not None and not json:
        show_report(page, json=json, quiet=quiet)
    check(conditions, found.summary, found.run)
    return 0


def _settings(
    inputs: tuple[str, ...],
    layers: list[tuple[str, Mapping[str, Any]]],
    make: Callable[[], Demo],
) -> tuple[Settings, Demo | None]:
    """Checked settings; without any INPUT those of the demo, which is made."""
    from daskim.resolve import job_file, resolve

    named = inputs or next((values["source.inputs"] for _, values in reversed(layers) if "source.inputs" in values), ())
    if isinstance(named, str):
        named = (named,)
    demo = None
    if not named:
        values = job_file("demo")
        if next((layer["method"] for _, layer in reversed(layers) if "method" in layer), "wavelet") == "similarity":
            values.pop("clusters.n_clusters", None)  # the share is that of Algorithm 1
        layers = [("job file demo", values), *layers]
        resolve(layers)  # a mistake is told before the demo is made
        demo = make()
        named = (demo.images,)
    from daskim.api import absolute_inputs

    return resolve([*layers, ("command line", {"source.inputs": absolute_inputs(named)})]), demo


def _show_result(found: Any, demo: Demo | None, json: bool, quiet: bool) -> None:
    summary = found.summary
    if json:
        print(dumps({"event": "summary", **summary}))
        return
    if quiet:
        return
    if demo is not None:
        show_demo(found, demo)
    status = summary["status"]
    bad = {name: count for name, count in status.items() if name not in READABLE}
    pairs = summary.get("similarities")
    near = []
    if pairs is not None:
        name = f"{pairs['name']} at or above {pairs['min_similarity']:g}{_recall(pairs.get('recall'))}"
        near = [("alike pairs", pairs["near"], name)]
    against = summary.get("against")
    known = []
    if against is not None:
        told = f"have a twin in {against['run']}: {against['exact']:,} exact, {against['conflicts']:,} of another label"
        known = [("known", against["known"], told)]
    rows = [
        ("images", summary["n_images"], _joined({"ignored files": sum(summary["ignored_files"].values())})),
        ("exact duplicates", summary["n_exact"], "same bytes or same full-resolution pixels as an earlier image"),
        *near,
        *known,
        ("redundant", summary["n_drop"], "may go: a close image of the same label is kept"),
        (
            "influential",
            summary["n_influential"],
            f"alike, but labelled differently, in {summary['n_influential_clusters']} clusters",
        ),
        ("flat", status.get("flat", 0), "nearly constant, kept apart"),
        ("broken", sum(bad.values()), _joined(bad)),
        ("kept", summary["n_keep"], f"{100 * summary['n_keep'] / max(1, summary['n_images']):.1f} % of the images"),
    ]
    print_table("", ["", "images", ""], [(name, f"{count:,}", note) for name, count, note in rows])
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())
    print(f"{summary['seconds_total']:.1f} s ({seconds}), peak memory {size_text(summary['peak_rss_bytes'])}")
    if (record := summary.get("delivery")) is not None and against is None:
        told = _joined({name: record[name] for name in ("new", "changed", "back", "deleted", "relabelled")})
        print(f"Delivery {record['number']}: {told}, {record['unchanged']:,} as they were")
    tables = "tables/plan, tables/influential" + (", tables/pairs, tables/anomalies" if pairs is not None else "")
    print(plain(f"The plan is in {found.run}: keep.txt, drop.txt, {tables}, summary.json"))


def _recall(recall: Mapping[str, Any] | None) -> str:
    if not recall or not recall["pairs"]:
        return ""
    return f"; recall {recall['recall']:.2f} (95 %: {recall['low']:.2f} to {recall['high']:.2f})"


def _joined(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
