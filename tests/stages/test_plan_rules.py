"""Who is kept, who is dropped, and why: no chains, protections, guards, labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import daskim
from daskim.errors import GuardTripped, SettingsError
from daskim.kernels.leaders import follow_leaders, rms_to
from daskim.stages.plan import plan_hash
from daskim.store import Run
from daskim.synthetic import planted_families

Reduce = Callable[..., daskim.FinishedRun]

groups = st.integers(1, 12).flatmap(
    lambda k: st.tuples(
        hnp.arrays(np.uint8, (k, 4), elements=st.integers(0, 40)),
        st.permutations(range(k)).map(np.array),
        st.floats(0.0, 30.0),
        hnp.arrays(np.bool_, (k,)),
    )
)


@given(groups)
def test_leaders(group: tuple[np.ndarray, np.ndarray, float, np.ndarray]) -> None:
    images, order, bound, fixed = group
    leader, distance = follow_leaders(images, order, bound, fixed)
    position = np.argsort(order)
    for i in range(len(images)):
        own = leader[i]
        assert leader[own] == own, "a leader leads itself: no chains"
        assert distance[i] == rms_to(images[own], images[i : i + 1])[0]
        assert distance[i] <= bound
        if own == i:
            earlier = [j for j in range(len(images)) if leader[j] == j and position[j] < position[i]]
            assert fixed[i] or all(rms_to(images[j], images[i : i + 1])[0] > bound for j in earlier)
        else:
            assert not fixed[i]
            assert position[own] < position[i]


@given(hnp.arrays(np.uint8, (3, 12)))
def test_rms_is_that_of_the_pixels(images: np.ndarray) -> None:
    expected = np.sqrt(((images[1:].astype(float) - images[0]) ** 2).mean(axis=1))
    np.testing.assert_allclose(rms_to(images[0], images[1:]), expected, rtol=1e-12)


def sealed_facts(found: daskim.FinishedRun) -> dict[str, Any]:
    """What the stage `plan` told."""
    return (Run(found.run).read_json("state", "plan", "sealed.json") or {})["facts"]  # type: ignore[no-any-return]


def check_tables(found: daskim.FinishedRun) -> None:
    """What holds of every plan."""
    plan = found.plan
    assert plan["row"].tolist() == list(range(found.summary["n_images"]))
    assert plan["id"].is_unique
    by_id = plan.set_index("id")
    dropped = plan[plan["decision"] == "drop"]
    assert dropped["kept_id"].notna().all()
    assert plan.loc[plan["decision"] != "drop", "kept_id"].isna().all()
    assert (by_id.loc[dropped["kept_id"], "decision"] == "keep").all()
    assert (by_id.loc[dropped["kept_id"], "cluster"].to_numpy() == dropped["cluster"].to_numpy()).all()
    same_label = by_id.loc[dropped["kept_id"], "label"].to_numpy() == dropped["label"].to_numpy()
    assert (same_label | dropped["label"].isna().to_numpy() | by_id.loc[dropped["kept_id"], "label"].isna()).all()
    assert (dropped["rms"] <= found.summary["plan"]["max_rms"]).all()
    facts = sealed_facts(found)
    if facts["verify"] == "none":
        np.testing.assert_allclose(dropped["similarity"], 1 / (1 + dropped["rms"]))
    else:
        assert (dropped["similarity"] >= facts["min_similarity"]).all()
        assert (dropped.loc[dropped["rms"] == 0, "similarity"] == 1).all()
    row_of = dict(zip(plan["id"], plan["row"]))
    expected = sorted(
        (min(row, row_of[kept]), max(row, row_of[kept])) for row, kept in zip(dropped["row"], dropped["kept_id"])
    )
    assert list(zip(found.pairs["a"], found.pairs["b"])) == expected
    assert (found.pairs["a"] < found.pairs["b"]).all()
    assert (plan["rule"] == "influential").sum() == len(found.influential)
    assert (by_id.loc[found.influential["id"], "decision"] == "keep").all()
    counts = plan["decision"].value_counts()
    assert [found.summary[f"n_{name}"] for name in ("keep", "drop", "review")] == [
        counts.get(name, 0) for name in ("keep", "drop", "review")
    ]
    run = Run(found.run)
    for name in ("keep", "drop"):
        lines = run.read(f"{name}.txt").decode().splitlines()
        assert lines == plan.loc[plan["decision"] == name, "id"].tolist()
    assert plan_hash(plan) == found.summary["plan_hash"]


def test_plan_hash_is_what_it_says() -> None:
    plan = pd.DataFrame(
        {"id": ["b", "a"], "decision": ["drop", "keep"], "kept_id": ["a", None], "rule": ["exact", "kept"], "x": [1, 2]}
    )
    expected = hashlib.sha256(b"a\tkeep\t\tkept\nb\tdrop\ta\texact\n").hexdigest()
    assert plan_hash(plan) == expected
    assert plan_hash(plan.iloc[::-1]) == expected


def family(count: int = 6, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images 0 to count - 1 are alike; as many others are not. The last of the family are the most central."""
    base = planted_families(count + 1, size=(8, 8), redundancy=0.0, seed=seed).images
    rng = np.random.default_rng(seed)
    away = np.arange(count)[::-1]
    alike = [
        np.clip(np.clip(base[0], 20, 230).astype(int) + rng.normal(0, 0.5 + 0.8 * k, base[0].shape), 0, 255)
        for k in away
    ]
    return np.concatenate([np.round(alike).astype(np.uint8), base[1:]]), np.zeros(2 * count, dtype=np.int64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A family of six as files of one label, in splits train and test, of several sizes and times; six others."""
    images, _ = family()
    root = tmp_path / "in"
    for index, pixels in enumerate(images):
        split = "test" if index in (1, 4) else "train"
        path = root / split / "cat" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        factor = 3 if index == 3 else 1
        Image.fromarray(np.kron(pixels, np.ones((factor, factor, 1), dtype=np.uint8))).save(path)
        os.utime(path, (1e9 + (1000 if index == 2 else index), 1e9 + (1000 if index == 2 else index)))
    return root


def kept_of_family(folder: Path, run: Path, **values: object) -> tuple[daskim.FinishedRun, list[int]]:
    settings = {"images.size": "8x8", "images.filter": "area", "clusters.n_clusters": 7, "plan.max_rms": 60.0}
    settings.update({key.replace("__", "."): value for key, value in values.items()})
    found = daskim.reduce(folder, run=run, settings=settings)
    check_tables(found)
    number = found.plan["id"].str.extract(r"(\d+)\.png")[0].astype(int)
    keep = sorted(number[(found.plan["decision"] == "keep") & (number < 6)].tolist())
    return found, keep


@pytest.mark.parametrize(
    ("policy", "expected"), [("first", [1]), ("largest", [3]), ("newest", [2]), ("prefer-split train", [5])]
)
def test_policies(folder: Path, tmp_path: Path, policy: str, expected: list[int]) -> None:
    found, keep = kept_of_family(folder, tmp_path / "run", plan__policy=policy)
    assert keep == expected
    assert found.summary["n_drop"] == 5


def test_the_centre_is_kept_by_default(folder: Path, tmp_path: Path) -> None:
    found, keep = kept_of_family(folder, tmp_path / "run")
    clusters = found.clusters.merge(found.plan[["row", "id"]], on="row")
    inside = clusters[clusters["size"] == 6]
    nearest = inside.loc[inside["distance"].idxmin(), "id"]
    assert found.plan.set_index("id").loc[nearest, "decision"] == "keep"
    assert len(keep) == 1


def test_protected_images_stay_and_the_others_follow_them(folder: Path, tmp_path: Path) -> None:
    found, keep = kept_of_family(folder, tmp_path / "run", plan__protect=("test",))
    assert keep == [1, 4]
    plan = found.plan
    assert not ((plan["split"] == "test") & (plan["decision"] == "drop")).any()
    assert (plan.loc[plan["decision"] == "drop", "kept_id"].str.startswith("test/")).all()


def test_nothing_is_dropped_farther_than_the_bound(folder: Path, tmp_path: Path) -> None:
    tight, keep = kept_of_family(folder, tmp_path / "run", plan__max_rms=2.0)
    assert (tight.plan["rms"].dropna() <= 2.0).all()
    assert len(keep) > 1
    assert (tight.plan["rule"] == "apart").any()
    none, keep = kept_of_family(folder, tmp_path / "other", plan__max_rms=0.0)
    assert len(keep) == 6
    assert none.summary["n_drop"] == 0


@pytest.mark.parametrize("least", [1, 8, 11, 50])
def test_min_per_class(folder: Path, tmp_path: Path, least: int) -> None:
    found, _ = kept_of_family(folder, tmp_path / "run", plan__min_per_class=least)
    kept = (found.plan["decision"] == "keep").sum()
    assert kept == max(7, min(least, 12))
    given_back = found.plan[found.plan["rule"] == "min-per-class"]
    assert len(given_back) == max(0, min(least, 12) - 7)


def test_max_drop_ends_the_run_without_a_plan(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(GuardTripped) as caught:
        kept_of_family(folder, run, plan__max_drop=5 / 12 - 0.01)
    assert caught.value.exit_code == 8
    assert "5 of 12" in caught.value.what
    assert not (run / "state" / "plan" / "sealed.json").exists()
    assert not (run / "summary.json").exists()
    assert not (run / "tables" / "plan").exists()
    assert not (run / "drop.txt").exists()


def test_after_the_guard_a_higher_bound_goes_on(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(GuardTripped):
        kept_of_family(folder, run, plan__max_drop=0.1)
    found, _ = kept_of_family(folder, run, plan__max_drop=0.5)
    assert found.summary["n_drop"] == 5


@pytest.mark.parametrize("values", [{"plan.protect": ("tset",)}, {"plan.policy": "prefer-split tset"}])
def test_a_split_that_does_not_occur_is_refused(folder: Path, tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        kept_of_family(folder, tmp_path / "run", **values)
    assert "tset" in caught.value.what
    assert "test, train" in caught.value.hint


def test_several_labels_are_all_kept_and_listed(reduce_arrays: Reduce) -> None:
    images, labels = family()
    labels[2] = 1
    found = reduce_arrays(images, labels, clusters__n_clusters=7)
    check_tables(found)
    assert found.summary["n_drop"] == 0
    assert found.influential["row"].tolist() == list(range(6))
    assert found.influential["cluster"].nunique() == 1 == found.summary["n_influential_clusters"]
    assert set(found.influential["labels"]) == {"0 | 1"}
    assert found.influential["label"].tolist() == ["0", "0", "1", "0", "0", "0"]


def test_without_labels_every_group_counts_as_one(reduce_arrays: Reduce) -> None:
    images, _ = family()
    found = reduce_arrays(images, clusters__n_clusters=7, plan__max_rms=60.0)
    check_tables(found)
    assert found.plan["label"].isna().all()
    assert (found.summary["n_drop"], found.summary["n_influential"]) == (5, 0)


def test_a_chain_of_slow_changes_is_not_dropped_as_a_whole(reduce_arrays: Reduce) -> None:
    """Each image is close to the next, the ends are far apart: the cluster may be one, what is dropped must be near."""
    start, end = (m.astype(float) for m in planted_families(2, size=(16, 16), redundancy=0.0, seed=9).images)
    steps = 60
    chain = np.array([np.round(start + (end - start) * k / steps) for k in range(steps)]).astype(np.uint8)
    total = float(np.sqrt(((start - end) ** 2).mean()))
    bound = 4 * total / steps
    found = reduce_arrays(chain, np.zeros(steps, dtype=int), clusters__n_clusters=1, plan__max_rms=bound)
    check_tables(found)
    assert found.summary["n_clusters"] == 1
    kept = found.plan["row"][found.plan["decision"] == "keep"].to_numpy()
    assert len(kept) >= steps / 9  # a leader stands for at most four on each side
    assert found.summary["n_drop"] >= steps / 2
    pixels = chain.astype(float)
    row_of = dict(zip(found.plan["id"], found.plan["row"]))
    for row, kept_id in zip(found.plan["row"], found.plan["kept_id"]):
        if isinstance(kept_id, str):
            assert np.sqrt(((pixels[row] - pixels[row_of[kept_id]]) ** 2).mean()) <= bound


@pytest.mark.parametrize(("flat", "dropped"), [("keep", 0), ("exact", 4)])
def test_flat_images(reduce_arrays: Reduce, flat: str, dropped: int) -> None:
    images = planted_families(20, size=(8, 8), redundancy=0.0).images
    images[:3], images[3:6], images[6] = 0, 255, 77  # two groups of three, and one alone
    found = reduce_arrays(images, [0] * 20, clusters__n_clusters=16, plan__flat=flat)
    check_tables(found)
    assert found.summary["status"] == {"flat": 7, "ok": 13}
    assert found.summary["n_drop"] == dropped
    if flat == "exact":
        assert found.plan.loc[found.plan["decision"] == "drop", "row"].tolist() == [1, 2, 4, 5]
        assert set(found.plan.loc[found.plan["decision"] == "drop", "rule"]) == {"exact"}


@pytest.mark.parametrize("flat", ["keep", "exact"])
def test_flat_images_say_nothing_about_labels(reduce_arrays: Reduce, flat: str) -> None:
    images = planted_families(12, size=(8, 8), redundancy=0.0).images
    images[:4] = 128
    found = reduce_arrays(images, [0, 1, 0, 1] + [2] * 8, clusters__n_clusters=9, plan__flat=flat)
    check_tables(found)
    if flat == "keep":
        assert found.summary["n_influential"] == 0
        assert found.summary["n_drop"] == 0
    else:
        assert found.summary["n_drop"] == 0, "copies under two labels are never dropped"


def test_broken_images_are_for_review(tmp_path: Path) -> None:
    images, _ = family()
    (tmp_path / "in").mkdir()
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index:02d}.png")
    whole = (tmp_path / "in" / "00.png").read_bytes()
    (tmp_path / "in" / "10.png").write_bytes(whole[:-60])
    (tmp_path / "in" / "11.png").write_bytes(b"")
    (tmp_path / "in" / "12.png").write_bytes(b"")
    found = daskim.reduce(tmp_path / "in", settings={"images.size": "8x8", "clusters.n_clusters": 0.7})
    check_tables(found)
    broken = found.plan[found.plan["decision"] == "review"]
    assert broken["id"].tolist() == ["10.png", "11.png", "12.png"]
    assert set(broken["rule"]) == {"broken"}
    assert set(broken["cluster"]) == {-1}
    assert found.summary["n_exact"] == 0, "broken files are no duplicates of one another"


def test_twins_are_dropped_where_only_some_columns_are_kept(tmp_path: Path) -> None:
    """Noise lies in every coefficient, so it is larger in the pixels than in the columns that are kept."""
    rng = np.random.default_rng(4)
    originals = planted_families(200, size=(12, 12), redundancy=0.0, seed=8).images
    noisy = np.clip(originals + np.rint(rng.normal(0, 3, originals.shape)), 0, 255).astype(np.uint8)
    np.save(tmp_path / "twins.npy", np.concatenate([originals, noisy]))
    found = daskim.reduce(tmp_path / "twins.npy", settings={"images.size": "native", "clusters.n_clusters": 200})
    assert found.summary["columns"]["m"] < found.summary["columns"]["d"]
    dropped = found.plan[found.plan["decision"] == "drop"]
    assert len(dropped) == 200
    assert (dropped["rms"] < 5).all()


def test_the_bound_on_broken_images_holds_for_a_finished_run_too(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for index, image in enumerate(planted_families(5, seed=1).images):
        Image.fromarray(image).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"")
    daskim.reduce(folder, run=tmp_path / "run")
    with pytest.raises(daskim.errors.BadInputs, match="1 of 6"):
        daskim.reduce(folder, run=tmp_path / "run", settings={"images.max_bad": 0.1})
