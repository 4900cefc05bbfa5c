"""What the output of a stage was made from, and what of a run is therefore skipped, refused or done again.

The recipe of a stage is all that decides its output: its version, settings, libraries and files, and the recipes of the
stages that it reads. `stage.json` holds it while the stage is at work, `sealed.json` its digest and the facts once it
is done.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from daskim.errors import SettingsError, StaleRun, nearest
from daskim.stages import Context, Stage

__all__ = [
    "AFTERWARDS",
    "changed_in",
    "fingerprint",
    "forget",
    "forget_one",
    "recipe_of",
    "refuse_stale",
    "seal_of",
    "seals_of",
]

# What other commands left in the run; it is of the stages that are done again.
AFTERWARDS = ("tables/boundaries", "tables/boundary_lines", "boundaries")


def recipe_of(context: Context, stage: Stage, seals: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All that decides a stage's output, as flat text keys; `seals` are those of the stages before it that run."""
    recipe: dict[str, Any] = {"stage": stage.name, "version": stage.version}
    for key in stage.settings:
        value = context.settings.get(key)
        fields = value.model_dump(mode="json") if hasattr(value, "model_dump") else None
        recipe.update({f"{key}.{k}": v for k, v in fields.items()} if fields is not None else {key: value})
    recipe.update({f"library {name}": text for name, text in stage.versions(context.settings).items()})
    recipe.update(stage.files(context))
    for name in stage.reads:
        if name not in seals:
            continue
        seal = seals[name]
        recipe[f"stage {name}"] = seal["fingerprint"] + str(seal["facts"].get("content", ""))
    return json.loads(json.dumps(recipe))


def fingerprint(recipe: dict[str, Any]) -> str:
    """A short digest of a recipe."""
    return hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=16).hexdigest()


def seal_of(context: Context, stage: Stage) -> dict[str, Any] | None:
    """What a stage left when it was done: fingerprint, facts, seconds, memory, notes."""
    return context.run.read_json("state", stage.name, "sealed.json")


def changed_in(
    context: Context,
    stages: tuple[Stage, ...],
    stage: Stage,
    seals: dict[str, dict[str, Any]],
    *,
    of_a_delivery: bool = False,
) -> str:
    """What differs between the settings of the run and those asked for; empty when nothing does or it is new.

    Parameters
    ----------
    stages : tuple of Stage
        All that run.
    """
    record = context.run.read_json("state", stage.name, "stage.json")
    running = {other.name for other in stages}
    if record is None or not all(name in seals for name in stage.reads if name in running):
        return ""
    if stage.name not in seals and not context.run.marked(stage.name):
        return ""  # nothing was computed: an attempt that ended at once binds nobody
    was, now = record["recipe"], recipe_of(context, stage, seals)
    names = [key for key in sorted(set(was) | set(now)) if was.get(key) != now.get(key)]
    if of_a_delivery:  # while one is taken in, what a stage reads is of other deliveries
        names = [key for key in names if not key.startswith("stage ")]
    return "; ".join(f"{key} was {was.get(key)!r} and is now {now.get(key)!r}" for key in names[:3])


def seals_of(context: Context, stages: tuple[Stage, ...]) -> dict[str, dict[str, Any]]:
    """The seals that the run holds, by stage."""
    return {stage.name: seal for stage in stages if (seal := seal_of(context, stage)) is not None}


def refuse_stale(context: Context, stage: Stage, changed: str) -> None:
    """End where a stage was done, or begun, with other settings: what `changed_in` said of it.

    Raises
    ------
    StaleRun
    """
    if changed and context.theirs:
        raise StaleRun(
            f"the run that is compared with was made otherwise: stage {stage.name}: {changed}",
            "Leave these settings as they are there, or bring that run up to date first, and choose another --run.",
        )
    if changed:
        raise StaleRun(
            f"run {context.run.url} was made with other settings: stage {stage.name}: {changed}",
            f"Add --restart {stage.name} to do this stage and the later ones again, or choose another --run.",
        )


def forget(context: Context, stages: tuple[Stage, ...], restart: str) -> None:
    """Remove a stage's output, and that of all later stages."""
    names = [stage.name for stage in stages]
    if restart not in names:
        raise SettingsError(f"--restart {restart}: no such stage", nearest(restart, names))
    for stage in stages[names.index(restart) :]:
        forget_one(context, stage)
    for name in AFTERWARDS:
        context.run.remove(*name.split("/"))


def forget_one(context: Context, stage: Stage) -> None:
    """Remove a stage's output."""
    context.run.remove("state", stage.name, "sealed.json")
    context.run.remove("state", stage.name)
    context.run.remove("partial", stage.name)
    for name in stage.leaves:
        context.run.remove(*name.split("/"))
    context.run.remove("summary.json")
