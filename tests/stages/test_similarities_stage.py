"""The pairs that are listed, how they are decided, what is counted, and what stays the same whatever the blocks."""

from __future__ import annotations

import textwrap
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from planted_pairs import UP_TO_PAIRS, WITH_COEFFICIENTS, Driven, all_of, drive, pairs_of, planted_copies, shrunk
from scipy.stats import binomtest

import daskim
from daskim.errors import BlockFailed, SettingsError
from daskim.kernels.proportions import share_interval
from daskim.plugins import similarity_of
from daskim.similarities import NEAR, score
from daskim.stages import similarities
from daskim.synthetic import planted_families

Copies = tuple[np.ndarray, dict[str, set[tuple[int, int]]]]


@pytest.fixture(scope="module")
def copies() -> Copies:
    return planted_copies()


@pytest.fixture(scope="module")
def found(copies: Copies, tmp_path_factory: pytest.TempPathFactory) -> Driven:
    """By union and `aligned`."""
    return drive(tmp_path_factory.mktemp("union"), copies[0])


@pytest.fixture(scope="module")
def everything(copies: Copies, tmp_path_factory: pytest.TempPathFactory) -> Driven:
    """All pairs, by `aligned`."""
    return drive(tmp_path_factory.mktemp("all"), copies[0], candidates__method="all")


@pytest.fixture(scope="module")
def families() -> np.ndarray:
    return planted_families(300, size=(16, 16), redundancy=0.4, seed=6).images


def direct(name: str, images: np.ndarray, a: Any, b: Any, dtype: type = np.float64, screen: bool = False) -> np.ndarray:
    """What the similarity says, without the stage."""
    similarity = similarity_of(name, images.shape[1:], screen=screen)
    parts = similarity.parts(images, dtype)
    return score(similarity, parts, parts, np.asarray(a), np.asarray(b))


class TestPlanted:
    def test_all_copies_are_found(self, copies: Copies, found: Driven) -> None:
        _, truth = copies
        for kind, pairs in truth.items():
            assert pairs <= found.near(), kind
        assert found.near() == all_of(truth)

    def test_and_by_all_pairs(self, copies: Copies, everything: Driven) -> None:
        assert everything.near() == all_of(copies[1])

    def test_how_they_lie_on_one_another_is_told(self, copies: Copies, found: Driven) -> None:
        _, truth = copies
        table = found.table("pairs").set_index(["a", "b"])
        first = {kind: [pair for pair in sorted(pairs) if pair[0] < 35] for kind, pairs in truth.items()}
        assert (table.loc[first["mirrored"], "mirrored"] == 1).all()
        np.testing.assert_allclose(table.loc[first["crop of 3/4"], ["scale_y", "scale_x"]], 4 / 3, atol=0.03)
        np.testing.assert_allclose(table.loc[first["crop of 7/8"], ["scale_y", "scale_x"]], 8 / 7, atol=0.03)
        np.testing.assert_allclose(table.loc[first["moved"], "shift_x"].abs(), 1 / 32, atol=0.01)
        np.testing.assert_allclose(table.loc[first["moved"], "shift_y"], 0, atol=0.01)


