"""Clusters: their exact number in every regime, against scipy's Ward, and at every edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

import daskim
from daskim import kept as kept_module
from daskim import scatter
from daskim.errors import BadInputs, SettingsError
from daskim.settings import Settings
from daskim.stages.clusters import cells, centres, choose_regime, features, forest, join, pairs, wanted_clusters
from daskim.synthetic import planted_families

Reduce = Callable[..., daskim.FinishedRun]


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a.tolist(), b.tolist()))) == len(set(a.tolist())) == len(set(b.tolist()))


def squared_error(rows: np.ndarray, label: np.ndarray) -> float:
    """Sum of squared distances to the mean of the own cluster."""
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    return float(sum(((rows[label == k] - rows[label == k].mean(axis=0)) ** 2).sum() for k in np.unique(label)))


class TestChoice:
    @pytest.mark.parametrize(
        ("n_clusters", "n", "expected"),
        [(0.94, 50_000, 47_000), (47_000, 50_000, 47_000), (0.94, 1, 1), (0.001, 3, 1), (1, 1, 1), (0.5, 5, 2)],
    )
    def test_number_or_share(self, n_clusters: float, n: int, expected: int) -> None:
        assert wanted_clusters(n_clusters, n) == expected

    def test_more_clusters_than_images(self) -> None:
        with pytest.raises(SettingsError, match="6 is more than the 5"):
            wanted_clusters(6, 5)

    @pytest.mark.parametrize(
        ("points", "count", "expected"),
        [
            (50_000, 47_000, "join"),
            (50_000, 25_000, "join"),
            (50_000, 24_999, "cells"),
            (50_000, 1001, "cells"),
            (50_000, 1000, "kmeans"),
            (5000, 200, "join"),
            (5000, 100, "kmeans"),
            (1, 1, "join"),
        ],
    )
    def test_regime_by_stated_rules(self, points: int, count: int, expected: str) -> None:
        regime, why = choose_regime(Settings(), points, count)
        assert regime == expected
        assert str(count) in why or str(points) in why


@pytest.fixture(scope="module")
def families() -> Any:
    return planted_families(400, size=(10, 10), redundancy=0.25, seed=11)


@pytest.mark.parametrize(
    ("regime", "count"),
    [
        *[("join", k) for k in (399, 376, 300, 40, 2, 1)],
        *[("cells", k) for k in (399, 300, 100)],
        *[("kmeans", k) for k in (8, 2, 1, 100)],
    ],
)
def test_exactly_as_many_clusters_as_asked(families: Any, reduce_arrays: Reduce, regime: str, count: int) -> None:
    found = reduce_arrays(families.images, families.labels, clusters__n_clusters=count, clusters__regime=regime)
    assert found.summary["n_clusters"] == count
    assert found.clusters["cluster"].nunique() == count
    assert found.summary["clusters"]["regime"] == regime
    sizes = found.clusters.groupby("cluster")["row"].transform("size")
    assert (found.clusters["size"] == sizes).all()
    firsts = found.clusters.groupby("cluster")["row"].min()
    assert (np.diff(firsts) > 0).all(), "clusters are numbered by their first image"


@pytest.mark.parametrize("count", [390, 300, 100, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_join_is_ward(reduce_arrays: Reduce, count: int, channels: int) -> None:
    """db1 keeps distances, so that the clusters are those of scipy's Ward tree on the pixels, cut at that number."""
    images = planted_families(400, size=(10, 10), channels=channels, redundancy=0.2, seed=3).images
    found = reduce_arrays(
        images, clusters__n_clusters=count, clusters__regime="join", clusters__lloyd_limit=0.0, columns__tau=1e12
    )
    assert found.summary["columns"]["m"] == 100 * channels, "the test compares with all pixels"
    tree = linkage(images.reshape(400, -1).astype(np.float64), "ward")
    expected = fcluster(tree, count, "maxclust")
    assert same_partition(found.clusters["cluster"].to_numpy(), expected)
    if count > 100:  # scipy's heights are those of sqrt(2 na nb / (na + nb)) |ca - cb|
        cut = found.summary["clusters"]["cut_rms"]
        grey = tree[400 - count - 1, 2] / (100 * channels) ** 0.5
        assert cut == pytest.approx(grey, rel=1e-5)


