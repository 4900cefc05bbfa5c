"""Which images of a split have a twin in another one, and which have nothing like them there.

For every evaluated split (`compare.evaluate`) and every split it is compared with: those that are not evaluated, and of
the evaluated ones those that come before it (so each pair of splits is looked at once).

`leakage`: the twins of each evaluated image, at or above min_similarity, `compare.per_image` of each split at most.

- row, id, split, label: the evaluated image; other_row, other_id, other_split, other_label: its twin.
- rank: 1 is the most similar; similarity; kind: "exact" (equal bytes or full-resolution pixels) or "near".
- agreement: "same" or "conflict" of their labels, "unknown" where one has none.
- what the similarity reports, such as mirrored, scale_y, scale_x, shift_y, shift_x, overlap: the motion of the twin
  onto the evaluated image.

`coverage`: for each evaluated image (neither broken nor flat) and each other split the most alike image there, the
least covered first: row, id, split, label, other_split, other_row, other_id, similarity, correlation, by.

- by = "similarity": the highest of the pairs that were compared; of all pairs with candidates.method = all.
- by = "correlation": no pair was followed to the end; other_row is the most alike in coarse coefficients.
- by = "none": neither is known; other_row is -1.
  Images by correlation come before those by similarity: no candidate of theirs was worth a similarity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.errors import SettingsError, nearest
from daskim.settings import Compare, Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.store import Run

__all__ = ["STAGE", "TRAINING", "pairs_of_splits"]

NAME = "leakage"
# Names of the split that others are compared with, if nothing else is said.
TRAINING = ("train", "training")
# Least covered images that the facts show.
TOLD = 5
MOTION = ("scale_y", "scale_x", "shift_y", "shift_x")


@dataclass(frozen=True)
class Images:
    """Columns of all images by row: split number (-1 for none), label, and group of exact duplicates (-1 for none)."""

    table: pd.DataFrame
    names: tuple[str, ...]
    split: np.ndarray
    label: np.ndarray
    group: np.ndarray


def pairs_of_splits(settings: Compare, counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """(evaluated split, split it is compared with), in order.

    Parameters
    ----------
    counts : mapping
        Images of each split; "" are those without.

    Raises
    ------
    SettingsError
        There are not two splits, or none of a name that is asked for.
    """
    there = sorted(name for name in counts if name)
    if len(there) < 2:
        what = f"only the split {there[0]!r}" if there else "no split"
        raise SettingsError(
            f"compare needs two splits, and the images have {what}",
            "Give TRAIN and TEST as two INPUTs, or name a split for each INPUT with --splits.",
        )
    for name in settings.evaluate:
        if name not in there:
            raise SettingsError(f"compare.evaluate: there is no split {name!r}", nearest(name, there))
    base = next((name for name in TRAINING if name in there), max(there, key=lambda name: (counts[name], name)))
    evaluated = list(settings.evaluate) or [name for name in there if name != base]
    rest = [name for name in there if name not in evaluated]
    found = [(name, other) for at, name in enumerate(evaluated) for other in [*rest, *evaluated[:at]]]
    if not found:
        raise SettingsError("compare.evaluate names the only split there is to compare with", "Leave one split out.")
    return found


def _images(run: Run) -> Images:
    table = run.read_table("images", ["row", "id", "uri", "label", "split", "status"]).to_pandas()
    table = table.sort_values("row", ignore_index=True)
    split, names = pd.factorize(table["split"], sort=True)
    label = pd.factorize(table["label"])[0]
    group = np.full(len(table), -1, dtype=np.int64)
    exact = run.read_table("exact", ["row", "group"])
    group[np.asarray(exact["row"])] = np.asarray(exact["group"])
    return Images(table, tuple(names), split, label, group)


def _run(context: Context) -> dict[str, Any]:
    run, settings = context.run, context.settings.compare
    counts = (run.read_json("state", "index", "sealed.json") or {})["facts"]["splits"]
    wanted = pairs_of_splits(settings, counts)
    sealed = (run.read_json("state", "similarities", "sealed.json") or {})["facts"]
    images = _images(run)
    twins, best = _streamed(run, images, wanted, float(sealed["min_similarity"]), settings)
    leakage = _leakage(images, twins, settings.per_image)
    coverage = _coverage(run, images, wanted, best)
    run.write_part("leakage", "000000", pa.Table.from_pandas(leakage, preserve_index=False))
    run.write_part("coverage", "000000", pa.Table.from_pandas(coverage, preserve_index=False))
    facts = _facts(images, wanted, twins, coverage)
    facts.update(min_similarity=sealed["min_similarity"], similarity=sealed["name"], yields=settings.yields)
    if settings.yields != "none":
        facts["plan"] = _write_plan(run, images, twins, settings.yields)
    context.say(
        f"leakage: {facts['images']:,} of {facts['evaluated']:,} evaluated images have a twin ({facts['exact']:,} "
        f"exact), {facts['conflicts']:,} of them under another label"
    )
    return facts


def _streamed(
    run: Run, images: Images, wanted: list[tuple[str, str]], least: float, settings: Compare
) -> tuple[pd.DataFrame, dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]]:
    """All twins, each pair once; and for each two splits the best of every image: rows and similarities."""
    n = len(images.table)
    best = {pair: (np.full(n, -1, dtype=np.int64), np.full(n, -np.inf)) for pair in wanted}
    held: list[pd.DataFrame] = []
    for part in _directed(run, images, wanted):
        for pair, mine in part.groupby("pair", sort=True):
            _take(*best[wanted[int(pair)]], mine)
        held.append(part[part["similarity"] >= least])
    empty = pd.DataFrame({"pair": [], "row": [], "other_row": [], "similarity": []}).astype(
        {"pair": "int64", "row": "int64", "other_row": "int64"}
    )
    twins = pd.concat([part for part in held if len(part)] or [empty], ignore_index=True)
    twins["kind"] = np.where(
        (images.group[twins["row"]] >= 0) & (images.group[twins["row"]] == images.group[twins["other_row"]]),
        "exact",
        "near",
    )
    one, other = images.label[twins["row"]], images.label[twins["other_row"]]
    twins["agreement"] = np.where((one < 0) | (other < 0), "unknown", np.where(one == other, "same", "conflict"))
    return twins.sort_values(["row", "pair", "similarity", "kind", "other_row"], ascending=[1, 1, 0, 1, 1]), best


def _directed(run: Run, images: Images, wanted: list[tuple[str, str]]) -> Iterator[pd.DataFrame]:
    """Pairs between two splits of `wanted`, from the evaluated image's side, one part of the table at a time."""
    number = {name: at for at, name in enumerate(images.names)}
    for key in run.parts("pairs"):
        part = run.read_part("pairs", key).to_pandas()
        a, b = part["a"].to_numpy(), part["b"].to_numpy()
        for at, (one, other) in enumerate(wanted):
            for swap, (row, twin) in enumerate(((a, b), (b, a))):
                mine = (images.split[row] == number[one]) & (images.split[twin] == number[other])
                if mine.any():
                    some = part[mine].drop(columns=["a", "b", "source"])
                    some.insert(0, "pair", at)
                    some.insert(1, "row", row[mine])
                    some.insert(2, "other_row", twin[mine])
                    yield _turned(some) if swap else some


