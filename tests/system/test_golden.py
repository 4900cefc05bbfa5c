"""The paper's figures on real data, with the conventions that reproduce them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskim


@pytest.fixture(scope="module")
def fish(data: Path, tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    """aquarium_fish of CIFAR-100, train: 500 images, 470 clusters (paper, section 5.2)."""
    return daskim.reduce(
        data / "cifar100_aquarium_fish" / "train",
        run=tmp_path_factory.mktemp("fish") / "run",
        settings={"clusters.n_clusters": 470},
    )


def test_aquarium_fish_keeps_495_columns(fish: daskim.FinishedRun) -> None:
    columns = fish.summary["columns"]
    assert (columns["d"], columns["m"], columns["rank"]) == (3072, 495, 495)
    assert columns["cond"] < 1e5
    condition = fish.table("condition").set_index("m")["cond"]
    assert condition[495] == columns["cond"]
    assert condition[496] > 1e7
    assert len(condition) >= 64


def test_the_five_identical_pairs_of_aquarium_fish_share_a_cluster_each(fish: daskim.FinishedRun, data: Path) -> None:
    groups = pd.read_csv(data / "cifar100_aquarium_fish" / "exact_pixel_groups.csv")
    train = groups[groups["file"].str.startswith("train/")]
    cluster = dict(zip(fish.plan["id"], fish.plan["cluster"]))
    pairs = [g["file"].str.removeprefix("train/").tolist() for _, g in train.groupby("group") if len(g) == 2]
    assert len(pairs) == 5
    assert all(cluster[a] == cluster[b] for a, b in pairs)
    assert fish.summary["n_clusters"] == 470 == fish.plan["cluster"].nunique()
    assert fish.summary["n_exact"] == 5
    assert (fish.plan["rule"] == "exact").sum() == 5


def test_mnist_has_784_columns_32_of_zeros_and_keeps_711(data: Path, tmp_path: Path) -> None:
    found = daskim.reduce(
        data / "mnist" / "train-images-idx3-ubyte.gz",
        run=tmp_path / "run",
        settings={"images.size": "native", "images.mode": "L", "clusters.n_clusters": 0.99},
    )
    columns = found.summary["columns"]
    assert (columns["d"], columns["n_zero"], columns["m"]) == (784, 32, 711)
    table = found.table("columns")
    assert (table["r_diagonal"] == 0).sum() >= 32
    assert table["kept"].sum() == 711
    assert found.summary["n_exact"] == 0
    assert found.plan["split"].unique().tolist() == ["train"]
    assert set(found.plan["label"]) == set("0123456789")


@pytest.mark.slow
def test_cifar10_has_the_condition_number_of_its_pixels(data: Path, tmp_path: Path) -> None:
    files = sorted((data / "cifar10_jpeg").glob("train-*.parquet"))
    found = daskim.reduce(files, run=tmp_path / "run", settings={"clusters.n_clusters": 47_000})
    columns = found.summary["columns"]
    assert (found.summary["n_images"], columns["d"], columns["m"]) == (50_000, 3072, 3072)
    assert round(columns["cond"]) == 19_157
    assert found.summary["n_clusters"] == 47_000 == found.plan["cluster"].nunique()
    assert 2_000 <= found.summary["clusters"]["n_several"] <= 2_100  # exact Ward gives 2,044 to 2,055, by ties
    dropped = found.plan[found.plan["decision"] == "drop"]
    assert (dropped["rms"] <= found.summary["plan"]["max_rms"]).all()
    labels = dict(zip(found.plan["id"], found.plan["label"]))
    assert all(labels[a] == labels[b] for a, b in zip(dropped["id"], dropped["kept_id"]))
    assert np.isfinite(found.table("condition")["cond"]).all()
