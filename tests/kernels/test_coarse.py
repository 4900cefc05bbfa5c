"""Coarse forms: means of cells, brightness and contrast off, mirrored and cropped as the image would be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels.coarse import CELLS, forms, luma, width


def images_of(count: int, height: int, across: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, across, channels)).astype(np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    """Means of blocks, less those of each channel, over the norm; float64."""
    b, height, across, channels = images.shape
    cells = images.reshape(b, CELLS, height // CELLS, CELLS, across // CELLS, channels).mean(axis=(2, 4))
    cells = (cells - cells.mean(axis=(1, 2), keepdims=True)).swapaxes(2, 3).reshape(b, -1)  # rows, channels, columns
    return cells / np.linalg.norm(cells, axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(8, 8, 3), (32, 32, 3), (24, 40, 1), (64, 16, 3)], ids=str)
def test_cells_are_means_of_blocks(shape: tuple[int, int, int]) -> None:
    images = images_of(10, *shape)
    found = forms(images, (), mirror=False)
    assert found.shape == (10, 1, width(shape[2]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], expected(images), atol=1e-6)


def test_forms_and_their_order() -> None:
    """The whole, its mirror, then each crop and its mirror."""
    images = images_of(5, 32, 32, 3)
    found = forms(images, (0.75, 0.5), mirror=True)
    assert found.shape == (5, 6, width(3))
    plain = forms(images, (0.75, 0.5), mirror=False)
    np.testing.assert_array_equal(found[:, ::2], plain)
    np.testing.assert_allclose(found[:, 1::2], forms(images[:, :, ::-1], (0.75, 0.5), mirror=False), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)


@pytest.mark.parametrize(("sides", "share"), [((32, 32), 0.5), ((32, 64), 0.75), ((64, 32), 0.25)])
def test_a_crop_is_the_whole_of_the_cropped_image(sides: tuple[int, int], share: float) -> None:
    images = images_of(6, *sides, 3)
    y, x = (round(side * (1 - share) / 2) for side in sides)
    cropped = images[:, y : sides[0] - y, x : sides[1] - x]
    assert cropped.shape[1] == sides[0] * share
    assert cropped.shape[1] % CELLS == cropped.shape[2] % CELLS == 0
    found = forms(images, (share,), mirror=True)[:, 2:]
    np.testing.assert_allclose(found, forms(cropped, (), mirror=True), atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    sides=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    factor=st.sampled_from([1, 2, 3]),
    levels=st.tuples(*[st.integers(0, 60)] * 3),
    seed=st.integers(0, 1000),
)
def test_brightness_and_contrast_do_not_matter(
    sides: tuple[int, int], factor: int, levels: tuple[int, int, int], seed: int
) -> None:
    """Any brightness of each channel, one contrast; all within 0 to 255, so nothing is clipped or rounded."""
    images = images_of(4, *sides, 3, seed) // 4
    edited = (images * factor + np.array(levels)).astype(np.uint8)
    assert edited.max() < 255
    np.testing.assert_allclose(forms(edited, (0.75,), mirror=True), forms(images, (0.75,), mirror=True), atol=2e-5)


def test_the_contrast_of_one_channel_does_matter() -> None:
    images = images_of(4, 16, 16, 3) // 2
    edited = images * np.array([2, 1, 1], dtype=np.uint8)
    found = np.vecdot(forms(edited, (), mirror=False)[:, 0], forms(images, (), mirror=False)[:, 0])
    assert (found < 0.99).all()


@pytest.mark.parametrize("sides", [(32, 32), (13, 29), (7, 50), (3, 5)], ids=str)
def test_flat_images_give_zeros(sides: tuple[int, int]) -> None:
    grey = np.array([0, 1, 127, 254, 255], dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(grey, (5, *sides, 3))
    np.testing.assert_array_equal(forms(images, (0.875, 0.75), mirror=True), 0)
    coloured = np.broadcast_to(np.array([250, 3, 90], dtype=np.uint8), (2, *sides, 3))
    np.testing.assert_array_equal(forms(coloured, (0.875, 0.75), mirror=True), 0)


def test_no_image_depends_on_the_others() -> None:
    images = images_of(11, 20, 30, 3)
    whole = forms(images, (0.875,), mirror=True)
    for size in (1, 2, 4):
        parts = [forms(images[at : at + size], (0.875,), mirror=True) for at in range(0, 11, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert forms(images[:0], (0.875,), mirror=True).shape == (0, 4, width(3))


class TestLuma:
    def test_at_its_own_size(self) -> None:
        images = images_of(3, 32, 32, 3)
        found = luma(images, 32)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, images @ np.array([0.299, 0.587, 0.114]), rtol=1e-5)

    @pytest.mark.parametrize("sides", [(64, 64), (96, 32), (32, 160)], ids=str)
    def test_means_of_blocks(self, sides: tuple[int, int]) -> None:
        images = images_of(3, *sides, 3)
        grey = images @ np.array([0.299, 0.587, 0.114])
        blocks = grey.reshape(3, 32, sides[0] // 32, 32, sides[1] // 32).mean(axis=(2, 4))
        np.testing.assert_allclose(luma(images, 32), blocks, rtol=1e-5)

    def test_one_channel_is_itself(self) -> None:
        images = images_of(3, 32, 32, 1)
        np.testing.assert_array_equal(luma(images, 32), images[..., 0])

    def test_smaller_images_are_spread(self) -> None:
        images = images_of(2, 16, 8, 1)
        np.testing.assert_allclose(luma(images, 32), images[..., 0].repeat(2, axis=1).repeat(4, axis=2), rtol=1e-6)

    def test_white_stays_white(self) -> None:
        assert luma(np.full((1, 50, 70, 3), 255, dtype=np.uint8), 32) == pytest.approx(255, rel=1e-5)