def _turned(pairs: pd.DataFrame) -> pd.DataFrame:
    """The inverse motion: what was told of the first image of a pair, told of the second."""
    if not {"mirrored", *MOTION} <= set(pairs.columns):
        return pairs
    pairs = pairs.copy()
    for axis in ("y", "x"):
        sign = np.where(pairs["mirrored"] == 1, 1.0, -1.0) if axis == "x" else -1.0  # a mirror turns the shift along x
        pairs[f"shift_{axis}"] = sign * pairs[f"shift_{axis}"] / pairs[f"scale_{axis}"]
        pairs[f"scale_{axis}"] = 1.0 / pairs[f"scale_{axis}"]
    return pairs


def _take(other: np.ndarray, best: np.ndarray, pairs: pd.DataFrame) -> None:
    """Count in some pairs; of equal similarities the lower row."""
    order = np.lexsort((pairs["other_row"], -pairs["similarity"], pairs["row"]))
    row, twin, value = (pairs[name].to_numpy()[order] for name in ("row", "other_row", "similarity"))
    row, at = np.unique(row, return_index=True)
    twin, value = twin[at], value[at]
    better = (value > best[row]) | ((value == best[row]) & (twin < other[row]))
    other[row[better]], best[row[better]] = twin[better], value[better]


def _leakage(images: Images, twins: pd.DataFrame, per_image: int) -> pd.DataFrame:
    """The table `leakage`."""
    found = twins.copy()
    found["rank"] = found.groupby(["row", "pair"], sort=False).cumcount() + 1
    found = found[found["rank"] <= per_image]
    out = pd.DataFrame({"row": found["row"], **_told(images, found["row"].to_numpy(), "")})
    out["other_row"] = found["other_row"]
    for name, values in _told(images, found["other_row"].to_numpy(), "other_").items():
        out[name] = values
    for name in ("rank", "similarity", "kind", "agreement"):
        out[name] = found[name]
    for name in found.columns.difference([*out.columns, "pair"], sort=False):
        out[name] = found[name]
    return out.reset_index(drop=True)


