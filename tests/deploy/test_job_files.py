"""The shipped job files: what their comments say is what --plan says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kustomized import ROOT

from daskim.jobs import reduce
from daskim.resolve import job_file, resolve
from tests.bench.sized import SETS, Sized, write

SMALL = 3_000


@pytest.mark.parametrize("name", list(SETS))
def test_the_numbers_of_images_in_the_comments(name: str) -> None:
    text = (ROOT / "jobs" / f"{name}.toml").read_text()
    assert f"{SETS[name].n:,}" in text
    assert f"of about {SETS[name].bytes // 1000} kB" in text or f"of {SETS[name].bytes // 1000} kB" in text
    workers = re.search(r"--workers (\d+)", SETS[name].place)
    assert workers is not None
    assert f"for {workers[1]} workers" in text


@pytest.mark.parametrize("name", list(SETS))
def test_plan_sizes_a_set_without_its_images(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = SETS[name]
    manifest = write(Sized(SMALL, about.classes, about.bytes, about.place), tmp_path)
    words = [str(manifest), "--job", name, "--plan", "--json", *about.place.split(), "--run", str(tmp_path / "run")]
    assert reduce.main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["n"] == SMALL
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    assert stages["images"]["read_bytes"] == SMALL * about.bytes
    assert all(stage["driver_bytes"] > 0 for stage in stages.values())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["imagenet", "landmarks", "nightly-dedup"])
def test_sets_of_a_lake_have_guards(name: str) -> None:
    settings = resolve([(name, job_file(name))])
    assert settings.images.max_bad < 0.1
    assert settings.images.size == "64x64"
    if name == "nightly-dedup":
        assert settings.plan.stay
        assert settings.plan.max_drop < 1
        assert settings.clusters.by == "threshold"
