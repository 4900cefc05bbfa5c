"""The table of contents: which stages each method runs, in what order, and what is done before and after them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskim.against import begin_against, own_counts, twins
from daskim.compute.machine import PeakMemory
from daskim.delivery import Delivery, close, history, index_facts, kept_before, open_delivery, under_way
from daskim.errors import SettingsError
from daskim.lake import RUN_MARK
from daskim.plugins import find, transform_of
from daskim.reading import listing_of
from daskim.release import let_go
from daskim.resolve import to_toml
from daskim.seals import (
    AFTERWARDS,
    changed_in,
    fingerprint,
    forget,
    forget_one,
    recipe_of,
    refuse_stale,
    seal_of,
    seals_of,
)
from daskim.settings import Settings
from daskim.stages import (
    Context,
    Need,
    Size,
    Stage,
    anomalies,
    candidates,
    clusters,
    columns,
    exact,
    images,
    index,
    leakage,
    plan,
    similarities,
    spectral,
    spectrum,
    wavelets,
)
from daskim.summary import summary_of

__all__ = ["StageState", "execute", "memory_of", "preview", "refuse_misfit", "stages_of"]

READ = (index.STAGE, images.STAGE, exact.STAGE)
COEFFICIENTS = (wavelets.STAGE, columns.STAGE)
PAIRS = (candidates.STAGE, similarities.STAGE, spectrum.STAGE)
# Pairs up to which candidates.method = auto compares all: about a minute of the similarity that takes longest.
AUTO_PAIRS = 500_000
# What an idle worker process holds after its imports, and later between stages, bytes. Measured: 230 to 360 MB, the
# larger figures where the kernel keeps the pages of shared libraries as huge pages; after the similarities 430 MB at
# 50,000 images, 606 MB at 500,000 and at 2,000,000.
IDLE = 640_000_000


@dataclass(frozen=True)
class StageState:
    """A stage in a run: new, open, sealed or stale; what it needs; and, where stale, what changed."""

    stage: Stage
    state: str
    done: int
    need: Need
    changed: str = ""


def stages_of(settings: Settings) -> tuple[Stage, ...]:
    """The stages that these settings run, in order.

    Raises
    ------
    SettingsError
        A similarity that there is not.
    """
    if settings.clusters.verify != "none":
        find("similarities", settings.clusters.verify)
    if settings.method == "wavelet":
        number = PAIRS if settings.clusters.n_clusters == "auto" else ()
        return (*READ, *COEFFICIENTS, *number, clusters.STAGE, plan.STAGE)
    needs = COEFFICIENTS if find("similarities", settings.similarities.name).of == "coefficients" else ()
    if settings.method == "compare":
        shrinks = () if settings.compare.yields == "none" else (plan.COMPARE_STAGE,)
        return (*READ, *needs, candidates.STAGE, similarities.STAGE, leakage.STAGE, *shrinks)
    return (*READ, *needs, *PAIRS, spectral.STAGE, anomalies.STAGE, plan.SIMILARITY_STAGE)


def settled(settings: Settings, facts: Mapping[str, Any]) -> Settings:
    """The settings with candidates.method = auto made a choice, now that the index tells how many images there are.

    Raises
    ------
    SettingsError
        Method compare without two splits.
    """
    counts = facts.get("splits", {})
    if settings.method == "compare":
        leakage.pairs_of_splits(settings, counts)
    if settings.candidates.method != "auto":
        return settings
    pairs = size_of(settings, facts).possible
    chosen = settings.candidates.model_copy(update={"method": "all" if pairs <= AUTO_PAIRS else "union"})
    return settings.model_copy(update={"candidates": chosen})


def execute(
    context: Context, *, restart: str | None = None, update: bool = False, against: str | None = None
) -> dict[str, Any]:
    """Run all stages of the method to the sealed plan; returns the summary, which is also left in the run.

    Parameters
    ----------
    restart : str, optional
        A stage that is done again, with all that follow it.
    update : bool
        Of a finished run: list the source again and take in what is new, changed and gone (`daskim.delivery`).
    against : str, optional
        A finished run that the images are compared with (`daskim.against`).

    Raises
    ------
    StaleRun
        The run holds results of other settings.
    SettingsError
        The work does not fit into the workers' memory.
    """
    started = time.monotonic()
    stages = stages_of(context.settings)
    context.grows = update
    if against is not None:
        _begin_against(context, stages, against)
    elif context.run.exists("below.json"):
        raise SettingsError(f"{context.run.url} is compared with another run", "Give --against again, to go on.")
    if restart is not None:
        if under_way(context.run) is not None:
            raise SettingsError(f"--restart {restart}: a delivery is under way", "Finish it first, without --restart.")
        forget(context, stages, restart)
    for stage in stages:
        stage.files(context)  # what is missing or malformed is told before any work
    seals: dict[str, dict[str, Any]] = {}
    with PeakMemory() as memory:
        there = seals_of(context, stages)
        if "index" in there:
            context.settings = settled(context.settings, there["index"]["facts"])
        delivery = under_way(context.run)
        if against is not None and delivery is None and not history(context.run):
            delivery = open_delivery(context, there["index"]["facts"], apart=True)
        for stage in stages:
            changed = changed_in(context, stages, stage, there, of_a_delivery=delivery is not None)
            refuse_stale(context, stage, changed)
        if update and delivery is None:
            delivery = _delivered(context, stages, there)
        if delivery is not None:
            context.stay = kept_before(context.run, delivery.change)
        context.run.write(b"A run of daskim: see summary.json.\n", RUN_MARK)
        context.run.write(to_toml(context.settings).encode(), "settings.toml")
        for stage in stages:
            seals[stage.name] = _one_stage(context, stages, stage, seals, memory, delivery)
            if stage.name == "index":
                try:
                    context.settings = settled(context.settings, seals["index"]["facts"])
                except SettingsError:
                    if "index" not in there:  # what is asked for instead is not bound to a list nobody used
                        forget(context, stages, "index")
                    raise
                context.run.write(to_toml(context.settings).encode(), "settings.toml")
                context.size = size_of(context.settings, seals["index"]["facts"])
                workers = context.engine.place.workers
                needs = {stage.name: stage.need(context.known, context.settings, workers) for stage in stages}
                refuse_misfit(context, needs)
            elif stage.name == "images":  # also when the images were done before: the bound is no part of them
                images.refuse_bad(context.settings, context.run, seals["images"]["facts"]["status"])
        context.run.remove("partial")
    _tell_reviewed(context)
    if len(there) == len(stages) and delivery is None:
        more = "" if update else ": --update would take in what is new in the source"
        context.engine.progress.say(f"nothing was left to do{more}")
    summary = summary_of(context, stages, seals, memory.bytes, time.monotonic() - started)
    if against is not None:
        _tell_against(context, summary, against)
    if delivery is not None:
        record = _record(context, delivery, summary["seconds_total"])
        summary["delivery"] = record
        close(context.run, record)
    summary["notes"] += [note for note in context.notes if note.startswith(("against ", "delivery "))]
    context.run.write_json(summary, "summary.json")
    return summary


def _delivered(context: Context, stages: tuple[Stage, ...], there: dict[str, dict[str, Any]]) -> Delivery | None:
    """What is new in the source of a finished run."""
    if not there:
        return None
    if len(there) < len(stages):
        context.say("index: the run was not finished: what it has begun comes first, then give --update again")
        return None
    if context.settings.method == "compare":
        raise SettingsError("--update is for reduce", "Compare the splits anew in another --run.")
    delivery = open_delivery(context, there["index"]["facts"])
    if delivery is None:
        context.say("index: the source holds nothing new")
        return None
    for name in AFTERWARDS:
        context.run.remove(*name.split("/"))
    return delivery


def _begin_against(context: Context, stages: tuple[Stage, ...], against: str) -> None:
    """Put the run on top of another one; its index is from now on that of another source."""
    context.theirs = begin_against(context.run, against)
    sealed = seal_of(context, index.STAGE)
    if sealed is not None:
        recipe = recipe_of(context, index.STAGE, {})
        mark = fingerprint(recipe)
        context.run.write_json({"fingerprint": mark, "recipe": recipe}, "state", "index", "stage.json")
        context.run.write_json({**sealed, "fingerprint": mark}, "state", "index", "sealed.json")


def _tell_against(context: Context, summary: dict[str, Any], against: str) -> None:
    """How much of the delivery the other run knows."""
    found = twins(context.run, context.theirs, float(context.run.facts("similarities")["min_similarity"]))
    summary.update(own_counts(context.run, context.theirs), against={"run": against, **found})
    context.say(
        f"against {against}: {found['known']:,} of {found['images']:,} images are known there ({found['exact']:,} "
        f"exact), {found['conflicts']:,} of them under another label"
    )


def _record(context: Context, delivery: Delivery, seconds: float) -> dict[str, Any]:
    """What a delivery was and cost; bytes are those read of the run's own arrays, as stored, and of new images."""
    counts = delivery.counts
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    read = context.engine.bytes_read()
    bytes_new = 0
    if len(delivery.change.added):
        table = context.run.read_table("images", ["row", "bytes"])
        bytes_new = int(np.asarray(table["bytes"])[np.isin(np.asarray(table["row"]), delivery.change.added)].sum())
    context.say(f"delivery {delivery.change.number}: {told}; read {sum(read.values()) / 1e6:,.0f} MB of the run")
    return {
        "number": delivery.change.number,
        **counts,
        "seconds": seconds,
        "source_bytes": bytes_new,
        "run_bytes": dict(sorted(read.items())),
    }


