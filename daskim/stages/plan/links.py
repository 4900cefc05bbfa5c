"""Who follows whom by the pairs that were compared: Algorithm 2, from the table `pairs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from daskim.kept import take
from daskim.kernels.leaders import follow_links, rms_to
from daskim.stages import Context
from daskim.stages.plan.decisions import STAGE_NAME, Asked
from daskim.stages.plan.leaders import follow_in_pixels, measure, task_rows
from daskim.stages.plan.verdicts import Verdicts, within
from daskim.store import Run

__all__ = ["LINKS", "LINK_BYTES", "follow_by_pairs", "listed_pairs", "only_contested"]

# Links that are held for each image of the set, as the memory is reckoned: near-duplicates within its cluster; and what
# one takes.
LINKS, LINK_BYTES = 16, 64


class _Pairs(NamedTuple):
    a: np.ndarray
    b: np.ndarray
    similarity: np.ndarray


def follow_by_pairs(context: Context, table: pd.DataFrame, asked: Asked, verdicts: Verdicts) -> dict[str, Any]:
    """Fill `kept_row`, `similarity` and, where it is computed, `rms` of the images that are asked.

    An image follows only one with which it is listed at `min_similarity` or more. With `clusters.verify = none` all of
    a cluster follow the one that is kept, as in the paper.
    """
    max_rms, pure = context.settings.plan.max_rms, context.settings.clusters.verify == "none"
    sealed = context.run.facts("similarities")
    if pure:
        follow_in_pixels(context, table, asked, np.inf if max_rms is None else max_rms, verdicts)
        measure(context, table, verdicts.followers, None, None)
        kept = table["kept_row"].to_numpy()
        listed = listed_pairs(context.run, lambda a, b, s: (kept[a] == b) | (kept[b] == a))
        table["similarity"] = np.where(table["rms"] == 0, 1.0, np.nan)
        _tell(table, listed, "similarity", listed.similarity)
    else:
        _follow_links(context, table, asked, float(sealed["min_similarity"]), verdicts)
    first = np.diff(asked.party, prepend=-1) != 0
    leads = table["kept_row"].to_numpy()[asked.rows] == asked.rows
    return {
        "max_rms": max_rms,
        "max_rms_why": "not asked for" if max_rms is None else "as set",
        "verify": "none" if pure else sealed["name"],
        "min_similarity": None if pure else float(sealed["min_similarity"]),
        "n_refuted": 0 if pure else int((leads & ~first & ~asked.fixed).sum()),
    }


def only_contested(context: Context, table: pd.DataFrame, verdicts: Verdicts) -> None:
    """Of the clusters of several labels, let those images be influential that are alike to one of another label.

    Clusters that are components of a graph can be chains, whose ends have nothing in common: the rule would keep all of
    a chain for one pair of labels in it. The paper's pure form, `clusters.verify = none`, leaves them whole.
    """
    if context.settings.clusters.verify == "none":
        return
    sealed = context.run.facts("similarities")
    least = float(sealed["min_similarity"])
    mixed = (table["rule"] == "influential").to_numpy()
    cluster, label = table["cluster"].to_numpy(), pd.factorize(table["label"])[0]  # -1 where there is no label
    pairs = listed_pairs(
        context.run,
        lambda a, b, s: (
            (s >= least)
            & mixed[a]
            & mixed[b]
            & (cluster[a] == cluster[b])
            & (label[a] >= 0)
            & (label[b] >= 0)
            & (label[a] != label[b])
            & ~verdicts.different(a, b)
        ),
    )
    contested = np.zeros(len(table), dtype=bool)
    contested[pairs.a] = contested[pairs.b] = True
    table.loc[mixed & ~contested, ["rule", "labels"]] = ["single", ""]


def _follow_links(context: Context, table: pd.DataFrame, asked: Asked, least: float, verdicts: Verdicts) -> None:
    party, position = np.full((2, len(table)), -1, dtype=np.int64)
    party[asked.rows], position[asked.rows] = asked.party, np.arange(len(asked.rows))
    links = listed_pairs(context.run, lambda a, b, s: (s >= least) & (party[a] >= 0) & (party[a] == party[b]))
    links = _Pairs(*map(np.concatenate, zip(_copies(table, asked), links)))
    bound = context.settings.plan.max_rms
    rms = None
    if bound is not None:
        order = np.lexsort((links.b, links.a))  # neighbours in the array are looked at together
        links = _Pairs(*(column[order] for column in links))
        rms = _rms(context, links)
        links, rms = _Pairs(*(column[rms <= bound] for column in links)), rms[rms <= bound]
    by_row = np.argsort(asked.rows)
    one, other = (by_row[side] for side in within(verdicts.apart, asked.rows[by_row]))
    leader = follow_links(
        np.arange(len(asked.rows)), position[links.a], position[links.b], asked.fixed, apart=(one, other)
    )
    table.loc[asked.rows, "kept_row"] = asked.rows[leader]
    _tell(table, links, "similarity", links.similarity)
    if rms is not None:
        _tell(table, links, "rms", rms)
    if len(verdicts.followers):
        kept = table["kept_row"].to_numpy()
        led = np.zeros(len(table), dtype=bool)
        led[verdicts.followers] = True
        said = listed_pairs(context.run, lambda a, b, s: ((kept[a] == b) & led[a]) | ((kept[b] == a) & led[b]))
        _tell(table, said, "similarity", said.similarity)


def listed_pairs(run: Run, wanted: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> _Pairs:
    """The pairs of the table `pairs` for which `wanted(a, b, similarity)` is true; one part of it at a time."""
    none = np.empty(0, dtype=np.int64)
    found = [_Pairs(none, none, np.empty(0))]
    for key in run.parts("pairs"):
        part = run.read_part("pairs", key, list(_Pairs._fields))
        pairs = _Pairs(*(part[name].to_numpy() for name in _Pairs._fields))
        mine = wanted(*pairs)
        found.append(_Pairs(*(column[mine] for column in pairs)))
    return _Pairs(*map(np.concatenate, zip(*found)))


def _copies(table: pd.DataFrame, asked: Asked) -> _Pairs:
    """Exact duplicates of one party: the first that is asked, and each other one. Flat images have no other pairs."""
    group = table["exact_group"].to_numpy()[asked.rows]
    at = np.flatnonzero(group >= 0)
    _, first, own = np.unique(np.stack([asked.party[at], group[at]]), axis=1, return_index=True, return_inverse=True)
    one, other = asked.rows[at[first[own.ravel()]]], asked.rows[at]
    one, other = one[one != other], other[one != other]
    return _Pairs(np.minimum(one, other), np.maximum(one, other), np.ones(len(one)))


def _tell(table: pd.DataFrame, pairs: _Pairs, name: str, value: np.ndarray) -> None:
    """Write the value of a pair to the image that follows the other."""
    kept = table["kept_row"].to_numpy()
    for one, other in ((pairs.a, pairs.b), (pairs.b, pairs.a)):
        mine = kept[other] == one
        table.loc[other[mine], name] = value[mine]


def _rms(context: Context, pairs: _Pairs) -> np.ndarray:
    """RMS difference of the pairs in grey levels, by tasks."""
    run, step = context.run, max(1, task_rows(context.known.n, context.known.pixels) // 2)
    keys: list[str] = []
    for start in range(0, len(pairs.a), step):
        keys.append(f"{len(keys):06d}")
        part = np.stack([pairs.a[start : start + step], pairs.b[start : start + step]])
        run.save(part, "partial", STAGE_NAME, f"links-{keys[-1]}.npy")
    context.engine.each(STAGE_NAME, "rms", keys, [() for _ in keys], rms_task)
    return np.concatenate([np.empty(0), *(run.load("partial", STAGE_NAME, f"rms-{key}.npy") for key in keys)])


def rms_task(run: Run, key: str) -> dict[str, Any]:
    """RMS differences of some pairs."""
    pairs = run.load("partial", STAGE_NAME, f"links-{key}.npy")
    rows, at = np.unique(pairs, return_inverse=True)
    images = take(run, "images", rows).reshape(len(rows), -1)
    one, other = at.reshape(2, -1)
    run.save(rms_to(images[one], images[other]), "partial", STAGE_NAME, f"rms-{key}.npy")
    return {"pairs": len(one)}
