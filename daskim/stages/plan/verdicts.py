"""What a person said about pairs (`plan.reviewed`), put into effect before anything else is decided.

* different: neither image is dropped for the other, and both are never dropped for one third image.
* same, keep-a, keep-b: the one image follows the other, whatever their similarity; keep-a and keep-b say which. As
  elsewhere an image follows only one that it was itself called the same as. Images of different labels, influential,
  broken and (unless `plan.flat` drops them) flat ones stay as they are, and so do protected ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from daskim.kernels.leaders import follow_links
from daskim.lake import Reviewed, read_reviewed
from daskim.stages import Context
from daskim.stages.plan.decisions import STAGE_NAME, Asked, asking_order

__all__ = ["Verdicts", "files_of", "verdicts_of", "within"]

Rows = tuple[np.ndarray, np.ndarray]


def files_of(context: Context) -> dict[str, str]:
    """Digest of the verdicts: part of what decides the plan."""
    url = context.settings.plan.reviewed
    return {} if url is None else {"reviewed pairs": read_reviewed(url, context.source_options).digest}


def _none() -> Rows:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


@dataclass
class Verdicts:
    """Verdicts on pairs of rows of this set.

    Attributes
    ----------
    apart : pair of ndarray, shape (q,), int64
        Pairs called different. Once `settle` has run also: who was called different from a follower, and its leader.
    same : pair of ndarray, shape (p,), int64
        Pairs called the same; the first is to be kept where `directed`.
    directed : ndarray, shape (p,), bool
    followers : ndarray, int64
        Rows that were dropped by verdict.
    facts : dict
    """

    apart: Rows = field(default_factory=_none)
    same: Rows = field(default_factory=_none)
    directed: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))
    followers: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    facts: dict[str, Any] = field(default_factory=dict)

    def different(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Which of the pairs (a[t], b[t]) were called different; shape (p,), bool."""
        if not len(self.apart[0]):
            return np.zeros(len(a), dtype=bool)
        known = _keys(*self.apart)
        return np.isin(_keys(np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64)), known)

    def release(self, table: pd.DataFrame) -> None:
        """Of clusters of several labels, let go whoever was called different from every image of another label."""
        inside = (table["rule"] == "influential").to_numpy()
        cluster, label = table["cluster"].to_numpy(), pd.factorize(table["label"])[0]
        a, b = self.apart
        cross = inside[a] & inside[b] & (cluster[a] == cluster[b]) & (label[a] >= 0) & (label[b] >= 0)
        cross &= label[a] != label[b]
        called = np.bincount(np.concatenate([a[cross], b[cross]]), minlength=len(table))
        touched = np.unique(cluster[np.flatnonzero(called)])
        members = pd.DataFrame({"cluster": cluster, "label": label})[inside & (label >= 0) & np.isin(cluster, touched)]
        total = members.groupby("cluster")["label"].transform("size")
        own = members.groupby(["cluster", "label"])["label"].transform("size")
        free = members.index[(total - own).to_numpy() == called[members.index]]
        table.loc[free, ["rule", "labels"]] = ["single", ""]
        alone = table[(table["rule"] == "influential") & table["cluster"].isin(cluster[free])]
        labels = alone.dropna(subset=["label"]).groupby("cluster")["label"].nunique()
        settled = labels.index[labels < 2]  # nobody of another label is left to be alike to
        table.loc[alone.index[alone["cluster"].isin(settled)], ["rule", "labels"]] = ["single", ""]

    def settle(self, table: pd.DataFrame, asked: Asked, *, flat: bool, policy: str) -> Asked:
        """Fill `kept_row` of the images that follow by verdict; who is left to ask, with their leaders fixed.

        Parameters
        ----------
        flat : bool
            Flat images may follow.
        policy : str
            See `plan.policy`.
        """
        a, b = self.same
        free = ((table["rule"] == "single") | ((table["rule"] == "flat") & flat)).to_numpy()
        label = pd.factorize(table["label"])[0]
        one_label = (label[a] == label[b]) | (label[a] < 0) | (label[b] < 0)
        held = free[a] & free[b] & one_label
        a, b, directed = a[held], b[held], self.directed[held]
        rows, at = np.unique(np.concatenate([a, b]), return_inverse=True)
        one, other = at.reshape(2, -1)
        members = table.iloc[rows].assign(cluster=0, part=0)
        order = _preferred(asking_order(members, policy), one[directed], other[directed], members["protected"])
        fixed = members["protected"].to_numpy(dtype=bool)
        leader = rows[follow_links(order, one, other, fixed, apart=within(self.apart, rows))]
        self.followers = rows[leader != rows]
        led = np.unique(leader[leader != rows])
        table.loc[self.followers, "kept_row"] = leader[leader != rows]
        table.loc[led, "kept_row"] = led
        self._inherit(table)
        self.facts["dropped"] = len(self.followers)
        return _without(asked, self.followers, led)

    def _inherit(self, table: pd.DataFrame) -> None:
        """Whoever is kept apart from a follower is kept apart from its leader too."""
        kept = table["kept_row"].to_numpy()
        a, b = self.apart
        up = tuple(np.where(kept[side] >= 0, kept[side], side) for side in (a, b))
        new = (up[0] != a) | (up[1] != b)
        self.apart = np.concatenate([a, up[0][new]]), np.concatenate([b, up[1][new]])