class TestAll:
    def test_every_pair_once(self, copies: Copies, everything: Driven) -> None:
        n = len(copies[0])
        table = everything.table("pairs")
        assert list(zip(table["a"], table["b"])) == list(combinations(range(n), 2))
        assert np.isfinite(table["similarity"]).all()
        assert everything.facts["similarities"]["listed"] == n * (n - 1) // 2
        assert set(table["source"]) == {"all", "exact"}

    def test_in_float64_and_unscreened(self, copies: Copies, everything: Driven) -> None:
        table = everything.table("pairs")
        expected = direct("aligned", copies[0], table["a"], table["b"])
        other = table["source"].to_numpy() != "exact"
        np.testing.assert_array_equal(table["similarity"][other], expected[other, 0])

    def test_small_squares_give_the_same(
        self, copies: Copies, everything: Driven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(similarities, "SQUARE", 20)
        again = drive(tmp_path, copies[0], candidates__method="all", blocks__rows=33)
        assert len(again.run.parts("pairs")) > 10
        same_pairs(again, everything)


class TestEqualImages:
    def test_are_compared_once_and_listed_all(self, copies: Copies, everything: Driven, found: Driven) -> None:
        images, truth = copies
        distinct = len(np.unique(images, axis=0))
        assert everything.facts["similarities"]["compared"] == distinct * (distinct - 1) // 2
        for run in (everything, found):
            table = run.table("pairs")
            same = table[table["source"] == "exact"]
            assert pairs_of(same) == truth["copy"]
            assert (same["similarity"] == 1).all()
            assert len(pairs_of(table)) == len(table)

    def test_with_a_third_image_they_are_as_alike(self, copies: Copies, everything: Driven, found: Driven) -> None:
        _, truth = copies
        for run in (everything, found):
            table = run.table("pairs")
            of = {(a, b): s for a, b, s in table[["a", "b", "similarity"]].itertuples(index=False)}
            for first, copy in truth["copy"]:
                for third in range(len(copies[0])):
                    if third not in (first, copy):
                        pairs = [tuple(sorted((one, third))) for one in (first, copy)]
                        assert of.get(pairs[0]) == of.get(pairs[1])

    def test_too_many_are_refused_with_the_figure(self, tmp_path: Path) -> None:
        one = planted_families(3, size=(16, 16), redundancy=0.0, seed=0).images
        images = np.concatenate([one, np.repeat(one[:1], 60, axis=0)])
        with pytest.raises(SettingsError, match=r"1,830 pairs, more than candidates.max_pairs = 1,000"):
            drive(tmp_path, images, candidates__max_pairs=1000)
        fine = drive(tmp_path / "more", images, candidates__max_pairs=2000)
        assert len(fine.table("pairs")) == 61 * 60 // 2

    def test_copies_of_both_images_of_a_pair(self, tmp_path: Path) -> None:
        """Two copies of one and three of its mirror: six pairs, and four among themselves."""
        one = planted_families(4, size=(16, 16), redundancy=0.0, seed=0).images
        images = np.concatenate([one[:1, :, ::-1], one, one[:1], np.repeat(one[:1, :, ::-1], 2, axis=0)])
        run = drive(tmp_path, images)
        mirrors, plain = [0, 6, 7], [1, 5]
        expected = {(min(p, q), max(p, q)) for p in mirrors for q in plain}
        same = {(0, 6), (0, 7), (6, 7), (1, 5)}
        assert run.near() == expected | same
        table = run.table("pairs")
        assert (table["similarity"][table["source"] == "exact"] == 1).all()
        assert table[[pair in expected for pair in zip(table["a"], table["b"])]]["similarity"].nunique() == 1


@pytest.mark.parametrize("method", ["union", "all"])
def test_flat_images_are_listed_only_by_all(method: str, tmp_path: Path) -> None:
    images = planted_families(5, size=(16, 16), redundancy=0.0, seed=1).images
    flat = np.full((3, 16, 16, 3), 90, dtype=np.uint8)
    flat[2] = 91
    run = drive(tmp_path, np.concatenate([images, flat]), candidates__method=method)
    table = run.table("pairs")
    touched = set(table["a"]) | set(table["b"])
    if method == "all":
        assert len(table) == 8 * 7 // 2
    else:
        assert 7 not in touched
        assert pairs_of(table[table["a"] >= 5]) == {(5, 6)}  # which are equal


@pytest.mark.parametrize("method", ["union", "all", "lsh"])
@pytest.mark.parametrize("name", ["aligned", "ssim", "wavelet"])
@pytest.mark.parametrize("count", [0, 1])
def test_sets_without_a_pair(method: str, name: str, count: int, tmp_path: Path) -> None:
    """One flat image, with none or one that is not."""
    images = np.full((1 + count, 16, 16, 3), 100, dtype=np.uint8)
    images[1:] = planted_families(1, size=(16, 16), redundancy=0.0).images
    stages = WITH_COEFFICIENTS if name == "wavelet" else UP_TO_PAIRS
    run = drive(tmp_path, images, stages=stages, candidates__method=method, similarities__name=name)
    table = run.table("pairs")
    assert len(table) == (1 if method == "all" and count else 0)
    assert {"a", "b", "similarity", "source"} <= set(table)


class TestDecision:
    def test_near_the_threshold_float64_decides(self, families: np.ndarray, tmp_path: Path) -> None:
        """The threshold is one pair's float64 value, on which float32 is wrong: both ways."""
        first = drive(tmp_path / "first", families, similarities__name="ssim").table("pairs")
        exact, single = (
            direct("ssim", families, first["a"], first["b"], dtype)[:, 0] for dtype in (np.float64, np.float32)
        )
        fair = (exact > 0.3) & (exact < 0.95)
        for sign in (1, -1):
            at = np.flatnonzero(fair & (sign * (single - exact) > 0))[0]
            run = drive(
                tmp_path / f"at{sign}", families, similarities__name="ssim", similarities__min_similarity=exact[at]
            )
            table = run.table("pairs")
            assert pairs_of(table) == pairs_of(first)
            assert table["similarity"][at] == exact[at] != single[at]
            np.testing.assert_array_equal(table["similarity"] >= exact[at], exact >= exact[at])
            close = np.abs(single - exact[at]) <= NEAR
            np.testing.assert_array_equal(table["similarity"][close], exact[close])
            np.testing.assert_array_equal(table["similarity"][~close], single[~close])
            assert run.facts["similarities"]["near"] == (exact >= exact[at]).sum()

    def test_the_similarity_has_its_own_threshold(self, families: np.ndarray, tmp_path: Path) -> None:
        for name, least in (("aligned", 0.6), ("ssim", 0.75)):
            assert drive(tmp_path / name, families, similarities__name=name).facts["similarities"][
                "min_similarity"
            ] == least  # fmt: skip

    def test_pairs_below_it_are_listed_as_well(self, families: np.ndarray, tmp_path: Path) -> None:
        low = drive(tmp_path / "low", families, similarities__name="ssim", similarities__min_similarity=0.2)
        high = drive(tmp_path / "high", families, similarities__name="ssim", similarities__min_similarity=0.9)
        assert pairs_of(low.table("pairs")) == pairs_of(high.table("pairs")) == pairs_of(high.table("candidates"))
        assert high.facts["similarities"]["near"] < low.facts["similarities"]["near"]


class TestCounts:
    def test_pairs_by_the_level_they_reached(self, copies: Copies, found: Driven) -> None:
        facts = found.facts["similarities"]
        table = found.table("candidates")
        reached = direct("aligned", copies[0], table["a"], table["b"], np.float32, screen=True)
        n = len(copies[0])
        assert facts["compared"] == len(table) == facts["by_level"]["1"]["pairs"]
        for level in (1, 2, 3):
            expected = int((reached[:, -1] >= level).sum())
            assert facts["by_level"][str(level)] == {"pairs": expected, "share": expected / (n * (n - 1) / 2)}
        assert facts["by_level"]["3"]["pairs"] < facts["compared"]
        listed = np.isfinite(reached[:, 0])
        pairs = found.table("pairs")
        expected = pairs_of(table[listed])
        assert expected <= pairs_of(pairs)
        assert facts["listed"] == len(pairs) == len(expected) + facts["copies"]
        sample = facts["recall"]["compared"]
        assert facts["compared_share"] == pytest.approx(facts["compared"] / (n * (n - 1) / 2))
        assert facts["recall"]["compared_share"] == pytest.approx(sample / (n * (n - 1) / 2))

    def test_blocks_read(self, families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each task reads the blocks of its pairs once."""
        monkeypatch.setattr(daskim.settings, "PART", 64)
        run = drive(tmp_path, families, blocks__rows=30, candidates__correlation=0.3)
        reads = 0
        for key in run.run.parts("candidates"):
            part = run.run.read_part("candidates", key).to_pandas()
            reads += len(set(part["a"] // 30) | set(part["b"] // 30))
        facts = run.facts["similarities"]
        assert len(run.run.parts("candidates")) > 5
        assert facts["block_reads_per_pair"] == pytest.approx(reads / facts["compared"])
        assert facts["block_reads_per_pair"] < 1 / 3


class TestRecall:
    @pytest.mark.parametrize(("found", "total"), [(0, 0), (0, 7), (7, 7), (3, 7), (95, 100), (1, 1000)])
    def test_interval_of_clopper_and_pearson(self, found: int, total: int) -> None:
        if not total:
            assert share_interval(found, total) == (0.0, 1.0)
            return
        expected = binomtest(found, total).proportion_ci(0.95, method="exact")
        assert share_interval(found, total) == pytest.approx((expected.low, expected.high), abs=1e-9)

    def test_of_all_images_it_is_the_share_that_was_found(
        self, copies: Copies, everything: Driven, tmp_path: Path
    ) -> None:
        """MinHash bands miss the crops; the copies of one image count once."""
        run = drive(tmp_path, copies[0], candidates__method="lsh")
        recall = run.facts["similarities"]["recall"]
        first = run.table("representatives")["first"].to_numpy()
        truth = {pair for pair in everything.near() if all(first[row] == row for row in pair)}
        hit = truth & run.near()
        assert 0 < len(hit) < len(truth)
        assert recall["images"] == run.facts["candidates"]["searched"]
        assert (recall["found"], recall["pairs"]) == (len(hit), len(truth))
        assert recall["recall"] == len(hit) / len(truth)
        assert (recall["low"], recall["high"]) == share_interval(len(hit), len(truth))
        assert any("recall" in note and f"{len(hit)} of {len(truth)}" in note for note in run.notes)

    def test_of_some_images(self, families: np.ndarray, tmp_path: Path) -> None:
        """The drawn ones against all others: each pair once, and no other image decides."""
        run = drive(tmp_path, families, candidates__method="lsh", candidates__sample=12_000, candidates__seed=5)
        recall = run.facts["similarities"]["recall"]
        searched = run.facts["candidates"]["searched"]
        assert recall["images"] == 12_000 // searched
        k = recall["images"]
        assert recall["compared"] == k * (searched - k) + k * (k - 1) // 2
        drawn = set(run.run.load("partial", "similarities", "drawn.npy").tolist())
        every = drive(tmp_path / "all", families, candidates__method="all")
        truth = {pair for pair in every.near() if drawn & set(pair)}
        assert recall["pairs"] == len(truth) > 3
        assert recall["found"] == len(truth & run.near())

    def test_none_asked_for_and_none_to_find(self, families: np.ndarray, tmp_path: Path) -> None:
        assert drive(tmp_path / "a", families, candidates__sample=0).facts["similarities"]["recall"] is None
        alone = planted_families(30, size=(16, 16), redundancy=0.0, seed=2).images
        run = drive(tmp_path / "b", alone)
        assert run.facts["similarities"]["recall"]["recall"] is None
        assert any("recall unknown" in note for note in run.notes)


def photographs_at(folder: Path, sides: list[tuple[int, int]], seed: int = 0) -> list[np.ndarray]:
    """Scenes of 64 x 64 as files of those sizes (h, w): the second half shows the first, mirrored."""
    half = len(sides) // 2
    made = planted_families(half, size=(64, 64), redundancy=0.0, seed=seed).images
    folder.mkdir(parents=True)
    out = []
    for number, (image, side) in enumerate(zip(np.concatenate([made, made[:, :, ::-1]]), sides)):
        scaled = Image.fromarray(image).resize(side[::-1], Image.Resampling.BOX)
        scaled.save(folder / f"{number:03d}.png")
        out.append(np.array(scaled))
    return out


class TestOtherSizes:
    def test_candidates_are_read_again_and_nothing_else(self, tmp_path: Path) -> None:
        images = photographs_at(tmp_path / "set", [(64, 64)] * 40)
        extra = planted_families(60, size=(64, 64), redundancy=0.0, seed=9).images
        for number, image in enumerate(extra):
            Image.fromarray(image).save(tmp_path / "set" / f"{40 + number:03d}.png")
        run = drive(
            tmp_path,
            tmp_path / "set",
            images__size="16x16",
            images__filter="area",
            similarities__size="64x64",
            similarities__name="ssim",
            candidates__correlation=0.9,
            candidates__sample=0,
        )
        table = run.table("candidates")
        used = sorted(set(table["a"]) | set(table["b"]))
        assert {(k, 20 + k) for k in range(20)} <= pairs_of(table)
        assert len(used) < 70
        pictures = run.run.array("pictures")
        assert pictures.shape == (len(used), 64, 64, 3)
        shown = np.concatenate([np.stack(images), extra])
        np.testing.assert_array_equal(pictures[:], shown[used])
        pairs = run.table("pairs")
        np.testing.assert_allclose(
            pairs["similarity"], direct("ssim", shown, pairs["a"], pairs["b"])[:, 0], rtol=0, atol=1e-5
        )
        assert run.facts["similarities"]["size"] == "64x64"

    def test_the_standard_size_by_its_name_reads_nothing(self, copies: Copies, tmp_path: Path) -> None:
        run = drive(tmp_path, copies[0], images__size="32x32", similarities__size="32x32")
        assert run.computed["similarities"] == len(run.run.parts("candidates")) + len(
            [key for key in run.run.marked("similarities") if key.startswith("recall")]
        )
        assert not run.run.exists("arrays", "pictures")

    def test_what_is_not_of_the_native_size_is_left_out_and_counted(self, tmp_path: Path) -> None:
        sides = [(48, 64)] * 12
        sides[8] = (40, 64)  # the mirrored form of 2
        photographs_at(tmp_path / "set", sides)
        run = drive(tmp_path, tmp_path / "set", images__size="32x32", similarities__size="native")
        facts = run.facts["similarities"]
        assert facts["size"] == "48x64"
        assert facts["unreadable"] == 1
        assert any("1 images cannot be read at native" in note for note in run.notes)
        assert (2, 8) in pairs_of(run.table("candidates"))
        assert run.near() == {(k, 6 + k) for k in range(6) if k != 2}
        table = run.table("pairs")
        assert 8 not in set(table["a"]) | set(table["b"])

    @pytest.mark.parametrize("method", ["all", "union"])
    def test_a_broken_image_is_in_no_pair(self, method: str, tmp_path: Path) -> None:
        photographs_at(tmp_path / "set", [(32, 32)] * 12)
        (tmp_path / "set" / "003.png").write_bytes(b"no image")
        run = drive(tmp_path, tmp_path / "set", candidates__method=method, images__max_bad=0.5)
        table = run.table("pairs")
        assert 3 not in set(table["a"]) | set(table["b"])
        assert run.near() == {(k, 6 + k) for k in range(6) if k != 3}
        if method == "all":
            assert len(table) == 11 * 10 // 2

    def test_blocks_do_not_matter(self, tmp_path: Path) -> None:
        photographs_at(tmp_path / "set", [(48, 64)] * 30)
        settings = {"images__size": "16x16", "similarities__size": "40x40"}
        one = drive(tmp_path / "one", tmp_path / "set", **settings, workers=1)
        other = drive(tmp_path / "other", tmp_path / "set", **settings, blocks__rows=7)
        same_pairs(one, other)


class TestPlugIns:
    def test_one_from_outside(self, families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "similarity_from_outside.py").write_text(
            textwrap.dedent(
                '''
                """Difference of the mean grey levels."""
                import numpy as np

                class Means:
                    lowest, threshold, of, batch, pair_bytes = 0.0, 0.99, "pixels", 8, 1000
                    reports, screens, versions = ("left",), False, {"means": "3"}

                    def __init__(self, shape):
                        self.shape = shape

                    def parts(self, images, dtype):
                        return (images.mean(axis=(1, 2, 3)).astype(dtype),)

                    def compare(self, left, right):
                        return np.stack([1 - abs(left[0] - right[0]) / 255.0, left[0]], axis=1).astype(np.float64)
                '''
            )
        )
        monkeypatch.syspath_prepend(tmp_path)
        run = drive(tmp_path, families, similarities__name="similarity_from_outside.Means")
        means = families.mean(axis=(1, 2, 3))
        table = run.table("pairs")
        assert pairs_of(table) == pairs_of(run.table("candidates"))
        expected = 1 - np.abs(means[table["a"]] - means[table["b"]]) / 255
        np.testing.assert_allclose(table["similarity"], expected, atol=1e-6)
        np.testing.assert_allclose(table["left"], means[table["a"]], rtol=1e-6)
        assert run.facts["similarities"]["min_similarity"] == 0.99
        assert similarities.STAGE.versions(
            daskim.resolve.resolve([("test", {"similarities.name": "similarity_from_outside.Means"})])
        ) == {"means": "3"}

    def test_wavelet_by_hand(self, tmp_path: Path) -> None:
        """All columns kept: the distance is the RMS difference in grey levels."""
        images = planted_families(300, size=(8, 8), redundancy=0.4, seed=6).images
        run = drive(tmp_path, images, stages=WITH_COEFFICIENTS, similarities__name="wavelet", columns__tau=1e12)
        assert run.facts["columns"]["m"] == 192
        table = run.table("pairs")
        assert len(table) > 100
        difference = images[table["a"]].astype(np.float64) - images[table["b"]]
        rms = np.sqrt((difference**2).mean(axis=(1, 2, 3)))
        np.testing.assert_allclose(table["similarity"], 1 / (1 + rms), rtol=1e-5)
        assert run.facts["similarities"]["size"] == "coefficients"

    @pytest.mark.parametrize("name", ["wavelet", "ssim", "aligned"])
    def test_from_end_to_end(self, name: str, families: np.ndarray, tmp_path: Path) -> None:
        """Through the pipeline, with the stages that the similarity needs."""
        np.savez(tmp_path / "set.npz", images=families)
        found = daskim.reduce(
            tmp_path / "set.npz",
            run=tmp_path / "run",
            settings={"method": "similarity", "images.size": "native", "similarities.name": name},
            workers=2,
        )
        facts = found.summary["similarities"]
        assert facts["name"] == name
        assert len(found.pairs) == facts["listed"]
        assert (found.pairs["similarity"] >= facts["min_similarity"]).sum() == facts["near"]
        assert found.summary["candidates"]["method"] == "union"
        assert found.summary["n_drop"] > 0


def same_pairs(one: Driven, other: Driven) -> None:
    left, right = one.table("pairs"), other.table("pairs")
    assert len(left)
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    skip = {"block_reads_per_pair", "block_reads_per_part"}
    facts = [{k: v for k, v in run.facts["similarities"].items() if k not in skip} for run in (one, other)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("name", ["aligned", "ssim"])
@pytest.mark.parametrize("values", [{"blocks__rows": 30}, {"blocks__rows": 300, "workers": 1}], ids=str)
def test_blocks_and_threads_do_not_matter(
    name: str, values: dict[str, Any], families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daskim.settings, "PART", 40)
    one = drive(tmp_path / "one", families, similarities__name=name, blocks__rows=101)
    other = drive(tmp_path / "other", families, similarities__name=name, **values)
    same_pairs(one, other)


@pytest.mark.parametrize("name", ["aligned", "ssim"])
def test_small_tiles_give_the_same(
    name: str, families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many images are held at a time as memory allows; which, does not matter."""
    one = drive(tmp_path / "one", families, similarities__name=name)
    monkeypatch.setattr(similarities, "PARTS_BYTES", 200_000)
    same_pairs(drive(tmp_path / "other", families, similarities__name=name), one)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"candidates__method": "lsh"},
        {"similarities__size": "20x20"},
        {"similarities__name": "wavelet"},
        {"candidates__across": "splits"},
    ],
    ids=str,
)
def test_a_copy_in_the_order_of_the_candidates_gives_the_same(
    values: dict[str, Any], families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is made of many images: through several groups of places, and blocks of a few images."""
    for number, image in enumerate(families):
        path = tmp_path / "set" / ("train" if number % 3 else "test") / "some" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    asked: dict[str, Any] = {"images__size": "16x16", "stages": WITH_COEFFICIENTS, **values}
    monkeypatch.setattr(daskim.settings, "PART", 64)
    one = drive(tmp_path / "one", tmp_path / "set", **asked)
    monkeypatch.setattr(similarities.pictures, "KEPT_BYTES", 1)
    monkeypatch.setattr(similarities.pictures, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(similarities.pictures, "GROUP_BYTES", 40_000)
    other = drive(tmp_path / "other", tmp_path / "set", **asked)
    same_pairs(one, other)
    marked = other.run.marked("similarities") - one.run.marked("similarities")
    assert len([key for key in marked if key.startswith("enter-")]) > 1
    assert not other.run.exists("arrays", "arranged")
    other.run.remove("state", "similarities", "sealed.json")  # as after a kill just before the seal
    same_pairs(drive(tmp_path / "other", tmp_path / "set", **asked), one)


@pytest.mark.slow
def test_processes_do_not_matter(copies: Copies, found: Driven, tmp_path: Path) -> None:
    """Two worker processes of a LocalCluster, blocks of another size."""
    again = drive(tmp_path, copies[0], place="local", workers=2, blocks__rows=29)
    for name in ("representatives", "candidates", "nearest"):
        pd.testing.assert_frame_equal(again.table(name), found.table(name), check_exact=True)
    same_pairs(again, found)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("compare_part", {}),
        ("compare_tile", {"candidates__method": "all"}),
        ("compare_sample", {}),
        ("read_pictures", {"similarities__size": "20x20"}),
    ],
)
def test_after_a_failed_task_the_rest_is_done(
    name: str, values: dict[str, Any], families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: finished parts stay as they are, and the tables are those of an undisturbed run."""
    monkeypatch.setattr(daskim.settings, "PART", 40)
    monkeypatch.setattr(similarities, "SQUARE", 50)
    monkeypatch.setattr(similarities, "DRAWN_PAIRS", 9_000)
    where = similarities.pictures if name == "read_pictures" else similarities
    monkeypatch.setattr(similarities.pictures, "READ", 16)
    whole = drive(tmp_path / "whole", families, workers=1, **values)
    real, calls = getattr(where, name), []

    def failing(*call: Any) -> Any:
        calls.append(call)
        if len(calls) == 3:
            raise RuntimeError("planted")
        return real(*call)

    monkeypatch.setattr(where, name, failing)
    with pytest.raises(BlockFailed, match="planted"):
        drive(tmp_path / "broken", families, workers=1, **values)
    broken = tmp_path / "broken" / "run"
    blocks = broken / "state" / "similarities" / "blocks"
    marks = {path.name: path.stat().st_mtime_ns for path in blocks.iterdir()}
    parts = {path.name: path.stat().st_mtime_ns for path in (broken / "tables").glob("pairs/*.parquet")}
    monkeypatch.setattr(where, name, real)
    again = drive(tmp_path / "broken", families, workers=1, **values)
    assert len(marks) >= 2
    after = {path.name: path.stat().st_mtime_ns for path in blocks.iterdir()}
    assert {key: after[key] for key in marks} == marks
    finished = {key: time for key, time in parts.items() if key.replace(".parquet", "") in again.run.parts("pairs")}
    kept = {key: time for key, time in again.mtimes("pairs").items() if key in finished and "copies" not in key}
    assert kept == {key: time for key, time in finished.items() if "copies" not in key}
    assert again.computed["similarities"] == whole.computed["similarities"] - len(marks)
    same_pairs(again, whole)


def test_pictures_read_again_are_those_of_the_run(tmp_path: Path) -> None:
    """Two runs in one process, of sets of the same name and size, do not meet in the caches."""
    for seed in (1, 2):
        made = photographs_at(tmp_path / f"set{seed}", [(32, 32)] * 8, seed=seed)
        settings = {"images__size": "16x16", "similarities__size": "32x32", "similarities__name": "ssim"}
        run = drive(tmp_path / f"run{seed}", tmp_path / f"set{seed}", candidates__correlation=-1.0, **settings)
        table = run.table("pairs")
        assert len(table) > 4
        np.testing.assert_allclose(
            table["similarity"], direct("ssim", np.stack(made), table["a"], table["b"])[:, 0], rtol=0, atol=1e-5
        )
        assert shrunk(np.stack(made), 16).shape == (8, 16, 16, 3)
