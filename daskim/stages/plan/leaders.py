"""Who follows whom by what the images look like: bounds on the distance, and a similarity that confirms it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from daskim.errors import SettingsError
from daskim.kept import Kept, gather, kept_of, take
from daskim.kernels.leaders import follow_leaders, rms_to
from daskim.plugins import find, similarity_of
from daskim.scatter import Scattered, scatter
from daskim.settings import Settings
from daskim.similarities import Similarity, decided
from daskim.stages import Context
from daskim.stages.plan.decisions import STAGE_NAME, Asked
from daskim.stages.plan.verdicts import Verdicts, within
from daskim.store import Run

__all__ = ["MAX_RMS", "Judge", "bounds", "confirm_by", "follow_in_clusters", "follow_in_pixels", "measure", "task_rows"]

# Largest difference from the kept image that is not asked for: RMS in grey levels. About where the cut at 0.94 n lies
# on CIFAR-10 (31 grey levels); beyond it, images of one label are rarely the same thing.
MAX_RMS = 32.0
# Images and bytes of pixels of one task, unless a cluster has more.
GROUP, GROUP_BYTES = 2048, 2**28


@dataclass(frozen=True)
class Judge:
    """The similarity that confirms who may follow.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of what it is shown: (h, w, c), or (m,) for coefficients.
    least : float
        It confirms from here on.
    unit : float
        Stored coefficients times this have the RMS difference in grey levels as their Euclidean distance.
    """

    name: str
    shape: tuple[int, ...]
    least: float
    unit: float = 1.0


def confirm_by(settings: Settings, shape: tuple[int, int, int], columns: int) -> tuple[Similarity | None, str]:
    """The similarity of `clusters.verify` for images of shape (h, w, c) with `columns` kept coefficients.

    Returns
    -------
    similarity : Similarity or None
        None for `none`, and where the default one cannot see images of this size.
    why : str
        What the default one cannot do with them.

    Raises
    ------
    SettingsError
        There is no such similarity, or the one that was asked for cannot see images of this size.
    """
    name = settings.clusters.verify
    if name == "none":
        return None, ""
    seen = (columns,) if find("similarities", name).of == "coefficients" else shape
    try:
        return similarity_of(name, seen), ""
    except SettingsError as error:
        if "verify" not in settings.clusters.model_fields_set:
            return None, error.what
        raise SettingsError(
            f"clusters.verify = {name} cannot see the standard images ({error.what})",
            "Give a larger images.size, or --verify none to drop without it.",
        ) from None


def follow_in_clusters(context: Context, table: pd.DataFrame, asked: Asked, verdicts: Verdicts) -> dict[str, Any]:
    """Algorithm 1: near enough in pixels and in the kept coefficients, and confirmed by the similarity."""
    facts = (context.run.read_json("state", "clusters", "sealed.json") or {}).get("facts", {})
    bound, reach, why = bounds(context.settings.plan.max_rms, facts)
    columns = kept_of(context.run)
    judge = _judge(context, columns, facts)
    refuted = follow_in_pixels(context, table, asked, bound, verdicts, columns=columns, reach=reach, judge=judge)
    measure(context, table, verdicts.followers, columns, judge)
    return {
        "max_rms": bound,
        "max_rms_why": why,
        "verify": judge.name if judge else "none",
        "min_similarity": judge.least if judge else None,
        "n_refuted": refuted,
    }


def bounds(max_rms: float | None, facts: dict[str, Any]) -> tuple[float, float, str]:
    """How near an image must be to the one kept for it: in grey levels (RMS), in stored coefficients, and in words.

    Unless it is set, the height at which the trees were cut bounds the distance in the kept coefficients, which is what
    the clusters were made by, and `MAX_RMS` the difference of the pixels.

    Parameters
    ----------
    max_rms : float or None
        As set.
    facts : dict
        Of the stage `clusters`.
    """
    if max_rms is not None:
        return max_rms, float("inf"), "as set"
    height = facts.get("cut_height")
    if height is None:
        return MAX_RMS, float("inf"), "the largest that is not asked for (plan.max_rms)"
    if facts["share"] == 1.0 and facts["cut_rms"] < MAX_RMS:  # the same thing in pixels, which are smaller to read
        return float(facts["cut_rms"]) * (1 + 1e-9), float("inf"), "the height at which the trees were cut"
    return MAX_RMS, float(height) * (1 + 1e-9), "and in the kept coefficients the height at which the trees were cut"


def _judge(context: Context, columns: Kept, facts: dict[str, Any]) -> Judge | None:
    size, settings = context.known, context.settings
    m = size.columns if columns.columns is None else len(columns.columns)
    shape = (size.height, size.width, size.channels)
    similarity, why = confirm_by(settings, shape, m)
    if similarity is None:
        if why:
            context.say(f"{STAGE_NAME}: drops are confirmed by the distance alone ({why}): a larger images.size helps")
        return None
    wanted = settings.similarities.min_similarity
    return Judge(
        name=settings.clusters.verify,
        shape=(m,) if similarity.of == "coefficients" else shape,
        least=float(similarity.threshold if wanted is None else wanted),
        unit=columns.scale / (size.pixels * float(facts.get("share", 1.0))) ** 0.5,
    )


def task_rows(n: int, pixels: int) -> int:
    """Images that one task holds, unless a single cluster has more."""
    return min(max(1, n), GROUP, max(1, GROUP_BYTES // pixels))


def follow_in_pixels(
    context: Context,
    table: pd.DataFrame,
    asked: Asked,
    bound: float,
    verdicts: Verdicts,
    *,
    columns: Kept | None = None,
    reach: float = float("inf"),
    judge: Judge | None = None,
) -> int:
    """Fill `kept_row`, `rms` and `similarity` of the images that are asked; how many the judge refused to some leader.

    The similarity is the judge's, or without one 1 / (1 + RMS).
    """
    run = context.run
    keys: list[str] = []
    task = np.empty(len(asked.rows), dtype=np.int64)
    for number, part in enumerate(_parts(asked.party, task_rows(context.known.n, context.known.pixels))):
        keys.append(f"{number:06d}")
        task[part] = number
        rows = asked.rows[part]
        members = np.stack([rows, asked.party[part], asked.fixed[part]])
        run.save(members.astype(np.int64), "partial", STAGE_NAME, f"members-{keys[-1]}.npy")
        order = np.argsort(rows)
        apart = [order[side] for side in within(verdicts.apart, rows[order])]
        run.save(np.stack(apart), "partial", STAGE_NAME, f"apart-{keys[-1]}.npy")
    order = np.argsort(asked.rows)
    found = scatter(context.engine, STAGE_NAME, "images", asked.rows[order], task[order], "leaders-read")
    calls = [(found[number], columns, bound, reach, judge) for number in range(len(keys))]
    infos = context.engine.each(STAGE_NAME, "leaders", keys, calls, leaders_task)
    for key in keys:
        rows, leader = run.load("partial", STAGE_NAME, f"leader-{key}.npy")
        rms, similarity = run.load("partial", STAGE_NAME, f"value-{key}.npy")
        table.loc[rows, "kept_row"] = leader
        table.loc[rows, "rms"] = rms
        table.loc[rows, "similarity"] = similarity
    return sum(info["refuted"] for info in infos)


def _parts(party: np.ndarray, most: int) -> Iterator[slice]:
    """Runs of whole parties, of `most` images or a little more; one where a party is larger."""
    ends = np.flatnonzero(np.diff(party, append=-1)) + 1
    task = (ends - 1) // most
    last = ends[np.flatnonzero(np.diff(task, append=-1))].tolist()
    return (slice(lo, hi) for lo, hi in zip([0, *last[:-1]], last))


def leaders_task(
    run: Run, key: str, found: Scattered, columns: Kept | None, bound: float, reach: float, judge: Judge | None
) -> dict[str, Any]:
    """Leaders of some parties; their images come in the order in which they are asked."""
    rows, party, fixed = run.load("partial", STAGE_NAME, f"members-{key}.npy")
    one, other = run.load("partial", STAGE_NAME, f"apart-{key}.npy")
    images = found.block(run)[np.argsort(np.argsort(rows))]  # they lie in the order of the rows
    bounded = columns is not None and np.isfinite(reach)
    agree = _Confirmation(judge, rows, images, columns) if judge is not None else None
    leader, rms = follow_leaders(
        images.reshape(len(rows), -1),
        np.arange(len(rows)),
        bound,
        fixed.astype(bool),
        group=party - party.min(initial=0),
        points=gather(columns, rows) if columns is not None and bounded else None,
        reach=reach,
        agree=agree,
        apart=(one, other),
    )
    similarity = 1.0 / (1.0 + rms) if agree is None else np.where(rms > 0, agree.similarity, 1.0)
    run.save(np.stack([rows, rows[leader]]), "partial", STAGE_NAME, f"leader-{key}.npy")
    run.save(np.stack([rms, similarity]), "partial", STAGE_NAME, f"value-{key}.npy")
    refuted = 0 if agree is None else int(agree.refused.sum())
    return {"dropped": int((leader != np.arange(len(rows))).sum()), "refuted": refuted}


def measure(
    context: Context, table: pd.DataFrame, followers: np.ndarray, columns: Kept | None, judge: Judge | None
) -> None:
    """Fill `rms` and `similarity` of images that follow by verdict, some at a time."""
    step = max(1, task_rows(context.known.n, context.known.pixels) // 2)
    for start in range(0, len(followers), step):
        mine = followers[start : start + step]
        rows = np.concatenate([mine, table["kept_row"].to_numpy()[mine]])
        images = take(context.run, "images", rows)
        first, rest = np.arange(len(mine), 2 * len(mine)), np.arange(len(mine))
        rms = rms_to(images[first].reshape(len(mine), -1), images[rest].reshape(len(mine), -1))
        table.loc[mine, "rms"] = rms
        if judge is None:
            table.loc[mine, "similarity"] = 1.0 / (1.0 + rms)
        else:
            agree = _Confirmation(judge, rows, images, columns)
            agree(first, rest)
            table.loc[mine, "similarity"] = np.where(rms > 0, agree.similarity[rest], 1.0)


class _Confirmation:
    """Asks the judge about pairs of a task's images, and remembers what it said last of each follower."""

    def __init__(self, judge: Judge, rows: np.ndarray, images: np.ndarray, columns: Kept | None) -> None:
        self.judge, self.rows = judge, rows
        self.of = similarity_of(judge.name, judge.shape)
        self.seen = images
        if self.of.of == "coefficients" and columns is not None:
            self.seen = gather(columns, rows).astype(np.float64) * judge.unit
        self.similarity = np.ones(len(rows))
        self.refused = np.zeros(len(rows), dtype=bool)

    def __call__(self, first: np.ndarray, rest: np.ndarray) -> np.ndarray:
        swap = self.rows[first] > self.rows[rest]  # as pairs are written: the smaller row is on the left
        left, right = np.where(swap, rest, first), np.where(swap, first, rest)
        found = decided(self.of, self.seen, self.seen, left, right, self.judge.least)[:, 0]
        good = found >= self.judge.least
        self.similarity[rest] = found
        self.refused[rest[~good]] = True
        return good
