"""What the benchmarks of lakes and growth compute, against brute force and exact powers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from daskim.synthetic import lake_rows
from tests.bench.growing import Grown, Took, _steps
from tests.bench.growth import by_stage, exponents, fitted, whole
from tests.bench.lakes import NEIGHBOURS, QUANTILES, beside, distances, graph
from tests.bench.watch import Sample, Watched


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return lake_rows(0, 700, redundancy=0.1).images


@pytest.fixture(scope="module")
def rms(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.int64)
    squared = np.array([((flat - row) ** 2).sum(axis=1) for row in flat])
    return np.sqrt(squared / flat.shape[1])


def test_distances_are_those_of_brute_force(images: np.ndarray, rms: np.ndarray) -> None:
    others = rms + np.diag(np.full(len(rms), np.inf))
    near = np.sort(others, axis=1)
    for told, k, q in zip(distances(images).values(), np.repeat(NEIGHBOURS, len(QUANTILES)), QUANTILES * 3):
        assert told == pytest.approx(np.percentile(near[:, k - 1], q), rel=1e-3, abs=0.02)


@pytest.mark.parametrize("radius", [5.0, 35.0, 60.0])
def test_graph_is_that_of_brute_force(images: np.ndarray, rms: np.ndarray, radius: float) -> None:
    i, j = np.nonzero(np.triu(rms <= radius, 1))
    _, component = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=rms.shape), directed=False)
    degree = np.bincount(np.concatenate([i, j]), minlength=len(rms))
    assert graph(images, radius) == (len(i), np.bincount(component).max(), degree.max())


def test_what_is_judged_beside_cifar() -> None:
    ours = {"near": 10.0, "far": 30.0, "dropped rarely": 0.001}
    theirs = {"near": 19.0, "far": 10.0, "dropped rarely": 0.01}
    table = beside(1_000, 50_000, theirs, ours, judged=True)
    assert [holds for _, holds in table.checks] == [True, False]  # too few were dropped to judge
    assert not beside(1_000, 50_000, None, ours, judged=True).checks


def test_exponents_of_exact_powers() -> None:
    n = [50_000, 200_000, 2_000_000]
    power, error = fitted(n, [3 * size**1.3 for size in n])
    assert power == pytest.approx(1.3)
    assert error == pytest.approx(0, abs=1e-6)
    assert fitted(n[:2], [1.0, 4.0]) == (pytest.approx(1.0), None)
    assert fitted(n, [1.0, 0.0, 2.0]) == (None, None)
    assert fitted(n[:1], [1.0]) == (None, None)


def test_standard_error_is_that_of_linear_regression() -> None:
    from scipy.stats import linregress

    n = [50_000, 100_000, 300_000, 900_000]
    values = [1.0, 2.3, 6.1, 21.0]
    told = linregress(np.log(n), np.log(values))
    assert fitted(n, values) == (pytest.approx(told.slope), pytest.approx(told.stderr))


def ran(n: int, worker: int = 500_000_000) -> Grown:
    clusters = Took(1e-7 * n**1.6, 1e-7 * n**1.6, worker, worker, 600_000_000, 800_000_000)
    images = Took(1e-4 * n, 1e-4 * n, worker, worker, 600_000_000, 800_000_000)
    step = Took(1e-5 * n, 1e-5 * n)
    return Grown("wavelet", n, 1.0, 2.0, {"images": images, "clusters": clusters}, {"images: blocks": step}, {})


def test_targets_of_growth() -> None:
    runs = [ran(50_000), ran(200_000), ran(2_000_000, 550_000_000)]
    by_name = {target.what.partition(" (")[0]: target for target in exponents("wavelet", runs, {}).targets}
    assert by_name["wavelet: exponent of images"].met
    assert not by_name["wavelet: exponent of clusters"].met
    assert not any(target.unjudged for target in by_name.values())
    memory = by_stage("wavelet", runs, {}).targets
    assert [target.met for target in memory] == [True, True]
    assert memory[0].value == pytest.approx(550 / 600)
    assert memory[1].value == pytest.approx(1.1)
    assert not by_stage("wavelet", [ran(50_000), ran(200_000, 700_000_000)], {}).targets[0].met
    few = exponents("wavelet", [ran(10_000), ran(50_000)], {})
    assert all(target.unjudged for target in few.targets)
    assert len(whole("wavelet", runs, {}).rows) == 3


def test_steps_end_with_their_last_marker(tmp_path: Path) -> None:
    for name, at in (("coarse-0001", 12.0), ("coarse-0000", 11.0), ("band-0000", 15.0), ("band-0001", 19.0)):
        (tmp_path / f"{name}.json").write_text("{}")
        os.utime(tmp_path / f"{name}.json", (at, at))
    seen = Watched(0, "", "", 10.0, 20.0, 1, (Sample(10.0, 0.0, 1), Sample(20.0, 20.0, 1)))
    found = _steps("candidates", tmp_path, 10.0, 20.0, seen)
    assert {name: (took.seconds, took.cpu) for name, took in found.items()} == {
        "candidates: coarse": (2.0, pytest.approx(4.0)),
        "candidates: band": (7.0, pytest.approx(14.0)),
        "candidates: the rest": (1.0, pytest.approx(2.0)),
    }
    assert not _steps("plan", tmp_path / "none", 10.0, 20.0, seen)
