"""Leaks between splits: planted ones are found, the tables say what they are, and nothing depends on the blocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import daskim
from daskim.errors import SettingsError
from daskim.jobs.compare import main
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
    split = found.images["split"].to_numpy()
    candidates = found.table("candidates")
    assert (split[candidates["a"]] != split[candidates["b"]]).all()
    assert (split[coverage["other_row"]] == "train").all()


@pytest.mark.parametrize(("rows", "workers"), [(5, 1), (9, 2)])
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
    split = found.images["split"].to_numpy()
    candidates = found.table("candidates")
    assert (split[candidates["a"]] != split[candidates["b"]]).all()


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
    if evaluate:
        wanted = {entry for entry in wanted if entry[0] == "test"}
    else:  # of two evaluated splits the later in order is looked up in the earlier
        wanted = {e for e in wanted if e[1] != "val"} | {("val", "test", 8, 16), ("val", "test", 9, 17)}
    assert told == wanted
    assert len(found.summary["leakage"]["splits"]) == pairs


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
        (["{train}", "{test}", "--fail-on", "drops>0"], 2, "did not look"),
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