def test_planted_families_share_clusters(families: Any, reduce_arrays: Reduce) -> None:
    found = reduce_arrays(families.images, families.labels, clusters__n_clusters=len(np.unique(families.family)))
    cluster = found.clusters["cluster"].to_numpy()
    pairs = [(a, b) for a in range(400) for b in range(a) if families.family[a] == families.family[b]]
    together = np.mean([cluster[a] == cluster[b] for a, b in pairs])
    assert together > 0.8
    alien = [(a, b) for a in range(400) for b in range(a) if families.family[a] != families.family[b]]
    wrong = [(a, b) for a, b in alien if cluster[a] == cluster[b]]
    assert len(wrong) < 0.2 * len(pairs)


def test_too_many_pairs_fall_back_on_cells_and_say_so(families: Any, reduce_arrays: Reduce) -> None:
    images = families.images
    found = reduce_arrays(images, clusters__n_clusters=360, clusters__max_pairs=3)
    assert found.summary["n_clusters"] == 360
    assert found.summary["clusters"]["regime"] == "cells"
    assert "clusters.max_pairs = 3" in found.summary["clusters"]["why"]
    assert any("cells instead of join" in note for note in found.summary["notes"])
    with pytest.raises(SettingsError, match="max_pairs") as caught:
        reduce_arrays(images, clusters__n_clusters=360, clusters__max_pairs=3, clusters__regime="join")
    assert "cells" in caught.value.hint


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("wavelet", ["db1", "db2"])
def test_neighbours_in_cells_are_those_of_brute_force(
    families: Any, reduce_arrays: Reduce, monkeypatch: pytest.MonkeyPatch, wavelet: str, small: bool
) -> None:
    """Each pair once, with its Ward height; many tasks, which hold few distances, find the same."""
    if small:
        for name, value in {
            "GROUP_BYTES": 1,
            "GROUPS": 10**9,
            "WORK": 500,
            "HELD": 64,
            "OTHERS": 8,
            "UNITED": 99,
        }.items():
            monkeypatch.setattr(cells, name, value)
    seen: list[Any] = []
    own = cells.neighbour_pairs

    def watched(context: Any, kept: Any, points: Any, member: np.ndarray, count: int) -> Any:
        found = own(context, kept, points, member, count)
        rows = kept_module.gather(kept, points.rows).astype(np.float64)
        parts = [cells.load(context.run, name) for name in found.counts]
        seen.append((rows, points.weights, member, np.concatenate(parts, axis=1), found, len(parts)))
        return found

    monkeypatch.setattr(cells, "neighbour_pairs", watched)
    images = np.concatenate([families.images, families.images[:7]])  # copies: points of weight 2
    reduce_arrays(
        images, clusters__n_clusters=150, clusters__regime="cells", clusters__neighbours=5, wavelets__name=wavelet
    )
    ((rows, weights, member, pairs, found, files),) = seen
    assert (files > 10) == small
    expected: dict[tuple[int, int], float] = {}
    for cell in range(member.max() + 1):
        mine = np.flatnonzero((member == cell).any(axis=1))
        for a in mine.tolist():
            others = mine[mine != a]
            squared = ((rows[others] - rows[a]) ** 2).sum(axis=1)
            for at in np.argsort(squared, kind="stable")[:5].tolist():
                b = int(others[at])
                height = squared[at] * 2 * weights[a] * weights[b] / (weights[a] + weights[b])
                expected[min(a, b), max(a, b)] = height
    assert [tuple(pair) for pair in pairs[:2].T.astype(int).tolist()] == sorted(expected)
    assert pairs[2] == pytest.approx([expected[pair] for pair in sorted(expected)], rel=1e-9)
    assert found.total == len(expected)
    assert found.reach == pytest.approx(max(expected.values()) ** 0.5, rel=1e-9)


def test_half_redundant_gets_a_better_number(reduce_arrays: Reduce) -> None:
    images = planted_families(200, size=(10, 10), redundancy=0.0, seed=2).images
    noise = np.random.default_rng(0).integers(-2, 3, images.shape)
    twins = np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)
    both = np.concatenate([images, twins])
    found = reduce_arrays(both, clusters__n_clusters=0.94)
    facts = found.summary["clusters"]
    assert facts["near_merges"] >= 200
    better = facts["n_clusters_better"]
    assert 190 <= better <= 200
    assert any(note.startswith("warning:") and f"--n-clusters {better}" in note for note in found.summary["notes"])
    again = reduce_arrays(both, clusters__n_clusters=better)
    assert "n_clusters_better" not in again.summary["clusters"]
    assert again.summary["n_drop"] >= 195
    curve = np.array(facts["height_curve"])
    assert (np.diff(curve[:, 0]) < 0).all()
    assert (np.diff(curve[:, 1]) >= 0).all()
    assert np.interp(8.0, curve[:, 1], curve[:, 0]) == pytest.approx(better, abs=4)


