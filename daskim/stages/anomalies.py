"""Images that are alike to nothing, and the extremes among the pairs.

`anomalies`: the images that are neither broken nor flat, the most isolated first, at most `LISTED`.

- row, id, label, split.
- similarity: the highest to any other image, NaN where no pair is listed. nearest_row, nearest_id: that image, or else
  the most alike in coarse coefficients; -1 and null where neither is known.
- correlation: to the most alike in coarse coefficients; 1 where there is an exact duplicate, NaN where unknown.
- degree: pairs at or above min_similarity.
- score: 0 to 1, 1 = most isolated; and by, what it is from. "similarity": 1 - similarity, clipped; with
  candidates.method = all, otherwise where no correlation is known. "correlation": 1 - correlation, clipped; but for
  lsh, every image was looked up among all in coarse coefficients, while F saw candidates only. "none": 1, as nothing
  was near enough to be a candidate.

`extremes`: kind, rank (from 1), a, b, a_id, b_id, similarity.

- "most similar pair": the `EXTREMES` highest, exact duplicates apart (they are in the table `exact`).
- "most dissimilar pair": as many of the lowest, with candidates.method = all only.
- "most similar group": a row for each member a, in the order of rows, with the member b that is most similar to it (-1,
  null and NaN where no such pair is listed). It is the cluster of two or more different images with the highest mean
  similarity of its pairs, those not listed counting 0; of exact duplicates the first stands for all. Ties go to the
  larger, then to the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from daskim.settings import Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.store import Run

__all__ = ["EXTREMES", "LISTED", "STAGE"]

LISTED = 1000
# Where every pair was compared, an image is alike to nothing if its highest similarity is below this.
ALIKE_NOTHING = 0.2
EXTREMES = 20
# Of each list, what the facts show.
TOLD = 5
# Pairs looked at together.
BATCH = 1_000_000


@dataclass(frozen=True)
class Pairs:
    """Some pairs: rows a < b, similarity, and whether they are exact duplicates."""

    a: np.ndarray
    b: np.ndarray
    similarity: np.ndarray
    exact: np.ndarray

    def of(self, chosen: np.ndarray) -> Pairs:
        return Pairs(self.a[chosen], self.b[chosen], self.similarity[chosen], self.exact[chosen])


class Nearest:
    """The highest similarity of each of n images to any other, and that image: of several the first row."""

    def __init__(self, n: int) -> None:
        self.best, self.other = np.full(n, -np.inf), np.full(n, n, dtype=np.int64)

    def take(self, pairs: Pairs) -> None:
        """Count in some more pairs."""
        before = self.best.copy()
        for image in (pairs.a, pairs.b):
            np.maximum.at(self.best, image, pairs.similarity)
        self.other[self.best > before] = len(self.other)
        for image, other in ((pairs.a, pairs.b), (pairs.b, pairs.a)):
            hit = pairs.similarity == self.best[image]
            np.minimum.at(self.other, image[hit], other[hit])

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows, -1 where an image is in no pair; and similarities, NaN there."""
        found = self.other < len(self.other)
        return np.where(found, self.other, -1), np.where(found, self.best, np.nan)


