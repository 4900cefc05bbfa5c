"""The plan of method similarity, on tables made by hand: who may follow whom is read off the listed pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from daskim.engine import Engine
from daskim.errors import GuardTripped
from daskim.kernels.leaders import rms_to
from daskim.resolve import resolve
from daskim.stages import Context, Size
from daskim.stages.plan import SIMILARITY_STAGE, STAGE, plan_hash
from daskim.store import Run

LEAST = 0.6
Pair = tuple[int, int, float]


class Made:
    """A run that has come to the plan: n images, their clusters, and the pairs that were compared."""

    def __init__(self, run: Run, engine: Engine, n: int) -> None:
        self.run, self.engine, self.n = run, engine, n
        self.pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1)).astype(np.uint8)
        self.images = pd.DataFrame({"row": np.arange(n), "id": [f"{row:04d}" for row in range(n)]})
        self.images = self.images.assign(
            uri=self.images["id"], label="x", split="train", width=8, height=8, mtime=0.0, status="ok"
        )
        self.cluster = np.zeros(n, dtype=np.int64)
        self.distance = np.arange(n, dtype=np.float64)
        self.exact: dict[int, int] = {}

    def plan(self, pairs: Iterable[Pair], parts: int = 1, **values: Any) -> pd.DataFrame:
        """The table `plan`, after writing all that the stage reads; settings as `stage__key`."""
        run, n = self.run, self.n
        run.create_array("images", self.pixels.shape, "u1", max(1, n))[:] = self.pixels
        run.write_part("images", "000000", pa.Table.from_pandas(self.images, preserve_index=False))
        size = np.where(self.cluster >= 0, np.bincount(self.cluster[self.cluster >= 0])[self.cluster], 0)
        clusters = {"row": np.arange(n), "cluster": self.cluster, "size": size, "distance": self.distance}
        run.write_part("clusters", "000000", pa.table(clusters))
        exact = {"row": np.array(list(self.exact), dtype=np.int64), "group": np.array(list(self.exact.values()), "i8")}
        run.write_part("exact", "000000", pa.table({**exact, "by": pa.array(["bytes"] * len(self.exact), "string")}))
        listed = np.array(list(pairs), dtype=np.float64).reshape(-1, 3)
        for number, part in enumerate(np.array_split(listed, parts)):
            columns = {"a": part[:, 0].astype(np.int64), "b": part[:, 1].astype(np.int64), "similarity": part[:, 2]}
            run.write_part("pairs", f"{number:06d}", pa.table({**columns, "source": ["join"] * len(part)}))
        facts = {"min_similarity": LEAST, "name": "aligned", "listed": len(listed)}
        run.write_json({"facts": facts}, "state", "similarities", "sealed.json")
        settings = resolve([("test", {"method": "similarity", **{k.replace("__", "."): v for k, v in values.items()}})])
        measures = Size(n, 8, 8, 1, 64, 2, max(1, n), 1, 0)
        self.facts = SIMILARITY_STAGE.run(Context(run, self.engine, settings, {}, measures))
        run.remove("state", "plan", "blocks")
        found = run.read_table("plan").to_pandas()
        assert self.facts["plan_hash"] == plan_hash(found)
        assert [self.facts[f"n_{name}"] for name in ("keep", "drop", "review")] == [
            (found["decision"] == name).sum() for name in ("keep", "drop", "review")
        ]
        for name in ("keep", "drop"):
            assert run.read(f"{name}.txt").decode().split() == found.loc[found["decision"] == name, "id"].tolist()
        return found


@pytest.fixture
def made(run: Run, engine: Engine) -> Any:
    return lambda n: Made(run, engine, n)


def kept_of(plan: pd.DataFrame) -> dict[int, int]:
    """Kept row of each dropped row."""
    drop = plan[plan["decision"] == "drop"]
    return dict(zip(drop["row"].tolist(), drop["kept_id"].astype(int).tolist()))


CHAIN: list[Pair] = [(0, 1, 0.9), (1, 2, 0.8), (0, 2, 0.3)]


def test_no_chain(made: Any) -> None:
    """a ~ b ~ c, but a is not like c: c is not dropped for a."""
    made = made(3)
    plan = made.plan(CHAIN)
    assert kept_of(plan) == {1: 0}
    assert plan["rule"].tolist() == ["kept", "redundant", "apart"]
    assert plan["similarity"].tolist()[1] == 0.9
    assert plan["similarity"].isna().tolist() == [True, False, True]
    assert plan["rms"].isna().all()
    assert made.facts["n_refuted"] == 1
    assert (made.facts["verify"], made.facts["min_similarity"], made.facts["max_rms"]) == ("aligned", LEAST, None)


def test_the_image_nearest_the_middle_is_kept(made: Any) -> None:
    made = made(3)
    made.distance = np.array([2.0, 1.0, 3.0])
    assert kept_of(made.plan(CHAIN)) == {0: 1, 2: 1}


def test_the_pure_form_needs_no_pair(made: Any) -> None:
    made = made(4)
    made.pixels[3] = made.pixels[0]
    plan = made.plan(CHAIN, clusters__verify="none")
    assert kept_of(plan) == {1: 0, 2: 0, 3: 0}
    np.testing.assert_array_equal(plan["similarity"], [np.nan, 0.9, 0.3, 1.0])
    assert (made.facts["verify"], made.facts["min_similarity"], made.facts["n_refuted"]) == ("none", None, 0)


def test_a_pair_counts_from_min_similarity_on(made: Any) -> None:
    made = made(4)
    pairs = [(0, 1, LEAST), (0, 2, np.nextafter(LEAST, 0)), (0, 3, np.nan)]
    assert kept_of(made.plan(pairs)) == {1: 0}


def test_pairs_between_clusters_do_not_count(made: Any) -> None:
    made = made(4)
    made.cluster = np.array([0, 1, 0, 1])
    assert kept_of(made.plan([(0, 1, 0.9), (0, 3, 0.9), (1, 2, 0.9), (2, 3, 0.9), (1, 3, 0.7)])) == {3: 1}


def test_several_labels_are_all_kept_and_listed(made: Any) -> None:
    made = made(6)
    made.cluster = np.array([0, 0, 0, 1, 1, 1])
    made.images["label"] = ["x", "y", "x", "x", None, "x"]
    plan = made.plan([(0, 1, 0.8), (0, 2, 0.9), (1, 2, 0.8), (3, 4, 0.9), (3, 5, 0.9)])
    assert plan["rule"].tolist() == ["influential"] * 3 + ["kept", "redundant", "redundant"]
    assert kept_of(plan) == {4: 3, 5: 3}
    influential = made.run.read_table("influential").to_pandas()
    assert influential["row"].tolist() == [0, 1, 2]
    assert set(influential["labels"]) == {"x | y"}


def test_of_a_chain_of_several_labels_only_those_who_are_alike_are_influential(made: Any) -> None:
    made = made(5)
    made.cluster = np.zeros(5, dtype=np.int64)
    made.images["label"] = ["x", "x", "x", "y", "x"]
    chain = [(0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.9)]
    plan = made.plan(chain)  # 4 is alike to none
    assert plan["rule"].tolist() == ["kept", "redundant", "influential", "influential", "apart"]
    assert kept_of(plan) == {1: 0}
    pure = made.plan(chain, clusters__verify="none")
    assert pure["rule"].tolist() == ["influential"] * 5


@pytest.mark.parametrize(("policy", "kept"), [("first", 0), ("largest", 1), ("newest", 2), ("prefer-split test", 3)])
def test_policies(made: Any, policy: str, kept: int) -> None:
    made = made(4)
    made.distance[:] = 1.0
    made.images.loc[1, "width"] = 9
    made.images.loc[2, "mtime"] = 1.0
    made.images.loc[3, "split"] = "test"
    plan = made.plan([(a, b, 0.8) for b in range(4) for a in range(b)], plan__policy=policy)
    assert kept_of(plan) == {row: kept for row in range(4) if row != kept}


def test_protected_images_stay_and_lead(made: Any) -> None:
    made = made(4)
    made.images["split"] = ["train", "train", "test", "test"]
    plan = made.plan([(a, b, 0.8) for b in range(4) for a in range(b)], plan__protect=("test",))
    assert kept_of(plan) == {0: 2, 1: 2}
    assert plan["rule"].tolist()[2:] == ["protected"] * 2
    assert made.facts["n_refuted"] == 0


@pytest.mark.parametrize(("flat", "dropped"), [("keep", {}), ("exact", {2: 0, 3: 1})])
@pytest.mark.parametrize("verify", ["ssim", "none"])
def test_flat_images(made: Any, flat: str, dropped: dict[int, int], verify: str) -> None:
    """Two flat images with a copy each, in one cluster with another image: a copy follows its own original only."""
    made = made(5)
    made.images.loc[:3, "status"] = "flat"
    made.exact = {0: 0, 1: 1, 2: 0, 3: 1}
    made.pixels[:4] = np.array([7, 8, 7, 8])[:, None, None, None]
    plan = made.plan([(0, 1, 0.9), (2, 3, 0.9), (1, 4, 0.9)], plan__flat=flat, clusters__verify=verify)
    assert kept_of(plan) == dropped
    assert set(plan.loc[plan["decision"] == "drop", "rule"]) <= {"exact"}
    assert (plan.loc[list(dropped), "similarity"] == 1.0).all()
    assert plan.loc[4, "rule"] == "single"


def test_exact_duplicates_are_told_as_such(made: Any) -> None:
    made = made(4)
    made.exact = {1: 1, 3: 1}
    plan = made.plan([(0, 1, 0.9), (0, 3, 0.9), (1, 3, 1.0), (0, 2, 0.1)])
    assert kept_of(plan) == {1: 0, 3: 0}
    made.distance = np.array([9.0, 0.0, 8.0, 1.0])
    plan = made.plan([(0, 2, 0.1)])
    assert kept_of(plan) == {3: 1}
    assert plan.loc[3, ["rule", "similarity"]].tolist() == ["exact", 1.0]


def test_broken_images_are_for_review(made: Any) -> None:
    made = made(4)
    made.cluster = np.array([0, -1, 0, -1])
    made.images.loc[[1, 3], "status"] = "truncated"
    plan = made.plan([(0, 2, 0.9)])
    assert plan["decision"].tolist() == ["keep", "review", "drop", "review"]
    assert plan["rule"].tolist()[1] == "broken"


def test_the_least_alike_come_back_to_a_small_class(made: Any) -> None:
    made = made(5)
    pairs = [(0, 1, 0.9), (0, 2, 0.7), (0, 3, 0.8), (0, 4, 0.95)]
    plan = made.plan(pairs, plan__min_per_class=3)
    assert kept_of(plan) == {1: 0, 4: 0}
    assert plan.loc[[2, 3], "rule"].tolist() == ["min-per-class"] * 2
    plan = made.plan(pairs[1:], plan__min_per_class=2, clusters__verify="none")
    assert plan.loc[1, "rule"] == "min-per-class", "it was never compared"


def test_a_bound_on_the_rms_holds_too(made: Any) -> None:
    made = made(4)
    made.pixels[:] = np.array([100, 103, 110, 112])[:, None, None, None]
    pairs = [(a, b, 0.8) for b in range(4) for a in range(b)]
    assert kept_of(made.plan(pairs)) == {1: 0, 2: 0, 3: 0}
    for verify in ("ssim", "none"):
        plan = made.plan(pairs, plan__max_rms=3.0, clusters__verify=verify)
        assert kept_of(plan) == {1: 0, 3: 2}
        assert plan.loc[[1, 3], "rms"].tolist() == [3.0, 2.0]
        assert made.facts["max_rms"] == 3.0


def test_too_many_drops(made: Any) -> None:
    made = made(3)
    with pytest.raises(GuardTripped, match="2 of 3"):
        made.plan([(0, 1, 0.9), (0, 2, 0.9)], plan__max_drop=0.5)


def test_the_pairs_stay_as_they_are(made: Any) -> None:
    made = made(3)
    plan = made.plan(CHAIN, parts=3)
    assert kept_of(plan) == {1: 0}
    assert made.run.read_table("pairs").num_rows == 3
    assert "tables/pairs" in STAGE.leaves
    assert "tables/pairs" not in SIMILARITY_STAGE.leaves


def test_no_pairs_at_all(made: Any) -> None:
    made = made(3)
    assert kept_of(made.plan([])) == {}
    assert kept_of(made.plan([], plan__max_rms=300.0)) == {}


def expected(made: Made, values: dict[tuple[int, int], float], order: Sequence[int], max_rms: float) -> dict[int, int]:
    """The rule in words: follow the first leader of the own cluster with a good pair, else lead."""
    leads: list[int] = []
    found = {}
    flat = made.pixels.reshape(made.n, -1)
    for own in order:
        may = [
            other
            for other in leads
            if made.cluster[other] == made.cluster[own]
            and values.get((min(own, other), max(own, other)), -1.0) >= LEAST
            and rms_to(flat[own], flat[other : other + 1])[0] <= max_rms
        ]
        if may:
            found[own] = may[0]
        else:
            leads.append(own)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_rms", [None, 105.0])
def test_against_the_rule_in_words(made: Any, seed: int, max_rms: float | None) -> None:
    rng = np.random.default_rng(seed)
    made = made(60)
    made.cluster = np.unique(rng.integers(0, 6, 60), return_inverse=True)[1]
    made.distance = rng.integers(0, 5, 60).astype(float)
    a, b = np.triu_indices(60, 1)
    listed = rng.random(len(a)) < 0.6
    values = {(i, j): v for i, j, v in zip(a[listed].tolist(), b[listed].tolist(), rng.random(listed.sum()))}
    pairs = [(i, j, v) for (i, j), v in values.items()]
    plan = made.plan(rng.permutation(pairs), parts=4, plan__max_rms=max_rms)
    order = np.lexsort((np.arange(60), made.distance)).tolist()
    found = kept_of(plan)
    assert found == expected(made, values, order, 300.0 if max_rms is None else max_rms)
    assert 5 < len(found) < 55
    for own, other in found.items():
        assert plan.loc[own, "similarity"] == values[min(own, other), max(own, other)]
