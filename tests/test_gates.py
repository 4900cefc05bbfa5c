"""Conditions on a finished run: read, met, or refused where the run did not look."""

from __future__ import annotations

from typing import Any

import pytest

from daskim.errors import ConditionMet, SettingsError
from daskim.gates import NAMES, check, parse_condition, refuse_blind, value_of

REDUCED: dict[str, Any] = {
    "n_images": 200,
    "status": {"ok": 190, "flat": 4, "corrupt": 6},
    "n_exact": 3,
    "n_drop": 20,
    "n_influential": 5,
    "anomalies": {"alone": 11},
}
COMPARED: dict[str, Any] = {
    "n_images": 100,
    "status": {"ok": 100},
    "n_exact": 1,
    "similarities": {"near": 7},
    "leakage": {"images": 4, "exact": 1, "conflicts": 2, "evaluated": 40},
}
AGAINST: dict[str, Any] = {**REDUCED, "against": {"known": 30, "images": 60, "conflicts": 2}}
KNOWN = {"known", "known_share", "known_conflicts"}


@pytest.mark.parametrize(
    ("text", "summary", "met"),
    [
        ("drops>19", REDUCED, True),
        ("drops>20", REDUCED, False),
        ("drop_share >= 0.1", REDUCED, True),
        ("broken==6", REDUCED, True),
        ("broken_share<0.03", REDUCED, False),
        ("flat<=4", REDUCED, True),
        ("influential > 1e1", REDUCED, False),
        ("anomalies>10", REDUCED, True),
        ("known_share>=0.5", AGAINST, True),
        ("known_conflicts>2", AGAINST, False),
        ("leakage>0", COMPARED, True),
        ("leakage_share>=0.1", COMPARED, True),
        ("conflicts>2", COMPARED, False),
        ("exact_leakage>=1", COMPARED, True),
        ("near<7", COMPARED, False),
    ],
)
def test_conditions(text: str, summary: dict[str, Any], met: bool) -> None:
    conditions = [parse_condition(text)]
    if met:
        with pytest.raises(ConditionMet, match=conditions[0].name) as error:
            check(conditions, summary, "here")
        assert error.value.exit_code == 6
    else:
        check(conditions, summary, "here")


@pytest.mark.parametrize(
    "text", ["leakage", "leakage>", ">0", "leakage=0", "leakage>many", "leakage>nan", "leakage>0>1"]
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_condition(text)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(SettingsError, match="leakage"):
        parse_condition("leakages>0")


@pytest.mark.parametrize("summary", [REDUCED, COMPARED])
def test_what_the_run_did_not_look_for_is_no_pass(summary: dict[str, Any]) -> None:
    missing = "leakage" if summary is REDUCED else "drops"
    with pytest.raises(SettingsError, match="did not look"):
        check([parse_condition(f"{missing}>0")], summary, "here")


def test_every_name_has_a_value_in_some_run() -> None:
    for name in NAMES:
        held = []
        for summary in (REDUCED, COMPARED, AGAINST):
            try:
                held.append(value_of(name, summary))
            except SettingsError:
                continue
        assert held, name


@pytest.mark.parametrize(
    ("method", "plans", "blind"),
    [
        ("compare", False, {"drops", "drop_share", "influential", "anomalies"}),
        ("compare", True, {"influential", "anomalies"}),
        ("wavelet", True, {"leakage", "exact_leakage", "leakage_share", "conflicts", "anomalies"}),
        ("similarity", True, {"leakage", "exact_leakage", "leakage_share", "conflicts"}),
    ],
)
def test_what_a_run_will_not_look_for_is_refused_before_it(method: str, plans: bool, blind: set[str]) -> None:
    for name in NAMES:
        conditions = [parse_condition(f"{name}>0")]
        if name in KNOWN:
            refuse_blind(conditions, method, plans=plans, against=True)
        if name in blind | KNOWN:
            with pytest.raises(SettingsError, match="does not look"):
                refuse_blind(conditions, method, plans=plans)
        else:
            refuse_blind(conditions, method, plans=plans)
