"""Hours and money from counts of work: the arithmetic, and rates that are given."""

from __future__ import annotations

import json

import pytest

from daskim.cost import RATES, Prices, Work, estimate, rates_of, total
from daskim.errors import SettingsError, SourceError
from daskim.settings import Candidates
from daskim.stages import Need

NEED = Need(blocks=10, read=6_000, write=4_000, task=0, driver=0)
WORK = Work(tasks=20, flops=5.0, alone={"plan once": 2, "plan image": 10}, shared={"images image": 100})
SIMPLE = {**RATES, "busy": 0.5, "scheduler task": 3.0, "plan once": 1.0, "plan image": 0.1, "images image": 0.2}


def test_seconds_of_workers_and_of_the_driver() -> None:
    found = estimate(WORK, NEED, Prices(4), SIMPLE)
    assert found.core_seconds == pytest.approx(3 + 20)
    assert found.seconds == pytest.approx(3 + 20 / (4 * 0.5))
    assert (found.tasks, found.flops, found.bytes, found.money) == (20, 5.0, 10_000, None)


def test_a_slow_network_adds_to_it() -> None:
    found = estimate(WORK, NEED, Prices(4, bandwidth=100.0), SIMPLE)
    assert found.seconds == pytest.approx(3 + 10 + 10_000 / 400)


def test_the_scheduler_bounds_it() -> None:
    assert estimate(WORK, NEED, Prices(4, scheduler=True), SIMPLE).seconds == pytest.approx(3 + 60)
    assert estimate(WORK, NEED, Prices(4, scheduler=False), SIMPLE).seconds == pytest.approx(13)


def test_money_is_for_all_workers_all_the_time() -> None:
    found = estimate(WORK, NEED, Prices(4, hour=0.9), SIMPLE)
    assert found.money == pytest.approx(found.seconds / 3600 * 4 * 0.9)
    both = total([found, found])
    assert both.money == pytest.approx(2 * found.money)
    assert (both.tasks, both.seconds) == (40, pytest.approx(2 * found.seconds))


def test_more_workers_are_never_slower() -> None:
    seconds = [estimate(WORK, NEED, Prices(workers, bandwidth=50.0), SIMPLE).seconds for workers in (1, 2, 8, 64)]
    assert seconds == sorted(seconds, reverse=True)


def test_given_rates_stand_in_for_the_built_in_ones() -> None:
    found = rates_of(json.dumps({"rates": {"images image": 0.25}, "context": {}}))
    assert found == {**RATES, "images image": 0.25}
    assert rates_of(None) == RATES


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rates": 3}', "nonsense"])
def test_what_holds_no_rates(text: str) -> None:
    with pytest.raises(SourceError, match="rates"):
        rates_of(text, "--rates x.json")


@pytest.mark.parametrize("rates", [{"image images": 1}, {"images image": -1}, {"images image": "fast"}])
def test_what_is_no_rate(rates: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="rate"):
        rates_of(json.dumps({"rates": rates}))


@pytest.mark.parametrize(("n", "pairs"), [(100, 1024), (60_000, 30_000), (131_072, 65_536), (10**9, 65_536)])
def test_tasks_of_many_images_hold_more_pairs(n: int, pairs: int) -> None:
    assert Candidates().part_pairs(n) == pairs
