"""python -m daskim.jobs.apply: from the plan of a run to a data set."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from daskim.errors import SettingsError
from daskim.jobs.options import Json, Quiet, RunOptions, bytes_of, run_options_of, size_text, storage_options
from daskim.jobs.terminal import Display, command_app, run_app
from daskim.jobs.voice import Voice

__all__ = ["app", "main"]

EPILOGUE = """\
Exit codes: 0 finished, 1 bug, 2 usage, or a file in the way, 4 a source, target or run cannot be reached or read,
7 a source changed since the run, 8 more would go than --max-drop. An apply that ended early goes on with the same
command; one that is finished does nothing.
"""

app = command_app(
    "apply",
    """Write the reduced data set, move dropped images to a quarantine, or list what is to be relabelled.

    Says what would be done, and does it with --execute. Nothing is ever overwritten. Sources are looked at again
    first: what is not as the run has seen it is refused.""",
    EPILOGUE,
)

Keep = Literal["keep", "leave-out"]
FIRST = 5  # ids that are shown
_given: list[str] = []  # the words of this command line


@app.default
def apply(
    run: Annotated[str | None, Parameter(name="RUN", help="Directory or URL of a finished run.")] = None,
    /,
    *,
    to: Annotated[str | None, Parameter(help="Directory or URL for the reduced set.")] = None,
    as_: Annotated[
        Literal["copies", "symlinks", "hardlinks", "manifest", "webdataset", "parquet"] | None,
        Parameter(
            name="--as",
            help="[copies, or manifest where --to ends in .csv or .jsonl] copies stand on their own; links and "
            "manifests need the source to stay; webdataset and parquet hold many images a file.",
        ),
    ] = None,
    review: Annotated[
        str | None,
        Parameter(help="CSV file, or directory, for the influential images to be relabelled; moves nothing."),
    ] = None,
    quarantine: Annotated[
        str | None, Parameter(help="Directory or URL that dropped images are moved to; files of one image only.")
    ] = None,
    undo: Annotated[str | None, Parameter(help="Undo file of a quarantine: everything goes back.")] = None,
    execute: Annotated[bool, Parameter(help="Do it.", negative="")] = False,
    influential: Annotated[Keep, Parameter(help="Images alike but labelled differently.")] = "keep",
    flat: Annotated[Keep, Parameter(help="Nearly constant images.")] = "keep",
    broken: Annotated[
        Keep | None,
        Parameter(help="With --quarantine: broken images stay [keep] or move too. A written set never holds them."),
    ] = None,
    skip_changed: Annotated[
        bool, Parameter(help="Go on without images whose source changed since the run.", negative="")
    ] = False,
    max_drop: Annotated[
        float | None, Parameter(help="[1; quarantine 0.5] Share of images that may be left out or moved.")
    ] = None,
    shard_size: Annotated[str, Parameter(help="Images in a WebDataset or Parquet file, in bytes.")] = "256MB",
    undo_file: Annotated[
        str | None, Parameter(help="Where --quarantine notes its moves [in RUN; needed where that is a URL].")
    ] = None,
    storage_option: Annotated[
        list[str] | None, Parameter(help="key=value for fsspec, for the source and RUN; repeat.", negative="")
    ] = None,
    run_option: RunOptions = None,
    target_option: Annotated[
        list[str] | None,
        Parameter(help="key=value for fsspec, for the target [those of the source]; repeat.", negative=""),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write the reduced data set, or move dropped images to a quarantine."""
    actions = {"--to": to, "--review": review, "--quarantine": quarantine, "--undo": undo}
    named = [name for name, value in actions.items() if value is not None]
    if len(named) > 1:
        raise SettingsError(f"{' and '.join(named)} are given", "Choose one.")
    _refuse_idle(named, {"--as": as_, "--broken": broken, "--undo-file": undo_file})
    source = storage_options(storage_option or [])
    target = storage_options(target_option) if target_option else source
    say = Voice("python -m daskim.jobs.apply", _given, json, quiet)
    if undo is not None:
        return _undo(undo, source, execute, say)
    if run is None:
        raise SettingsError("no RUN is given", "Give the directory that --run named, such as daskim-run.")
    from daskim.results import open_run

    found = open_run(run, run_options=run_options_of(run, [run], source, run_option) if "://" in run else None)
    if review is not None:
        return _review(found, run, review, target, execute, say)
    if not named:
        return _overview(found, run, say)
    from daskim.apply import Request

    request = Request(
        form="quarantine" if quarantine is not None else as_ or _form(to or ""),
        target=quarantine if quarantine is not None else to or "",
        influential=influential,
        flat=flat,
        broken=broken or "keep",
        skip_changed=skip_changed,
        max_drop=max_drop if max_drop is not None else 0.5 if quarantine is not None else 1.0,
        shard_bytes=_bytes(shard_size),
        undo_file=undo_file,
    )
    return _apply(found, request, source, target, execute, say)


