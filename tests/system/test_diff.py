"""`diff`: planted changes between two runs are told, all of them and nothing else; and what cannot be compared."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import daskim
from daskim.difference import KINDS, GroupChange, _changes, difference
from daskim.jobs.diff import main
from daskim.results import FinishedRun, open_run
from daskim.synthetic import planted_families

SIDE = 16
HOSTILE = "\x1b[31m<b>\u202e,\"'.png"
SETTINGS = {
    "method": "similarity",
    "images.size": "16x16",
    "similarities.name": "ssim",
    "candidates.method": "all",
    "clusters.by": "threshold",
}


def save(folder: Path, pixels: np.ndarray) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[FinishedRun, FinishedRun]:
    """A folder before and after: what is done to it in between is planted.

    Ten pictures of one label, 0 to 9, and before: 0 and copy0, 1 and copy1, 2 and copy2 are alike; 3 is in b too.
    After: copy0 gone; 1 has another copy; 2 as before; 4 has a copy now; 3 is in b no more; 5 has a copy in b; 6 is
    broken; the broken file can be read.
    """
    here = tmp_path_factory.mktemp("diff")
    made = planted_families(40, size=(SIDE, SIDE), channels=3, redundancy=0.0, seed=3).images
    rng = np.random.default_rng(0)

    def copy(index: int) -> np.ndarray:
        return np.clip(made[index] + rng.normal(0, 2, made[index].shape), 0, 255).round().astype(np.uint8)

    before = here / "set"
    for index in range(10):
        save(before / "a" / (HOSTILE if index == 0 else f"{index}.png"), made[index])
        save(before / "b" / f"{10 + index}.png", made[10 + index])
    for index in range(3):
        save(before / "a" / f"copy{index}.png", copy(index))
    save(before / "b" / "three.png", copy(3))
    (before / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    after = Path(shutil.copytree(before, here / "after" / "set"))
    (after / "a" / "copy0.png").unlink()
    save(after / "a" / "more1.png", copy(1))
    save(after / "a" / "copy4.png", copy(4))
    (after / "b" / "three.png").unlink()
    save(after / "b" / "five.png", copy(5))
    (after / "a" / "6.png").write_bytes(b"not an image \x1b[31m")
    save(after / "a" / "broken.png", made[30])
    first = daskim.reduce(before, run=here / "one", settings=SETTINGS, workers=1)
    second = daskim.reduce(after, run=here / "two", settings={**SETTINGS, "plan.policy": "first"}, workers=1)
    return first, second


@pytest.fixture(scope="module")
def found(runs: tuple[FinishedRun, FinishedRun]) -> Any:
    return difference(*runs)


def names(changes: list[GroupChange], change: str) -> list[set[str]]:
    return [
        {Path(name).name for group in [*one.before, *one.after] for name in group["ids"]}
        for one in changes
        if one.change == change
    ]


class TestPlanted:
    def test_images(self, found):
        added = {Path(name).name for name in found.images_added}
        assert added == {"more1.png", "copy4.png", "five.png"}
        assert {Path(name).name for name in found.images_removed} == {"copy0.png", "three.png"}
        assert found.images == {"before": 25, "after": 26, "common": 23}
        assert [(Path(entry["id"]).name, entry["before"], entry["after"]) for entry in found.newly_broken] == [
            ("6.png", "ok", "not-an-image")
        ]
        (readable,) = found.newly_readable
        assert (Path(readable["id"]).name, readable["after"]) == ("broken.png", "ok")
        assert readable["reason"]

    def test_families(self, runs, found):
        zero = Path(next(name for name in runs[0].images["id"] if "<b>" in name)).name
        assert names(found.families, "gone") == [{zero, "copy0.png"}]
        assert names(found.families, "new") == [{"4.png", "copy4.png"}]
        changed = names(found.families, "changed")
        assert {"1.png", "copy1.png", "more1.png"} in changed
        assert set().union(*changed) <= {"1.png", "copy1.png", "more1.png", "2.png", "copy2.png"}

    def test_influential_groups(self, found):
        assert names(found.influential, "gone") == [{"3.png", "three.png"}]
        assert names(found.influential, "new") == [{"5.png", "five.png"}]
        assert names(found.influential, "changed") == []

    def test_decisions(self, runs, found):
        one, two = (run.plan.set_index("id") for run in runs)
        told = {entry["id"]: entry for entry in found.decisions}
        for name in one.index.intersection(two.index):
            was, now = one.loc[name], two.loc[name]
            kept = [None if pd.isna(row["kept_id"]) else row["kept_id"] for row in (was, now)]
            same = was["decision"] == now["decision"] and kept[0] == kept[1]
            assert (name not in told) == same
            if not same:
                assert (told[name]["before"], told[name]["after"]) == (was["decision"], now["decision"])
        assert {"6.png", "broken.png"} <= {Path(name).name for name in told}

    def test_settings(self, found):
        told = {entry["key"]: (entry["before"], entry["after"]) for entry in found.settings}
        assert set(told) == {"source.inputs", "plan.policy"}
        assert told["plan.policy"] == ("centre", "first")

    def test_the_other_way_round_it_is_the_mirror_image(self, runs, found):
        back = difference(runs[1], runs[0])
        assert back.images_added == found.images_removed
        assert [entry["id"] for entry in back.newly_broken] == [entry["id"] for entry in found.newly_readable]
        assert [entry["id"] for entry in back.decisions] == [entry["id"] for entry in found.decisions]
        turned = {"new": "gone", "gone": "new", "changed": "changed"}
        assert back.families == [GroupChange(turned[one.change], one.after, one.before) for one in found.families]

    def test_a_run_and_itself(self, runs):
        same = difference(runs[0], runs[0])
        assert same.empty
        assert not same.notes
        assert not same.settings

    def test_counts(self, found):
        counts = found.counts()
        assert counts["families"] == {"new": 1, "gone": 1, "changed": len(names(found.families, "changed"))}
        assert counts["influential"] == {"new": 1, "gone": 1, "changed": 0}
        assert counts["images_added"] == 3
        assert counts["dropped"] == sum(e["after"] == "drop" and e["before"] != "drop" for e in found.decisions)


@st.composite
def groupings(draw) -> tuple[dict[int, int], dict[int, int]]:
    """The group of each image before and after, of those that are in one."""
    count = draw(st.integers(0, 14))
    sides = []
    for _ in range(2):
        values = draw(st.lists(st.integers(-2, 4), min_size=count, max_size=count))
        sides.append({image: group for image, group in enumerate(values) if group >= 0})
    return sides[0], sides[1]


def frame(groups: dict[int, int]) -> pd.DataFrame:
    rows = [(f"i{image:02d}", None, group) for image, group in groups.items()]
    return pd.DataFrame(rows, columns=["id", "kept", "group"]).astype({"id": object, "group": np.int64})


@settings(deadline=None, max_examples=60)
@given(made=groupings())
def test_changes_of_groups_against_sets(made):
    """Every group is in one change or stands unchanged; changes share no image; none could be told as two."""
    sides = [
        {
            frozenset(f"i{image:02d}" for image, group in side.items() if group == wanted)
            for wanted in set(side.values())
        }
        for side in made
    ]
    changes = _changes(frame(made[0]), frame(made[1]))
    held = [[frozenset(group["ids"]) for group in (*one.before, *one.after)] for one in changes]
    told = [{group for one in changes for group in map(frozenset, (g["ids"] for g in getattr(one, when)))}
            for when in ("before", "after")]  # fmt: skip
    assert sides[0] - told[0] == sides[1] - told[1] == sides[0] & sides[1] - told[0]
    for one, groups in zip(changes, held):
        expected = "changed" if one.before and one.after else "new" if one.after else "gone"
        assert one.change == expected
        reached = {groups[0]}
        while more := [group for group in groups if group not in reached and any(group & other for other in reached)]:
            reached |= set(more)
        assert reached == set(groups)
        assert one.before != one.after
    images = [frozenset().union(*groups) for groups in held]
    assert sum(map(len, images)) == len(frozenset().union(*images))


class TestCommand:
    def test_what_is_printed(self, runs, capsys):
        assert main([runs[0].run, runs[1].run]) == 0
        said = capsys.readouterr().out
        for words in ("Newly broken images", "not-an-image", "1 new", "1 gone", 'plan.policy: "centre" -> "first"'):
            assert words in said
        assert "\x1b" not in said
        assert "\u202e" not in said
        assert main([runs[0].run, runs[1].run, "--show", "1"]) == 0
        said = capsys.readouterr().out
        assert "and 2 more" in said
        assert "--output" in said
        assert main([runs[0].run, runs[0].run]) == 0
        assert "agree on every image" in capsys.readouterr().out

    def test_all_of_it_in_a_file(self, runs, found, tmp_path, capsys):
        file = tmp_path / "all.json"
        assert main([runs[0].run, runs[1].run, "--show", "0", "--output", str(file)]) == 0
        assert "all.json" in capsys.readouterr().out
        held = json.loads(file.read_text(encoding="utf-8"))
        assert held == json.loads(json.dumps({"counts": found.counts(), **asdict(found)}))
        file = tmp_path / "all.CSV"
        assert main([runs[0].run, runs[1].run, "--output", str(file)]) == 0
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == sum(len(getattr(found, kind)) for kind in KINDS)
        assert [row["name"] for row in rows if row["kind"] == "images_added"] == found.images_added
        family = next(row for row in rows if row["kind"] == "families" and row["change"] == "gone")
        assert json.loads(family["before"])[0]["ids"]
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_json_lines(self, runs, found, capsys):
        assert main([runs[0].run, runs[1].run, "--json", "--show", "1"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines[-1]["event"] == "summary"
        assert lines[-1]["families"] == found.counts()["families"]
        assert {line["event"] for line in lines[:-1]} == {kind for kind in KINDS if getattr(found, kind)}
        assert len(lines) == 1 + sum(bool(getattr(found, kind)) for kind in KINDS)

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            ("{one}", 2, "RUN2"),
            ("{one} {here}/nothing", 4, "no finished run"),
            ("{here}/nothing {one}", 4, "no finished run"),
            ("{one} {two} --output {here}/all.txt", 2, "FILE.json or FILE.csv"),
            ("{one} {two} --output {here}/no/all.csv", 4, "cannot be written"),
            ("{one} {two} --show=-1", 2, "--show"),
            ("{one} {two} --show some", 2, "--show"),
            ("{one} {two} --storage-option x", 2, "key=value"),
            ("{one} {two} --outptu x", 2, "--output"),
        ],
    )
    def test_mistakes(self, runs, tmp_path, capsys, words, code, told):
        filled = [word.format(one=runs[0].run, two=runs[1].run, here=tmp_path) for word in words.split()]
        assert main(filled) == code
        said = capsys.readouterr().err
        assert told in said
        assert "Traceback" not in said


class TestUnlike:
    def test_other_methods_and_sizes(self, runs, tmp_path):
        source = runs[0].settings.source.inputs[0]
        other = daskim.reduce(
            source, run=tmp_path / "run", settings={"images.size": "8x8", "source.limit": 12}, workers=1
        )
        told = difference(runs[0], other)
        assert any("different methods (similarity and wavelet)" in note for note in told.notes)
        assert told.images == {"before": 25, "after": 12, "common": 12}
        assert {"method", "images.size", "source.limit"} <= {entry["key"] for entry in told.settings}

    def test_nothing_in_common(self, runs, tmp_path):
        images = planted_families(20, size=(SIDE, SIDE), channels=3, redundancy=0.2, seed=9).images
        np.savez(tmp_path / "set.npz", images=images)
        other = daskim.reduce(tmp_path / "set.npz", run=tmp_path / "run", settings={"images.size": "16x16"}, workers=1)
        told = difference(runs[0], other)
        assert any("not one image in common" in note for note in told.notes)
        assert not told.decisions
        assert {one.change for one in told.families} <= {"new", "gone"}

    def test_a_run_without_a_plan(self, runs, tmp_path, capsys):
        other = Path(shutil.copytree(runs[1].run, tmp_path / "run"))
        shutil.rmtree(other / "tables" / "plan")
        told = difference(runs[0], open_run(other))
        assert told.notes == ["the second run made no table plan: decisions and families are not compared"]
        assert not told.decisions
        assert told.influential
        assert main([runs[0].run, str(other)]) == 0
        assert "note: the second run made no table plan" in capsys.readouterr().out

    def test_empty_tables(self, runs, tmp_path):
        other = Path(shutil.copytree(runs[1].run, tmp_path / "run"))
        store = open_run(other).store
        none = store.read_table("influential").slice(0, 0)
        store.write_part("influential", "000000", none)
        told = difference(runs[0], open_run(other))
        assert {one.change for one in told.influential} == {"gone"}
        assert isinstance(none, pa.Table)
