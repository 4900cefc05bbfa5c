"""The contract of image transforms, on every file of the folder; wavelets against PyWavelets."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskim.errors import SettingsError
from daskim.plugins import find, names, transform_of
from daskim.settings import Wavelets

SHAPES = [(8, 8, 3), (16, 8, 1), (7, 9, 3), (1, 1, 1), (5, 32, 2)]


def images_of(shape: tuple[int, int, int], count: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def padded(images: np.ndarray, level: int) -> np.ndarray:
    """Sides extended to multiples of 2^level by repeating the last row or column."""
    unit = 2**level
    rows, columns = -images.shape[1] % unit, -images.shape[2] % unit
    return np.pad(images, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")


def by_pywt(images: np.ndarray, name: str, level: int) -> np.ndarray:
    """The same coefficients, image by image and channel by channel, by wavedec2."""
    rows = []
    for image in padded(images, level).astype(np.float64):
        row: list[np.ndarray] = []
        for channel in range(image.shape[2]):
            approximation, details = image[..., channel], []
            for _ in range(level):
                approximation, bands = pywt.dwt2(approximation, name, mode="periodization")
                details = [*bands, *details]
            row += [approximation.ravel(), *[band.ravel() for band in details]]
        rows.append(np.concatenate(row))
    return np.array(rows)


@pytest.mark.parametrize("name", names("transforms"))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
class TestContract:
    def test_shapes_and_types(self, name: str, shape: tuple[int, int, int]) -> None:
        transform = find("transforms", name)(shape)
        block = images_of(shape)
        out = transform(block)
        assert out.shape == (len(block), transform.columns)
        assert out.dtype == transform.dtype
        assert transform(block[:0]).shape == (0, transform.columns)

    def test_stays_within_its_bound(self, name: str, shape: tuple[int, int, int]) -> None:
        transform = find("transforms", name)(shape)
        extremes = np.where(images_of(shape, 64) > 127, 255, 0).astype(np.uint8)
        checkers = np.indices(shape[:2]).sum(axis=0) % 2
        extremes[0] = 255
        extremes[1] = np.where(checkers[..., None] > 0, 255, 0)
        assert np.abs(transform(extremes).astype(np.float64)).max() <= transform.bound

    def test_exact_means_whole_numbers(self, name: str, shape: tuple[int, int, int]) -> None:
        transform = find("transforms", name)(shape)
        out = transform(images_of(shape)).astype(np.float64)
        assert not transform.exact or (out == np.round(out)).all()

    def test_rows_do_not_touch_one_another(self, name: str, shape: tuple[int, int, int]) -> None:
        transform = find("transforms", name)(shape)
        block = images_of(shape, 600)  # more than one slice
        together = transform(block)
        np.testing.assert_array_equal(together[511:513], transform(block[511:513]))

    def test_the_input_stays_as_it_is(self, name: str, shape: tuple[int, int, int]) -> None:
        block = images_of(shape)
        before = block.copy()
        block.flags.writeable = False
        find("transforms", name)(shape)(block)
        np.testing.assert_array_equal(block, before)

    def test_table_names_every_column(self, name: str, shape: tuple[int, int, int]) -> None:
        transform = find("transforms", name)(shape)
        table = transform.table()
        assert set(table) == {"band", "level", "channel"}
        assert {len(column) for column in table.values()} == {transform.columns}

    def test_survives_the_way_to_a_worker(self, name: str, shape: tuple[int, int, int]) -> None:
        transform = find("transforms", name)(shape)
        again = pickle.loads(pickle.dumps(transform))
        np.testing.assert_array_equal(again(images_of(shape)), transform(images_of(shape)))

    def test_says_what_its_output_depends_on(self, name: str, shape: tuple[int, int, int]) -> None:
        versions = find("transforms", name)(shape).versions
        assert versions
        assert all(isinstance(text, str) for text in versions.values())


@pytest.mark.parametrize("wavelet", ["db1", "haar", "db2", "db4", "sym5", "coif1", "bior2.2"])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(16, 16, 3), (24, 8, 1), (13, 10, 2)], ids=str)
def test_against_pywavelets(wavelet: str, level: int, shape: tuple[int, int, int]) -> None:
    transform = find("transforms", "wavelet")(shape, wavelet, level, "all")
    block = images_of(shape)
    expected = by_pywt(block, wavelet, level)
    found = transform(block).astype(np.float64) * transform.scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 if transform.exact else 2e-3)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.integers(1, 3))),
    st.integers(0, 4),
)
def test_haar_keeps_distances(block: np.ndarray, level: int) -> None:
    """Orthonormal up to its scale, on the padded pixels: exactly, for whole numbers."""
    shape = (block.shape[1], block.shape[2], block.shape[3])
    transform = find("transforms", "wavelet")(shape, "db1", level, "all")
    coefficients = transform(block).astype(np.int64)
    pixels = padded(block, level).reshape(len(block), -1).astype(np.int64)
    np.testing.assert_array_equal(coefficients @ coefficients.T, (pixels @ pixels.T) * 4**level)


@pytest.mark.parametrize("level", [0, 1, 2, 4])
@pytest.mark.parametrize("bands", ["all", "coarse"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_linear_map_takes_sums_over_pixels_to_sums_over_coefficients(
    shape: tuple[int, int, int], bands: str, level: int
) -> None:
    transform = find("transforms", "wavelet")(shape, "haar", level, bands)
    images = images_of(shape, 300)
    flat, w = images.reshape(300, -1).astype(np.float64), transform(images).astype(np.float64)
    np.testing.assert_array_equal(transform.linear(images.astype(np.float64)), w)
    np.testing.assert_array_equal(transform.linear(-images.astype(np.float64)), -w)
    half = transform.linear((flat.T @ flat).reshape(-1, *shape))
    np.testing.assert_array_equal(transform.linear(half.T.reshape(-1, *shape)), w.T @ w)


def test_all_bands_keep_every_coefficient() -> None:
    transform = find("transforms", "wavelet")((128, 128, 3), "db1", 1, "all", 10)
    assert transform.columns == 128 * 128 * 3
    assert not transform.notes


def test_auto_takes_the_coarsest_bands_that_fit() -> None:
    everything = find("transforms", "wavelet")((16, 16, 1), "db1", 2, "all")
    some = find("transforms", "wavelet")((16, 16, 1), "db1", 2, "auto", 100)
    assert some.columns == 64  # 4 x 4 and three details of 4 x 4; those of 8 x 8 would make 256
    block = images_of((16, 16, 1))
    np.testing.assert_array_equal(some(block), everything(block)[:, :64])
    assert set(some.table()["level"]) == {2}
    assert any("64 of 256" in note and "level 1" in note for note in some.notes)


def test_auto_goes_deeper_where_not_even_the_approximation_fits() -> None:
    transform = find("transforms", "wavelet")((64, 64, 3), "db1", 1, "auto", 200)
    assert transform.columns <= 200
    assert transform.level == 3
    assert any("level 3 instead of 1" in note for note in transform.notes)


def test_auto_keeps_all_where_all_fit() -> None:
    transform = find("transforms", "wavelet")((32, 32, 3))
    assert transform.columns == 3072
    assert not transform.notes


def test_coarse_is_the_approximation() -> None:
    transform = find("transforms", "wavelet")((16, 16, 3), "db2", 2, "coarse")
    assert transform.columns == 3 * 4 * 4
    assert set(transform.table()["band"]) == {"cA"}
    block = images_of((16, 16, 3))
    whole = find("transforms", "wavelet")((16, 16, 3), "db2", 2, "all")
    kept = np.array(whole.table()["band"]) == "cA"
    np.testing.assert_array_equal(transform(block), whole(block)[:, kept])
    assert any("left out" in note for note in transform.notes)


def test_padding_is_told() -> None:
    transform = find("transforms", "wavelet")((7, 9, 3), "db1", 2)
    assert any("7x9 is extended to 8x12" in note and "multiples of 4" in note for note in transform.notes)
    assert not find("transforms", "wavelet")((8, 12, 3), "db1", 2).notes


def test_unknown_wavelet_names_near_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        find("transforms", "wavelet")((8, 8, 3), "db22x")
    assert "db22" in caught.value.hint


def test_unknown_plugin_lists_what_there_is() -> None:
    with pytest.raises(SettingsError) as caught:
        find("transforms", "fourier")
    assert "wavelet" in caught.value.hint


@pytest.mark.parametrize("name", ["nothing.here.Klass", "daskim.errors.Nothing", ".", "a.", ".b"])
def test_dotted_name_that_leads_nowhere(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        find("transforms", name)
    assert name in caught.value.what
    assert "package.module.Class" in caught.value.hint


OUTSIDE = """
import numpy as np

class Means:
    def __init__(self, shape, name="db1", level=1, bands="auto", max_columns=4096):
        self.columns, self.dtype, self.scale = shape[2], np.dtype(np.float32), 1.0
        self.exact, self.bound, self.notes, self.versions = False, 255.0, ["means only"], {"means": "1"}

    def table(self):
        return {"channel": list(range(self.columns)), "band": ["mean"] * self.columns, "level": [0] * self.columns}

    def __call__(self, block):
        return block.mean(axis=(1, 2)).astype(np.float32)
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "outside_transform.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "outside_transform.Means"
    sys.modules.pop("outside_transform", None)


def test_dotted_name_loads_a_plugin_from_outside(outside: str) -> None:
    transform = transform_of(Wavelets(transform=outside), (4, 4, 3))
    np.testing.assert_allclose(transform(images_of((4, 4, 3))), images_of((4, 4, 3)).mean(axis=(1, 2)), rtol=1e-6)
