"""The integer Haar transform: PyWavelets times 2^J to the last bit, and no overflow at the worst images."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels.haar import haar_bound, haar_dtype, integer_haar

LEVELS = range(6)


def by_pywt(images: np.ndarray, level: int) -> list[np.ndarray]:
    """2^level times PyWavelets' coefficients, band by band, in float64 (exact: they are dyadic up to 2^level)."""
    first, *rest = pywt.wavedec2(images.astype(np.float64), "db1", mode="periodization", level=level, axes=(1, 2))
    return [band * 2**level for band in (first, *(band for triple in rest for band in triple))]


def extreme_images(side: int) -> np.ndarray:
    """Black, white, and every sign pattern of one level's filters at full contrast: where coefficients are largest."""
    row = np.arange(side)
    images = [np.zeros((side, side)), np.ones((side, side))]
    for width in (2**k for k in range(side.bit_length())):
        bars = (row // width) % 2
        checkers = bars[:, None] ^ bars[None, :]
        images += [checkers, 1 - checkers, np.tile(bars, (side, 1)), np.tile(1 - bars, (side, 1))]
        images += [np.tile(bars[:, None], (1, side)), np.tile(1 - bars[:, None], (1, side))]
    return (255 * np.array(images)).astype(np.uint8)


@settings(deadline=None, max_examples=80)
@given(
    level=st.sampled_from(LEVELS),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    count=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_bands_equal_pywt_times_a_power_of_two(level, rows, columns, count, seed):
    shape = (count, rows * 2**level, columns * 2**level)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    bands = integer_haar(images, level)
    assert len(bands) == 1 + 3 * level
    assert {band.dtype for band in bands} == {haar_dtype(level)}
    if level == 0:
        np.testing.assert_array_equal(bands[0], images)
        return
    for band, expected in zip(bands, by_pywt(images, level), strict=True):
        assert band.shape == expected.shape
        # The filters of pywt are 0.7071..., so its products are rounded; ours are the whole numbers next to them.
        np.testing.assert_array_equal(band, np.rint(expected))
        np.testing.assert_allclose(band, expected, atol=1e-9 * haar_bound(level))


def test_band_order_by_hand():
    square = np.array([[[1, 2], [4, 8]]], dtype=np.uint8)
    assert [band.item() for band in integer_haar(square, 1)] == [15, 1 + 2 - 4 - 8, 1 - 2 + 4 - 8, 1 - 2 - 4 + 8]
    shapes = [band.shape for band in integer_haar(np.zeros((5, 16, 8), dtype=np.uint8), 3)]
    assert shapes == [(5, 2, 1)] * 4 + [(5, 4, 2)] * 3 + [(5, 8, 4)] * 3


@settings(deadline=None, max_examples=40)
@given(level=st.sampled_from(LEVELS), seed=st.integers(0, 2**32 - 1))
def test_energy_and_distances_are_those_of_the_pixels(level, seed):
    images = np.random.default_rng(seed).integers(0, 256, (4, 32, 64), dtype=np.uint8)
    rows = np.concatenate([band.reshape(4, -1) for band in integer_haar(images, level)], axis=1).astype(np.int64)
    pixels = images.reshape(4, -1).astype(np.int64)
    assert rows.shape == pixels.shape
    np.testing.assert_array_equal(rows @ rows.T, 4**level * (pixels @ pixels.T))


@pytest.mark.parametrize("level", range(10))
def test_no_overflow_at_the_extremes_nor_in_differences(level):
    side = max(2**level, 4)
    images = extreme_images(side)
    narrow = np.concatenate([band.reshape(len(images), -1) for band in integer_haar(images, level)], axis=1)
    if level:
        wide = [np.rint(band).reshape(len(images), -1) for band in by_pywt(images, level)]
        np.testing.assert_array_equal(narrow, np.concatenate(wide, axis=1))
    exact = narrow.astype(np.int64)
    assert np.abs(exact).max() == haar_bound(level)  # the bound holds, and is reached
    for shift in range(1, len(images) if level < 6 else 3):  # 1: an image and its negative
        difference = np.roll(narrow, shift, axis=0) - narrow
        assert difference.dtype == haar_dtype(level)
        np.testing.assert_array_equal(difference, np.roll(exact, shift, axis=0) - exact)


@pytest.mark.parametrize("level", range(10))
def test_dtype_is_the_smallest_that_holds_a_difference(level):
    assert haar_bound(level) == 255 * 4**level
    dtype = haar_dtype(level)
    assert 2 * haar_bound(level) <= np.iinfo(dtype).max
    assert dtype == np.int16 or 2 * haar_bound(level) > np.iinfo(np.int16).max


@pytest.mark.parametrize("level", [-1, 10, 16])
def test_levels_out_of_range_are_refused(level):
    with pytest.raises(ValueError, match="0 to 9"):
        integer_haar(np.zeros((1, 2**10, 2**10), dtype=np.uint8), level)


@pytest.mark.parametrize(("shape", "level"), [((1, 3, 4), 1), ((1, 4, 3), 1), ((1, 1, 2), 1), ((2, 8, 12), 3)])
def test_sides_that_do_not_halve_are_refused(shape, level):
    with pytest.raises(ValueError, match="do not halve"):
        integer_haar(np.zeros(shape, dtype=np.uint8), level)


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.uint16])
def test_pixels_other_than_uint8_are_refused(dtype):
    with pytest.raises(ValueError, match="uint8"):
        integer_haar(np.ones((1, 2, 2), dtype=dtype), 1)


def test_input_is_left_alone():
    images = np.full((2, 4, 4), 200, dtype=np.uint8)
    integer_haar(images, 0)[0][:] = -1
    integer_haar(images, 2)[0][:] = -1
    assert (images == 200).all()
