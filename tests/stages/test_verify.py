"""Nothing is dropped unless a similarity with the kept image confirms it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

import daskim
from daskim.errors import SettingsError
from daskim.plugins import find
from daskim.store import Run
from daskim.synthetic import planted_families

Reduce = Callable[..., daskim.FinishedRun]
SIDE = 32


def sealed_facts(found: daskim.FinishedRun) -> dict[str, Any]:
    """What the stage `plan` told."""
    return (Run(found.run).read_json("state", "plan", "sealed.json") or {})["facts"]  # type: ignore[no-any-return]


def dropped(found: daskim.FinishedRun) -> list[int]:
    return found.plan.loc[found.plan["decision"] == "drop", "row"].tolist()


def kept_row_of(found: daskim.FinishedRun) -> dict[int, int]:
    row = dict(zip(found.plan["id"], found.plan["row"]))
    plan = found.plan[found.plan["decision"] == "drop"]
    return {own: row[kept] for own, kept in zip(plan["row"], plan["kept_id"])}


def skies(count: int, seed: int = 0) -> np.ndarray:
    """Different skies: nearly the same smooth gradient, with small clouds of their own."""
    rng = np.random.default_rng(seed)
    height = np.linspace(150, 220, SIDE)[:, None, None] * np.array([0.7, 0.85, 1.0])
    cloud = rng.normal(0, 1, (count, SIDE // 4, SIDE // 4, 1)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(np.rint(height + 8 * cloud), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def photographs_and_copies() -> tuple[np.ndarray, int]:
    """Different images, and as many copies of them: JPEG, noise, a little brighter, in turn."""
    originals = planted_families(30, size=(SIDE, SIDE), redundancy=0.0, seed=5).images
    rng = np.random.default_rng(1)
    edits = [
        lambda image: jpeg(image, 70),
        lambda image: np.clip(image + np.rint(rng.normal(0, 3, image.shape)), 0, 255),
        lambda image: np.clip(image.astype(int) + 6, 0, 255),
    ]
    copies = [edits[at % 3](image) for at, image in enumerate(originals)]
    return np.concatenate([originals, np.stack(copies).astype(np.uint8)]), len(originals)


def test_skies_that_lie_near_one_another_stay(reduce_arrays: Reduce) -> None:
    images = skies(40)
    pure = reduce_arrays(images, clusters__n_clusters=1, clusters__verify="none")
    assert pure.summary["n_drop"] == 39, "each is within a few grey levels of any other"
    assert sealed_facts(pure)["n_refuted"] == 0
    found = reduce_arrays(images, clusters__n_clusters=1)
    assert found.summary["n_drop"] == 0
    assert found.summary["n_clusters"] == 1, "what is verified are the drops, not the clusters"
    assert set(found.plan["rule"]) == {"apart"}
    facts = sealed_facts(found)
    assert (facts["verify"], facts["min_similarity"]) == ("ssim", find("similarities", "ssim").threshold)
    assert facts["n_refuted"] == 39


def test_copies_are_still_dropped(reduce_arrays: Reduce) -> None:
    images, count = photographs_and_copies()
    found = reduce_arrays(images, clusters__n_clusters=count)
    pure = reduce_arrays(images, clusters__n_clusters=count, clusters__verify="none")
    assert len(dropped(pure)) == count
    assert {own % count for own in dropped(found)} == set(range(count))
    assert found.summary["plan_hash"] == pure.summary["plan_hash"]


def test_the_similarity_of_a_drop_is_that_of_its_pair(reduce_arrays: Reduce) -> None:
    images, count = photographs_and_copies()
    images[count] = images[0]  # one exact copy
    found = reduce_arrays(images, clusters__n_clusters=count)
    kept = kept_row_of(found)
    plan = found.plan.set_index("row")
    for own, other in kept.items():
        expected = structural_similarity(images[own], images[other], channel_axis=-1, data_range=255)
        assert plan.loc[own, "similarity"] == pytest.approx(expected, abs=1e-5)
    assert plan.loc[count if count in kept else 0, "similarity"] == 1.0
    assert plan.loc[~plan.index.isin(list(kept)), "similarity"].isna().all()
    listed = {(a, b): value for a, b, value in found.pairs[["a", "b", "similarity"]].itertuples(index=False)}
    assert listed == {(min(pair), max(pair)): plan.loc[pair[0], "similarity"] for pair in kept.items()}


def test_who_is_refused_waits_for_another_leader(reduce_arrays: Reduce) -> None:
    """One cluster of two skies and their noisy copies: each sky stays and stands for its own copies."""
    rng = np.random.default_rng(3)
    one, other = skies(2, seed=8)
    images = np.clip(
        np.repeat([one, other], 5, axis=0) + np.rint(rng.normal(0, 1.0, (10, SIDE, SIDE, 3))), 0, 255
    ).astype(np.uint8)
    images[6] = images[5]
    found = reduce_arrays(images, clusters__n_clusters=1, plan__policy="first")
    assert kept_row_of(found) == {row: 5 * (row // 5) for row in (1, 2, 3, 4, 6, 7, 8, 9)}
    assert found.plan.loc[[0, 5], "rule"].tolist() == ["kept", "kept"]
    assert found.plan.loc[6, "similarity"] == 1.0, "not what it was refused with"
    assert sealed_facts(found)["n_refuted"] == 5, "the other sky, and what follows it"


def test_no_chains(reduce_arrays: Reduce) -> None:
    """A picture that moves by one pixel at a time: each frame is like the next, and not like one far on."""
    rng = np.random.default_rng(2)
    strip = rng.integers(60, 200, (SIDE // 4, 32, 1)).repeat(4, axis=0).repeat(4, axis=1)
    strip = np.stack([np.convolve(line, np.full(9, 1 / 9), "same") for line in strip[:, :, 0]])[:, :, None]
    images = np.stack([strip[:, at : at + SIDE] for at in range(40)]).round().astype(np.uint8)
    found = reduce_arrays(images, clusters__n_clusters=1, plan__policy="first", plan__max_rms=60.0)
    least = sealed_facts(found)["min_similarity"]
    kept = kept_row_of(found)
    assert 5 < len(kept) < 35
    for own, other in kept.items():
        assert structural_similarity(images[own][..., 0], images[other][..., 0], data_range=255) >= least
    stays = sorted(set(range(40)) - set(kept))
    for own in stays[1:]:
        earlier = [other for other in stays if other < own]
        values = [structural_similarity(images[own][..., 0], images[o][..., 0], data_range=255) for o in earlier]
        assert max(values) < least, "who could follow a leader does"


def test_min_similarity_moves_the_line(reduce_arrays: Reduce) -> None:
    images, count = photographs_and_copies()
    ids = [
        set(dropped(reduce_arrays(images, clusters__n_clusters=count, similarities__min_similarity=least)))
        for least in (-1.0, 0.9, 0.97, 1.0)
    ]
    assert len(ids[0]) == count > len(ids[1]) > len(ids[2]) > len(ids[3]) == 0


def test_by_the_distance_of_all_coefficients_it_is_a_bound_on_the_rms(reduce_arrays: Reduce) -> None:
    """Where all columns are kept their distance is the RMS difference: 1 / (1 + 8) stands for 8 grey levels."""
    images = planted_families(300, size=(8, 8), channels=1, redundancy=0.3, seed=6).images
    values: dict[str, Any] = {"columns__tau": 1e9, "clusters__n_clusters": 60}
    found = reduce_arrays(
        images, clusters__verify="wavelet", similarities__min_similarity=1 / 9, plan__max_rms=60.0, **values
    )
    bounded = reduce_arrays(images, clusters__verify="none", plan__max_rms=8.0, **values)
    wide = reduce_arrays(images, clusters__verify="none", plan__max_rms=60.0, **values)
    assert found.summary["clusters"]["share"] == 1.0
    assert 0 < bounded.summary["n_drop"] < wide.summary["n_drop"]
    assert found.summary["plan_hash"] == bounded.summary["plan_hash"]
    np.testing.assert_allclose(found.plan["similarity"], 1 / (1 + found.plan["rms"]), rtol=1e-6)


def test_by_the_distance_of_some_coefficients(reduce_arrays: Reduce) -> None:
    images, count = photographs_and_copies()
    found = reduce_arrays(images, clusters__n_clusters=count, clusters__verify="wavelet", columns__tau=30.0)
    kept = found.table("columns")["kept"].to_numpy()
    assert kept.sum() < len(kept) / 2
    share = found.summary["clusters"]["share"]
    array = Run(found.run).array("wavelets")
    points = np.asarray(array[:])[:, kept] * float(str(array.attrs["scale"])) / np.sqrt(SIDE * SIDE * 3 * share)
    plan = found.plan.set_index("row")
    assert found.summary["n_drop"] > 0
    for own, other in kept_row_of(found).items():
        expected = 1 / (1 + np.linalg.norm(points[own] - points[other]))
        assert expected >= find("similarities", "wavelet").threshold
        if plan.loc[own, "rms"] > 0:
            assert plan.loc[own, "similarity"] == pytest.approx(expected, rel=1e-5)


NEVER = """
import numpy as np

