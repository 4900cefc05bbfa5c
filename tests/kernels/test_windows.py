"""Sliding windows as matrix products, against scipy.ndimage and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from daskim.kernels.windows import SeparableWindow, gaussian_taps, uniform_taps, window_matrix

MODES = {"edge": "nearest", "reflect": "reflect", "zero": "constant"}


def test_taps() -> None:
    np.testing.assert_array_equal(uniform_taps(4), [0.25] * 4)
    taps = gaussian_taps(1.5, 5)
    assert taps.shape == (11,)
    np.testing.assert_allclose(taps.sum(), 1.0, rtol=1e-15)
    np.testing.assert_allclose(taps / taps[5], np.exp(-(np.arange(-5, 6) ** 2) / 4.5), rtol=1e-14)
    # The same as scipy's Gaussian, cut at 3.5 sigma.
    impulse = np.eye(1, 41, 20)[0]
    np.testing.assert_allclose(ndimage.gaussian_filter1d(impulse, 1.5, truncate=3.5)[15:26], taps, atol=1e-15)


@settings(deadline=None, max_examples=200)
@given(
    length=st.integers(1, 90),
    taps=st.lists(st.integers(-9, 9), min_size=1, max_size=14),
    border=st.sampled_from(sorted(MODES)),
    step=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_matrix_against_scipy(length: int, taps: list[int], border: str, step: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 100, length).astype(float)
    weights = np.array(taps, dtype=float)
    # scipy puts an even window one further to the left
    expected = ndimage.correlate1d(x, weights, mode=MODES[border], origin=-1 if len(taps) % 2 == 0 else 0)
    matrix = window_matrix(length, weights, border, step)
    assert matrix.shape == (-(-length // step), length)
    np.testing.assert_array_equal(matrix @ x, expected[::step])


@given(length=st.integers(1, 40), k=st.integers(1, 40), step=st.integers(1, 3))
def test_valid_windows_lie_inside(length: int, k: int, step: int) -> None:
    weights = np.arange(1.0, k + 1)
    if k > length:
        with pytest.raises(ValueError, match="does not fit"):
            window_matrix(length, weights, "valid", step)
        return
    x = np.arange(length, dtype=float) ** 2
    expected = np.lib.stride_tricks.sliding_window_view(x, k) @ weights
    np.testing.assert_array_equal(window_matrix(length, weights, "valid", step) @ x, expected[::step])


@pytest.mark.parametrize("border", ["valid", *MODES])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_axes_also_where_they_are_long(border: str, dtype: type) -> None:
    """150 x 203 pixels take several products each way; whole numbers come out exactly in both dtypes."""
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 50, (2, 3, 150, 203)).astype(dtype)
    rows, columns = np.array([1.0, 3, -2, 4, 1]), np.array([2.0, -1, 5])
    window = SeparableWindow(window_matrix(150, rows, border), window_matrix(203, columns, border))
    out = window(maps)
    assert out.dtype == dtype
    assert out.shape[2:] == window.shape
    mode = MODES.get(border, "constant")
    expected = ndimage.correlate1d(ndimage.correlate1d(maps, rows, 2, mode=mode), columns, 3, mode=mode)
    np.testing.assert_array_equal(out, expected[..., 2:-2, 1:-1] if border == "valid" else expected)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_channels_are_a_third_axis(channels: int) -> None:
    maps = np.random.default_rng(0).random((4, channels, 9, 12))
    taps = gaussian_taps(1.5, 5)
    matrices = [window_matrix(side, taps, "edge") for side in (9, 12, channels)]
    expected = ndimage.gaussian_filter(maps, 1.5, axes=(1, 2, 3), truncate=3.5, mode="nearest")
    np.testing.assert_allclose(SeparableWindow(*matrices)(maps), expected, rtol=1e-13)


def test_a_matrix_with_an_empty_row() -> None:
    rows = np.zeros((3, 4))
    rows[1, 2] = 1.0
    np.testing.assert_array_equal(
        SeparableWindow(rows, np.eye(2))(np.arange(8.0).reshape(1, 1, 4, 2))[0, 0], [[0, 0], [4, 5], [0, 0]]
    )
    zero = np.zeros((2, 4))
    np.testing.assert_array_equal(SeparableWindow(zero, np.eye(2))(np.ones((1, 1, 4, 2))), np.zeros((1, 1, 2, 2)))


def test_an_image_does_not_depend_on_its_stack() -> None:
    maps = np.random.default_rng(0).random((13, 3, 33, 31))
    taps = gaussian_taps(1.5, 5)
    window = SeparableWindow(*(window_matrix(side, taps, "edge") for side in (33, 31, 3)))
    together = window(maps)
    for at in range(13):
        np.testing.assert_array_equal(window(maps[at : at + 1])[0], together[at])
    assert window(maps[:0]).shape == (0, 3, 33, 31)