def _form(target: str) -> str:
    return "manifest" if target.lower().endswith((".csv", ".jsonl")) else "copies"


def _bytes(text: str) -> int:
    try:
        return bytes_of(text) or 0
    except SettingsError:
        raise SettingsError(f"--shard-size {text}: no amount of bytes", "Write it such as 256MB.") from None


def _refuse_idle(named: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse options that the chosen action would ignore."""
    belongs = {"--as": "--to", "--broken": "--quarantine", "--undo-file": "--quarantine"}
    for option, value in given.items():
        if value is not None and belongs[option] not in named:
            hint = f"It belongs to {belongs[option]}."
            if option == "--broken":
                hint += " Broken images are in no set that --to writes: nothing could read them there."
            raise SettingsError(f"{option} has nothing to do without {belongs[option]}", hint)


def _overview(found: Any, run: str, say: Voice) -> int:
    summary = found.summary
    if "n_keep" not in summary:
        raise SettingsError(f"run {run} holds no plan", "Give a run of `python -m daskim.jobs.reduce`.")
    # a comparison has no influential images
    counts = {name: summary.get(name, 0) for name in ("n_images", "n_keep", "n_drop", "n_influential", "n_review")}
    say.event("overview", counts)
    say.line(
        f"The plan of {run}: {counts['n_images']:,} images, {counts['n_keep']:,} stay, {counts['n_drop']:,} may go, "
        f"{counts['n_influential']:,} are influential, {counts['n_review']:,} broken. What shall become of it?"
    )
    base = "python -m daskim.jobs.apply " + shlex.quote(run)
    say.line(f"  {base} --to reduced              copies of those that stay (see --as)")
    say.line(f"  {base} --review influential.csv  a list to be relabelled")
    say.line(f"  {base} --quarantine PREFIX       those that may go are moved there, and can come back")
    say.line("Each says what it would do, and does it with --execute.")
    return 0


def _review(found: Any, run: str, target: str, options: dict[str, Any], execute: bool, say: Voice) -> int:
    from daskim.apply import propose_review, write_review

    review = propose_review(found, target, options)
    facts = {"images": review.images, "groups": review.groups, "bytes": len(review.data), "file": review.url}
    say.event("review", {**facts, "finished": review.finished})
    what = f"{review.images:,} influential images in {review.groups:,} groups"
    if review.finished:
        say.line(f"Nothing to do: {review.url} lists {what} already.")
    elif execute:
        write_review(review)
        say.line(f"{review.url} lists {what}; fill in its column new_label. No image was touched.")
    else:
        say.line(f"Would list {what} in {review.url} ({size_text(len(review.data))}).")
        say.command("--execute")
    return 0


def _undo(path: str, options: dict[str, Any], execute: bool, say: Voice) -> int:
    from daskim.apply import UndoFile, inspect, undo
    from daskim.errors import StaleRun

    file = UndoFile(path)
    with Display(quiet=say.quiet, as_json=say.as_json) as display:
        moves = inspect(file, options)
        facts = {"back": len(moves.back), "there": moves.there, "wrong": moves.wrong}
        say.event("undo", facts)
        for id, why in moves.wrong[:FIRST]:
            say.line(f"cannot go back: {id}: {why}")
        if not execute:
            if moves.back:
                say.line(f"Would put {len(moves.back):,} images back; {moves.there:,} are in their place.")
                say.command("--execute")
            else:
                say.line(f"Nothing to undo: {moves.there:,} images are in their place.")
        elif not moves.back and not moves.wrong and not moves.there:
            say.line("Nothing to undo.")
        else:
            display.begin("apply", "undo", len(moves.back), 0)
            outcome = undo(file, moves, options, lambda: display.advance("apply"))
            say.event("undone", {"images": outcome.done, "stays": outcome.stays})
            say.line(f"{outcome.done:,} images were put back and read again: each holds the bytes it held.")
            moves.wrong = outcome.stays
    if moves.wrong:
        raise StaleRun(
            f"{len(moves.wrong)} images cannot be put back: " + "; ".join(f"{i}: {w}" for i, w in moves.wrong[:3]),
            "Make room or find them; the same command goes on.",
        )
    return 0


def _apply(found: Any, request: Any, source: dict[str, Any], target: dict[str, Any], execute: bool, say: Voice) -> int:
    from daskim.apply import carry_out, propose, refuse_changed

    with Display(quiet=say.quiet, as_json=say.as_json) as display:
        proposal = propose(found, request, storage_options=source, target_options=target)
        _show(proposal, say)
        if proposal.finished and not proposal.changed:
            where = proposal.folder.root.url
            say.line(f"Nothing to do: this was applied before, and all of it is in {where}.")
            say.event("applied", {"images": 0, "before": proposal.before, "bytes": 0, "changed": [], "stays": []})
            return 0
        if not execute:
            refuse_changed(replace(proposal))
            say.command("--execute")
            return 0
        images = len(proposal.planned.table)
        display.begin("apply", request.form, images, proposal.before)
        outcome = carry_out(proposal, storage_options=source, advance=lambda: display.advance("apply"))
    facts = {"images": outcome.done, "before": outcome.before, "bytes": outcome.bytes}
    say.event("applied", {**facts, "changed": outcome.changed, "stays": outcome.stays})
    _tell(proposal, outcome, say)
    return 0


def _tell(proposal: Any, outcome: Any, say: Voice) -> None:
    before = f" ({outcome.before:,} were there from an earlier attempt)" if outcome.before else ""
    where = proposal.folder.root.url
    if proposal.undo_file is not None:
        say.line(f"{outcome.done:,} images were moved to {where}{before}. To put them back:")
        say.line(f"  python -m daskim.jobs.apply --undo {shlex.quote(proposal.undo_file.path)} --execute")
    else:
        what = {"symlinks": "links", "hardlinks": "links"}.get(proposal.request.form, "images")
        say.line(f"{outcome.done:,} {what}, {size_text(outcome.bytes)} written, are in {where}{before}.")
    if outcome.changed:
        say.line(f"Left alone, since their source changed after the run: {len(outcome.changed):,}.")


def _show(proposal: Any, say: Voice) -> None:
    """What would be done: counts, bytes, first ids, and what a user should know."""
    request, counts, table = proposal.request, proposal.counts, proposal.planned.table
    moving = request.form == "quarantine"
    ids = table["id"].tolist()
    say.event(
        "plan",
        {
            "form": request.form,
            "target": proposal.folder.root.url,
            "counts": counts,
            "images": len(ids),
            "files": len(proposal.planned.files),
            "before": proposal.before,
            "first": ids[:FIRST],
            "changed": proposal.changed,
            "new": proposal.new,
            "stays": proposal.stays,
            "notes": list(proposal.planned.notes),
            "finished": proposal.finished,
        },
    )
    if proposal.finished and not proposal.changed:
        return
    where = proposal.folder.root.url
    say.line(f"{'Moves to' if moving else 'Writes ' + request.form + ' to'} {where}:")
    rows = [("moved" if moving else "in the set", counts["chosen"])]
    rows += [(f"  {name}", counts[name]) for name in ("influential", "flat") if counts[name]["images"]]
    rows += [("dropped by the plan", counts["dropped"]), ("broken", counts["broken"]), ("all", counts["all"])]
    say.table(
        ["", "images", "bytes"], [(name, f"{c['images']:,}", size_text(c["bytes"])) for name, c in rows], numbers=2
    )
    if request.form in ("symlinks", "hardlinks", "manifest"):
        say.line("No image is copied: these bytes are those of the source.")
    if len(ids):
        more = f" and {len(ids) - FIRST:,} more" if len(ids) > FIRST else ""
        say.line("First: " + ", ".join(id if len(id) <= 60 else f"{id[:60]}..." for id in ids[:FIRST]) + more)
    for note in proposal.planned.notes:
        say.line(f"Note: {note}.")
    if moving and any(table["format"] == "manifest"):
        say.line("Note: the manifest of the source goes on naming what is moved.")
    if proposal.before and not proposal.finished:
        say.line(f"Note: {proposal.before:,} were done by an earlier attempt; it goes on from there.")
    if proposal.new:
        say.line(f"Note: images in the source that the run has not seen: {proposal.new:,}. They are not looked at.")
    for name, found in (("changed since the run", proposal.changed), ("stays", proposal.stays)):
        for id, why in found[:FIRST]:
            say.line(f"{name}: {id}: {why}")
        if len(found) > FIRST:
            say.line(f"{name}: and {len(found) - FIRST:,} more")


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    _given[:] = sys.argv[1:] if arguments is None else arguments
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
