"""The most isolated images and the extremes among the pairs, against plain loops and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from planted_graphs import (
    Pairs,
    aquarium_pairs,
    context_of,
    on_a_sphere,
    seal,
    some_settings,
    write_images,
    write_pairs,
)

from daskim.compute.threads import Threads
from daskim.engine import Engine
from daskim.stages import anomalies
from daskim.stages.anomalies import STAGE
from daskim.store import Run

KINDS = ["most similar pair", "most dissimilar pair", "most similar group"]


def anomalies_of(
    engine: Engine,
    n: int,
    pairs: Pairs,
    cluster: Any = None,
    *,
    nearest: dict[int, tuple[int, float]] | None = None,
    broken: tuple[int, ...] = (),
    flat: tuple[int, ...] = (),
    parts: int = 3,
    seed: int = 0,
    source: Any = None,
    method: str = "join",
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame], dict[str, Any]]:
    """The table of anomalies, that of extremes by kind, and the facts; every image its own cluster by default."""
    run = engine.run
    write_images(run, n, broken=broken, flat=flat)
    write_pairs(run, *pairs, min_similarity=0.5, parts=parts, seed=seed, source=source)
    number = np.arange(n) if cluster is None else np.asarray(cluster)
    table = {"row": np.arange(n), "cluster": number, "size": np.ones(n, dtype=np.int64), "distance": np.zeros(n)}
    run.write_part("clusters", "000000", pa.table(table))
    rows, correlation = np.full(n, -1), np.full(n, np.nan)
    for row, (other, value) in (nearest or {}).items():
        rows[row], correlation[row] = other, value
    table = {"row": np.arange(n), "nearest_row": rows, "correlation": correlation}
    run.write_part("nearest", "000000", pa.table(table))
    facts = seal(context_of(engine, some_settings(candidates__method=method), n), STAGE)
    extremes = run.read_table("extremes").to_pandas()
    assert [kind for kind in KINDS if kind in set(extremes["kind"])] == extremes["kind"].drop_duplicates().tolist()
    by_kind = {kind: extremes[extremes["kind"] == kind].reset_index(drop=True) for kind in KINDS}
    return run.read_table("anomalies").to_pandas(), by_kind, facts


def few() -> Pairs:
    a, b = np.array([0, 0, 1, 2, 5]), np.array([1, 2, 2, 3, 6])
    return a, b, np.array([0.9, 0.6, 0.9, 0.3, 1.0])


# --- isolation ----------------------------------------------------------------------------------------------------


def test_all_pairs_against_a_plain_loop(engine: Engine) -> None:
    n = 40
    a, b, similarity = on_a_sphere(n, twins=3)
    similarity = np.round(similarity, 2)  # ties
    table, _, facts = anomalies_of(engine, n, (a, b, similarity), broken=(), flat=(7,), method="all")
    dense = np.full((n, n), -np.inf)
    dense[a, b] = dense[b, a] = similarity
    best = dense.max(axis=1)
    assert sorted(table["row"]) == [row for row in range(n) if row != 7]
    table = table.set_index("row")
    np.testing.assert_array_equal(table["similarity"], best[table.index])
    np.testing.assert_array_equal(table["nearest_row"], dense.argmax(axis=1)[table.index])  # of several the first
    np.testing.assert_array_equal(table["degree"], (dense >= 0.5).sum(axis=1)[table.index])
    np.testing.assert_allclose(table["score"], np.clip(1 - best, 0, 1)[table.index])
    assert (table["score"].diff().dropna() <= 0).all()
    assert (table["by"] == "similarity").all()
    assert table["correlation"].isna().all()
    assert table["id"].tolist() == [f"a{row}" for row in table.index]
    assert table["nearest_id"].tolist() == [f"a{row}" for row in table["nearest_row"]]
    assert table["label"].tolist() == [f"label{row % 2}" for row in table.index]
    assert table["split"].tolist() == ["test" if row % 3 == 0 else "train" for row in table.index]
    top = facts["most_isolated"]
    assert [entry["id"] for entry in top] == table["id"].tolist()[:5]
    assert top[0]["score"] == table["score"].iloc[0]


def test_candidates_are_judged_by_coarse_correlation(engine: Engine) -> None:
    nearest = {0: (1, 0.8), 1: (0, 0.8), 2: (4, 0.7), 3: (2, -0.5), 8: (3, 1.0)}
    table, _, facts = anomalies_of(engine, 10, few(), nearest=nearest, broken=(9,), flat=(8,))
    table = table.set_index("row")
    # 4 and 7 were near nothing; 3 is -0.5; 5 and 6 have a pair, but no correlation
    assert table.index.tolist() == [4, 7, 3, 2, 0, 1, 5, 6]
    assert table["score"].tolist() == pytest.approx([1, 1, 1, 0.3, 0.2, 0.2, 0, 0])
    assert table["by"].tolist() == ["none", "none", *["correlation"] * 4, "similarity", "similarity"]
    assert table.loc[3, "similarity"] == 0.3
    assert np.isnan(table.loc[4, "similarity"])
    assert table.loc[4, "nearest_row"] == -1
    assert pd.isna(table.loc[4, "nearest_id"])
    assert (table.loc[2, "nearest_row"], table.loc[2, "correlation"], table.loc[2, "degree"]) == (1, 0.7, 2)
    assert facts["most_isolated"][0] == {"id": "a4", "nearest_id": None, "similarity": None, "score": 1, "by": "none"}


def test_the_coarse_nearest_is_named_where_no_pair_is_listed(engine: Engine) -> None:
    table, _, _ = anomalies_of(engine, 10, few(), nearest={4: (2, 0.1)})
    row = table.set_index("row").loc[4]
    assert (row["nearest_row"], row["nearest_id"], row["by"]) == (2, "a2", "correlation")
    assert row["score"] == pytest.approx(0.9)


def test_an_exact_duplicate_is_never_isolated(engine: Engine) -> None:
    # the coarse search sees image 5 only, whose nearest other image is far
    table, _, _ = anomalies_of(engine, 10, few(), nearest={5: (0, 0.1)}, source=["join"] * 4 + ["exact"])
    table = table.set_index("row")
    assert table.loc[[5, 6], "score"].tolist() == [0, 0]
    assert table.loc[[5, 6], "correlation"].tolist() == [1, 1]


def test_the_list_is_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _ = anomalies_of(engine, 40, on_a_sphere(40), method="all")
    monkeypatch.setattr(anomalies, "LISTED", 7)
    table, _, facts = anomalies_of(engine, 40, on_a_sphere(40), method="all")
    pd.testing.assert_frame_equal(table, whole[:7])
    assert facts["listed"] == 7


# --- extremes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 100, 10**6])
def test_extreme_pairs_against_sorting(engine: Engine, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(anomalies, "BATCH", batch)
    n = 40
    a, b, similarity = on_a_sphere(n, twins=3)
    similarity = np.round(similarity, 2)
    source = np.where((a == 0) & (b == 1), "exact", "all")
    _, extremes, facts = anomalies_of(engine, n, (a, b, similarity), source=source, method="all", parts=7)
    for kind, sign in (("most similar pair", -1), ("most dissimilar pair", 1)):
        order = np.lexsort((b, a, sign * similarity))
        order = order[source[order] != "exact"][:20]
        found = extremes[kind]
        np.testing.assert_array_equal(found["a"], a[order])
        np.testing.assert_array_equal(found["b"], b[order])
        np.testing.assert_array_equal(found["similarity"], similarity[order])
        assert found["rank"].tolist() == list(range(1, 21))
        assert found["a_id"].tolist() == [f"a{row}" for row in a[order]]
        told = facts[kind.replace(" ", "_") + "s"]
        assert told[0] == {"a_id": f"a{a[order[0]]}", "b_id": f"a{b[order[0]]}", "similarity": similarity[order[0]]}
        assert len(told) == 5


def test_dissimilar_pairs_only_where_all_were_compared(engine: Engine) -> None:
    _, extremes, facts = anomalies_of(engine, 10, few())
    assert len(extremes["most dissimilar pair"]) == 0
    assert facts["most_dissimilar_pairs"] == []
    assert extremes["most similar pair"]["similarity"].tolist() == [1.0, 0.9, 0.9, 0.6, 0.3]


def group_of(extremes: dict[str, pd.DataFrame]) -> list[tuple[int, int, float]]:
    table = extremes["most similar group"]
    return list(zip(table["a"].tolist(), table["b"].tolist(), table["similarity"].tolist()))


def test_the_most_similar_group(engine: Engine) -> None:
    # {0, 1, 2}: mean 0.8; {5, 6} are exact duplicates and no group; {3, 4}: not listed, mean 0
    cluster = [0, 0, 0, 1, 1, 2, 2, 3, 4, 5]
    _, extremes, facts = anomalies_of(engine, 10, few(), cluster, source=["join"] * 4 + ["exact"])
    assert group_of(extremes) == [(0, 1, 0.9), (1, 0, 0.9), (2, 1, 0.9)]
    assert facts["most_similar_group"]["mean"] == pytest.approx(0.8)
    assert facts["most_similar_group"]["ids"] == ["a0", "a1", "a2"]
    # not an exact duplicate: the pair of similarity 1 wins
    _, extremes, facts = anomalies_of(engine, 10, few(), cluster)
    assert group_of(extremes) == [(5, 6, 1.0), (6, 5, 1.0)]
    assert facts["most_similar_group"] == {"images": 2, "mean": 1.0, "ids": ["a5", "a6"]}


def test_pairs_of_a_group_that_are_not_listed_count_as_0(engine: Engine) -> None:
    pairs = np.array([0, 3]), np.array([1, 4]), np.array([0.9, 0.4])
    _, extremes, facts = anomalies_of(engine, 6, pairs, [0, 0, 0, 1, 1, 2])  # means 0.3 and 0.4
    assert group_of(extremes) == [(3, 4, 0.4), (4, 3, 0.4)]
    _, extremes, facts = anomalies_of(engine, 6, (pairs[0][:1], pairs[1][:1], pairs[2][:1]), [0, 0, 0, 1, 1, 2])
    assert facts["most_similar_group"]["mean"] == pytest.approx(0.3)
    assert group_of(extremes)[:2] == [(0, 1, 0.9), (1, 0, 0.9)]
    last = extremes["most similar group"].iloc[2]
    assert (last["a"], last["b"]) == (2, -1)
    assert last[["b_id", "similarity"]].isna().all()


def test_ties_of_groups_go_to_the_larger_then_to_the_first(engine: Engine) -> None:
    a, b = np.array([0, 2, 2, 3, 5, 5, 6]), np.array([1, 3, 4, 4, 6, 7, 7])
    pairs = a, b, np.full(7, 0.7)
    _, extremes, _ = anomalies_of(engine, 8, pairs, [0, 0, 1, 1, 1, 2, 2, 2])
    assert extremes["most similar group"]["a"].tolist() == [2, 3, 4]


@pytest.mark.parametrize("method", ["all", "lsh"])
def test_without_a_pair(engine: Engine, method: str) -> None:
    none = (np.zeros(0), np.zeros(0), np.zeros(0))
    table, extremes, facts = anomalies_of(engine, 4, none, [-1, 0, 1, 2], broken=(0,), method=method)
    assert table["row"].tolist() == [1, 2, 3]
    assert table["score"].tolist() == [1, 1, 1]
    assert sum(map(len, extremes.values())) == 0
    assert facts["most_similar_group"] == {"images": 0, "mean": None, "ids": []}
    assert facts["most_similar_pairs"] == []


def test_the_order_of_pairs_and_parts_does_not_matter(engine: Engine, tmp_path: Path) -> None:
    cluster = np.arange(40) // 4
    first = anomalies_of(engine, 40, on_a_sphere(40), cluster, method="all")
    other = Engine(Threads(1, 10**10), Run(str(tmp_path / "other")))
    again = anomalies_of(other, 40, on_a_sphere(40), cluster, method="all", parts=13, seed=9)
    pd.testing.assert_frame_equal(first[0], again[0], check_exact=True)
    for kind in KINDS:
        pd.testing.assert_frame_equal(first[1][kind], again[1][kind], check_exact=True)
    assert first[2] == again[2]


@pytest.mark.slow
def test_the_extremes_of_the_paper(engine: Engine, data: Path) -> None:
    _, extremes, _ = anomalies_of(engine, 500, aquarium_pairs(data), method="all")
    assert extremes["most dissimilar pair"]["similarity"][:2].tolist() == pytest.approx([-0.54200676, -0.50251479])
    assert (extremes["most similar pair"]["similarity"] > 0.999).sum() == 5