def _run(context: Context) -> dict[str, Any]:
    run, n = context.run, context.known.n
    images = run.read_table("images", ["row", "id", "label", "split", "status"]).to_pandas()
    images = images.sort_values("row", ignore_index=True)
    least = float(run.facts("similarities")["min_similarity"])
    everything = context.settings.candidates.method == "all"
    cluster = run.read_table("clusters", ["row", "cluster"]).to_pandas().sort_values("row")["cluster"].to_numpy()
    copy, copied = _copies(run, n)
    nearest, degree = Nearest(n), np.zeros(n, dtype=np.int64)
    sums = np.zeros(int(cluster.max(initial=-1)) + 1)
    high = low = Pairs(*(np.zeros(0, dtype=kind) for kind in (np.int64, np.int64, np.float64, bool)))
    for pairs in _batches(run):
        nearest.take(pairs)
        near = pairs.of(pairs.similarity >= least)
        degree += np.bincount(near.a, minlength=n) + np.bincount(near.b, minlength=n)
        high = _first(high, pairs.of(~pairs.exact), -1.0)
        low = _first(low, pairs, 1.0)
        inside = pairs.of((cluster[pairs.a] == cluster[pairs.b]) & ~copy[pairs.a] & ~copy[pairs.b])
        sums += np.bincount(cluster[inside.a], inside.similarity, len(sums))
    anomalies = _anomalies(run, images, nearest, degree, copied, everything)
    anomalies = anomalies[anomalies["row"] >= context.theirs]  # those of another run are told there
    alone = _alone(anomalies, everything)
    anomalies = anomalies.head(LISTED)
    run.write_part("anomalies", "000000", pa.Table.from_pandas(anomalies, preserve_index=False))
    group = _group(cluster, copy, sums)
    fellows, mean = _fellows(run, group)
    parts = [_listed("most similar pair", high), *([_listed("most dissimilar pair", low)] if everything else [])]
    parts.append(_listed("most similar group", fellows))
    extremes = pd.concat(parts, ignore_index=True)
    ids = images["id"].to_numpy(dtype=object)
    for side in ("a", "b"):
        extremes[f"{side}_id"] = _names(ids, extremes[side].to_numpy())
    extremes = extremes[["kind", "rank", "a", "b", "a_id", "b_id", "similarity"]]
    run.write_part("extremes", "000000", pa.Table.from_pandas(extremes, preserve_index=False))
    return {**_facts(anomalies, extremes, mean), "alone": alone}


def _batches(run: Run) -> Iterator[Pairs]:
    """All pairs, about `BATCH` at a time."""
    held: list[pa.Table] = []
    keys = run.parts("pairs")
    for key in keys:
        held.append(run.read_part("pairs", key, ["a", "b", "similarity", "source"]))
        if key == keys[-1] or sum(table.num_rows for table in held) >= BATCH:
            table = pa.concat_tables(held)
            held = []
            exact = np.asarray(pc.equal(table["source"], "exact"))
            a, b, similarity = (np.asarray(table[name]) for name in ("a", "b", "similarity"))
            yield Pairs(a, b, similarity, exact)


