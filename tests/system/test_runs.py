"""A run from outside: --plan, --json, --quiet, --limit, stale runs, the API, the demo, the memory it promised."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import daskim
from daskim.errors import SettingsError
from daskim.jobs.reduce import main

TABLES = ("index", "images", "exact", "full_digests", "columns", "condition")
STAGES = ("index", "images", "exact", "wavelets", "columns", "clusters", "plan")
Tree = Callable[[Path], dict[str, tuple[int, int]]]
SummaryOf = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def source(planted: Any) -> Path:
    path, _ = planted(300, 8, redundancy=0.2, seed=7)
    return Path(path)


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main([str(source), "--run", str(run), *SETTINGS, "--quiet"]) == 0
    return run


SETTINGS = ("--size", "8x8", "--n-clusters", "0.85")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


class TestPlan:
    def plan(self, capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, str], str]:
        code = main([*map(str, words), "--plan", "--json"])
        out, error = capfd.readouterr()
        events = [json.loads(line) for line in out.splitlines()]
        states = {row["stage"]: row["state"] for event in events if event["event"] == "plan" for row in event["stages"]}
        return code, states, error

    def test_new(self, source: Path, tmp_path: Path, tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
        before = tree(source.parent)
        code, states, _ = self.plan(capfd, source, "--run", tmp_path / "run")
        assert (code, states) == (0, dict.fromkeys(STAGES, "new"))
        assert tree(tmp_path) == {}
        assert tree(source.parent) == before

    def test_new_demo(
        self, tmp_path: Path, tree: Tree, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        code, states, _ = self.plan(capfd)
        assert (code, states) == (0, dict.fromkeys(STAGES, "new"))
        assert tree(tmp_path) == {}

    def test_finished(self, source: Path, finished: Path, tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
        before = tree(finished)
        code, states, _ = self.plan(capfd, source, "--run", finished, *SETTINGS)
        assert (code, states) == (0, dict.fromkeys(STAGES, "sealed"))
        assert tree(finished) == before

    def test_half_done(self, source: Path, copy: Path, tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
        for stage in ("columns", "clusters", "plan"):
            (copy / "state" / stage / "sealed.json").unlink()
        shutil.rmtree(copy / "state" / "plan")
        before = tree(copy)
        code, states, _ = self.plan(capfd, source, "--run", copy, *SETTINGS)
        assert code == 0
        assert [states[name] for name in STAGES] == ["sealed"] * 4 + ["open", "open", "new"]
        assert tree(copy) == before

    def test_stale(self, source: Path, finished: Path, tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
        before = tree(finished)
        code, states, _ = self.plan(capfd, source, "--run", finished, *SETTINGS, "--tau", "100")
        assert code == 0
        assert states["wavelets"] == "sealed"
        assert states["columns"] == "stale"
        assert main([str(source), "--run", str(finished), *SETTINGS, "--tau", "100", "--plan"]) == 0
        assert "--restart columns" in capfd.readouterr().out
        assert tree(finished) == before

    @pytest.mark.parametrize("memory", ["500MB", "800MB"])
    def test_what_cannot_fit_is_refused(
        self, source: Path, tmp_path: Path, memory: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for more in (["--plan"], []):
            assert main([str(source), "--run", str(tmp_path / "run"), *SETTINGS, "--memory", memory, *more]) == 2
            error = capfd.readouterr().err
            assert "clusters" in error
            assert "MB" in error or "GB" in error
            assert "--memory" in error
        assert not (tmp_path / "run" / "state" / "images").exists(), "refused before any work"

    def test_in_print(self, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert main([str(source), "--run", str(tmp_path / "run"), *SETTINGS, "--plan"]) == 0
        out = capfd.readouterr().out
        assert "300 images of 8 x 8 x 3" in out
        assert all(stage in out for stage in STAGES)


class TestOutput:
    def test_json_lines(self, source: Path, tmp_path: Path, command: Any, summary_of: SummaryOf) -> None:
        done = command(source, "--run", tmp_path / "run", *SETTINGS, "--json")
        assert done.returncode == 0
        assert done.stderr == ""
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert {"begin", "note", "summary"} <= {event["event"] for event in events}
        assert next(event["stage"] for event in events if event["event"] == "begin") == "index"
        assert events[-1].pop("event") == "summary"
        assert events[-1] == summary_of(tmp_path / "run")

    def test_quiet(self, source: Path, tmp_path: Path, command: Any) -> None:
        done = command(source, "--run", tmp_path / "run", *SETTINGS, "--quiet")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        again = command(source, "--run", tmp_path / "run", *SETTINGS)
        assert again.returncode == 0
        assert "redundant" in again.stdout
        assert "tables/plan" in again.stdout

    def test_files_of_a_run(self, finished: Path, summary_of: SummaryOf) -> None:
        summary = summary_of(finished)
        assert summary["n_images"] == 300 == summary["n_keep"] + summary["n_drop"] + summary["n_review"]
        assert set(summary["seconds"]) == set(STAGES)
        assert summary["peak_rss_bytes"] > 50e6
        assert {"python", "numpy", "pywavelets"} <= {name.lower() for name in summary["versions"]}
        assert len(summary["plan_hash"]) == 64
        assert not (finished / "partial").exists()
        assert not list(finished.rglob("*.tmp"))
        assert sorted(path.name for path in (finished / "tables").iterdir()) == sorted(
            [*TABLES, "clusters", "centres", "plan", "pairs", "influential"]
        )
        assert len((finished / "keep.txt").read_text().split()) == summary["n_keep"]
        assert len((finished / "drop.txt").read_text().split()) == summary["n_drop"]

    def test_settings_toml_is_a_job_file_of_the_same_run(self, finished: Path, tmp_path: Path, summary_of: Any) -> None:
        job = tmp_path / "job.toml"
        job.write_text((finished / "settings.toml").read_text())
        assert main(["--job", str(job), "--run", str(tmp_path / "run"), "--quiet"]) == 0
        assert summary_of(tmp_path / "run")["plan_hash"] == summary_of(finished)["plan_hash"]

    def test_a_finished_run_computes_nothing_again(self, source: Path, copy: Path, tree: Tree) -> None:
        before = tree(copy / "state") | tree(copy / "tables") | tree(copy / "arrays")
        assert main([str(source), "--run", str(copy), *SETTINGS, "--quiet"]) == 0
        assert tree(copy / "state") | tree(copy / "tables") | tree(copy / "arrays") == before

    @pytest.mark.parametrize("which", ["--limit", "--sample"])
    def test_fewer_images(self, source: Path, tmp_path: Path, which: str) -> None:
        run = tmp_path / "run"
        assert main([str(source), "--run", str(run), *SETTINGS, which, "40", "--quiet"]) == 0
        plan = pq.read_table(run / "tables" / "plan").to_pandas()
        assert len(plan) == 40
        items = pq.read_table(run / "tables" / "index").to_pandas()["item"]
        assert items.tolist() == list(range(40)) if which == "--limit" else (items.diff().dropna() > 0).all()
        assert items.max() > 40 or which == "--limit"


class TestStale:
    @pytest.mark.parametrize(
        ("words", "stage", "told"),
        [
            (["--tau", "100"], "columns", "columns.tau was 100000.0 and is now 100.0"),
            (["--n-clusters", "200"], "clusters", "clusters.n_clusters was 0.85 and is now 200"),
            (["--max-rms", "3"], "plan", "plan.max_rms was None and is now 3.0"),
            (["--wavelet", "db2"], "wavelets", "wavelets.name was 'db1' and is now 'db2'"),
            (["--limit", "100"], "index", "source.limit was None and is now 100"),
            (["--set", "images.filter=area"], "images", "images.filter was 'bilinear' and is now 'area'"),
            (["--set", "blocks.rows=50"], "index", "blocks.rows was None and is now 50"),
        ],
    )
    def test_another_setting_is_refused_and_restart_does_it(
        self,
        source: Path,
        copy: Path,
        words: list[str],
        stage: str,
        told: str,
        tree: Tree,
        summary_of: SummaryOf,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        before = tree(copy)
        base = [word for pair in zip(SETTINGS[::2], SETTINGS[1::2]) if pair[0] != words[0] for word in pair]
        line = [str(source), "--run", str(copy), *base, *words, "--quiet"]
        assert main(line) == 7
        error = capfd.readouterr().err
        assert told in error
        assert f"--restart {stage}" in error
        assert tree(copy) == before, "a refusal alters nothing"
        earlier = STAGES[: STAGES.index(stage)]
        times = {name: (copy / "state" / name / "sealed.json").stat().st_mtime_ns for name in earlier}
        assert main([*line, "--restart", stage]) == 0
        assert {name: (copy / "state" / name / "sealed.json").stat().st_mtime_ns for name in earlier} == times
        fresh = copy.parent / "fresh"
        assert main([*line[:2], str(fresh), *line[3:]]) == 0
        assert summary_of(copy)["plan_hash"] == summary_of(fresh)["plan_hash"]

    def test_another_input(self, source: Path, copy: Path, planted: Any, capfd: pytest.CaptureFixture[str]) -> None:
        other, _ = planted(300, 8, redundancy=0.2, seed=8)
        assert main([str(other), "--run", str(copy), *SETTINGS]) == 7
        assert "source.inputs" in capfd.readouterr().err

    def test_settings_that_decide_nothing_yet_may_change(self, source: Path, tmp_path: Path) -> None:
        line = [str(source), "--run", str(tmp_path / "run"), "--size", "8x8", "--quiet"]
        assert main([*line, "--n-clusters", "301"]) == 2
        assert main([*line, "--n-clusters", "250"]) == 0

    def test_max_bad_may_change(self, source: Path, copy: Path) -> None:
        """It decides whether the run goes on, not what it computes."""
        assert main([str(source), "--run", str(copy), *SETTINGS, "--max-bad", "0.5", "--quiet"]) == 0


class TestApi:
    def test_the_same_tables_as_the_files(self, source: Path, finished: Path, tmp_path: Path) -> None:
        found = daskim.reduce(
            source, run=tmp_path / "run", settings={"images.size": "8x8", "clusters.n_clusters": 0.85}
        )
        for name in ("images", "plan", "pairs", "influential", "clusters"):
            file = pq.read_table(finished / "tables" / name).to_pandas()
            pd.testing.assert_frame_equal(getattr(found, name), file, check_dtype=True)
        opened = daskim.open_run(finished)
        assert opened.summary["plan_hash"] == found.summary["plan_hash"]
        pd.testing.assert_frame_equal(opened.plan, found.plan)

    def test_without_a_run_it_lives_as_long_as_the_result(self, source: Path) -> None:
        found = daskim.reduce(source, settings={"images.size": "8x8"})
        where = Path(found.run)
        assert len(found.plan) == 300
        del found
        assert not where.exists()

    def test_a_failed_one_leaves_nothing_behind(self, source: Path, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with pytest.raises(SettingsError):
            daskim.reduce(source, settings={"images.size": "8x8", "clusters.n_clusters": 301})
        assert list(tmp_path.iterdir()) == []

    def test_several_sources(self, source: Path, planted: Any, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        for name in ("one", "two"):
            np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8))
        found = daskim.reduce([tmp_path / "one.npy", tmp_path / "two.npy"], settings={"images.size": "8x8"})
        assert len(found.plan) == 40
        assert found.plan["id"].is_unique

    def test_an_unfinished_run(self, tmp_path: Path) -> None:
        with pytest.raises(daskim.errors.SourceError, match="no finished run"):
            daskim.open_run(tmp_path)

    def test_an_unknown_setting(self, source: Path) -> None:
        with pytest.raises(SettingsError, match=r"clusters\.nclusters"):
            daskim.reduce(source, settings={"clusters.nclusters": 3})

    def test_a_run_in_memory(self, source: Path, finished: Path, memory: fsspec.AbstractFileSystem) -> None:
        values = {"images.size": "8x8", "clusters.n_clusters": 0.85}
        found = daskim.reduce(source, run="memory://bucket/run", settings=values)
        assert memory.exists("/bucket/run/summary.json")
        assert not memory.exists("/bucket/run/partial")
        there = daskim.open_run(finished)
        assert found.summary["plan_hash"] == there.summary["plan_hash"]
        pd.testing.assert_frame_equal(found.plan, there.plan)
        again = daskim.reduce(source, run="memory://bucket/run", settings=values)
        assert all(part["computed"] == 0 for part in again.summary["blocks"].values())
        other = daskim.reduce(
            source, run="memory://bucket/run", settings={**values, "clusters.n_clusters": 200}, restart="clusters"
        )
        assert other.summary["n_clusters"] == 200


@pytest.mark.slow
def test_the_demo_finds_what_was_planted(command: Any, tmp_path: Path, summary_of: SummaryOf) -> None:
    done = command(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recall = {}
    for line in done.stdout.splitlines():
        cells = line.split()
        if cells and cells[-1] == "%" and cells[-2].isdecimal():
            recall[cells[0]] = int(cells[-2])
    assert {name: recall[name] for name in ("copy", "recoded", "relabelled", "flat", "broken")} == {
        "copy": 100,
        "recoded": 100,
        "relabelled": 100,
        "flat": 100,
        "broken": 100,
    }
    assert recall["jpeg"] >= 95
    assert recall["noise"] >= 95
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daskim-run"]
    summary = summary_of(tmp_path / "daskim-run")
    assert sum(summary["status"].values()) == summary["n_images"]
    truth = pd.read_csv(tmp_path / "daskim-run" / "demo-truth.csv", keep_default_na=False)
    plan = pq.read_table(tmp_path / "daskim-run" / "tables" / "plan").to_pandas()
    assert set(truth["id"]) <= set(plan["id"])
    assert set(plan.loc[plan["rule"] == "broken", "id"]) == set(truth.loc[truth["kind"] == "broken", "id"])