def _tell_reviewed(context: Context) -> None:
    if context.settings.plan.reviewed is None and context.run.exists("reviewed.csv"):
        again = "leakage" if context.settings.method == "compare" else "plan"
        context.engine.progress.say(
            f"the run holds verdicts of a person that it does not honour: add --reviewed {context.run.url}/"
            f"reviewed.csv --restart {again}"
        )


def preview(context: Context) -> tuple[list[StageState], Size]:
    """What `execute` would do, without computing or writing anything (a new source is listed to count it)."""
    stages = stages_of(context.settings)
    seals = seals_of(context, stages)
    if "index" in seals and not changed_in(context, stages, index.STAGE, seals):
        facts = seals["index"]["facts"]
    else:
        listing = listing_of(context.settings.source, context.source_options)
        shape = index.standard_shape(context.settings, listing, context.source_options)
        n = listing.table.num_rows
        known = index.known_bytes(listing.table)
        rows = index.block_rows(context.settings, n, shape)
        facts = {"n": n, "height": shape[0], "width": shape[1], "channels": shape[2], "rows": rows, "bytes": known}
        facts["splits"] = index.splits_of(listing.table)
    context.settings = settled(context.settings, facts)
    size = size_of(context.settings, facts)
    states = []
    for stage in stages:
        done = len(context.run.marked(stage.name))
        changed = changed_in(context, stages, stage, seals)
        if changed:
            state = "stale"
        elif stage.name in seals:
            state = "sealed"
        else:
            state = "open" if context.run.exists("state", stage.name, "stage.json") else "new"
        need = stage.need(size, context.settings, context.engine.place.workers)
        states.append(StageState(stage, state, done, need, changed))
    return states, size