class Never:
    lowest, threshold, of, batch, pair_bytes = 0.0, 0.5, "pixels", 8, 64
    reports, screens, versions = (), False, {"never": "1"}

    def __init__(self, shape):
        pass

    def parts(self, images, dtype):
        return (images.astype(dtype),)

    def compare(self, left, right):
        return np.full((len(left[0]), 1), np.nan)
"""


def test_equal_images_need_no_confirmation(
    reduce_arrays: Reduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even from a similarity that gives up every pair."""
    (tmp_path / "never_alike.py").write_text(NEVER)
    monkeypatch.syspath_prepend(tmp_path)
    images, count = photographs_and_copies()
    images[count : count + 4] = images[:4]
    found = reduce_arrays(images, clusters__n_clusters=count, clusters__verify="never_alike.Never")
    assert {row % count for row in dropped(found)} == {0, 1, 2, 3}
    assert set(found.plan.loc[dropped(found), "similarity"]) == {1.0}


class TestTooSmall:
    images = planted_families(20, size=(6, 6), redundancy=0.3, seed=2).images

    def test_by_default_it_goes_without_and_says_so(self, reduce_arrays: Reduce) -> None:
        found = reduce_arrays(self.images, clusters__n_clusters=12)
        pure = reduce_arrays(self.images, clusters__n_clusters=12, clusters__verify="none")
        assert found.summary["plan_hash"] == pure.summary["plan_hash"]
        assert found.summary["n_drop"] > 0
        notes = [note for note in found.summary["notes"] if note.startswith("plan:")]
        assert len(notes) == 1
        assert "7x7 does not fit into images of 6x6" in notes[0]
        assert sealed_facts(found)["verify"] == "none"
        assert not [note for note in pure.summary["notes"] if note.startswith("plan:")]

    def test_asked_for_it_is_refused_before_the_work_begins(self, tmp_path: Path) -> None:
        np.save(tmp_path / "set.npy", self.images)
        with pytest.raises(SettingsError, match="7x7 does not fit into images of 6x6") as caught:
            daskim.reduce(
                tmp_path / "set.npy",
                run=tmp_path / "run",
                settings={"images.size": "native", "clusters.verify": "ssim"},
            )
        assert "clusters.verify" in caught.value.what
        assert "--verify none" in caught.value.hint
        assert "images.size" in caught.value.hint
        assert not (tmp_path / "run" / "tables" / "images").exists()