def _told(images: Images, rows: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    """id, split and label of some images; None where there is no image (-1)."""
    there = rows >= 0
    found: dict[str, np.ndarray] = {}
    for name in ("id", "split", "label"):
        values = images.table[name].to_numpy(dtype=object)[np.where(there, rows, 0)]
        values[~there] = None
        found[prefix + name] = values
    return found


def _coverage(
    run: Run, images: Images, wanted: list[tuple[str, str]], best: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    """The table `coverage`."""
    first = np.asarray(run.read_table("representatives", ["first"])["first"])
    known = run.read_table("nearest").to_pandas().sort_values("row")
    good = (images.table["status"] == "ok").to_numpy()
    number = {name: at for at, name in enumerate(images.names)}
    parts = []
    for pair in wanted:
        rows = np.flatnonzero(good & (images.split == number[pair[0]]))
        other, value = best[pair][0][rows], best[pair][1][rows]
        near = known["nearest_row"].to_numpy()[first[rows]]
        # of the equal images that the nearest stands for, only some may be of the split
        inside = (near >= 0) & (images.split[np.maximum(near, 0)] == number[pair[1]])
        correlation = np.where(inside, known["correlation"].to_numpy()[first[rows]], np.nan)
        compared = other >= 0
        twin = np.where(compared, other, np.where(inside, near, -1))
        parts.append(
            pd.DataFrame(
                {
                    "row": rows,
                    **_told(images, rows, ""),
                    "other_split": pair[1],
                    "other_row": twin,
                    "other_id": _told(images, twin, "")["id"],
                    "similarity": np.where(compared, value, np.nan),
                    "correlation": correlation,
                    "by": np.where(compared, "similarity", np.where(inside, "correlation", "none")),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["other_id"] = table["other_id"].astype("string")
    kind = table["by"].map({"none": 0, "correlation": 1, "similarity": 2}).to_numpy()
    alike = np.where(kind == 2, table["similarity"], table["correlation"])
    order = np.lexsort((table["other_split"], table["row"], np.nan_to_num(alike, nan=-2.0), kind))
    return table.iloc[order].reset_index(drop=True)


def _facts(
    images: Images, wanted: list[tuple[str, str]], twins: pd.DataFrame, coverage: pd.DataFrame
) -> dict[str, Any]:
    cross = []
    for (at, kind, agreement), group in twins.groupby(["pair", "kind", "agreement"], sort=True):
        one, other = wanted[int(at)]
        count = {"pairs": len(group), "images": int(group["row"].nunique())}
        cross.append({"split": one, "other_split": other, "kind": kind, "agreement": agreement, **count})
    exact = twins.loc[twins["kind"] == "exact", "row"].nunique()
    evaluated = {one for one, _ in wanted}
    size = int(sum((images.split == at).sum() for at, name in enumerate(images.names) if name in evaluated))
    least = coverage[["id", "similarity", "correlation", "other_id"]].head(TOLD).astype(object)
    return {
        "images": int(twins["row"].nunique()),
        "exact": int(exact),
        "near": int(twins["row"].nunique() - exact),
        "conflicts": int(twins.loc[twins["agreement"] == "conflict", "row"].nunique()),
        "pairs": len(twins),
        "evaluated": size,
        "splits": [list(pair) for pair in wanted],
        "cross": cross,
        "least_covered": least.where(least.notna(), None).to_dict("records"),
    }


def _write_plan(run: Run, images: Images, twins: pd.DataFrame, yields: str) -> dict[str, Any]:
    """The plan of a comparison in which one side yields: its images that have a twin are dropped."""
    goes, stays = ("other_row", "row") if yields == "train" else ("row", "other_row")
    first = twins.sort_values([goes, "similarity", stays], ascending=[True, False, True]).drop_duplicates(goes)
    rows = first[goes].to_numpy()
    broken = ~images.table["status"].isin(["ok", "flat"])
    plan = images.table[["row", "id", "uri", "label", "split"]].copy()
    plan["decision"] = np.where(broken, "review", "keep")
    plan["rule"] = np.where(broken, "broken", np.where(images.table["status"] == "flat", "flat", "single"))
    kept, similarity = np.full(len(plan), -1, dtype=np.int64), np.full(len(plan), np.nan)
    kept[rows], similarity[rows] = first[stays].to_numpy(), first["similarity"].to_numpy()
    plan.loc[kept >= 0, ["decision", "rule"]] = ["drop", "leaked"]
    plan["kept_id"] = pd.array(_told(images, kept, "")["id"], dtype="string")
    plan["similarity"], plan["rms"], plan["cluster"] = similarity, np.nan, -1
    plan["status"] = images.table["status"]
    columns = ["row", "id", "uri", "label", "split", "decision", "kept_id", "similarity", "rms", "rule", "cluster"]
    plan = plan[[*columns, "status"]]
    run.write_part("plan", "000000", pa.Table.from_pandas(plan, preserve_index=False))
    for name in ("keep", "drop"):
        lines = plan.loc[plan["decision"] == name, "id"].tolist()
        run.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), f"{name}.txt")
    counts = plan["decision"].value_counts()
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\n".join(plan["decision"]).encode())
    return {
        "n_keep": int(counts.get("keep", 0)),
        "n_drop": int(counts.get("drop", 0)),
        "n_review": int(counts.get("review", 0)),
        "rules": {str(rule): int(count) for rule, count in plan["rule"].value_counts().sort_index().items()},
        "plan_hash": digest.hexdigest(),
    }


def _need(size: Size, settings: Settings, workers: int) -> Need:
    pairs = min(settings.candidates.max_pairs, size.n * (settings.candidates.neighbours + 32))
    return Need(blocks=1, read=60 * pairs, write=400 * size.n, task=0, driver=1_200 * size.n + 150 * pairs)


STAGE = Stage(
    name=NAME,
    version=1,
    reads=("index", "images", "exact", "candidates", "similarities"),
    settings=("compare",),
    leaves=("tables/leakage", "tables/coverage", "tables/plan", "keep.txt", "drop.txt"),
    run=_run,
    need=_need,
)