def _copies(run: Run, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether an image is an exact duplicate of an earlier one, and of any other one; shape (n,), bool."""
    copy, copied = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for pairs in _batches(run):
        copy[pairs.b[pairs.exact]] = True
        copied[pairs.a[pairs.exact]] = True
    return copy, copy | copied


def _first(held: Pairs, more: Pairs, sign: float) -> Pairs:
    """The pairs that come first by sign * similarity, ties by (a, b); at most `EXTREMES`."""
    if len(more.a) > EXTREMES:  # ties at the border all go on
        bound = np.partition(sign * more.similarity, EXTREMES - 1)[EXTREMES - 1]
        more = more.of(sign * more.similarity <= bound)
    both = [np.concatenate([getattr(pairs, name) for pairs in (held, more)]) for name in Pairs.__dataclass_fields__]
    pairs = Pairs(*both)
    return pairs.of(np.lexsort((pairs.b, pairs.a, sign * pairs.similarity))[:EXTREMES])


def _anomalies(
    run: Run, images: pd.DataFrame, nearest: Nearest, degree: np.ndarray, copied: np.ndarray, everything: bool
) -> pd.DataFrame:
    n = len(images)
    row, similarity = nearest.result()
    coarse = run.read_table("nearest", ["row", "nearest_row", "correlation"]).to_pandas()
    correlation, coarse_row = np.full(n, np.nan), np.full(n, -1, dtype=np.int64)
    correlation[coarse["row"]], coarse_row[coarse["row"]] = coarse["correlation"], coarse["nearest_row"]
    if not everything:
        correlation[copied] = 1.0  # the search in coarse coefficients sees one of them only
    listed = row >= 0
    by = np.where(np.isnan(correlation) | everything, np.where(listed, "similarity", "none"), "correlation")
    alike = np.select([by == "similarity", by == "correlation"], [similarity, correlation], 0.0)
    row = np.where(listed, row, coarse_row)
    table = images[["row", "id", "label", "split"]].copy()
    table["nearest_row"], table["nearest_id"] = row, _names(images["id"].to_numpy(dtype=object), row)
    table["similarity"], table["correlation"], table["degree"] = similarity, correlation, degree
    table["score"], table["by"] = np.clip(1.0 - alike, 0.0, 1.0), by
    table = table[images["status"] == "ok"]
    # among equal scores: what is less alike to its nearest in F comes first
    order = np.lexsort((table["row"], table["similarity"].fillna(-np.inf), table["degree"], -table["score"]))
    return table.iloc[order]


def _alone(anomalies: pd.DataFrame, everything: bool) -> int:
    """Images that are alike to nothing: below `ALIKE_NOTHING` of all others, or near no other one at all."""
    if everything:
        return int((anomalies["similarity"].isna() | (anomalies["similarity"] < ALIKE_NOTHING)).sum())
    return int((anomalies["nearest_row"] < 0).sum())


def _names(ids: np.ndarray, rows: np.ndarray) -> pd.api.extensions.ExtensionArray:
    return pd.array([ids[row] if row >= 0 else None for row in rows.tolist()], dtype="string")


def _group(cluster: np.ndarray, copy: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The different images of the most similar group, ascending; none if there is no group.

    `sums` are the similarities of the pairs within each cluster, copies apart.
    """
    members = np.bincount(cluster[(cluster >= 0) & ~copy], minlength=len(sums))
    several = np.flatnonzero(members > 1)
    if not several.size:
        return np.zeros(0, dtype=np.int64)
    count = members[several]
    mean = sums[several] / (count * (count - 1) / 2)
    near = np.flatnonzero(mean >= mean.max() - 1e-12)  # sums round, by the order of the pairs
    best = several[near[np.lexsort((several[near], -count[near]))[0]]]
    return np.flatnonzero((cluster == best) & ~copy)


def _fellows(run: Run, group: np.ndarray) -> tuple[Pairs, float | None]:
    """Each member of a group with the member most similar to it, and the mean similarity of all its pairs."""
    if not group.size:
        return Pairs(group, group, np.zeros(0), np.zeros(0, dtype=bool)), None
    found, values = Nearest(int(group[-1]) + 1), [0.0]
    for pairs in _batches(run):
        inside = pairs.of(np.isin(pairs.a, group) & np.isin(pairs.b, group))
        found.take(inside)
        values += inside.similarity.tolist()
    other, similarity = found.result()
    mean = fsum(values) / (len(group) * (len(group) - 1) / 2)  # rounded once: the order of the pairs does not matter
    return Pairs(group, other[group], similarity[group], np.zeros(len(group), dtype=bool)), mean


def _listed(kind: str, pairs: Pairs) -> pd.DataFrame:
    rank = np.arange(1, len(pairs.a) + 1)
    return pd.DataFrame({"kind": kind, "rank": rank, "a": pairs.a, "b": pairs.b, "similarity": pairs.similarity})


def _facts(anomalies: pd.DataFrame, extremes: pd.DataFrame, mean: float | None) -> dict[str, Any]:
    """The top of each list, with ids."""

    def top(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
        some = table[columns].head(TOLD).astype(object)
        return some.where(some.notna(), None).to_dict("records")

    kinds = {kind: extremes[extremes["kind"] == kind] for kind in ("most similar pair", "most dissimilar pair")}
    group = extremes[extremes["kind"] == "most similar group"]
    pair = ["a_id", "b_id", "similarity"]
    return {
        "listed": len(anomalies),
        "most_isolated": top(anomalies, ["id", "nearest_id", "similarity", "score", "by"]),
        "most_similar_pairs": top(kinds["most similar pair"], pair),
        "most_dissimilar_pairs": top(kinds["most dissimilar pair"], pair),
        "most_similar_group": {"images": len(group), "mean": mean, "ids": group["a_id"].head(4 * TOLD).tolist()},
    }


def _need(size: Size, settings: Settings, workers: int) -> Need:
    n = size.n
    pairs = min(settings.candidates.most_pairs(n), n * (n - 1) // 2)
    if settings.candidates.method != "all":
        pairs = min(pairs, n * (settings.candidates.neighbours + 32))
    return Need(
        blocks=1,
        read=3 * 25 * pairs,
        write=200 * min(n, LISTED),
        task=0,
        driver=220 * min(pairs, BATCH + 100_000) + 800 * n,
    )


STAGE = Stage(
    name="anomalies",
    version=1,
    reads=("images", "candidates", "similarities", "spectral"),
    settings=(),
    leaves=("tables/anomalies", "tables/extremes"),
    run=_run,
    need=_need,
)