def test_an_unknown_similarity_is_refused_before_the_work_begins(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", skies(5))
    with pytest.raises(SettingsError, match="sssim") as caught:
        daskim.reduce(tmp_path / "set.npy", run=tmp_path / "run", settings={"clusters.verify": "sssim"})
    assert "ssim" in caught.value.hint
    assert not (tmp_path / "run" / "tables" / "images").exists()


def test_another_verification_asks_for_the_plan_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", skies(12))
    run, values = tmp_path / "run", {"clusters.n_clusters": 1}
    daskim.reduce(tmp_path / "set.npy", run=run, settings=values)
    before = (run / "state" / "clusters" / "sealed.json").stat().st_mtime_ns
    for more in ({"clusters.verify": "none"}, {"similarities.min_similarity": 0.1}):
        with pytest.raises(daskim.errors.StaleRun, match=next(iter(more)).replace(".", r"\.")) as caught:
            daskim.reduce(tmp_path / "set.npy", run=run, settings={**values, **more})
        assert "--restart plan" in caught.value.hint
        found = daskim.reduce(tmp_path / "set.npy", run=run, settings={**values, **more}, restart="plan")
        assert found.summary["n_drop"] == 11
        assert (run / "state" / "clusters" / "sealed.json").stat().st_mtime_ns == before
        daskim.reduce(tmp_path / "set.npy", run=run, settings=values, restart="plan")
