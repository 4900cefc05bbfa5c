"""python -m daskim.jobs.compare: which test images have a twin in train, and which have nothing like them there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from json import dumps
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from daskim.errors import SettingsError
from daskim.gates import NAMES, check, parse_condition, refuse_blind
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
    run_options_of,
    size_text,
    storage_options,
)
from daskim.jobs.preview import show_plan
from daskim.jobs.terminal import Display, command_app, plain, print_table, run_app
from daskim.statuses import READABLE

__all__ = ["app", "main"]

EPILOGUE = f"""\
Conditions of --fail-on: {", ".join(NAMES)}.
Exit codes: 0 finished, 1 bug, 2 usage or settings, 3 too many broken images, 4 source, run or cluster cannot be
reached, 5 a block failed, 6 a condition of --fail-on is met, 7 the run was made with other settings, 8 a guard tripped
(plan.max_drop), 130 interrupted, 143 terminated. A run that ended early goes on where it was when the same command is
given again. To go on from a run of `reduce --method similarity`, give its --run and settings and
--set candidates.across=any.
"""
# Rows of the lists on the terminal.
SHOWN = 5

app = command_app(
    "compare",
    """Find leaks: images of one split (test) with a twin in another (train).

    Give TRAIN and TEST, two sources of any kind; or one source whose images have splits: each pair of splits is then
    looked at: val against train, test against train and val. Every evaluated image is told its most similar images of
    the other split (tables/leakage), and how well it is covered at all (tables/coverage: what is like nothing in train
    is what models often get wrong). Up to 500,000 pairs between the splits all are compared, above those that a search
    finds. Nothing is ever altered or deleted.""",
    EPILOGUE,
)


@app.default
@reported("compare")
def compare(
    *inputs: Annotated[str, Parameter(name="TRAIN [TEST]", help="Paths or fsspec URLs.")],
    run: RunPlace = "daskim-compare",
    job: Annotated[str | None, Parameter(help="Job file (TOML).")] = None,
    splits: Annotated[
        str | None, Parameter(help="[train,test for two INPUTs] A split for each INPUT, such as train,train,test.")
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        Parameter(help="Split whose images are looked up in the others [all but train]; repeat.", negative=""),
    ] = None,
    against: Annotated[
        list[str] | None, Parameter(help="Split they are looked up in [all that come before]; repeat.", negative="")
    ] = None,
    similarity: Annotated[
        str | None,
        Parameter(
            help="[aligned] aligned, ssim, ssim_volume, ms_ssim, cw_ssim, haarpsi, stsim, wavelet or your own as "
            "module.Class."
        ),
    ] = None,
    min_similarity: Annotated[
        float | None, Parameter(help="From where on two images are twins [the similarity's own].")
    ] = None,
    similarity_size: SimilaritySize = None,
    candidates: Annotated[
        Literal["auto", "all", "lsh", "join", "union"] | None,
        Parameter(
            help="[auto] Pairs that get a similarity: all, by MinHash (lsh), by coarse join, or both (union); auto: "
            "all up to 500,000 pairs between the splits, union above."
        ),
    ] = None,
    per_image: Annotated[int | None, Parameter(help="[5] Twins that are listed of an image.")] = None,
    yields: Annotated[
        Literal["none", "train", "test"] | None,
        Parameter(
            help="[none] Who leaves for a twin in another split, in a plan for `apply`: train, the image of the split "
            "that comes earlier (train, val, test); test, that of the later."
        ),
    ] = None,
    protect: Annotated[
        list[str] | None, Parameter(help="With --yields: split of which nothing is dropped; repeat.", negative="")
    ] = None,
    reviewed: Annotated[
        str | None, Parameter(help="CSV of pairs (a,b,verdict): near twins that a person called different are none.")
    ] = None,
    size: StandardSize = None,
    mode: Mode = None,
    max_bad: MaxBad = None,
    format: Format = None,
    fail_on: Annotated[
        list[str] | None,
        Parameter(help="Condition on the result, such as 'leakage>0', that gives exit code 6; repeat.", negative=""),
    ] = None,
    set: Assignments = None,
    place: PlaceOptions = PlaceOptions(),  # noqa: B008
    plan: Preview = False,
    cost: CostOptions = CostOptions(),  # noqa: B008
    restart: Restart = None,
    storage_option: SourceOptions = None,
    run_option: RunOptions = None,
    tell: TellOptions = TellOptions(),  # noqa: B008
    report: Report = True,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Find leaks between splits."""
    if not plan and place.serves():
        return 0
    flags = {
        "source.format": format,
        "images.size": size,
        "images.mode": mode,
        "images.max_bad": max_bad,
        "candidates.method": candidates,
        "similarities.name": similarity,
        "similarities.size": similarity_size,
        "similarities.min_similarity": min_similarity,
        "compare.evaluate": evaluate,
        "compare.against": against,
        "compare.per_image": per_image,
        "compare.yields": yields,
        "plan.protect": protect,
        "plan.reviewed": reviewed,
    }
    conditions = [parse_condition(text) for text in fail_on or []]
    cost.check(plan)
    from daskim.resolve import foreign_code, job_file, parse_assignment

    asked = dict(parse_assignment(text) for text in set or [])
    given = {key: value for key, value in flags.items() if value is not None}
    trusted = foreign_code(asked) | foreign_code(given)
    values: dict[str, Any] = {**(job_file(job, trusted) if job is not None else {}), **asked, **given}
    named = list(inputs) or list(values.pop("source.inputs", ()))
    if not named:
        raise SettingsError("no INPUT", "Give TRAIN and TEST, or one source whose images have splits.")
    if splits is not None:
        values["source.splits"] = tuple(name.strip() for name in splits.split(","))
    elif len(named) > 2 and "source.splits" not in values:
        raise SettingsError(
            f"{len(named)} INPUTs, and which split is each?", "Name a split for each with --splits, in order."
        )
    options = storage_options(storage_option or [])
    if not run:
        raise SettingsError("--run is empty", "Give a directory or an fsspec URL.")
    from daskim.api import compare as library_call
    from daskim.api import compare_settings

    two = len(named) == 2 and "source.splits" not in values
    settings = compare_settings(named[:1] if two else named, named[1:] if two else [], values)
    plans = settings.compare.yields != "none"
    refuse_blind(conditions, "compare", plans=plans)
    if protect and not plans:
        raise SettingsError("--protect without --yields: nothing is dropped", "Say who yields, or leave it out.")
    if plan:
        return show_plan(settings, run, place, cost, options, json, run_option)
    with Display(quiet=quiet, as_json=json) as display:
        found = library_call(
            settings.source.inputs,
            settings=settings,
            run=run,
            **place.arguments(),
            restart=restart,
            storage_options=options,
            run_options=run_options_of(run, settings.source.inputs, options, run_option),
            progress=display,
        )
    remember(found)
    page = leave_report(found, options) if report else None
    if page is not None and json:  # the summary is the last line
        show_report(page, json=json, quiet=quiet)
    if json:
        print(dumps({"event": "summary", **found.summary}))
    elif not quiet:
        _show(found)
    if page is not None and not json:
        show_report(page, json=json, quiet=quiet)
    if not (json or quiet):
        _show_next(found)
    check(conditions, found.summary, found.run)
    return 0


