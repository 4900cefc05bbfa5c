"""Leaks between splits: planted ones are found, the tables say what they are, and nothing depends on the blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import daskim
from daskim.errors import GuardTripped, SettingsError, StaleRun
from daskim.jobs.apply import main as apply
from daskim.jobs.compare import main
from daskim.kernels.splits import across
from daskim.synthetic import planted_families

# test image -> (train image, kind, agreement); equal names on both sides, so that ids would collide
TRUTH = {
    "test/cat/00.png": ("train/cat/03.png", "exact", "same"),
    "test/cat/01.png": ("train/cat/04.png", "near", "same"),
    "test/cat/02.png": ("train/cat/05.png", "near", "same"),
    "test/dog/03.png": ("train/cat/06.png", "exact", "conflict"),
}


def pictures(count: int, seed: int) -> np.ndarray:
    return planted_families(count, size=(32, 32), redundancy=0.0, seed=seed).images


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A train and a test folder with four planted leaks: a copy, brighter, mirrored, a copy under another label."""
    here = tmp_path_factory.mktemp("leaks")
    images = pictures(40, seed=11)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (here / split / label).mkdir(parents=True)
    for number, image in enumerate(images[:28]):
        Image.fromarray(image).save(here / "train" / ("cat" if number < 14 else "dog") / f"{number:02d}.png")
    brighter = np.clip(images[4].astype(int) + 12, 0, 255).astype(np.uint8)
    planted = {"cat/00": images[3], "cat/01": brighter, "cat/02": images[5][:, ::-1], "dog/03": images[6]}
    for name, image in planted.items():
        Image.fromarray(image).save(here / "test" / f"{name}.png")
    for number, image in enumerate(images[28:]):
        Image.fromarray(image).save(here / "test" / "dog" / f"1{number:02d}.png")
    return here / "train", here / "test"


