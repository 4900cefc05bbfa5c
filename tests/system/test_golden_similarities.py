"""The paper's figures of Algorithm 2 (section 5.2.2) on aquarium_fish, and judged pairs of CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import daskim
from daskim.plugins import similarity_of
from daskim.similarities import score


@pytest.fixture(scope="module")
def fish(data: Path, tmp_path_factory: pytest.TempPathFactory) -> daskim.FinishedRun:
    return daskim.reduce(
        data / "cifar100_aquarium_fish" / "train",
        run=tmp_path_factory.mktemp("fish") / "run",
        settings={"method": "similarity", "similarities.name": "ssim_volume", "candidates.method": "all"},
    )


def test_similarities_of_aquarium_fish(fish: daskim.FinishedRun) -> None:
    pairs = fish.pairs
    assert len(pairs) == 500 * 499 // 2 == len(pairs.drop_duplicates(["a", "b"]))
    assert (pairs["a"] < pairs["b"]).all()
    similarity = np.sort(pairs["similarity"])
    assert round(similarity.mean(), 4) == 0.0883
    assert round(similarity.std(), 4) == 0.1311
    np.testing.assert_allclose(similarity[:2], [-0.54200676, -0.50251479], atol=5e-9)
    assert (similarity > 0.999).sum() == 5


def test_spectrum_of_aquarium_fish_gives_454_clusters(fish: daskim.FinishedRun) -> None:
    spectrum = fish.summary["spectrum"]
    assert spectrum["gaps"] == {"count": 46, "lower": 46, "upper": 46}
    assert spectrum["n_clusters"] == 454 == fish.summary["n_clusters"]
    assert round(spectrum["largest"], 3) == 107.504
    assert spectrum["trace"]["relative"] < 1e-12
    assert spectrum["squares"]["relative"] < 1e-12
    curve = fish.table("gaps_curve")
    assert (curve["complement"] + curve["literal"] >= 500).all()


def test_identical_pairs_share_a_spectral_cluster(fish: daskim.FinishedRun, data: Path) -> None:
    groups = pd.read_csv(data / "cifar100_aquarium_fish" / "exact_pixel_groups.csv")
    train = groups[groups["file"].str.startswith("train/")]
    cluster = dict(zip(fish.plan["id"], fish.plan["cluster"]))
    pairs = [g["file"].str.removeprefix("train/").tolist() for _, g in train.groupby("group") if len(g) == 2]
    assert len(pairs) == 5
    assert all(cluster[a] == cluster[b] for a, b in pairs)


def test_extremes_of_aquarium_fish(fish: daskim.FinishedRun) -> None:
    extremes = fish.extremes
    worst = extremes[extremes["kind"] == "most dissimilar pair"].sort_values("rank")
    assert worst["similarity"].iloc[0] == pytest.approx(-0.54200676, abs=5e-9)
    assert (extremes["kind"] == "most similar group").sum() >= 2
    isolated = fish.anomalies.iloc[0]
    best = np.full(500, -1.0)
    for side in ("a", "b"):
        np.maximum.at(best, fish.pairs[side].to_numpy(), fish.pairs["similarity"].to_numpy())
    assert isolated["row"] == best.argmin()


def test_eleven_test_images_have_a_twin_in_train(data: Path) -> None:
    folder = data / "cifar100_aquarium_fish"
    test, train = (
        np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted((folder / split).glob("*.png"))])
        for split in ("test", "train")
    )
    similarity = similarity_of("ssim_volume", (32, 32, 3))
    left, right = similarity.parts(test, np.float64), similarity.parts(train, np.float64)
    i, j = (index.ravel() for index in np.indices((len(test), len(train))))
    best = score(similarity, left, right, i, j)[:, 0].reshape(len(test), len(train)).max(axis=1)
    assert (len(test), len(train)) == (100, 500)
    assert ((best > 0.9).sum(), (best > 0.7).sum()) == (11, 14)


def test_known_pairs_of_cifar10_among_distractors(data: Path, tmp_path: Path) -> None:
    """The published list, which an image network made: 279 near-duplicates among 3,076 images."""
    folder = data / "cifar10_pairs"
    found = daskim.reduce(folder, run=tmp_path / "run", settings={"method": "similarity", "candidates.sample": 0})
    assert found.summary["similarities"]["compared_share"] < 0.05
    ids = found.images.set_index("row")["id"]
    near = found.pairs[found.pairs["similarity"] >= found.summary["similarities"]["min_similarity"]]
    listed = {frozenset(pair) for pair in zip(near["a"].map(ids), near["b"].map(ids))}
    judged = pd.read_csv(folder / "pairs.csv", dtype=str)
    true = judged[judged["judgment"].isin(["0", "1"])]
    recall = np.mean([frozenset(pair) in listed for pair in zip(true["file_a"], true["file_b"])])
    assert recall >= 0.85
