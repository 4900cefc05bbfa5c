"""Which images of a split have a twin in another one, and which have nothing like them there.

For every evaluated split (`compare.evaluate`: all but the training split) and every split it is compared with
(`compare.against`: those that come before it). Training splits come first and test splits last, so each pair of splits
is looked at once: val against train, test against train, test against val.

`leakage`: the twins of each evaluated image, at or above min_similarity, `compare.per_image` of each split at most.

- row, id, split, label: the evaluated image; other_row, other_id, other_split, other_label: its twin.
- rank: 1 is the most similar; similarity; kind: "exact" (equal bytes or full-resolution pixels) or "near". Of flat
  images, which are all alike, only exact duplicates count.
  Near pairs that a person called different (`plan.reviewed`) are left out.
- agreement: "same" or "conflict" of their labels, "unknown" where one has none.
- what the similarity reports, such as mirrored, scale_y, scale_x, shift_y, shift_x, overlap: the motion of the twin
  onto the evaluated image.

`coverage`: for each evaluated image (neither broken nor flat) and each other split the most alike image there, the
least covered first: row, id, split, label, other_split, other_row, other_id, similarity, correlation, by.

- by = "similarity": the highest of the pairs that were compared; of all pairs with candidates.method = all.
- by = "correlation": no pair was followed to the end; other_row is the most alike in coarse coefficients.
- by = "none": neither is known, as with candidates.method = lsh; other_row is -1.
  Images by correlation come before those by similarity: no candidate of theirs was worth a similarity.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from daskim.lake import called_different, read_reviewed
from daskim.settings import Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.stages.leakage.sides import pairs_of_splits
from daskim.stages.leakage.tables import coverage_table, leakage_table
from daskim.stages.leakage.twins import Images, images_of, twins_and_best

__all__ = ["STAGE", "pairs_of_splits"]

NAME = "leakage"
# Least covered images that the facts show.
TOLD = 5


def _run(context: Context) -> dict[str, Any]:
    run = context.run
    counts = run.facts("index")["splits"]
    wanted = pairs_of_splits(context.settings, counts)
    sealed = run.facts("similarities")
    images = images_of(run)
    ids = images.table["id"].tolist()
    different = called_different(context.settings.plan.reviewed, ids, context.source_options)
    twins, best = twins_and_best(run, images, wanted, float(sealed["min_similarity"]), different)
    leakage = leakage_table(images, twins, context.settings.compare.per_image)
    coverage = coverage_table(run, images, wanted, best)
    run.write_part("leakage", "000000", pa.Table.from_pandas(leakage, preserve_index=False))
    run.write_part("coverage", "000000", pa.Table.from_pandas(coverage, preserve_index=False))
    facts = _facts(images, wanted, twins, coverage)
    facts.update(min_similarity=sealed["min_similarity"], similarity=sealed["name"], called_different=len(different))
    context.say(
        f"leakage: {facts['images']:,} of {facts['evaluated']:,} evaluated images have a twin ({facts['exact']:,} "
        f"exact), {facts['conflicts']:,} of them under another label"
    )
    return facts


def _files(context: Context) -> dict[str, str]:
    """Digest of the verdicts: part of what decides the tables."""
    url = context.settings.plan.reviewed
    return {} if url is None else {"reviewed pairs": read_reviewed(url, context.source_options).digest}


def _facts(
    images: Images, wanted: list[tuple[str, str]], twins: pd.DataFrame, coverage: pd.DataFrame
) -> dict[str, Any]:
    cross = []
    for (at, kind, agreement), group in twins.groupby(["pair", "kind", "agreement"], sort=True):
        one, other = wanted[int(at)]
        count = {"pairs": len(group), "images": int(group["row"].nunique())}
        cross.append({"split": one, "other_split": other, "kind": kind, "agreement": agreement, **count})
    exact = twins.loc[twins["kind"] == "exact", "row"].nunique()
    told = ["id", "other_split", "other_id", "similarity", "correlation", "by"]
    least = coverage.drop_duplicates("row")[told].head(TOLD).astype(object)
    return {
        "images": int(twins["row"].nunique()),
        "exact": int(exact),
        "near": int(twins["row"].nunique() - exact),
        "conflicts": int(twins.loc[twins["agreement"] == "conflict", "row"].nunique()),
        "pairs": len(twins),
        "evaluated": int(sum(images.of(name).sum() for name in dict.fromkeys(one for one, _ in wanted))),
        "splits": [list(pair) for pair in wanted],
        "cross": cross,
        "covered_by": {str(by): int(count) for by, count in coverage["by"].value_counts().sort_index().items()},
        "least_covered": least.where(least.notna(), None).to_dict("records"),
    }


def _need(size: Size, settings: Settings, workers: int) -> Need:
    searched = size.n * (settings.candidates.neighbours + 32)
    pairs = size.possible if settings.candidates.method == "all" else min(searched, size.possible)
    pairs = min(pairs, settings.candidates.most_pairs(size.n))
    # of the pairs of a search most may be twins, of all pairs few
    held = min(pairs, searched)
    return Need(blocks=1, read=60 * pairs, write=400 * size.n, task=0, driver=1_200 * size.n + 150 * held)


STAGE = Stage(
    name=NAME,
    version=2,
    reads=("index", "images", "exact", "candidates", "similarities"),
    settings=("compare.evaluate", "compare.against", "compare.per_image"),
    leaves=("tables/leakage", "tables/coverage"),
    run=_run,
    need=_need,
    files=_files,
)