def size_of(settings: Settings, facts: Mapping[str, Any]) -> Size:
    """The numbers that decide the work, from the facts of the index."""
    shape = (facts["height"], facts["width"], facts["channels"])
    transform = transform_of(settings.wavelets, shape)
    asked = clusters.asked_clusters(settings)
    there = facts.get("n_images", facts["n"])
    wanted = there if asked == "auto" else clusters.wanted_clusters(asked, there)
    crossing = None
    if settings.candidates.across == "splits":
        within = sum(count * (count - 1) // 2 for count in facts.get("splits", {}).values())
        crossing = facts["n"] * (facts["n"] - 1) // 2 - within
    return Size(
        n=facts["n"],
        height=shape[0],
        width=shape[1],
        channels=shape[2],
        columns=transform.columns,
        itemsize=transform.dtype.itemsize,
        rows=facts["rows"],
        n_clusters=wanted,
        bytes=facts["bytes"],
        crossing=crossing,
    )


def memory_of(context: Context, need: Need) -> tuple[int, int]:
    """Bytes that a stage needs in the fullest worker process, and the bytes that process may use."""
    place = context.engine.place
    tasks = -(-place.workers // place.processes)
    driver = need.driver if place.name == "threads" else 0
    return IDLE + need.process + tasks * need.task + driver, place.memory


def refuse_misfit(context: Context, needs: Mapping[str, Need]) -> None:
    """End where a stage needs more memory than a worker has.

    Raises
    ------
    SettingsError
        Names every such stage with its figure.
    """
    misfits = []
    for name, need in needs.items():
        bytes_needed, limit = memory_of(context, need)
        if limit and bytes_needed > limit:
            misfits.append(f"{name} needs {bytes_needed / 1e9:.2f} GB")
    if misfits:
        raise SettingsError(
            f"this does not fit into a worker of {context.engine.place.memory / 1e9:.2f} GB: {', '.join(misfits)}",
            "Fewer coefficients (wavelets.max_columns, images.size), smaller blocks (blocks.rows), fewer --workers, "
            "or more --memory.",
        )


def _one_stage(
    context: Context,
    stages: tuple[Stage, ...],
    stage: Stage,
    seals: dict[str, dict[str, Any]],
    memory: PeakMemory,
    delivery: Delivery | None,
) -> dict[str, Any]:
    """Do what is left of a stage, and seal it."""
    recipe = recipe_of(context, stage, seals)
    mark = fingerprint(recipe)
    seal = seal_of(context, stage)
    number = None if delivery is None else delivery.change.number
    behind = stage is index.STAGE and seal is not None and number not in (None, seal["facts"].get("delivery", 0))
    if seal is not None and seal["fingerprint"] == mark and not behind:
        return seal
    if delivery is None:
        with_own = seals if seal is None else {**seals, stage.name: seal}
        refuse_stale(context, stage, changed_in(context, stages, stage, with_own))
    before, used = time.monotonic(), time.process_time()
    memory.lap()
    if delivery is None:
        context.run.write_json({"fingerprint": mark, "recipe": recipe}, "state", stage.name, "stage.json")
        facts = stage.run(context)
    else:
        facts = _after_delivery(context, stage, {"fingerprint": mark, "recipe": recipe}, seal, delivery)
    seconds = time.monotonic() - before
    seal = {
        "fingerprint": mark,
        "facts": facts,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - used,  # of this process: of all the work where it runs in threads
        "peak_rss_bytes": memory.lap(),
        "blocks": context.engine.computed.get(stage.name, 0) + context.engine.resumed.get(stage.name, 0),
        "notes": [note for note in context.notes if note.startswith((f"{stage.name}:", "warning:"))],
    }
    context.engine.place.everywhere(let_go)
    let_go()
    context.engine.held()
    context.run.write_json(seal, "state", stage.name, "sealed.json")
    if delivery is not None:
        context.run.remove("state", stage.name, "blocks")  # or they would grow with every delivery
    return seal


def _after_delivery(
    context: Context, stage: Stage, record: dict[str, Any], seal: dict[str, Any] | None, delivery: Delivery
) -> dict[str, Any]:
    """Bring a stage up to date, or do it again; its facts."""
    run = context.run
    if stage is index.STAGE and seal is not None:
        return index_facts(run, delivery, seal["facts"])
    if stage.update is not None and seal is not None:
        run.write_json(record, "state", stage.name, "stage.json")
        facts = stage.update(context, delivery.change)
        if facts is not None:
            return facts
        forget_one(context, stage)
    elif (run.read_json("state", stage.name, "stage.json") or {}).get("fingerprint") != record["fingerprint"]:
        forget_one(context, stage)
    run.write_json(record, "state", stage.name, "stage.json")
    return stage.run(context)
