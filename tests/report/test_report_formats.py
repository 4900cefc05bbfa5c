"""JSON, Markdown and the files for other tools: they hold what the run found, whatever the ids are."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskim
from daskim.errors import SettingsError, SourceError
from daskim.jobs.report import main
from daskim.report.exports import KINDS, export, parse_export
from daskim.report.exports.fiftyone import FIELDS
from daskim.report.formats import _code, _text, as_json, as_markdown, schema

Runs = dict[str, daskim.FinishedRun]
TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "array": list, "object": dict, "null": type(None),
}  # fmt: skip


def check(value: Any, rule: dict[str, Any], where: str = "$") -> None:
    """As much of JSON Schema as ours uses."""
    if "const" in rule:
        assert value == rule["const"], where
    if "enum" in rule:
        assert value in rule["enum"], where
    if "type" in rule:
        names = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        assert isinstance(value, tuple(np.ravel([TYPES[name] for name in names]).tolist())), where
        assert not isinstance(value, bool), where
    if "minimum" in rule and value is not None:
        assert value >= rule["minimum"], where
    if isinstance(value, dict):
        assert set(rule.get("required", [])) <= set(value), where
        properties = rule.get("properties", {})
        for key, inner in value.items():
            assert key in properties or "additionalProperties" in rule or not properties, f"{where}.{key}: undeclared"
            check(inner, properties.get(key) or rule.get("additionalProperties", {}), f"{where}.{key}")
    if isinstance(value, list):
        for index, inner in enumerate(value):
            check(inner, rule.get("items", {}), f"{where}[{index}]")


@pytest.mark.parametrize("name", ["wavelet", "similarity", "compare"])
def test_json_is_as_its_schema_says(report_runs: Runs, name: str) -> None:
    report = as_json(report_runs[name])
    check(report, schema())
    json.dumps(report, allow_nan=False)
    assert report["images"] == 49
    assert report["broken"] == len(report["worst"]["broken"]) == 1
    with pytest.raises(AssertionError):
        check({**report, "images": -1}, schema())


def test_json_names_the_worst(report_runs: Runs) -> None:
    worst = as_json(report_runs["similarity"])["worst"]
    plan = report_runs["similarity"].plan
    gone = plan[plan["decision"] == "drop"]
    assert {name for entry in worst["families"] for name in entry["ids"]} == set(gone["id"])
    assert {entry["kept_id"] for entry in worst["families"]} == set(gone["kept_id"])
    assert sum(entry["images"] for entry in worst["influential"]) == 4
    leaks = as_json(report_runs["compare"])["worst"]["leaks"]
    assert [leak["agreement"] for leak in leaks] == ["conflict", "same"]
    assert leaks[0]["id"].endswith("conflict.png")


def unescaped(line: str) -> str:
    return re.sub(r"&#\d+;", "", line)


@pytest.mark.parametrize("name", ["wavelet", "similarity", "compare"])
def test_markdown_lets_no_id_mark_up(report_runs: Runs, name: str) -> None:
    text = as_markdown(report_runs[name])
    assert re.search(r"\| images \| 49 \|", text)
    body = text.partition("```sh")[0]
    assert len(text) < 60_000
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e]", text)
    assert set(re.findall(r"<[^>]*>", body)) <= {
        "<code>", "</code>", "<details>", "</details>", "<summary>", "</summary>",
    }  # fmt: skip
    for mark in ("@", "`", "script>", "www.", "http", "$"):
        assert mark not in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    for before, line in pairwise(rows):  # all rows of one table have as many cells
        if body.index(line) - body.index(before) == len(before) + 1:
            assert unescaped(line).count("|") == unescaped(before).count("|")


def test_markdown_of_a_comparison_shows_the_leaks(report_runs: Runs) -> None:
    text = as_markdown(report_runs["compare"])
    assert "| leaked | 2 |" in text
    assert "| kept |" not in text
    assert "near 1.000" in text or "near 0.9" in text
    assert text.index("conflict.png") < text.index("leak.png")


@given(st.text(max_size=60))
def test_no_text_can_mark_up(text: str) -> None:
    for shown in (_text(text), _code(text).removeprefix("<code>").removesuffix("</code>")):
        plain = unescaped(shown)
        assert not re.search(r"[\n\r|<>`@#*_\\\[\]!~$&]", plain)
        assert "://" not in plain
        assert not re.search(r"(?i)www\.", plain)


@given(st.text(max_size=60))
def test_code_is_the_text_itself(text: str) -> None:
    import html

    from daskim.report.words import shortened, visible

    shown = html.unescape(_code(text).removeprefix("<code>").removesuffix("</code>"))
    assert shown == shortened(visible(text), 60)


# exports


def test_fiftyone_reads_the_document(report_runs: Runs, tmp_path: Path) -> None:
    run = report_runs["similarity"]
    (path,) = export(run, "fiftyone", str(tmp_path / "samples.json"))
    document = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    # the keys that Dataset.from_dict asks for
    assert {"name", "media_type", "info", "sample_fields", "samples"} <= set(document)
    assert document["media_type"] == "image"
    samples = document["samples"]
    assert len(samples) == document["num_samples"] == 49
    assert len({sample["filepath"] for sample in samples}) == 49
    assert all(Path(sample["filepath"]).is_file() for sample in samples)
    for sample in samples:
        assert set(sample) - {"filepath", "tags", "metadata", "_media_type"} == set(FIELDS)
        assert all(isinstance(tag, str) for tag in sample["tags"])
        assert sample["ground_truth"]["_cls"] == "Classification"
    plan = run.plan.set_index("id")
    for sample in samples:
        assert sample["daskim_decision"] == plan.loc[sample["daskim_id"], "decision"]
        assert ("drop" in sample["tags"]) == (sample["daskim_decision"] == "drop")
    assert sum("influential" in sample["tags"] for sample in samples) == 4
    leaks = json.loads(Path(export(report_runs["compare"], "fiftyone", str(tmp_path / "c.json"))[0]).read_text())
    assert sum("leaked" in sample["tags"] for sample in leaks["samples"]) == 2


def test_cleanlab_table_has_its_columns_and_meaning(report_runs: Runs, tmp_path: Path) -> None:
    run = report_runs["similarity"]
    (path,) = export(run, "cleanlab", str(tmp_path / "issues.csv"))
    issues = pd.read_csv(path, keep_default_na=False, na_values={"distance_to_nearest_neighbor": [""]})
    assert issues["id"].tolist() == run.images["id"].tolist()
    assert issues["is_near_duplicate_issue"].dtype == bool
    for name in ("near_duplicate_score", "exact_duplicate_score", "label_conflict_score"):
        assert issues[name].between(0, 1).all()
    # lower is worse: every flagged image scores below every other one
    flagged = issues["is_near_duplicate_issue"]
    assert issues.loc[flagged, "near_duplicate_score"].max() < issues.loc[~flagged, "near_duplicate_score"].min()
    near = run.pairs[run.pairs["similarity"] >= 0.85]
    sets = {row: json.loads(text) for row, text in issues["near_duplicate_sets"].items()}
    pairs = {(a, b) for a, others in sets.items() for b in others}
    assert pairs == {pair for a, b in zip(near["a"], near["b"]) for pair in ((a, b), (b, a))}
    assert issues["is_exact_duplicate_issue"].sum() == len(run.table("exact"))
    assert (issues.loc[issues["is_exact_duplicate_issue"], "exact_duplicate_score"] == 0).all()
    assert issues["is_label_conflict_issue"].sum() == 4


def test_cleanlab_counts_copies_that_a_wavelet_run_does_not_pair(report_runs: Runs, tmp_path: Path) -> None:
    run = report_runs["wavelet"]
    issues = pd.read_csv(export(run, "cleanlab", str(tmp_path / "i.csv"))[0])
    assert (issues.loc[issues["is_exact_duplicate_issue"], "near_duplicate_score"] == 0).all()
    assert (issues["is_near_duplicate_issue"] | ~issues["is_exact_duplicate_issue"]).all()


def test_csv_reads_back(report_runs: Runs, tmp_path: Path) -> None:
    run = report_runs["similarity"]
    paths = export(run, "csv", str(tmp_path / "plan.csv"))
    assert [Path(path).name for path in paths] == ["plan.csv", "plan-pairs.csv"]
    with open(paths[0], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == run.plan["id"].tolist()
    assert [row["label"] for row in rows] == run.plan["label"].tolist()
    assert [row["decision"] for row in rows] == run.plan["decision"].tolist()
    with open(paths[1], encoding="utf-8", newline="") as file:
        pairs = list(csv.DictReader(file))
    ids = run.images["id"].tolist()
    near = run.pairs[run.pairs["similarity"] >= 0.85].sort_values(["a", "b"])
    assert sorted((int(p["a"]), int(p["b"])) for p in pairs) == list(zip(near["a"], near["b"]))
    assert all(ids[int(p["a"])] == p["a_id"] and ids[int(p["b"])] == p["b_id"] for p in pairs)


@pytest.mark.parametrize("text", ["csv", "csv=", "=x", "CSV=x", "fiftyon=x", ""])
def test_a_wrong_export_lists_the_kinds(text: str) -> None:
    with pytest.raises(SettingsError) as told:
        parse_export(text)
    assert any(kind in str(told.value) for kind in KINDS)


# the command


@pytest.fixture
def page_made(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page itself has tests of its own."""
    from daskim.report import page

    def write(run: daskim.FinishedRun, *, storage_options: Any = None) -> page.PageInfo:
        run.store.write(b"<!doctype html>", page.NAME)
        return page.PageInfo(f"{run.run}/{page.NAME}", 15, 0.1, 3, ("2 of 5 families",))

    monkeypatch.setattr(page, "write_page", write)
    monkeypatch.setattr(page, "render", lambda run, options=None: (b"<!doctype html>", 3, []))
    return iter(())


