"""Candidates: planted copies are among them, and bands, neighbours and sources are those of oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasketch import MinHash, MinHashLSH
from planted_pairs import UP_TO_PAIRS, Driven, all_of, drive, pairs_of, planted_copies

from daskim import settings as settings_module
from daskim.errors import BlockFailed, SettingsError
from daskim.kept import SIDE_BY_SIDE
from daskim.kernels.coarse import forms, luma
from daskim.kernels.lsh import EMPTY, least_agreement, signed_top_coefficients, sketches
from daskim.settings import Candidates
from daskim.stages.candidates import bands as bands_module
from daskim.stages.candidates import cells as cells_module
from daskim.stages.candidates import join as join_module
from daskim.stages.candidates import order, unite
from daskim.synthetic import planted_families

UP_TO_CANDIDATES = UP_TO_PAIRS[:-1]
JOIN = {"candidates__method": "join"}
LSH = {"candidates__method": "lsh", "candidates__least_jaccard": 0.0}  # what shares a band, and all of it


def candidates_of(folder: Path, images: Any, **values: Any) -> Driven:
    return drive(folder, images, stages=UP_TO_CANDIDATES, **values)


@pytest.fixture(scope="module")
def copies() -> tuple[np.ndarray, dict[str, set[tuple[int, int]]]]:
    return planted_copies()


@pytest.fixture(scope="module")
def families() -> np.ndarray:
    return planted_families(500, size=(16, 16), redundancy=0.5, seed=4).images


@pytest.fixture(scope="module")
def of_families(families: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Driven:
    return candidates_of(tmp_path_factory.mktemp("union"), families)


def represented(truth: set[tuple[int, int]], first: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of the images that stand for those of the truth."""
    both = {(min(first[a], first[b]), max(first[a], first[b])) for a, b in truth}
    return {(int(a), int(b)) for a, b in both if a != b}


def test_planted_copies_are_among_them(copies: Any, tmp_path: Path) -> None:
    images, truth = copies
    found = candidates_of(tmp_path, images)
    first = found.table("representatives")["first"].to_numpy()
    table = found.table("candidates")
    assert (table["a"] < table["b"]).all()
    assert len(pairs_of(table)) == len(table) == found.facts["candidates"]["candidates"]
    for kind, pairs in truth.items():
        assert represented(pairs, first) <= pairs_of(table), kind
    assert len(table) < 2 * len(all_of(truth)), "hardly anything else"


def test_forms_that_are_not_asked_for_are_not_looked_up(copies: Any, tmp_path: Path) -> None:
    images, truth = copies
    found = candidates_of(tmp_path, images, candidates__mirror=False, candidates__crops=[])
    pairs = pairs_of(found.table("candidates"))
    assert not truth["mirrored"] & pairs
    assert truth["crop of 3/4"] - pairs
    assert truth["brighter"] | truth["less contrast"] <= pairs


class TestRepresentatives:
    def test_one_image_stands_for_its_copies(self, copies: Any, tmp_path: Path) -> None:
        images, truth = copies
        found = candidates_of(tmp_path, images)
        first = found.table("representatives").set_index("row")["first"]
        assert first.tolist() == [min([a for a, b in truth["copy"] if b == row], default=row) for row in first.index]
        alone = set(first[first == first.index].tolist())
        assert found.facts["candidates"]["searched"] == len(alone) == len(np.unique(images, axis=0))
        table = found.table("candidates")
        assert set(table["a"]) | set(table["b"]) <= alone

    @pytest.mark.parametrize("size", ["standard", "20x20"])
    def test_equal_standard_images_are_equal_only_if_those_are_seen(self, size: str, tmp_path: Path) -> None:
        """Two photographs that shrink to the same pixels are no copies where F sees more of them."""
        from PIL import Image

        large = np.random.default_rng(0).integers(0, 200, (3, 32, 32, 3)).astype(np.uint8)
        other = large[:1].copy()
        other[0, 0, 0], other[0, 0, 1] = large[0, 0, 1], large[0, 0, 0]  # the same mean of four pixels
        (tmp_path / "set").mkdir()
        for number, image in enumerate(np.concatenate([large, other, large[1:2]])):
            Image.fromarray(image).save(tmp_path / "set" / f"{number}.png")
        found = candidates_of(
            tmp_path, tmp_path / "set", images__size="16x16", images__filter="area", similarities__size=size
        )
        digests = found.table("images")["digest"]
        assert digests[0] == digests[3], "the standard images are equal"
        assert found.table("representatives")["first"].tolist() == [0, 1, 2, 0 if size == "standard" else 3, 1]


