"""Conditions on what a run found, for pipelines that must stop: `leakage>0`, `drop_share>=0.1`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskim.errors import ConditionMet, SettingsError, nearest
from daskim.statuses import READABLE

__all__ = ["NAMES", "Condition", "check", "parse_condition", "refuse_blind"]

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
# What only some runs look for.
OF_COMPARE = ("leakage", "exact_leakage", "leakage_share", "conflicts")
OF_PLANS = ("drops", "drop_share")
OF_REDUCE = ("influential",)
OF_SIMILARITY = ("anomalies",)
OF_AGAINST = ("known", "known_share", "known_conflicts")
# What a condition may name.
NAMES = {
    "leakage": "evaluated images with a twin in another split (compare)",
    "exact_leakage": "those whose twin is an exact duplicate (compare)",
    "conflicts": "evaluated images with a twin of another label (compare)",
    "leakage_share": "share of the evaluated images that have a twin (compare)",
    "drops": "images that the plan drops (reduce, compare --yields)",
    "drop_share": "their share of all images",
    "influential": "images that are alike to one of another label (reduce)",
    "anomalies": "images that are alike to no other (reduce --method similarity)",
    "known": "images with a twin in the other run (reduce --against)",
    "known_share": "their share of the images (reduce --against)",
    "known_conflicts": "images with a twin of another label in the other run (reduce --against)",
    "exact": "exact duplicates of an earlier image",
    "near": "pairs at or above min_similarity (method similarity, compare)",
    "broken": "images that cannot be read",
    "broken_share": "their share of all images",
    "flat": "nearly constant images",
}


@dataclass(frozen=True)
class Condition:
    """One condition, as it was written and as it is read."""

    text: str
    name: str
    sign: str
    bound: float

    def met(self, summary: Mapping[str, Any]) -> float | None:
        """The value, where it meets the condition; else None.

        Raises
        ------
        SettingsError
            The run did not look for it.
        """
        value = value_of(self.name, summary)
        return value if OPERATORS[self.sign](value, self.bound) else None


def parse_condition(text: str) -> Condition:
    """Read `NAME OPERATOR NUMBER`.

    Raises
    ------
    SettingsError
        It is no condition, or names what there is not.
    """
    match = re.fullmatch(r"\s*([a-z_]+)\s*(>=|<=|==|>|<)\s*(\S+)\s*", text)
    if match is None:
        raise SettingsError(f"--fail-on {text!r} is no condition", "Write NAME>NUMBER, such as 'leakage>0'.")
    name, sign, number = match.groups()
    if name not in NAMES:
        raise SettingsError(f"--fail-on {text!r}: unknown name {name}", nearest(name, NAMES))
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise SettingsError(f"--fail-on {text!r}: {number} is no number", "Write NAME>NUMBER, such as 'leakage>0'.")
    return Condition(text.strip(), name, sign, bound)


def refuse_blind(conditions: Sequence[Condition], method: str, *, plans: bool, against: bool = False) -> None:
    """End before the work where a condition names what a run of this method does not look for.

    Parameters
    ----------
    method : str
        wavelet, similarity or compare.
    plans : bool
        Whether the run makes a plan.
    against : bool
        Whether the images are looked up in another run.

    Raises
    ------
    SettingsError
    """
    blind: set[str] = set() if plans else set(OF_PLANS)
    blind |= set(OF_REDUCE) if method == "compare" else set(OF_COMPARE)
    blind |= set() if against else set(OF_AGAINST)
    blind |= set(OF_SIMILARITY) if method != "similarity" else set()
    for condition in conditions:
        if condition.name in blind:
            known = ", ".join(sorted(set(NAMES) - blind))
            raise SettingsError(
                f"--fail-on {condition.text}: this run does not look for {condition.name}: {NAMES[condition.name]}",
                f"It knows: {known}.",
            )


def value_of(name: str, summary: Mapping[str, Any]) -> float:
    """What a run found under a name of `NAMES`.

    Raises
    ------
    SettingsError
        It did not look for that: a condition on it would pass unseen.
    """
    n = max(1, int(summary["n_images"]))
    leakage, pairs = summary.get("leakage"), summary.get("similarities")
    status = summary["status"]
    broken = sum(count for word, count in status.items() if word not in READABLE)
    known: dict[str, float] = {
        "exact": summary["n_exact"],
        "broken": broken,
        "broken_share": broken / n,
        "flat": status.get("flat", 0),
    }
    if "n_drop" in summary:
        known.update(drops=summary["n_drop"], drop_share=summary["n_drop"] / n)
    if "n_influential" in summary:
        known["influential"] = summary["n_influential"]
    if "alone" in (summary.get("anomalies") or {}):
        known["anomalies"] = summary["anomalies"]["alone"]
    if pairs is not None:
        known["near"] = pairs["near"]
    if leakage is not None:
        known.update(
            leakage=leakage["images"],
            exact_leakage=leakage["exact"],
            conflicts=leakage["conflicts"],
            leakage_share=leakage["images"] / max(1, leakage["evaluated"]),
        )
    if (against := summary.get("against")) is not None:
        known.update(
            known=against["known"],
            known_share=against["known"] / max(1, against["images"]),
            known_conflicts=against["conflicts"],
        )
    if name not in known:
        raise SettingsError(
            f"--fail-on {name}: this run did not look for it ({NAMES[name]})", f"It knows: {', '.join(sorted(known))}."
        )
    return float(known[name])


def check(conditions: Sequence[Condition], summary: Mapping[str, Any], run: str) -> None:
    """End where a finished run meets any of the conditions.

    Raises
    ------
    ConditionMet
        Names all that are met, with their values.
    """
    values = [(condition, condition.met(summary)) for condition in conditions]
    met = [f"{condition.text} ({condition.name} = {value:g})" for condition, value in values if value is not None]
    if met:
        raise ConditionMet(f"--fail-on: {', '.join(met)}", f"The run is finished: see the tables in {run}.")
