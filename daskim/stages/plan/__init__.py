"""What becomes of each image, and why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from daskim.kept import CACHE_BYTES
from daskim.plugins import find, similarity_of
from daskim.scatter import READ_BYTES, rows_read
from daskim.settings import Settings
from daskim.similarities import decided_bytes
from daskim.stages import Context, Need, Size, Stage
from daskim.stages.plan.decisions import (
    ROW_BYTES,
    STAGE_NAME,
    Asked,
    asked_of,
    begin,
    check_splits,
    guard,
    min_per_class,
    plan_hash,
    settle,
    table_of,
    write,
)
from daskim.stages.plan.leaders import MAX_RMS, confirm_by, follow_in_clusters, task_rows
from daskim.stages.plan.links import LINK_BYTES, LINKS, follow_by_pairs, only_contested
from daskim.stages.plan.verdicts import Verdicts, files_of, verdicts_of
from daskim.stages.plan.yields import COMPARE_STAGE

__all__ = ["COMPARE_STAGE", "MAX_RMS", "SIMILARITY_STAGE", "STAGE", "plan_hash"]

# A shape that every similarity can see.
ANY_SHAPE = (64, 64, 3)

Follow = Callable[[Context, pd.DataFrame, Asked, Verdicts], dict[str, Any]]


def _run(context: Context, follow: Follow, *, pairs: bool) -> dict[str, Any]:
    """Decide what both methods decide alike, and let `follow` say who stands for whom."""
    settings, run = context.settings.plan, context.run
    table = table_of(context)
    check_splits(settings, table)
    begin(table, settings.flat)
    verdicts = verdicts_of(context, table)
    verdicts.release(table)
    if not pairs:
        only_contested(context, table, verdicts)
    asked = verdicts.settle(table, asked_of(table, settings), flat=settings.flat == "exact", policy=settings.policy)
    facts = follow(context, table, asked, verdicts)
    settle(table, verdicts.followers)
    min_per_class(table, settings.min_per_class)
    guard(run, table, settings.max_drop)
    made = write(run, table, pairs=pairs, theirs=context.theirs)
    return {**made, **facts, "reviewed": verdicts.facts or None, **_stayed(context, table)}


def _stayed(context: Context, table: pd.DataFrame) -> dict[str, int]:
    """How many images are kept, next to another that is kept of their cluster, since an earlier plan kept them."""
    stays = table[table["stays"] & (table["cluster"] >= 0) & (table["decision"] == "keep") & ~table["protected"]]
    alike = stays[stays["rule"].isin(["kept", "apart"]) & stays["cluster"].duplicated(keep=False)]
    if len(alike):
        context.say(
            f"{STAGE_NAME}: {len(alike):,} images stay beside others of their cluster, since the plan before this "
            "delivery kept them (plan.stay): a fresh run may keep fewer"
        )
    return {"n_stayed": len(alike)} if context.stay is not None else {}


def _need(size: Size, settings: Settings, workers: int) -> Need:
    row, rows = size.columns * size.itemsize, task_rows(size.n, size.pixels)
    shape = (size.height, size.width, size.channels)
    similarity, _ = confirm_by(settings, shape, size.columns)  # a misfit ends the run here, before it has begun
    asked = 0
    if similarity is not None:
        asked = decided_bytes(similarity) + (0 if similarity.of == "pixels" else 8 * rows * size.columns)
    return Need(
        blocks=max(1, -(-size.n // rows) // 8) + -(-size.n // rows_read(size.pixels)) // 4 + 1,
        read=size.n * size.pixels // 4,
        write=(300 + size.pixels // 4) * size.n,
        process=CACHE_BYTES,
        task=max(rows * (size.pixels + 2 * row) + 2**20 * 24 + asked, 2 * READ_BYTES),
        driver=ROW_BYTES * size.n,
    )


def _need_of_pairs(size: Size, settings: Settings, workers: int) -> Need:
    rows = task_rows(size.n, size.pixels)
    looks = settings.clusters.verify == "none" or settings.plan.max_rms is not None
    links = min(LINKS * size.n, size.n * (size.n - 1) // 2, settings.candidates.most_pairs(size.n))
    return Need(
        blocks=max(1, -(-size.n // rows) // 8) + -(-size.n // rows_read(size.pixels)) // 4 + 1 if looks else 1,
        read=size.n * size.pixels // 8 if looks else 0,
        write=300 * size.n,
        process=CACHE_BYTES if looks else 0,
        task=2 * rows * size.pixels + 2**20 * 24 if looks else 0,
        driver=ROW_BYTES * size.n + LINK_BYTES * links,
    )


def _versions(settings: Settings) -> dict[str, str]:
    name = settings.clusters.verify
    if name == "none":
        return {}
    of_pixels = find("similarities", name).of == "pixels"
    return dict(similarity_of(name, ANY_SHAPE if of_pixels else ANY_SHAPE[:1]).versions)


STAGE = Stage(
    name=STAGE_NAME,
    version=2,
    reads=("images", "exact", "clusters"),
    settings=("plan", "clusters.verify", "similarities.min_similarity"),
    leaves=("tables/plan", "tables/pairs", "tables/influential", "keep.txt", "drop.txt"),
    run=partial(_run, follow=follow_in_clusters, pairs=True),
    need=_need,
    versions=_versions,
    files=files_of,
)

SIMILARITY_STAGE = Stage(
    name=STAGE_NAME,
    version=1,
    reads=("images", "exact", "similarities", "spectral"),
    settings=("plan", "clusters.verify"),
    leaves=("tables/plan", "tables/influential", "keep.txt", "drop.txt"),
    run=partial(_run, follow=follow_by_pairs, pairs=False),
    need=_need_of_pairs,
    files=files_of,
)