def with_flat_images() -> np.ndarray:
    images = planted_families(6, size=(16, 16), redundancy=0.0, seed=1).images
    flat = np.full((3, 16, 16, 3), 200, dtype=np.uint8)
    flat[2, :8] = 201
    return np.concatenate([images, flat])


class TestFlatImages:
    @pytest.mark.parametrize("method", ["lsh", "join", "union"])
    def test_are_not_searched(self, method: str, tmp_path: Path) -> None:
        found = candidates_of(tmp_path, with_flat_images(), candidates__method=method)
        assert found.facts["candidates"]["searched"] == 6
        table = found.table("candidates")
        assert not {6, 7, 8} & (set(table["a"]) | set(table["b"]))

    def test_are_among_all(self, tmp_path: Path) -> None:
        found = candidates_of(tmp_path, with_flat_images(), candidates__method="all")
        assert found.facts["candidates"]["searched"] == 8  # two of the three are equal
        assert found.table("representatives")["first"].tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 8]

    @pytest.mark.parametrize("method", ["lsh", "join", "union"])
    @pytest.mark.parametrize("count", [0, 1])
    def test_none_or_one_that_is_not(self, method: str, count: int, tmp_path: Path) -> None:
        found = candidates_of(tmp_path, with_flat_images()[6 - count :], candidates__method=method)
        assert found.facts["candidates"]["searched"] == count
        assert found.facts["candidates"]["candidates"] == 0
        assert (found.table("nearest")["nearest_row"] == -1).all()


class TestAll:
    def test_refused_above_the_bound_with_the_figure(self, families: np.ndarray, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"124,750, more than candidates.max_pairs = 124,749"):
            candidates_of(tmp_path, families, candidates__method="all", candidates__max_pairs=124_749)
        found = candidates_of(tmp_path / "more", families, candidates__method="all", candidates__max_pairs=124_750)
        assert found.facts["candidates"]["candidates"] == 500 * 499 // 2

    def test_so_are_too_many_candidates(self, families: np.ndarray, of_families: Driven, tmp_path: Path) -> None:
        count = of_families.facts["candidates"]["candidates"]
        with pytest.raises(SettingsError, match=rf"{count:,}, more than candidates.max_pairs = 100"):
            candidates_of(tmp_path, families, candidates__max_pairs=100)


def test_sources_are_right(families: np.ndarray, of_families: Driven, tmp_path: Path) -> None:
    """The union is that of both, and each pair says which of them found it."""
    join = pairs_of(candidates_of(tmp_path / "join", families, **JOIN).table("candidates"))
    lsh = pairs_of(candidates_of(tmp_path / "lsh", families, candidates__method="lsh").table("candidates"))
    assert min(len(join - lsh), len(lsh & join)) > 10
    expected = {pair: "+".join(["join"] * (pair in join) + ["lsh"] * (pair in lsh)) for pair in join | lsh}
    table = of_families.table("candidates")
    assert {(a, b): source for a, b, source in table[["a", "b", "source"]].itertuples(index=False)} == expected
    facts = of_families.facts["candidates"]
    assert (facts["join_pairs"], facts["lsh_pairs"]) == (len(join), len(lsh))
    assert (table["correlation"].notna() == table["source"].str.contains("join")).all()