def _show(found: Any) -> None:
    """What was found, on the terminal."""
    summary = found.summary
    leakage = summary["leakage"]
    pairs = "; ".join(f"{one} against {other}" for one, other in leakage["splits"])
    share = 100 * leakage["images"] / max(1, leakage["evaluated"])
    rows: list[tuple[str, int, str]] = [
        ("evaluated", leakage["evaluated"], pairs),
        ("leaked", leakage["images"], f"{share:.1f} %: {leakage['similarity']} at or above {_least(leakage)}"),
        ("exact", leakage["exact"], "the twin has the same bytes or the same pixels"),
        ("conflicts", leakage["conflicts"], "the twin has another label"),
        ("broken", sum(count for name, count in summary["status"].items() if name not in READABLE), ""),
    ]
    print_table("", ["", "images", ""], [(name, f"{count:,}", note) for name, count, note in rows])
    if leakage["cross"]:
        cross = [
            (f"{row['split']} in {row['other_split']}", row["kind"], row["agreement"], row["images"], row["pairs"])
            for row in leakage["cross"]
        ]
        print()
        print_table("Twins by split, kind and label", ["splits", "kind", "labels", "images", "pairs"], cross, numbers=2)
        worst = found.table("leakage").query("rank == 1").sort_values(["kind", "similarity"], ascending=[True, False])
        print()
        print_table(
            "Leaked images, the first of them",
            ["image", "its twin", "labels", "similarity"],
            [
                (row.id, row.other_id, _labels(row.label, row.other_label), f"{row.similarity:.3f}")
                for row in worst.head(SHOWN).itertuples()
            ],
            numbers=1,
        )
    _show_least(leakage)
    if "n_drop" in summary:
        who = found.settings.compare.yields
        print(plain(f"plan: {summary['n_drop']:,} images would go (compare.yields = {who}): keep.txt, drop.txt"))
    print(f"{summary['seconds_total']:.1f} s, peak memory {size_text(summary['peak_rss_bytes'])}")
    print(plain(f"All of it is in {found.run}: tables/leakage, tables/coverage, tables/pairs, summary.json"))


def _show_least(leakage: Mapping[str, Any]) -> None:
    """The images with the least like them in another split."""
    rows = []
    for row in leakage["least_covered"]:
        value, by = row["similarity"], leakage["similarity"]
        if value is None:
            value, by = row["correlation"], "coarse correlation; no pair was worth a similarity"
        told = "-" if value is None else f"{value:.3f}"
        rows.append((row["id"], row["other_id"] or f"none in {row['other_split']}", told, "-" if value is None else by))
    print()
    print_table("Least covered: the most alike is not very alike", ["image", "most alike", "value", "of"], rows)


def _show_next(found: Any) -> None:
    """The commands that one may want next."""
    from daskim.report.facts import facts_of

    for purpose, words in facts_of(found).next:
        print(plain(f"Next: {purpose}\n    {words}"))


def _labels(one: str | None, other: str | None) -> str:
    """Both labels, or one where they agree."""
    names = ["-" if name is None else name for name in (one, other)]
    return names[0] if names[0] == names[1] else " / ".join(names)


def _least(leakage: Mapping[str, Any]) -> str:
    return f"{leakage['min_similarity']:g}"


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