@pytest.fixture(scope="module")
def found(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    return daskim.compare(*folders, run=tmp_path_factory.mktemp("compared") / "run")


def test_planted_leaks_are_found(found: daskim.FinishedRun) -> None:
    leakage = found.table("leakage")
    first = leakage[leakage["rank"] == 1].set_index("id")
    told = {row.Index: (row.other_id, row.kind, row.agreement) for row in first.itertuples()}
    assert told == TRUTH
    assert first.loc["test/cat/02.png", "mirrored"] == 1
    assert (leakage["split"] == "test").all()
    assert (leakage["other_split"] == "train").all()
    facts = found.summary["leakage"]
    assert (facts["images"], facts["exact"], facts["near"], facts["conflicts"]) == (4, 2, 2, 1)
    assert facts["evaluated"] == 16
    assert sum(row["images"] for row in facts["cross"]) == 4
    assert found.summary["method"] == "compare"
    assert found.settings.candidates.method == "all"  # auto, of so few
    assert not found.has("plan")


def test_coverage_holds_every_evaluated_image_the_least_covered_first(found: daskim.FinishedRun) -> None:
    coverage = found.table("coverage")
    assert sorted(coverage["id"]) == sorted(found.images.loc[found.images["split"] == "test", "id"])
    assert coverage["similarity"].is_monotonic_increasing
    assert (coverage["by"] == "similarity").all()
    assert set(coverage["id"].tail(4)) == set(TRUTH)
    pairs = found.pairs
    split = found.images["split"].to_numpy()
    crossing = pairs[split[pairs["a"]] != split[pairs["b"]]]
    best = pd.concat([crossing.groupby(side)["similarity"].max() for side in ("a", "b")])
    np.testing.assert_array_equal(coverage["similarity"], best.loc[coverage["row"]])


@pytest.mark.parametrize("method", ["join", "union"])
def test_a_search_finds_them_too(folders: tuple[Path, Path], method: str, tmp_path: Path) -> None:
    found = daskim.compare(*folders, run=tmp_path / "run", settings={"candidates.method": method, "blocks.rows": 7})
    first = found.table("leakage").query("rank == 1").set_index("id")
    assert first["other_id"].to_dict() == {name: twin for name, (twin, *_) in TRUTH.items()}
    coverage = found.table("coverage")
    assert len(coverage) == 16
    assert (coverage["other_row"] >= 0).all()  # each has a nearest in train, however far
    assert set(coverage["by"]) <= {"similarity", "correlation"}
    # of equal images of both splits one is looked up for both
    splits = found.table("representatives").sort_values("row")["splits"].to_numpy()
    candidates = found.table("candidates")
    assert len(candidates)
    assert across(splits[candidates["a"]], splits[candidates["b"]]).all()
    split = found.images["split"].to_numpy()
    assert (split[coverage["other_row"]] == "train").all()


@pytest.mark.parametrize(("rows", "workers"), [(13, 1), (9, 2)])
def test_blocks_and_threads(
    folders: tuple[Path, Path], found: daskim.FinishedRun, rows: int, workers: int, tmp_path: Path
) -> None:
    other = daskim.compare(*folders, run=tmp_path / "run", settings={"blocks.rows": rows}, workers=workers)
    for name in ("leakage", "coverage"):
        pd.testing.assert_frame_equal(found.table(name), other.table(name))


def test_many_cells_keep_to_other_splits(tmp_path: Path) -> None:
    images = pictures(120, seed=3)
    images[80:90] = images[:10]
    np.savez(tmp_path / "train.npz", images=images[:80])
    np.savez(tmp_path / "test.npz", images=images[80:])
    settings = {"candidates.method": "join", "candidates.all_blocks": 50, "candidates.cells": 6, "candidates.probes": 6}
    found = daskim.compare(tmp_path / "train.npz", tmp_path / "test.npz", run=tmp_path / "run", settings=settings)
    assert found.summary["leakage"]["exact"] == 10
    # of equal images of both splits one is looked up for both
    splits = found.table("representatives").sort_values("row")["splits"].to_numpy()
    candidates = found.table("candidates")
    assert len(candidates)
    assert across(splits[candidates["a"]], splits[candidates["b"]]).all()


@pytest.mark.parametrize(("evaluate", "pairs"), [((), 3), (("test",), 2)])
def test_three_splits_and_copies_that_span_them(tmp_path: Path, evaluate: tuple[str, ...], pairs: int) -> None:
    images = pictures(24, seed=8)
    images[8] = images[16] = images[0]  # one picture in all three splits
    images[17] = images[9]
    for at, split in enumerate(("train", "val", "test")):
        np.savez(tmp_path / f"{split}.npz", images=images[8 * at : 8 * at + 8])
    sources = [tmp_path / f"{split}.npz" for split in ("train", "val", "test")]
    settings = {"source.splits": ("train", "val", "test"), "compare.evaluate": evaluate}
    found = daskim.compare(sources, settings=settings, run=tmp_path / "run")
    leakage = found.table("leakage")
    told = {(row.split, row.other_split, row.row, row.other_row) for row in leakage.itertuples()}
    wanted = {("test", "train", 16, 0), ("test", "val", 16, 8), ("test", "val", 17, 9), ("val", "train", 8, 0)}
    assert told == {entry for entry in wanted if entry[0] == "test" or not evaluate}
    assert len(found.summary["leakage"]["splits"]) == pairs


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """train, val and test: a picture in all three, one in val and test, one mirrored from train into val."""
    here, images = tmp_path_factory.mktemp("three"), pictures(30, seed=8)
    images[10] = images[20] = images[0]
    images[21] = images[11]
    images[12] = images[2][:, ::-1]
    for at, split in enumerate(("train", "val", "test")):
        np.savez(here / f"{split}.npz", images=images[10 * at : 10 * at + 10])
    return [here / f"{split}.npz" for split in ("train", "val", "test")]


SPLITS = {"source.splits": ("train", "val", "test")}


@pytest.mark.parametrize("blocks", [{}, {"candidates.all_blocks": 5, "candidates.cells": 3, "candidates.probes": 3}])
@pytest.mark.parametrize("method", ["join", "union"])
def test_every_image_has_a_nearest_in_every_other_split(
    three: list[Path], method: str, blocks: dict[str, object], tmp_path: Path
) -> None:
    settings = {**SPLITS, "candidates.method": method, **blocks}
    found = daskim.compare(three, settings=settings, run=tmp_path / "run")
    coverage = found.table("coverage")
    assert len(coverage) == 30  # val in train, test in train, test in val
    assert (coverage["by"] != "none").all()
    split = found.images["split"].to_numpy()
    assert (split[coverage["other_row"]] == coverage["other_split"]).all()
    assert coverage["other_split"].nunique() == 2


@pytest.mark.parametrize(
    ("values", "gone"),
    [
        # the kept image of each is one that stays; test is never shrunk for val
        ({"compare.yields": "train"}, {0: 20, 10: 20, 11: 21, 2: 12}),
        ({"compare.yields": "test"}, {10: 0, 20: 0, 21: 11, 12: 2}),
        ({"compare.yields": "train", "plan.protect": ("val",)}, {0: 10, 2: 12}),
        ({"compare.yields": "train", "compare.evaluate": ("val",)}, {0: 10, 2: 12}),
    ],
)
def test_who_yields_of_three_splits(
    three: list[Path], values: dict[str, object], gone: dict[int, int], tmp_path: Path
) -> None:
    found = daskim.compare(three, settings={**SPLITS, **values}, run=tmp_path / "run")
    plan = found.plan
    ids = dict(zip(plan["id"], plan["row"]))
    drops = plan[plan["decision"] == "drop"]
    assert dict(zip(drops["row"].tolist(), drops["kept_id"].map(ids).tolist())) == gone
    assert set(drops["kept_id"]) <= set(plan.loc[plan["decision"] == "keep", "id"])
    assert (drops["rule"] == "leaked").all()
    assert found.summary["n_drop"] == len(gone)
    with pytest.raises(GuardTripped, match="max_drop"):
        daskim.compare(three, settings={**SPLITS, **values, "plan.max_drop": 0.01}, run=tmp_path / "guarded")


def test_against_names_where_it_is_looked_up(three: list[Path], tmp_path: Path) -> None:
    settings = {**SPLITS, "compare.evaluate": ("val",), "compare.against": ("test",)}
    found = daskim.compare(three, settings=settings, run=tmp_path / "run")
    assert found.summary["leakage"]["splits"] == [["val", "test"]]
    assert set(found.table("leakage")["row"]) == {10, 11}


def test_flat_images_leak_as_exact_copies_only(tmp_path: Path) -> None:
    train, test = pictures(10, seed=1), pictures(10, seed=2)
    train[0], test[0] = 7, 8  # alike by SSIM, and different
    train[1] = test[1] = 9
    np.savez(tmp_path / "train.npz", images=train)
    np.savez(tmp_path / "test.npz", images=test)
    for method in ("all", "union"):
        settings = {"similarities.name": "ssim", "candidates.method": method}
        found = daskim.compare(tmp_path / "train.npz", tmp_path / "test.npz", settings=settings, run=tmp_path / method)
        leakage = found.table("leakage")
        assert leakage[["row", "other_row", "kind"]].to_numpy().tolist() == [[11, 1, "exact"]]
        assert set(found.table("coverage")["row"]) == set(range(12, 20))


def test_few_images_against_many_are_all_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (10_500, 8, 8, 3), dtype=np.uint8)  # 55 million pairs in all
    test = np.concatenate([train[[7, 9_000]], rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)])
    np.savez(tmp_path / "train.npz", images=train)
    np.savez(tmp_path / "test.npz", images=test)
    settings = {"images.size": "8x8", "similarities.name": "haarpsi"}
    found = daskim.compare(tmp_path / "train.npz", tmp_path / "test.npz", settings=settings, run=tmp_path / "run")
    assert found.settings.candidates.method == "all"
    # the two copies are one image each, of both splits: looked up in train as well
    assert found.summary["similarities"]["compared"] == 3 * 10_498 + 2 * (10_498 + 3) + 1
    assert found.summary["similarities"]["compared_share"] <= 1
    assert found.summary["leakage"]["exact"] == 2
    assert found.store.parts("pairs")[0].startswith("0")
    assert len(found.store.parts("pairs")) < 150  # rectangles, not the 900 of the square