class TestJoin:
    def test_nearest_of_all_against_brute_force(self, families: np.ndarray, tmp_path: Path) -> None:
        """With all directions the correlation is that of the coarse forms themselves."""
        found = candidates_of(
            tmp_path,
            families,
            **JOIN,
            candidates__directions=192,
            candidates__neighbours=5,
            candidates__correlation=0.5,
        )
        made = forms(families, (0.875, 0.75), mirror=True).astype(np.float64)
        score = np.einsum("qfk,rk->qfr", made, made[:, 0]).max(axis=1)
        np.fill_diagonal(score, -1)
        table = found.table("candidates")
        either = np.maximum(score, score.T)
        a, b = table["a"].to_numpy(), table["b"].to_numpy()
        order = np.sort(score, axis=1)[:, ::-1]
        least = np.maximum(order[:, 4], 0.5)  # the fifth of each image
        expected = {(min(q, r), max(q, r)) for q, r in np.argwhere(score >= least[:, None] + 6e-4).tolist()}
        allowed = {(min(q, r), max(q, r)) for q, r in np.argwhere(score >= least[:, None] - 6e-4).tolist()}
        assert len(expected) > 100
        assert expected <= pairs_of(table) <= allowed
        # the better side of a pair may not have kept it
        assert (table["correlation"] <= either[a, b] + 6e-4).all()
        assert (table["correlation"] >= np.minimum(score, score.T)[a, b] - 6e-4).all()

    def test_the_nearest_is_told(self, of_families: Driven) -> None:
        """For each image, the best correlation of a pair it is in."""
        table = of_families.table("candidates").dropna(subset="correlation")
        best: dict[int, tuple[float, int]] = {}
        for a, b, value in table[["a", "b", "correlation"]].itertuples(index=False):
            for row, other in ((a, b), (b, a)):
                best[row] = min(best.get(row, (np.inf, -1)), (-value, other))
        nearest = of_families.table("nearest")
        assert len(nearest) == 500
        for row, other, value in nearest.itertuples(index=False):
            assert other == best.get(row, (0, -1))[1]
            assert np.isnan(value) if other < 0 else value == pytest.approx(-best[row][0])

    @pytest.mark.parametrize("cells", [None, 9])
    def test_cells_find_nearly_what_all_blocks_find(
        self, cells: int | None, families: np.ndarray, tmp_path: Path
    ) -> None:
        every = candidates_of(tmp_path / "all", families, **JOIN, candidates__correlation=0.8)
        some = candidates_of(
            tmp_path / "cells",
            families,
            **JOIN,
            candidates__correlation=0.8,
            candidates__all_blocks=499,
            candidates__cells=cells,
        )
        facts = some.facts["candidates"]
        assert every.facts["candidates"]["join"] == "all blocks"
        assert facts["join"] == "cells"
        assert facts["cells"] == (cells or round(500**0.5))
        assert facts["coarse_share"] < every.facts["candidates"]["coarse_share"] == 1
        whole, found = pairs_of(every.table("candidates")), pairs_of(some.table("candidates"))
        assert len(whole) > 150
        assert len(found & whole) >= 0.95 * len(whole)

    def test_cells_that_are_all_probed_miss_nothing(self, families: np.ndarray, tmp_path: Path) -> None:
        every = candidates_of(tmp_path / "all", families, **JOIN)
        some = candidates_of(
            tmp_path / "cells",
            families,
            **JOIN,
            candidates__all_blocks=1,
            candidates__cells=4,
            candidates__probes=4,
        )
        assert pairs_of(some.table("candidates")) == pairs_of(every.table("candidates"))

    def test_small_tasks_give_the_same(
        self, families: np.ndarray, of_families: Driven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many queries as one task has here, so that sets of many tasks are what is tested."""
        monkeypatch.setattr(cells_module, "QUERY", 60)
        for name, values in {"all": {}, "cells": {"candidates__all_blocks": 1}}.items():
            few = candidates_of(tmp_path / name, families, **JOIN, **values)
            monkeypatch.setattr(cells_module, "QUERY", 2048)
            many = candidates_of(tmp_path / f"{name}-many", families, **JOIN, **values)
            assert pairs_of(few.table("candidates")) == pairs_of(many.table("candidates"))
            monkeypatch.setattr(cells_module, "QUERY", 60)


def by_datasketch(signatures: np.ndarray, queries: np.ndarray, b: int, r: int) -> set[tuple[int, int]]:
    """Pairs a < b that MinHashLSH finds."""
    index = MinHashLSH(num_perm=signatures.shape[1], params=(b, r))
    for row, values in enumerate(signatures):
        index.insert(row, MinHash(hashvalues=values, scheme="affine32"))
    found = set()
    for query, values in enumerate(queries):
        for row in index.query(MinHash(hashvalues=values, scheme="affine32")):
            found.add((min(query, row), max(query, row)))
    return {(a, b) for a, b in found if a != b}


class TestBands:
    @pytest.mark.parametrize("mirror", [False, True])
    def test_pairs_are_those_of_datasketch(self, families: np.ndarray, tmp_path: Path, mirror: bool) -> None:
        images = np.concatenate([families[:300], families[:40, :, ::-1]])
        found = candidates_of(tmp_path, images, **LSH, candidates__mirror=mirror, candidates__bucket=10_000)
        facts = found.facts["candidates"]
        signatures = found.run.array("signatures")[:]
        count = facts["permutations"]
        assert signatures.shape == (340, count * (2 if mirror else 1))
        expected = by_datasketch(signatures[:, :count], signatures[:, :count], facts["bands"], facts["band_rows"])
        if mirror:
            expected |= by_datasketch(signatures[:, :count], signatures[:, count:], facts["bands"], facts["band_rows"])
            assert {(k, 300 + k) for k in range(40)} <= expected
        assert len(expected) > 40
        assert pairs_of(found.table("candidates")) == expected

    def test_pairs_of_other_signatures_are_left_out(self, families: np.ndarray, tmp_path: Path) -> None:
        """Of the pairs that share a band, in each form, those whose bits are equal as often as is asked for."""
        every = candidates_of(tmp_path / "all", families, **LSH)
        facts, signatures = every.facts["candidates"], every.run.array("signatures")[:]
        count = facts["permutations"]
        forms = signatures.reshape(len(families), 2, count)
        least, bits = least_agreement(0.5, count), np.unpackbits(sketches(forms), axis=2)[:, :, :count]
        shape = (facts["bands"], facts["band_rows"])

        def alike(a: int, b: int) -> bool:
            for x, y, form in ((a, b, 0), (a, b, 1), (b, a, 1)):
                equal = forms[x, 0] == forms[y, form]
                met = equal[: shape[0] * shape[1]].reshape(shape).all(axis=1).any()
                if met and (bits[x, 0] == bits[y, form]).sum() >= least:
                    return True
            return False

        found = candidates_of(tmp_path / "few", families, candidates__method="lsh")
        kept, met = pairs_of(found.table("candidates")), pairs_of(every.table("candidates"))
        assert kept == {pair for pair in met if alike(*pair)}
        assert 0 < len(kept) < len(met)
        assert found.facts["candidates"]["met"] == facts["met"] >= len(met)

    def test_signatures_are_those_of_datasketch(self, families: np.ndarray, tmp_path: Path) -> None:
        found = candidates_of(tmp_path, families[:20], **LSH, candidates__coefficients=25, candidates__seed=3)
        signatures = found.run.array("signatures")[:]
        count = found.facts["candidates"]["permutations"]
        for images, columns in (
            (families[:20], signatures[:, :count]),
            (families[:20, :, ::-1], signatures[:, count:]),
        ):
            for tokens, values in zip(signed_top_coefficients(luma(images, bands_module.SIDE), 25), columns):
                one = MinHash(num_perm=count, seed=3, hashfunc=int, scheme="affine32")
                for token in tokens[tokens >= 0].tolist():
                    one.update(token)
                np.testing.assert_array_equal(one.hashvalues, values)

    @pytest.mark.parametrize("mirror", [False, True])
    def test_signatures_of_crops_find_crops(self, copies: Any, tmp_path: Path, mirror: bool) -> None:
        """Optional; the columns of each form stand side by side, and all of them are datasketch's pairs."""
        images, truth = copies
        plain = candidates_of(tmp_path / "plain", images, **LSH, candidates__mirror=mirror)
        more = candidates_of(
            tmp_path / "crops", images, **LSH, candidates__mirror=mirror, candidates__crop_signatures=True
        )
        facts, signatures = more.facts["candidates"], more.run.array("signatures")[:]
        count, forms_of_one = facts["permutations"], 6 if mirror else 3
        assert signatures.shape == (len(images), count * forms_of_one)
        alone = np.flatnonzero(more.table("representatives")["first"] == np.arange(len(images)))
        columns = [signatures[alone, form * count : (form + 1) * count] for form in range(forms_of_one)]
        expected = set().union(
            *(by_datasketch(columns[0], column, facts["bands"], facts["band_rows"]) for column in columns)
        )
        assert pairs_of(more.table("candidates")) == {(alone[a], alone[b]) for a, b in expected}
        crops = truth["crop of 7/8"] | truth["crop of 3/4"]
        found = [len(crops & pairs_of(run.table("candidates"))) for run in (plain, more)]
        assert found[1] >= found[0] + 5

    def test_recall_and_similarity_choose_the_bands(self, families: np.ndarray, tmp_path: Path) -> None:
        loose = candidates_of(tmp_path / "a", families[:50], **LSH, candidates__recall=0.99)
        strict = candidates_of(tmp_path / "b", families[:50], **LSH, candidates__recall=0.8)
        for found, recall in ((loose, 0.99), (strict, 0.8)):
            facts = found.facts["candidates"]
            assert facts["predicted_recall"] >= recall
            hit = 1 - (1 - 0.75 ** facts["band_rows"]) ** facts["bands"]
            assert facts["predicted_recall"] == pytest.approx(hit)
        assert loose.facts["candidates"]["band_rows"] < strict.facts["candidates"]["band_rows"]
        with pytest.raises(SettingsError, match="candidates"):
            candidates_of(tmp_path / "c", families[:50], **LSH, candidates__permutations=1, candidates__recall=0.999)

    def test_a_crowded_bucket_is_a_star_and_said(self, tmp_path: Path) -> None:
        """Two hundred views of one picture in noise: as a star they are linked, without a pair for each two."""
        one = planted_families(1, size=(32, 32), redundancy=0.0, seed=5).images[0].astype(np.float64)
        grain = np.random.default_rng(0).normal(0, 0.7, (200, *one.shape))
        images = np.clip(np.rint(one + grain), 0, 255).astype(np.uint8)
        found = candidates_of(tmp_path, images, **LSH, candidates__bucket=20, candidates__mirror=False)
        facts = found.facts["candidates"]
        assert facts["crowded_buckets"] > 0
        assert any("crowded buckets" in note and "candidates.bucket = 20" in note for note in found.notes)
        most = facts["bands"] * 200 * 19 / 2
        assert 199 <= facts["lsh_pairs"] <= most < 200 * 199 / 2 * facts["bands"]
        whole = candidates_of(tmp_path / "whole", images, **LSH, candidates__bucket=200, candidates__mirror=False)
        assert whole.facts["candidates"]["crowded_buckets"] == 0
        assert not any("crowded" in note for note in whole.notes)
        assert pairs_of(found.table("candidates")) < pairs_of(whole.table("candidates"))

    def test_images_without_tokens_meet_none(self, tmp_path: Path) -> None:
        """Luma without a coefficient: two colours of equal luma would be such; here one colour in luma mode."""
        images = np.full((4, 32, 32, 1), 100, dtype=np.uint8)
        found = candidates_of(tmp_path, images, **LSH, images__flat_std=0.0)
        assert found.run.array("signatures")[:].min() == EMPTY
        assert len(found.table("candidates")) == 0


SAME = [
    {"blocks__rows": 61},
    {"blocks__rows": 500, "workers": 1},
    {"blocks__rows": 97, "workers": 2},
]


def same_tables(
    one: Driven, other: Driven, names: tuple[str, ...] = ("representatives", "candidates", "nearest")
) -> None:
    for name in names:
        pd.testing.assert_frame_equal(one.table(name), other.table(name), check_exact=True)


@pytest.mark.parametrize("values", SAME, ids=str)
def test_blocks_and_threads_do_not_matter(
    values: dict[str, Any], families: np.ndarray, of_families: Driven, tmp_path: Path
) -> None:
    same_tables(candidates_of(tmp_path, families, **values), of_families)


def test_nor_do_they_in_cells(families: np.ndarray, tmp_path: Path) -> None:
    one = candidates_of(tmp_path / "one", families, candidates__all_blocks=1, workers=1)
    other = candidates_of(tmp_path / "other", families, candidates__all_blocks=1, blocks__rows=77, workers=2)
    assert one.facts["candidates"]["join"] == "cells"
    same_tables(one, other)


def test_parts_hold_few_images(families: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs go by an order in which partners stand together: fewer images are in a part than by rows."""
    monkeypatch.setattr(settings_module, "PART", 50)
    monkeypatch.setattr(unite, "SQUARE", 100)
    monkeypatch.setattr(unite, "SMALL", 30)
    found = candidates_of(tmp_path, families)
    rows, places = found.run.load(*SIDE_BY_SIDE), np.full(len(families), -1)
    places[rows] = np.arange(len(rows))
    seen, images = [], 0
    for key in found.run.parts("candidates"):
        part = found.run.read_part("candidates", key).to_pandas()
        assert len(part) <= 50
        low, high = np.sort(places[part[["a", "b"]].to_numpy()], axis=1).T
        seen += zip(low // 100, high // 100, high // 30, low // 30, low, high)
        images += len(np.unique([low, high]))
    assert seen == sorted(seen)
    assert len(found.run.parts("candidates")) == found.facts["candidates"]["parts"] > 3
    table = found.table("candidates").sort_values(["a", "b"])[["a", "b"]].to_numpy()
    assert images < 0.9 * sum(len(np.unique(table[lo : lo + 50])) for lo in range(0, len(table), 50))


def test_mirror_images_stand_together(families: np.ndarray, tmp_path: Path) -> None:
    """The order does not tell an image from its mirror image, where these are looked up."""
    found = candidates_of(tmp_path, np.concatenate([families[:100], families[:100, :, ::-1]]))
    one, other = (order._folded(found.run, np.arange(lo, lo + 100), Candidates()).astype(int) for lo in (0, 100))
    assert np.abs(one - other).max() <= 1
    plain, mirrored = (order._folded(found.run, np.arange(lo, lo + 100), Candidates(mirror=False)) for lo in (0, 100))
    assert np.abs(plain.astype(int) - mirrored).max() > 100


@pytest.mark.parametrize(
    ("name", "where", "values"),
    [
        ("pairs_of_band", bands_module, {}),
        ("nearest_of_all", join_module, {}),
        ("nearest_in_cells", join_module, {"candidates__all_blocks": 1}),
        ("assign_cells", join_module, {"candidates__all_blocks": 1}),
    ],
)
def test_after_a_failed_task_the_rest_is_done(
    name: str,
    where: Any,
    values: dict[str, Any],
    families: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a kill: what was finished stays as it is, and the result is that of an undisturbed run."""
    monkeypatch.setattr(cells_module, "QUERY", 50)
    whole = candidates_of(tmp_path / "whole", families, workers=1, **values)
    real = getattr(where, name)

    def failing(run: Any, key: str, *call: Any) -> Any:
        if int(key) == 5:
            raise RuntimeError("planted")
        return real(run, key, *call)

    monkeypatch.setattr(where, name, failing)
    with pytest.raises(BlockFailed, match="planted"):
        candidates_of(tmp_path / "broken", families, workers=1, **values)
    monkeypatch.setattr(where, name, real)
    blocks = tmp_path / "broken" / "run" / "state" / "candidates" / "blocks"
    before = {path.name: path.stat().st_mtime_ns for path in blocks.iterdir()}
    assert len(before) >= 5
    again = candidates_of(tmp_path / "broken", families, workers=1, **values)
    after = {path.name: path.stat().st_mtime_ns for path in blocks.iterdir()}
    assert {key: after[key] for key in before} == before
    assert again.computed["candidates"] == whole.computed["candidates"] - len(before)
    same_tables(again, whole)
