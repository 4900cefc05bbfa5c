"""The tables of jobs end to end, from runs that are made up."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd
import pytest

from tests.bench import Options, peers, reduce
from tests.bench.jobs import Done, Span, near_pairs
from tests.bench.sources import Lake
from tests.bench.truth import Figures, Scored
from tests.bench.watch import Sample, Watched, cores

FOUND = Scored((Figures(0.6, 532, 601, 21, 9),), 601)


def done(name: str, n: int, wall: float, plan: str = "abc", lake: str = "cifar10_jpeg") -> Done:
    samples = tuple(Sample(1000 + at, 1.5 * at, 10**9) for at in range(int(wall) + 1))
    seen = Watched(0, "", "", wall, 1.5 * wall, 10**9, samples)
    summary = {
        "size": {"columns": 3072, "rows": 2604},
        "columns": {"m": 3072, "cond": 19157.0, "method": "tsqr"} if name != "similarity" else None,
        "clusters": {"regime": "join", "n_clusters_asked": round(0.94 * n)},
        "n_clusters": round(0.94 * n),
        "similarities": {"compared": 10, "near": 5} if name == "similarity" else None,
        "n_drop": 1,
        "n_influential": 2,
        "plan_hash": plan,
    }
    spans = {"images": Span(4.0, 6.0, 10**8), "plan": Span(wall - 6, 9.0, 10**9)}
    scored = FOUND if name == "similarity" else None
    return Done(reduce.job(name, n), Lake(lake, ["x"], n), summary, seen, spans, 1002, 1000 + wall - 2, None, scored)


def test_rows_fit_their_columns_and_targets_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "cores", lambda: reduce.CORES)
    rounds = {
        "wavelet": [done("wavelet", 50_000, wall) for wall in (20.0, 24.0, 30.0)],
        "processes": [done("processes", 50_000, 40.0)],
        "similarity": [done("similarity", 60_000, 70.0)],
    }
    tables = [make("cifar10_jpeg", rounds, Options()) for make in (reduce.ends, reduce.stages, reduce.outcome)]
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    assert float(tables[0].rows[0][2]) == 24.0
    assert tables[0].rows[0][2].rounds == (20.0, 24.0, 30.0)
    assert tables[1].keys == [0, 1]
    assert all(holds for _, holds in tables[2].checks)
    told = {target.what: target.met for target in tables[0].targets}
    assert told["wavelet, start to exit"]
    assert not told["similarity, start to exit"]
    assert told["similarity, recall of judged images"]
    assert not any(target.unjudged for target in tables[0].targets)


def test_a_plan_that_changes_from_round_to_round_does_not_hold() -> None:
    rounds = {"wavelet": [done("wavelet", 1000, 20.0), done("wavelet", 1000, 20.0, plan="other")]}
    checks = dict(reduce.outcome("cifar10_jpeg", rounds, Options()).checks)
    assert [claim for claim, holds in checks.items() if not holds] == [
        "wavelet, 940 clusters: the same plan in every round (2)"
    ]


def test_targets_say_where_they_are_not_asked() -> None:
    few = {"wavelet": [done("wavelet", 1000, 20.0)]}
    assert all("asked of n = 50,000" in target.unjudged for target in reduce.targets(few))
    photos = {"wavelet": [done("wavelet", 50_000, 20.0, lake="photos_caltech")]}
    assert list(reduce.targets(photos)) == []


def test_use_of_the_cores_is_that_of_the_stages() -> None:
    one = done("wavelet", 1000, 20.0)
    assert one.use_in_stages == pytest.approx(1.5 / cores())
    assert one.watched.use == pytest.approx(1.5 / cores())
    assert one.watched.between(1003.5, 1004.5) == (pytest.approx(1.5), 10**9)


def test_daskim_is_set_against_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "cores", lambda: peers.CORES)
    lake = Lake("cifar10_jpeg", ["x"], 50_000)
    rounds = {
        "daskim wavelet, Parquet": peers.Runs([done("wavelet", 50_000, 24.0).watched], 100),
        "cleanvision": peers.Runs([done("wavelet", 50_000, 60.0).watched], 7),
        "fastdup": peers.Runs([done("wavelet", 50_000, 600.0).watched], 9),
        "imagededup PHash": peers.Runs(note="cannot be installed: no such version"),
    }
    table = peers.costs("train", lake, rounds, Options())
    assert [target.met for target in table.targets] == [False, True]
    assert table.rows[-1] == ["imagededup PHash", None, None, None, None, None, "cannot be installed: no such version"]
    rounds["fastdup"].scored = FOUND
    rounds["imagededup PHash"].hashed = [(0, 3, Figures(0, 5, 601, 0, 0)), (10, 900, Figures(-10, 90, 601, 400, 8))]
    worth = peers.worth(lake, rounds)
    assert all(len(row) == len(worth.columns) for row in worth.rows)
    assert worth.rows[-1][-1] == 10
    assert len(peers.distances(lake, rounds).rows) == 2


class Run:
    """What `near_pairs` asks of a finished run."""

    summary: ClassVar[dict] = {}
    clusters = pd.DataFrame({"row": [0, 1, 2, 3, 4, 5], "cluster": [7, 3, 7, -1, 7, 2]})

    def table(self, name: str, columns: list[str]) -> pd.DataFrame:
        return pd.DataFrame({"row": range(6), "id": list("abcdef")})

    def has(self, name: str) -> bool:
        return False


def test_every_two_of_a_cluster_are_a_pair() -> None:
    ids, a, b, scores = near_pairs(Run())  # type: ignore[arg-type]
    assert {(ids[x], ids[y]) for x, y in zip(a, b)} == {("a", "c"), ("a", "e"), ("c", "e")}
    assert scores.tolist() == [1.0] * 3