def test_a_person_has_the_last_word_on_near_twins(folders: tuple[Path, Path], tmp_path: Path) -> None:
    verdicts = [
        ("test/cat/01.png", "train/cat/04.png"),  # near
        ("train/cat/03.png", "test/cat/00.png"),  # exact: stays, whatever is said
        ("test/cat/01.png", "elsewhere.png"),
    ]
    said = tmp_path / "reviewed.csv"
    said.write_text("a,b,verdict\n" + "".join(f"{a},{b},different\n" for a, b in verdicts))
    words = [*map(str, folders), "--run", str(tmp_path / "run"), "--quiet", "--no-report"]
    assert main([*words, "--reviewed", str(said), "--yields", "train"]) == 0
    found = daskim.open_run(tmp_path / "run")
    assert set(found.table("leakage")["id"]) == set(TRUTH) - {"test/cat/01.png"}
    assert "train/cat/04.png" not in set(found.plan.loc[found.plan["decision"] == "drop", "id"])
    said.write_text("a,b,verdict\n")
    assert main([*words, "--reviewed", str(said), "--yields", "train"]) == 7


def test_a_run_of_reduce_goes_on(folders: tuple[Path, Path], tmp_path: Path) -> None:
    both, run = tmp_path / "both", tmp_path / "run"
    for folder in folders:
        shutil.copytree(folder, both / folder.name)
    reduced = daskim.reduce(both, settings={"method": "similarity", "candidates.method": "all"}, run=run)
    plan = reduced.plan
    with pytest.raises(StaleRun, match=r"candidates\.across"):
        daskim.compare(both, settings={"candidates.method": "all"}, run=run)
    more = {"candidates.method": "all", "candidates.across": "any"}
    found = daskim.compare(both, settings=more, run=run)
    assert sum(count["computed"] for count in found.summary["blocks"].values()) == 0
    assert set(found.table("leakage")["id"]) == set(TRUTH)
    pd.testing.assert_frame_equal(found.plan, plan)
    with pytest.raises(StaleRun, match="stage plan"):  # the plan of the reduction is not written over
        daskim.compare(both, settings={**more, "compare.yields": "train"}, run=run)


