"""Which coefficients are kept: both ways to R agree, the bound holds, and the edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import daskim
from daskim.errors import SettingsError
from daskim.synthetic import planted_families

Reduce = Callable[..., daskim.Reduction]


def stored(found: daskim.Reduction) -> np.ndarray:
    """W with its true scale."""
    from daskim.store import Run

    array = Run(found.run).array("wavelets")
    return np.asarray(array[:]).astype(np.float64) * float(str(array.attrs["scale"]))


def check_choice(found: daskim.Reduction, tau: float) -> None:
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
