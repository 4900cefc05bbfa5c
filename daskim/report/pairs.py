"""Which pairs and which single images the page shows: leaks, calls near the threshold, extremes, anomalies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from daskim.report.entries import MOTION, Entry, Gallery, Motion
from daskim.report.families import MOST, SEED, in_turn
from daskim.report.listed import Pair, codes_of, look_up, nearest_to_threshold
from daskim.results import FinishedRun

__all__ = ["anomalies", "extremes", "leaks", "near_threshold", "uncovered"]

# Pairs on either side of the threshold; anomalies; images without a counterpart.
BORDER = 60
ISOLATED = 240


def leaks(run: FinishedRun, n: int) -> Gallery:
    """Evaluated images beside their twin in another split: conflicts, the most and the least alike, some at random."""
    table = _twins(run) if run.has("leakage") else pd.DataFrame({"row": [], "similarity": [], "agreement": []})
    similarity = table["similarity"].to_numpy(dtype=np.float64)
    conflict = (table["agreement"] == "conflict").to_numpy(dtype=bool)
    orders = [
        np.lexsort((-similarity, ~conflict)),
        np.argsort(similarity, kind="stable"),
        np.random.default_rng(SEED).permutation(len(table)),
    ]
    entries = []
    for item in table.iloc[in_turn(orders, MOST)].to_dict("records"):
        note = {"conflict": "different labels", "same": "same label"}.get(str(item["agreement"]), "")
        motion = tuple(float(item[name]) for name in MOTION) if set(MOTION) <= set(item) else None
        usable = motion is not None and bool(np.isfinite(motion[1:5]).all()) and min(motion[1:3]) > 0
        rows = [int(item["row"]), int(item["other_row"])]
        values = [np.nan, float(item["similarity"])]
        kind = str(item["kind"])
        entries.append(Entry(rows, [-1, 0], values, (), ("", kind), [None, motion if usable else None], 2, note))
    return Gallery(
        "leaks",
        "Leaks",
        "pair",
        "An image on which a model is judged (left) and its most similar one of another split (right).",
        f"in turn pairs of different labels, the least similar, and some at random (seed {SEED})",
        len(table),
        ("image with a twin", "images with a twin"),
        4,
        entries,
    )


def _twins(run: FinishedRun) -> pd.DataFrame:
    """The most similar pair of each evaluated image."""
    names = ["row", "other_row", "rank", "similarity", "kind", "agreement", *MOTION]
    parts = []
    for batch in run.store.batches("leakage", names):
        frame = batch.to_pandas()
        parts.append(frame[frame["rank"] == 1])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in names})


def near_threshold(run: FinishedRun) -> Gallery:
    """The pairs whose similarity is nearest to the threshold, above and below it."""
    facts = run.summary.get("similarities")
    above: list[Pair] = []
    below: list[Pair] = []
    least = 0.0
    if facts and run.has("pairs"):
        least = float(facts["min_similarity"])
        above, below, _ = nearest_to_threshold(run, least, BORDER)
    entries = []
    for pair, side in _alternating(above, below):
        entries.append(_pair(pair, side))
    return Gallery(
        "borderline",
        "Borderline",
        "pair",
        f"The pairs just above and just below min_similarity = {least:g}. If those above differ, raise it; if those "
        "below are the same, lower it.",
        f"the {BORDER} nearest on either side",
        len(entries),
        ("pair", "pairs"),
        2,
        entries,
    )


def _alternating(above: list[Pair], below: list[Pair]) -> Iterator[tuple[Pair, str]]:
    for index in range(max(len(above), len(below))):
        if index < len(above):
            yield above[index], "above the threshold"
        if index < len(below):
            yield below[index], "below the threshold"


def _pair(pair: Pair, note: str) -> Entry:
    return Entry([pair.a, pair.b], [-1, 0], [np.nan, pair.similarity], (), (), [None, pair.motion], 2, note)


def extremes(run: FinishedRun, n: int) -> Gallery:
    """The most similar and the most dissimilar pairs."""
    table = pd.DataFrame({"kind": [], "a": [], "b": [], "similarity": []})
    if run.has("extremes"):
        table = run.table("extremes", ["kind", "a", "b", "similarity"])
        table = table[(table["kind"] != "most similar group") & (table["b"] >= 0)]
    a, b = table["a"].to_numpy(dtype=np.int64), table["b"].to_numpy(dtype=np.int64)
    found = look_up(run, codes_of(a, b, n), n)
    entries = []
    for one, other, value, kind in zip(a.tolist(), b.tolist(), table["similarity"].tolist(), table["kind"].tolist()):
        known = found.get(int(codes_of(np.array(one), np.array(other), n)))
        motion: Motion | None = None if known is None else known.seen_from(one)
        entries.append(Entry([one, other], [-1, 0], [np.nan, value], (), (), [None, motion], 2, str(kind)))
    return Gallery(
        "extremes",
        "Extremes",
        "pair",
        "The pairs that are most alike (exact duplicates apart) and, where every pair was compared, least alike.",
        "",
        len(entries),
        ("pair", "pairs"),
        2,
        entries,
    )


def anomalies(run: FinishedRun) -> Gallery:
    """The most isolated images, each beside the one that is most like it."""
    names = ["row", "nearest_row", "similarity", "correlation", "score", "by"]
    table = run.table("anomalies", names) if run.has("anomalies") else pd.DataFrame({name: [] for name in names})
    told = {
        "none": "nothing was near enough to be compared",
        "correlation": "by correlation",
        "similarity": "by similarity",
    }
    chance = np.random.default_rng(SEED).permutation(len(table))
    order = np.lexsort((chance, -table["score"].to_numpy(dtype=np.float64)))[:ISOLATED]
    entries = []
    for item in table.iloc[order].to_dict("records"):
        other = int(item["nearest_row"])
        by = told.get(str(item["by"]), str(item["by"]))
        note = by if item["by"] == "none" else f"isolation {item['score']:.2f}, {by}"
        entries.append(_beside(int(item["row"]), other, float(item["similarity"]), note))
    return Gallery(
        "anomalies",
        "Anomalies",
        "pair",
        "Images that are like no other (left), beside the nearest one that is known (right): rare cases worth having, "
        "or mistakes.",
        f"the {ISOLATED} most isolated, of equal ones some at random (seed {SEED})",
        len(table),
        ("isolated image", "isolated images"),
        2,
        entries,
    )


def uncovered(run: FinishedRun) -> Gallery:
    """Evaluated images whose best counterpart in another split is least similar."""
    names = ["row", "other_row", "similarity", "by"]
    entries: list[Entry] = []
    total = 0
    if run.has("coverage"):
        for batch in run.store.batches("coverage", [*names, "correlation"]):
            total += batch.num_rows
            for item in batch.slice(0, max(0, ISOLATED - len(entries))).to_pylist():
                value = item["similarity"]
                known = float("nan") if value is None else float(value)
                by = item["by"]
                note = "no counterpart was found" if by == "none" else f"least covered by {by}"
                entries.append(_beside(int(item["row"]), int(item["other_row"]), known, note))
    return Gallery(
        "uncovered",
        "Least covered",
        "pair",
        "Evaluated images (left) that the other split knows least, beside its nearest image (right): models often fail "
        "on these.",
        f"the {ISOLATED} least covered",
        total,
        ("evaluated image", "evaluated images"),
        2,
        entries,
    )


def _beside(row: int, other: int, similarity: float, note: str) -> Entry:
    if other < 0:
        return Entry([row], [-1], [np.nan], note=note, total=1)
    return Entry([row, other], [-1, 0], [np.nan, similarity], motion=[None, None], total=2, note=note)