def test_the_same_files_where_a_run_is_told_twice(folders: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {"candidates.method": "lsh"}
    found = daskim.compare(*folders, settings=settings, run=tmp_path / "run")
    assert {"test/cat/00.png", "test/dog/03.png"} <= set(found.table("leakage")["id"])  # exact ones, in any case
    assert set(found.table("coverage")["by"]) <= {"similarity", "none"}
    again = daskim.compare(*folders, settings=settings, run=tmp_path / "run")
    assert sum(count["computed"] for count in again.summary["blocks"].values()) == 0


@pytest.mark.parametrize("yields", ["train", "test"])
def test_one_side_may_yield(folders: tuple[Path, Path], yields: str, tmp_path: Path) -> None:
    found = daskim.compare(*folders, run=tmp_path / "run", settings={"compare.yields": yields})
    gone = found.plan[found.plan["decision"] == "drop"]
    wanted = {twin for twin, *_ in TRUTH.values()} if yields == "train" else set(TRUTH)
    assert set(gone["id"]) == wanted
    assert (gone["split"] == yields).all()
    assert set((tmp_path / "run" / "drop.txt").read_text().split()) == wanted
    assert found.summary["n_drop"] == 4
    assert set(gone["kept_id"]) == (set(TRUTH) if yields == "train" else {twin for twin, *_ in TRUTH.values()})


def test_the_command(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = map(str, folders)
    words = [train, test, "--run", str(tmp_path / "run"), "--quiet"]
    assert main([*words, "--fail-on", "leakage>4"]) == 0
    assert main([*words, "--fail-on", "leakage>0", "--json"]) == 6
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(line for line in lines if line["event"] == "error")["kind"] == "ConditionMet"
    assert main(words[:-1]) == 0
    shown = capsys.readouterr().out
    assert "Least covered" in shown
    assert "Next: " in shown
    assert "--fail-on" in shown
    assert "test/dog/03.png" in shown
    assert main([*words, "--plan"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{train}"], 2, "two splits"),
        ([], 2, "TRAIN and TEST"),
        (["{train}", "{test}", "{test}"], 2, "--splits"),
        (["{train}", "{test}", "--splits", "train"], 2, "source.splits"),
        (["{train}", "{test}", "--evaluate", "tset"], 2, "test"),
        (["{train}", "{test}", "--fail-on", "leaks>0"], 2, "leakage"),
        (["{train}", "{test}", "--fail-on", "drops>0"], 2, "does not look"),
        (["{train}", "{test}", "--fail-on", "influential>0"], 2, "does not look"),
        (["{train}", "{test}", "--splits", "train,"], 2, "a split is a name"),
        (["{train}", "{test}", "--splits", "train,a/b"], 2, "a split is a name"),
        (["{train}/cat", "{train}/dog", "--splits", "train,train"], 2, "two splits"),
        (["{train}", "{test}", "--against", "trian"], 2, "train"),
        (["{train}", "{test}", "--evaluate", "train"], 2, "nothing to compare"),
        (["{train}", "{test}", "--protect", "train"], 2, "--yields"),
        (["{train}", "{test}", "--yields", "train", "--protect", "val"], 2, "no image has split"),
        (["{train}", "{test}", "--reviewed", "{nothing}"], 4, "nothing"),
        (["{train}", "{test}", "--yields", "both"], 2, "none"),
        (["{train}", "{nothing}"], 4, "nothing"),
    ],
)
def test_mistakes(
    folders: tuple[Path, Path],
    words: list[str],
    code: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"train": str(folders[0]), "test": str(folders[1]), "nothing": str(tmp_path / "nothing")}
    given = [word.format(**places) for word in words]
    assert main([*given, "--run", str(tmp_path / "run"), "--quiet"]) == code
    assert told in capsys.readouterr().err


def test_a_mistake_does_not_bind_the_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["--run", str(tmp_path / "run"), "--quiet", "--no-report"]
    assert main([str(folders[0]), *words]) == 2
    assert main([str(folders[0]), str(folders[1]), *words, "--evaluate", "tset"]) == 2
    assert main([str(folders[0]), str(folders[1]), *words]) == 0


def test_reduce_names_the_command(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two splits"):
        daskim.compare(folders[0], run=tmp_path / "run")


def test_aquarium_fish(data: Path, tmp_path: Path) -> None:
    """The paper: 11 % of the test images have a nearly identical training image (METHOD: above 0.9; 14 above 0.7)."""
    fish = data / "cifar100_aquarium_fish"
    settings = {"similarities.name": "ssim_volume"}
    found = daskim.compare(fish / "train", fish / "test", run=tmp_path / "run", settings=settings)
    best = found.table("coverage")["similarity"]
    assert len(best) == 100
    assert ((best > 0.9).sum(), (best > 0.7).sum()) == (11, 14)
    assert found.summary["leakage"]["exact"] == 4


def test_the_plan_of_a_comparison_is_one_for_apply(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    daskim.compare(*folders, run=tmp_path / "run", settings={"compare.yields": "train"})
    assert apply([str(tmp_path / "run")]) == 0
    assert "0 are influential" in capsys.readouterr().out
    assert apply([str(tmp_path / "run"), "--to", str(tmp_path / "reduced"), "--execute", "--quiet"]) == 0
    assert (tmp_path / "reduced" / "train").is_dir()