@pytest.mark.parametrize(("regime", "count"), [("join", 300), ("join", 20), ("cells", 150)])
def test_lloyd_never_raises_the_objective(families: Any, reduce_arrays: Reduce, regime: str, count: int) -> None:
    values = {"clusters__regime": regime, "clusters__n_clusters": count, "columns__tau": 1e12}
    with_lloyd = reduce_arrays(families.images, **values)
    without = reduce_arrays(families.images, clusters__lloyd_limit=0.0, **values)
    facts = with_lloyd.summary["clusters"]
    assert facts["lloyd"] == "done"
    assert facts["lloyd_objective_after"] <= facts["lloyd_objective_before"]
    assert without.summary["clusters"]["lloyd"].startswith("left out")
    before = squared_error(families.images, without.clusters["cluster"].to_numpy())
    after = squared_error(families.images, with_lloyd.clusters["cluster"].to_numpy())
    assert facts["lloyd_objective_before"] == pytest.approx(before, rel=1e-5)
    assert facts["lloyd_objective_after"] == pytest.approx(after, rel=1e-5)
    assert with_lloyd.summary["clusters"]["squared_error"] == pytest.approx(after, rel=1e-5)
    assert after <= before * (1 + 1e-9)
    assert with_lloyd.summary["n_clusters"] == count


def test_k_means_is_about_as_good_as_scikit_learn(families: Any, reduce_arrays: Reduce) -> None:
    from sklearn.cluster import KMeans

    found = reduce_arrays(families.images, clusters__n_clusters=8, clusters__regime="kmeans", columns__tau=1e12)
    rows = families.images.reshape(400, -1).astype(np.float64)
    theirs = KMeans(8, n_init=3, random_state=0).fit(rows).inertia_
    assert squared_error(rows, found.clusters["cluster"].to_numpy()) <= 1.1 * theirs


class TestPerClass:
    def test_no_cluster_across_classes(self, families: Any, reduce_arrays: Reduce) -> None:
        found = reduce_arrays(families.images, families.labels, clusters__n_clusters=350, clusters__per_class=True)
        assert found.summary["n_clusters"] == 350
        assert found.summary["clusters"]["regime"] == "per-class"
        labels = found.plan.groupby("cluster")["label"].nunique()
        assert (labels == 1).all()
        assert found.summary["n_influential"] == 0

    def test_more_classes_than_clusters(self, families: Any, reduce_arrays: Reduce) -> None:
        labels = np.arange(400) % 50
        found = reduce_arrays(families.images, labels, clusters__n_clusters=10, clusters__per_class=True)
        assert found.summary["n_clusters"] == 50  # one a class at least

    def test_each_class_is_scipys_ward(self, families: Any, reduce_arrays: Reduce) -> None:
        labels = np.repeat([0, 1], 200)
        found = reduce_arrays(
            families.images, labels, clusters__n_clusters=200, clusters__per_class=True, columns__tau=1e12
        )
        for label in (0, 1):
            rows = families.images[labels == label].reshape(200, -1).astype(np.float64)
            expected = fcluster(linkage(rows, "ward"), 100, "maxclust")
            assert same_partition(found.clusters["cluster"].to_numpy()[labels == label], expected)


