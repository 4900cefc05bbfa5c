"""Which coefficients are kept: both ways to R agree, the bound holds, and the edges."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskim
from daskim.compute.threads import Threads
from daskim.engine import Engine
from daskim.errors import SettingsError
from daskim.kernels import qr
from daskim.kernels.laplacian_score import heat_kernel_graph, laplacian_scores
from daskim.plugins import transform_of
from daskim.settings import Settings
from daskim.stages import Size
from daskim.stages.columns.fold import factor_of, gram_source
from daskim.store import Run
from daskim.synthetic import planted_families

Reduce = Callable[..., daskim.FinishedRun]


def stored(found: daskim.FinishedRun) -> np.ndarray:
    """W with its true scale."""
    from daskim.store import Run

    array = Run(found.run).array("wavelets")
    return np.asarray(array[:]).astype(np.float64) * float(str(array.attrs["scale"]))


def check_choice(found: daskim.FinishedRun, tau: float) -> None:
    """The kept columns of W are well conditioned; one more pivot would not be."""
    w = stored(found)
    table = found.table("columns")
    facts = found.summary["columns"]
    kept = table["kept"].to_numpy()
    assert kept.sum() == facts["m"]
    assert (np.sort(table["pivot"]) == np.arange(len(table))).all()
    assert (table["pivot"][kept] < facts["m"]).all()
    s = np.linalg.svd(w[:, kept], compute_uv=False)
    assert facts["cond"] == pytest.approx(s[0] / s[-1], rel=1e-4)
    assert facts["cond"] < tau
    if facts["m"] < min(w.shape):
        order = np.argsort(table["pivot"].to_numpy())[: facts["m"] + 1]
        s = np.linalg.svd(w[:, order], compute_uv=False)
        assert s[-1] == 0 or s[0] / s[-1] >= tau * 0.999
    assert facts["greedy_slack"] < 1 + 1e-6
    condition = found.table("condition")
    assert condition["m"].is_monotonic_increasing
    finite = condition["cond"][np.isfinite(condition["cond"])]
    assert (np.diff(finite) >= -1e-9 * finite.to_numpy()[1:]).all()


@pytest.mark.parametrize("method", ["cholesky-qr", "tsqr"])
@pytest.mark.parametrize("n", [20, 192, 300, 1500], ids="n={}".format)
@pytest.mark.parametrize("tau", [2.0, 300.0, 1e5], ids="tau={:g}".format)
def test_the_bound_holds(reduce_arrays: Reduce, method: str, n: int, tau: float) -> None:
    images = planted_families(n, size=(8, 8), redundancy=0.1, seed=4).images
    found = reduce_arrays(images, columns__method=method, columns__tau=tau, clusters__n_clusters=0.9)
    assert found.summary["columns"]["method"] == method
    check_choice(found, tau)


@pytest.mark.parametrize("n", [20, 1500])
@pytest.mark.parametrize("tau", [1.5, 50.0, 1e5])
@pytest.mark.parametrize("wavelet", ["db1", "db2"])
def test_both_methods_keep_the_same_number(reduce_arrays: Reduce, n: int, tau: float, wavelet: str) -> None:
    images = planted_families(n, size=(8, 8), redundancy=0.1, seed=4).images
    values = {"columns__tau": tau, "wavelets__name": wavelet, "clusters__n_clusters": 0.9}
    one, other = (reduce_arrays(images, columns__method=method, **values) for method in ("cholesky-qr", "tsqr"))
    assert one.summary["columns"]["m"] == other.summary["columns"]["m"]
    assert one.summary["columns"]["cond"] == pytest.approx(other.summary["columns"]["cond"], rel=1e-3)
    if wavelet == "db1":
        assert one.table("columns")["kept"].tolist() == other.table("columns")["kept"].tolist()


def test_zero_columns_are_dropped_and_told(reduce_arrays: Reduce) -> None:
    images = planted_families(300, size=(8, 8), channels=1).images
    images[:, :2, :, :] = 0  # four by one coefficients of each band of level 1
    found = reduce_arrays(images)
    assert found.summary["columns"]["n_zero"] == 16
    assert found.summary["columns"]["m"] == 48
    assert not found.table("columns")["kept"][found.table("columns")["r_diagonal"] == 0].any()
    assert any("16 of 64 are zero" in note for note in found.summary["notes"])


def test_early_stop(reduce_arrays: Reduce) -> None:
    images = planted_families(400, size=(8, 8), seed=1).images
    whole = reduce_arrays(images)
    diagonal = np.sort(whole.table("columns")["r_diagonal"])[::-1]
    stop = 0.05
    found = reduce_arrays(images, columns__stop=stop)
    rank = int((diagonal / diagonal[0] >= stop).sum())
    assert found.summary["columns"]["rank"] == pytest.approx(rank, abs=1)
    assert found.summary["columns"]["m"] == found.summary["columns"]["rank"] < whole.summary["columns"]["m"]
    kept = found.table("columns")
    assert whole.table("columns").loc[kept["kept"].to_numpy(), "kept"].all()


def test_fewer_images_than_columns(reduce_arrays: Reduce) -> None:
    images = planted_families(50, size=(16, 16), redundancy=0.0).images
    found = reduce_arrays(images)
    assert found.summary["columns"]["d"] == 768
    assert found.summary["columns"]["m"] <= 50
    assert found.summary["columns"]["rank"] <= 50


def test_auto_says_which_and_why(reduce_arrays: Reduce) -> None:
    images = planted_families(100, size=(8, 8)).images
    near = reduce_arrays(images).summary["columns"]
    assert near["method"] == "cholesky-qr"
    assert "exactly in whole numbers" in near["why"]
    far = reduce_arrays(images, columns__tau=1e10).summary["columns"]
    assert far["method"] == "tsqr"
    assert "1e+10" in far["why"]


def test_cholesky_beyond_its_reach_is_refused(reduce_arrays: Reduce) -> None:
    with pytest.raises(SettingsError, match="cannot tell") as caught:
        reduce_arrays(planted_families(10, size=(8, 8)).images, columns__method="cholesky-qr", columns__tau=1e9)
    assert "tsqr" in caught.value.hint


@pytest.mark.parametrize(
    ("shape", "values", "source"),
    [
        ((8, 8, 3), {}, "images"),
        ((7, 9, 3), {"level": 2}, "images"),  # extended: fewer pixels than coefficients
        ((8, 8, 1), {"level": 3}, "images"),
        ((16, 16, 3), {"bands": "coarse"}, "wavelets"),
        ((16, 16, 3), {"max_columns": 200, "level": 2}, "wavelets"),
        ((8, 8, 1), {"level": 7, "max_columns": 100}, None),  # sums may exceed 2^53
        ((8, 8, 3), {"name": "db2"}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["random", "extreme", "grey"])
def test_sums_of_pixels_and_of_coefficients_are_one_matrix(
    tmp_path: Path, shape: tuple[int, int, int], values: dict[str, Any], source: str | None, kind: str
) -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (2500, *shape), dtype=np.uint8)
    if kind == "extreme":
        images[:] = 255 * (images > 250)
    elif kind == "grey":
        images[:] = images[..., :1]
    chosen = Settings.model_validate({"wavelets": values})
    transform = transform_of(chosen.wavelets, shape)
    size = Size(2500, *shape, transform.columns, transform.dtype.itemsize, 384, 10, 0)
    assert gram_source(transform, size) == source
    run, w = Run(str(tmp_path)), transform(images)
    for name, array in (("images", images), ("wavelets", w)):
        run.create_array(name, array.shape, array.dtype, 384)[:] = array
    with closing(Threads(2, 1 << 30)) as place:
        factor, zero = factor_of(Engine(place, run), run, "cholesky-qr", transform, size, 0.0)
    if source is not None:
        exact = w.astype(np.int64).T @ w.astype(np.int64)
        expected = qr.pivoted_cholesky(exact)
        np.testing.assert_array_equal(factor.permutation, expected.permutation)
        np.testing.assert_array_equal(factor.r, expected.r)
        np.testing.assert_array_equal(zero, np.flatnonzero(~w.any(axis=0)))
    wide = w[:, factor.permutation].astype(np.float64)
    np.testing.assert_allclose(factor.r.T @ factor.r, wide.T @ wide, rtol=1e-7, atol=1e-9 * (wide * wide).sum())


def test_sixty_four_condition_numbers_are_stored(reduce_arrays: Reduce) -> None:
    found = reduce_arrays(planted_families(1000, size=(12, 12)).images, columns__tau=100.0)
    table = found.table("condition").set_index("m")["cond"]
    m = found.summary["columns"]["m"]
    assert len(table) >= 64
    assert table[m] == found.summary["columns"]["cond"] < 100 <= table[m + 1] == found.summary["columns"]["cond_next"]
    w, pivot = stored(found), found.table("columns")["pivot"].to_numpy()
    order = np.argsort(pivot)
    for k in (1, m // 2, m, m + 1):
        if k in table.index:
            s = np.linalg.svd(w[:, order[:k]], compute_uv=False)
            assert table[k] == pytest.approx(s[0] / s[-1], rel=1e-5)


class TestLaplacianScore:
    @pytest.mark.parametrize("tau", [1e5, 1e8], ids=["Gram", "tree"])
    @pytest.mark.parametrize("count", [1, 40, 0.25, 10**6])
    def test_the_best_columns_are_kept(self, reduce_arrays: Reduce, count: float, tau: float) -> None:
        images = planted_families(300, size=(8, 8), redundancy=0.1, seed=4).images
        values = {"columns__method": "laplacian-score", "columns__count": count, "columns__tau": tau}
        found = reduce_arrays(images, **values)
        w, table, facts = stored(found), found.table("columns"), found.summary["columns"]
        distinct = np.sort(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])
        scores = laplacian_scores(w[distinct], heat_kernel_graph(w[distinct], 5))
        np.testing.assert_allclose(table["score"], scores, rtol=1e-12)
        m = min(192, round(count * 192) if count < 1 else int(count))
        assert facts["method"] == "laplacian-score"
        assert (facts["m"], facts["d"], facts["graph_images"]) == (m, 192, len(distinct))
        assert np.flatnonzero(table["kept"]).tolist() == sorted(np.argsort(scores, kind="stable")[:m])
        np.testing.assert_array_equal(np.argsort(table["pivot"]), np.argsort(scores, kind="stable"))
        s = np.linalg.svd(w[:, table["kept"].to_numpy()], compute_uv=False)
        assert facts["cond"] == pytest.approx(s[0] / s[-1], rel=1e-6)
        curve = found.table("condition").set_index("m")["cond"]
        assert curve[m] == facts["cond"]
        assert m == 192 or curve[m + 1] == facts["cond_next"] >= facts["cond"]
        assert len(curve) >= 64

    def test_r_is_that_of_w(self, reduce_arrays: Reduce) -> None:
        from daskim.store import Run

        images = planted_families(300, size=(8, 8), seed=4).images
        found = reduce_arrays(images, columns__method="laplacian-score")
        r = np.asarray(Run(found.run).array("columns_r")[:])
        w = np.asarray(Run(found.run).array("wavelets")[:]).astype(float)
        w = w[:, np.argsort(found.table("columns")["pivot"])]
        np.testing.assert_allclose(r.T @ r, w.T @ w, rtol=1e-9, atol=1e-9 * (w * w).sum())
        np.testing.assert_allclose(r, np.triu(r))

    def test_copies_are_found_with_the_kept_columns(self, reduce_arrays: Reduce) -> None:
        images = planted_families(200, size=(16, 16), redundancy=0.0, seed=2).images
        images[100:120] = images[:20]
        near = images[20:40].astype(int) + np.random.default_rng(0).integers(-1, 2, images[20:40].shape)
        images[120:140] = np.clip(near, 0, 255)
        found = reduce_arrays(images, columns__method="laplacian-score", columns__count=0.2, clusters__n_clusters=160)
        plan = found.table("plan")
        dropped = set(plan.index[plan["decision"] == "drop"])
        assert set(range(100, 120)) <= dropped
        assert all(bool({a, a + 100} & dropped) for a in range(20, 40))
        assert len(dropped) == 40

    def test_a_sample_of_the_images(self, reduce_arrays: Reduce) -> None:
        images = planted_families(300, size=(8, 8), redundancy=0.0, seed=4).images
        values = {"columns__method": "laplacian-score", "columns__sample": 50, "columns__count": 20}
        one, same, other = (reduce_arrays(images, columns__seed=seed, **values) for seed in (1, 1, 2))
        assert one.summary["columns"]["graph_images"] == 50
        assert one.table("columns")["score"].tolist() == same.table("columns")["score"].tolist()
        assert one.table("columns")["score"].tolist() != other.table("columns")["score"].tolist()

    def test_blocks_do_not_matter(self, reduce_arrays: Reduce) -> None:
        images = planted_families(300, size=(8, 8), seed=4).images
        values = {"columns__method": "laplacian-score", "columns__sample": 60}
        one, other = (reduce_arrays(images, blocks__rows=rows, **values) for rows in (32, 300))
        assert one.table("columns").equals(other.table("columns"))
        assert one.summary["plan_hash"] == other.summary["plan_hash"]

    def test_zero_and_dependent_columns(self, reduce_arrays: Reduce) -> None:
        grey = planted_families(300, size=(8, 8), channels=1).images
        images = np.repeat(grey, 3, axis=-1)
        images[:, :2, :, :] = 0
        found = reduce_arrays(images, columns__method="laplacian-score", columns__count=192)
        facts = found.summary["columns"]
        assert (facts["n_zero"], facts["n_constant"], facts["m"], facts["rank"]) == (48, 48, 144, 48)
        assert facts["cond"] is None
        assert found.table("condition")["cond"].iloc[-1] == np.inf
        assert any("numerically infinite" in note for note in found.summary["notes"])
        assert any("no bound" in note for note in found.summary["notes"])

    def test_hardly_any_images(self, reduce_arrays: Reduce) -> None:
        images = planted_families(40, size=(8, 8), redundancy=0.0).images
        values = {"columns__method": "laplacian-score"}
        assert reduce_arrays(images[:3], **values).summary["columns"]["m"] == 96
        alone = reduce_arrays(np.repeat(images[:1], 4, axis=0), [0] * 4, **values)
        assert alone.summary["columns"]["m"] == 1
        assert (alone.summary["n_keep"], alone.summary["n_drop"]) == (1, 3)
        black = reduce_arrays(np.zeros((10, 8, 8, 3), dtype=np.uint8), [0] * 10, **values)
        assert black.summary["columns"]["m"] == 0

    @pytest.mark.parametrize("count", [0, -1, 1.5, 1.0, True, "many"])
    def test_counts_that_make_no_sense(self, reduce_arrays: Reduce, count: object) -> None:
        with pytest.raises(SettingsError, match=r"columns\.count"):
            reduce_arrays(planted_families(10, size=(8, 8)).images, columns__count=count)
