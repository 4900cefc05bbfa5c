"""--plan tells hours and money, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daskim.jobs.reduce import main


@pytest.fixture
def source(planted: Any) -> str:
    return str(planted(200, 16, redundancy=0.2, seed=5)[0])


def test_costs_as_json(source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [source, "--plan", "--run", str(tmp_path / "run"), "--json", "--workers", "4"]
    assert main([*words, "--price-hour", "0.1", "--bandwidth", "10MB/s"]) == 0
    plan = json.loads(capfd.readouterr().out)
    parts = [stage["cost"] for stage in plan["stages"]]
    assert plan["workers"] == 4
    assert plan["cost"]["tasks"] == sum(part["tasks"] for part in parts)
    assert plan["cost"]["money"] == pytest.approx(plan["cost"]["seconds"] / 3600 * 4 * 0.1)
    rates = tmp_path / "rates.json"
    rates.write_text(json.dumps({"rates": {"index once": 1000.0}}))
    assert main([*words, "--rates", str(rates)]) == 0
    slower = json.loads(capfd.readouterr().out)
    assert slower["stages"][0]["cost"]["seconds"] >= 1000
    assert slower["cost"]["money"] is None
    assert not (tmp_path / "run").exists()


def test_costs_as_a_table(source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([source, "--plan", "--run", str(tmp_path / "run"), "--price-hour", "0.1"]) == 0
    told = capfd.readouterr().out
    for word in ("all stages", "per million images", "tasks", "Gflop", "money", "0.1 an hour"):
        assert word in told


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--price-hour", "0.1"], 2, "--price-hour is for --plan"),
        (["--plan", "--price-hour", "-1"], 2, "--price-hour -1"),
        (["--plan", "--bandwidth", "fast"], 2, "--bandwidth fast"),
        (["--plan", "--rates", "nowhere.json"], 4, "nowhere.json"),
    ],
)
def test_mistakes_about_costs(
    words: list[str], code: int, told: str, source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([source, "--run", str(tmp_path / "run"), *words]) == code
    assert told in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