class TestEdges:
    @pytest.mark.parametrize("n", [1, 2, 3])
    @pytest.mark.parametrize("share", [1, 0.94])
    def test_very_few_images(self, reduce_arrays: Reduce, n: int, share: float) -> None:
        images = planted_families(n, size=(8, 8), redundancy=0.0).images
        found = reduce_arrays(images, [0] * n, clusters__n_clusters=share)
        assert found.summary["n_clusters"] == max(1, round(share * n)) if share != 1 else 1
        assert found.summary["columns"]["m"] >= 1
        assert len(found.plan) == n
        assert (found.plan["decision"] == "keep").sum() >= 1

    @pytest.mark.parametrize("regime", ["auto", "join", "cells", "kmeans"])
    @pytest.mark.parametrize("count", [1, 5, 30])
    def test_all_images_equal(self, reduce_arrays: Reduce, regime: str, count: int) -> None:
        images = np.repeat(planted_families(1, size=(8, 8), redundancy=0.0).images, 30, axis=0)
        found = reduce_arrays(images, [0] * 30, clusters__n_clusters=count, clusters__regime=regime)
        assert found.summary["n_clusters"] == 1
        assert (found.summary["n_keep"], found.summary["n_drop"], found.summary["n_exact"]) == (1, 29, 29)
        assert found.plan["decision"].tolist() == ["keep"] + ["drop"] * 29
        assert set(found.plan["rule"]) == {"kept", "exact"}

    @pytest.mark.parametrize("regime", ["join", "cells", "kmeans"])
    def test_more_clusters_than_distinct_images(self, reduce_arrays: Reduce, regime: str) -> None:
        images = np.tile(planted_families(10, size=(8, 8), redundancy=0.0).images, (3, 1, 1, 1))
        found = reduce_arrays(images, [0] * 30, clusters__n_clusters=25, clusters__regime=regime)
        assert found.summary["n_clusters"] == 10
        assert found.summary["n_drop"] == 20

    def test_all_flat(self, reduce_arrays: Reduce) -> None:
        images = np.repeat(np.arange(20, dtype=np.uint8), 64 * 3).reshape(20, 8, 8, 3)
        found = reduce_arrays(images, [0] * 20)
        assert found.summary["status"] == {"flat": 20}
        assert found.summary["n_drop"] == 0
        assert found.summary["n_clusters"] == 20

    def test_all_black(self, reduce_arrays: Reduce) -> None:
        found = reduce_arrays(np.zeros((10, 8, 8, 3), dtype=np.uint8), [0] * 10)
        assert found.summary["columns"]["m"] == 0
        assert found.summary["columns"]["n_zero"] == 192
        assert found.summary["n_drop"] == 0
        assert found.summary["n_exact"] == 9

    def test_all_broken(self, tmp_path: Any) -> None:
        (tmp_path / "in").mkdir()
        for k in range(5):
            (tmp_path / "in" / f"{k}.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
        with pytest.raises(BadInputs) as caught:
            daskim.reduce(tmp_path / "in", run=tmp_path / "run")
        assert caught.value.exit_code == 3
        assert "none of the 5" in caught.value.what

    def test_too_many_broken(self, tmp_path: Any, reduce_arrays: Reduce) -> None:
        (tmp_path / "in").mkdir()
        from PIL import Image

        for k, pixels in enumerate(planted_families(4, size=(8, 8)).images):
            Image.fromarray(pixels).save(tmp_path / "in" / f"{k}.png")
        (tmp_path / "in" / "x.png").write_bytes(b"")
        values = {"images.size": "8x8", "clusters.n_clusters": 3}
        with pytest.raises(BadInputs, match="1 of 5 images are broken"):
            daskim.reduce(tmp_path / "in", run=tmp_path / "run", settings={**values, "images.max_bad": 0.1})
        found = daskim.reduce(tmp_path / "in", run=tmp_path / "run", settings={**values, "images.max_bad": 0.2})
        assert found.summary["status"] == {"empty": 1, "ok": 4}

    def test_more_clusters_than_readable_images(self, reduce_arrays: Reduce) -> None:
        images = planted_families(5, size=(8, 8)).images
        with pytest.raises(SettingsError, match="more than the 5"):
            reduce_arrays(images, clusters__n_clusters=6)


def test_tiles_blocks_and_bounds_do_not_change_the_clusters(reduce_arrays: Reduce, monkeypatch: Any) -> None:
    """Three tiles, twelve blocks, pairs and rows in small batches, and directions of a part of the columns."""
    images = planted_families(3000, size=(8, 8), channels=1, redundancy=0.1, seed=5).images
    asked = {
        "clusters__n_clusters": 2850,
        "clusters__directions": 12,
        "clusters__lloyd_limit": 0.0,
        "columns__tau": 1e12,
    }
    plain = reduce_arrays(images, **asked)
    monkeypatch.setattr(join, "TILE", 1024)
    monkeypatch.setattr(pairs, "BATCH", 40)
    monkeypatch.setattr(forest, "GROUP", 50)
    monkeypatch.setattr(scatter, "READ", 100)
    monkeypatch.setattr(centres, "TASK", 60)
    monkeypatch.setattr(features, "FEW", 16)
    split = reduce_arrays(images, **asked, blocks__rows=256)
    for found in (plain, split):
        assert found.summary["clusters"]["regime"] == "join"
        assert found.summary["columns"]["m"] == 64, "the test compares with all pixels"
    np.testing.assert_array_equal(split.clusters["cluster"], plain.clusters["cluster"])
    assert split.summary["clusters"]["cut_rms"] == plain.summary["clusters"]["cut_rms"]
    expected = fcluster(linkage(images.reshape(3000, -1).astype(np.float64), "ward"), 2850, "maxclust")
    assert same_partition(split.clusters["cluster"].to_numpy(), expected)


@pytest.mark.parametrize(("p", "most"), [(1, 1), (50_000, 40), (2_000_000, 4000), (5_000_000, 20_000), (10**8, 50_000)])
def test_tasks_of_the_join_are_bounded(p: int, most: int) -> None:
    tiles = -(-p // join.tile_rows(p))
    assert tiles * (tiles + 1) // 2 <= most


def test_a_chain_longer_than_a_task_may_hold_is_cut_and_said(reduce_arrays: Reduce) -> None:
    """All images of a drift hang together: whole they are merged as scipy does, cut never across parts."""
    step = np.arange(400)[:, None]
    images = np.clip(np.rint(np.hypot(step * 0.6 - 20, np.arange(64)[None, :] * 3.0)), 0, 255).astype(np.uint8)
    images = images.reshape(400, 8, 8, 1)
    asked = {
        "clusters__n_clusters": 300,
        "clusters__lloyd_limit": 0.0,
        "columns__tau": 1e12,
        "clusters__regime": "join",
    }
    whole = reduce_arrays(images, **asked)
    assert "cut_points" not in whole.summary["clusters"]["attempts"][-1]
    cut = reduce_arrays(images, **asked, clusters__largest=100)
    told = cut.summary["clusters"]["attempts"][-1]
    assert told["cut_points"] > 100
    assert told["cut_pairs"] > 0
    assert 0 < told["cut_beyond_rms"] < told["radius_rms"]
    assert any("clusters.largest = 100" in note for note in cut.summary["notes"])
    sizes = np.bincount(cut.clusters["cluster"])
    assert sizes.max() <= 100
    assert cut.summary["n_clusters"] == whole.summary["n_clusters"] == 300


def test_rows_for_tasks_are_those_asked_for(reduce_arrays: Reduce, monkeypatch: Any) -> None:
    """`largest` splits nothing here, so neither reads of few rows nor tasks of few points change a cluster."""
    images = planted_families(900, size=(8, 8), channels=1, redundancy=0.2, seed=9).images
    asked = {"clusters__n_clusters": 700, "clusters__lloyd_limit": 0.0}
    plain = reduce_arrays(images, **asked)
    monkeypatch.setattr(scatter, "READ", 7)
    monkeypatch.setattr(forest, "GROUP", 2)
    monkeypatch.setattr(centres, "TASK", 3)
    monkeypatch.setattr(centres, "PIECE", 2)
    split = reduce_arrays(images, **asked, blocks__rows=64)
    np.testing.assert_array_equal(split.clusters["cluster"], plain.clusters["cluster"])
    np.testing.assert_allclose(split.clusters["distance"], plain.clusters["distance"], rtol=1e-12)
    assert split.summary["clusters"]["squared_error"] == pytest.approx(plain.summary["clusters"]["squared_error"])


def test_parts_of_a_cut_chain_may_have_no_pairs_left(reduce_arrays: Reduce) -> None:
    """Parts of two points give too few merges at any radius: a set as small as this one is then merged whole."""
    images = planted_families(200, size=(8, 8), channels=1, redundancy=0.5, seed=2).images
    asked: dict[str, Any] = {"clusters__lloyd_limit": 0.0, "clusters__regime": "join", "clusters__n_clusters": 20}
    found = reduce_arrays(images, **asked, clusters__largest=2).summary
    assert found["n_clusters"] == 20
    assert [attempt["radius_rms"] is None for attempt in found["clusters"]["attempts"]] == [False, False, True]
    assert all(attempt["merges"] < 180 for attempt in found["clusters"]["attempts"][:2])


def test_many_points_get_the_merges_that_their_pairs_allow(reduce_arrays: Reduce, monkeypatch: Any) -> None:
    """No cells for them: fewer merges than asked, all of them right, and a word."""
    images = planted_families(5200, size=(4, 4), channels=1, redundancy=0.3, seed=3).images
    asked: dict[str, Any] = {"clusters__lloyd_limit": 0.0, "columns__tau": 1e12, "clusters__n_clusters": 2600}
    monkeypatch.setattr(join, "MANY", 1000)
    whole = reduce_arrays(images, **asked)
    few = reduce_arrays(images, **asked, clusters__max_pairs=400)
    assert few.summary["clusters"]["regime"] == "join"
    assert 2600 < few.summary["n_clusters"] < 5200
    assert any("merges are made where" in note for note in few.summary["notes"])
    height = few.summary["clusters"]["attempts"][-1]["radius_rms"]
    assert few.summary["clusters"]["cut_rms"] <= height < whole.summary["clusters"]["cut_rms"]
    # what was merged is together in the larger tree too
    together = whole.clusters["cluster"].to_numpy()
    for _, members in few.clusters.groupby("cluster")["row"]:
        assert len(set(together[members])) == 1