def within(pairs: Rows, rows: np.ndarray) -> Rows:
    """Those of the pairs of which both images are among `rows` (ascending), as positions there."""
    near = np.isin(pairs[0], rows) & np.isin(pairs[1], rows)
    return np.searchsorted(rows, pairs[0][near]), np.searchsorted(rows, pairs[1][near])


def _keys(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (np.minimum(a, b) << 32) | np.maximum(a, b)


def _preferred(order: np.ndarray, one: np.ndarray, other: np.ndarray, protected: pd.Series) -> np.ndarray:
    """`order` with one[t] before other[t]; protected images stay first, and a circle of preferences as it was."""
    depth = np.zeros(len(order), dtype=np.int64)
    for _ in range(min(len(order), 64)):
        deeper = depth.copy()
        np.maximum.at(deeper, other, depth[one] + 1)
        if (deeper == depth).all():
            break
        depth = deeper
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return np.lexsort((place, depth, ~protected.to_numpy(dtype=bool)))


def _without(asked: Asked, gone: np.ndarray, fixed: np.ndarray) -> Asked:
    """Those who are left to ask: parties of two and more."""
    stay = ~np.isin(asked.rows, gone)
    party = asked.party[stay]
    several = np.bincount(party, minlength=1)[party] > 1
    rows = asked.rows[stay][several]
    party = np.unique(party[several], return_inverse=True)[1].astype(np.int64)
    return Asked(rows, party, asked.fixed[stay][several] | np.isin(rows, fixed))


def verdicts_of(context: Context, table: pd.DataFrame) -> Verdicts:
    """The verdicts of `plan.reviewed` on images of this set, and a note on what is done with them."""
    url = context.settings.plan.reviewed
    if url is None:
        return Verdicts()
    read = read_reviewed(url, context.source_options)
    row = pd.Index(table["id"])
    a, b = row.get_indexer(read.a).astype(np.int64), row.get_indexer(read.b).astype(np.int64)
    known = (a >= 0) & (b >= 0)
    said = np.array(read.verdict, dtype=object)
    different = known & (said == "different")
    same = known & (said != "different")
    first = np.where(said == "keep-b", b, a)
    found = Verdicts(
        apart=(a[different], b[different]),
        same=(first[same], np.where(first == a, b, a)[same]),
        directed=np.isin(said, ["keep-a", "keep-b"])[same],
    )
    group = table["exact_group"].to_numpy()
    copies = (group[a[different]] >= 0) & (group[a[different]] == group[b[different]])
    found.facts = {"pairs": len(said), "unknown": int((~known).sum()), "exact_different": int(copies.sum())}
    found.facts |= _counts(read, known)
    _tell(context, found.facts, url)
    return found


def _counts(read: Reviewed, known: np.ndarray) -> dict[str, int]:
    said = [verdict for verdict, here in zip(read.verdict, known) if here]
    return {
        "same": said.count("same"),
        "different": said.count("different"),
        "keep": said.count("keep-a") + said.count("keep-b"),
    }


def _tell(context: Context, facts: dict[str, Any], url: str) -> None:
    words = f"{facts['different']} different, {facts['same']} same, {facts['keep']} keep-a or keep-b"
    if facts["unknown"]:
        words += f"; {facts['unknown']} of {facts['pairs']} rows name images that are not in this set"
    if facts["exact_different"]:
        words += f"; {facts['exact_different']} pairs of exact duplicates were called different: both stay"
    context.say(f"{STAGE_NAME}: verdicts of {url}: {words}")