@pytest.mark.usefixtures("page_made")
def test_the_page_is_what_the_command_makes(
    report_runs: Runs, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = report_runs["wavelet"].run
    assert main([run]) == 0
    out = capsys.readouterr().out
    assert f"The report is in {run}/report.html" in out
    assert "It leaves out: 2 of 5 families." in out
    assert main([run, "--output", str(tmp_path / "x.html"), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["path"] == str(tmp_path / "x.html")
    assert (tmp_path / "x.html").read_bytes() == b"<!doctype html>"
    assert main([run, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_json_and_markdown_go_to_standard_output(report_runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = report_runs["similarity"]
    assert main([run.run, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == as_json(run)
    assert main([run.run, "--format", "markdown", "--quiet"]) == 0
    assert capsys.readouterr().out == as_markdown(run)
    assert main([run.run, "--format", "markdown", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["report"] == as_markdown(run)


def test_files_are_written_and_the_run_stays_as_it_is(
    report_runs: Runs, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = Path(report_runs["compare"].run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    words = ["--figures", str(tmp_path / "fig"), "--format", "json", "--output", str(tmp_path / "r.json"), "--json"]
    words += ["--export", f"csv={tmp_path / 'p.csv'}", "--export", f"fiftyone={tmp_path / 's.json'}"]
    assert main([str(run), *words]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["report", "written", "written", "written"]
    for event in events[1:]:
        assert all(Path(path).is_file() for path in event["files"])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_runs_and_files_at_urls(
    report_runs: Runs, capsys: pytest.CaptureFixture[str], memory: fsspec.AbstractFileSystem
) -> None:
    memory.put(report_runs["compare"].run, "/run", recursive=True)
    words = ["--figures", "memory://fig", "--export", "cleanlab=memory://out/i.csv", "--output", "memory://out/r.md"]
    assert main(["memory://run", *words, "--format", "markdown"]) == 0
    assert memory.exists("/fig/graph.graphml")
    assert memory.cat_file("/out/r.md").decode() == as_markdown(daskim.open_run("memory://run"))
    assert memory.cat_file("/out/i.csv").startswith(b"row,id,label,split,is_near_duplicate_issue")
    assert "memory://out/i.csv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["/nonexistent/run"], 4, "holds no finished run"),
        (["RUN", "--format", "pdf"], 2, "html"),
        (["RUN", "--export", "pdf=x"], 2, "cleanlab, csv, fiftyone"),
        (["RUN", "--export", "csv=RUN/summary.json/x.csv"], 4, "Choose another place with --export csv"),
        (["RUN", "--figures", "RUN/summary.json"], 4, "Choose another place with --figures"),
        (["RUN", "--format", "json", "--output", "RUN/summary.json/"], 2, "name of a file"),
        (["RUN", "--output", ""], 2, "empty"),
        (["RUN", "--figure", "x"], 2, "--figure"),
        ([""], 2, "no name"),
    ],
)
def test_mistakes_are_told(
    report_runs: Runs, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    run = report_runs["compare"].run
    assert main([word.replace("RUN", run) for word in words]) == code
    shown = capsys.readouterr()
    assert told in shown.err
    assert "Traceback" not in shown.err
    assert main([*(word.replace("RUN", run) for word in words), "--json"]) == code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "error"


def test_a_bad_place_is_an_error_of_the_option(report_runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SourceError, match="--export csv"):
        export(report_runs["compare"], "csv", str(tmp_path / "file" / "x.csv"))
