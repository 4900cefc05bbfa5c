"""Who leaves for a twin in another split: the plan of a comparison in which one side yields (`compare.yields`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from daskim.kept import exact_groups, order_of
from daskim.lake import called_different
from daskim.settings import Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.stages.plan.decisions import ROW_BYTES, STAGE_NAME, check_splits, guard, min_per_class, write_plan
from daskim.stages.plan.links import LINK_BYTES, LINKS, listed_pairs
from daskim.stages.plan.verdicts import files_of
from daskim.statuses import READABLE

__all__ = ["COMPARE_STAGE", "turn_taking"]

COLUMNS = ["row", "id", "uri", "label", "split", "status"]


def turn_taking(splits: list[tuple[str, str]], yields: str) -> list[str]:
    """Splits in the order in which their images are decided: who comes first stays.

    Parameters
    ----------
    splits : list of (evaluated split, split it is compared with)
        Without a circle.
    yields : "train" or "test"
        Of each two splits the one that is compared with gives way, or the evaluated one.
    """
    stays = [(one, other) if yields == "train" else (other, one) for one, other in splits]
    left = sorted({name for pair in splits for name in pair})
    order: list[str] = []
    while left:
        free = [name for name in left if not any(goes == name and first in left for first, goes in stays)]
        order += free
        left = [name for name in left if name not in free]
    return order


def _run(context: Context) -> dict[str, Any]:
    run, settings = context.run, context.settings.plan
    table = run.read_table("images", COLUMNS).to_pandas().sort_values("row", ignore_index=True)
    table["place"] = order_of(run, len(table))
    check_splits(settings, table)
    broken = ~table["status"].isin(READABLE)
    table["decision"] = np.where(broken, "review", "keep")
    table["rule"] = np.where(broken, "broken", np.where(table["status"] == "flat", "flat", "single"))
    table["kept_row"], table["similarity"], table["rms"], table["cluster"] = -1, np.nan, np.nan, -1
    splits = [tuple(pair) for pair in run.facts("leakage")["splits"]]
    order = turn_taking(splits, context.settings.compare.yields)
    _decide(table, *_twins(context, table, splits), order, settings.protect)
    min_per_class(table, settings.min_per_class)
    guard(run, table, settings.max_drop, "Raise similarities.min_similarity or plan.max_drop.")
    return write_plan(run, table)


def _twins(
    context: Context, table: pd.DataFrame, splits: list[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of images a < b of two splits that are compared, which are twins; and their similarity."""
    run, n = context.run, len(table)
    sealed = run.facts("similarities")
    least = float(sealed["min_similarity"])
    code, names = pd.factorize(table["split"])
    wanted = np.zeros((len(names) + 1, len(names) + 1), dtype=bool)  # the last is of the images without a split
    for one, other in splits:
        i, j = names.get_loc(one), names.get_loc(other)
        wanted[i, j] = wanted[j, i] = True
    group = exact_groups(run, n)
    flat = (table["status"] == "flat").to_numpy()
    different = called_different(context.settings.plan.reviewed, table["id"].tolist(), context.source_options)

    def twins(a: np.ndarray, b: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        copies = (group[a] >= 0) & (group[a] == group[b])
        near = (similarity >= least) & ~flat[a] & ~flat[b] & ~np.isin(a * n + b, different)
        return np.asarray(wanted[code[a], code[b]] & (copies | near))

    found = listed_pairs(run, twins)
    return found.a, found.b, found.similarity


def _decide(
    table: pd.DataFrame,
    a: np.ndarray,
    b: np.ndarray,
    similarity: np.ndarray,
    order: list[str],
    protect: tuple[str, ...],
) -> None:
    """Split by split: an image leaves for its most similar twin among those that stay, in a split decided before."""
    place = table["split"].map({name: at for at, name in enumerate(order)}).fillna(-1).to_numpy(dtype=np.int64)
    first, later = np.where(place[a] < place[b], a, b), np.where(place[a] < place[b], b, a)
    by_turn = np.lexsort((first, -similarity, later, place[later]))
    first, later, similarity = first[by_turn], later[by_turn], similarity[by_turn]
    protected = table["split"].isin(list(protect)).to_numpy()
    kept_row, best = np.full(len(table), -1, dtype=np.int64), np.full(len(table), np.nan)
    for turn in range(1, len(order)):
        mine = (place[later] == turn) & (kept_row[first] < 0)
        row, at = np.unique(later[mine], return_index=True)
        stay = protected[row]
        table.loc[row[stay], "rule"] = "protected"
        goes, at = row[~stay], at[~stay]
        kept_row[goes], best[goes] = first[mine][at], similarity[mine][at]
    gone = kept_row >= 0
    table.loc[np.unique(kept_row[gone]), "rule"] = "kept"
    table.loc[gone, ["decision", "rule"]] = ["drop", "leaked"]
    table["kept_row"], table["similarity"] = kept_row, best


def _need(size: Size, settings: Settings, workers: int) -> Need:
    links = min(LINKS * size.n, size.possible, settings.candidates.most_pairs(size.n))
    return Need(blocks=1, read=30 * links, write=300 * size.n, task=0, driver=ROW_BYTES * size.n + LINK_BYTES * links)


COMPARE_STAGE = Stage(
    name=STAGE_NAME,
    version=1,
    reads=("images", "exact", "similarities", "leakage"),
    settings=("compare.yields", "plan.protect", "plan.min_per_class", "plan.max_drop"),
    leaves=("tables/plan", "keep.txt", "drop.txt"),
    run=_run,
    need=_need,
    files=files_of,
)
