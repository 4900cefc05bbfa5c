"""Float32 screens, float64 decides: on which side of a threshold a pair is, whatever the blocks."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import daskim.similarities as similarities
from daskim.plugins import find, names, similarity_of
from daskim.similarities import NEAR, decided, decided_bytes, score

NAMES = names("similarities")


def shown(name: str, count: int, side: int = 24, seed: int = 0) -> np.ndarray:
    """Smooth images and noisy copies of them, or as many coefficients."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    coarse[1::2] = coarse[: len(coarse[1::2])]
    images = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
    if find("similarities", name).of == "coefficients":
        return images.reshape(count, -1) / np.sqrt(3.0 * side * side)
    return images


def all_pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.triu_indices(count, 1)
    return i, j


@pytest.mark.parametrize("name", [name for name in NAMES if name != "aligned"])  # which has one precision
def test_the_side_of_the_threshold_is_that_of_float64(name: str) -> None:
    images = shown(name, 14)
    similarity = similarity_of(name, images.shape[1:])
    i, j = all_pairs(14)
    both = {dtype: similarity.parts(images, dtype) for dtype in (np.float32, np.float64)}
    single, double = (score(similarity, parts, parts, i, j)[:, 0] for parts in both.values())
    values = double[np.isfinite(double)]
    assert len(values) > 10
    for threshold in values[::5].tolist():
        for shifted in (threshold, np.nextafter(threshold, 2), np.nextafter(threshold, -2)):
            found = decided(similarity, images, images, i, j, shifted)[:, 0]
            np.testing.assert_array_equal(found >= shifted, double >= shifted)
            near = np.abs(single - shifted) <= NEAR
            assert near.any()
            np.testing.assert_array_equal(found[near], double[near])
            np.testing.assert_array_equal(found[~near], single[~near])


@pytest.mark.parametrize("name", ["ssim", "aligned", "wavelet"])
@pytest.mark.parametrize("images_of_a_block", [1, 3, 5, 100])
def test_blocks_do_not_matter(name: str, images_of_a_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = shown(name, 13)
    similarity = similarity_of(name, images.shape[1:])
    i, j = all_pairs(13)
    order = np.random.default_rng(1).permutation(len(i))
    i, j = i[order], j[order]
    expected = decided(similarity, images, images, i, j, 0.7)
    monkeypatch.setattr(similarities, "PARTS_BYTES", similarity.pair_bytes * images_of_a_block // 2)
    np.testing.assert_array_equal(decided(similarity, images, images, i, j, 0.7), expected)
    np.testing.assert_array_equal(decided(similarity, images, images.copy(), i, j, 0.7), expected)
    left, right = images[:9], images[4:]
    mine = (i < 9) & (j >= 4)
    np.testing.assert_array_equal(decided(similarity, left, right, i[mine], j[mine] - 4, 0.7), expected[mine])


def test_parts_are_made_once_an_image_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = shown("ssim", 12)
    similarity = similarity_of("ssim", images.shape[1:])
    made: list[int] = []
    whole = type(similarity).parts

    def counting(self: Any, images: np.ndarray, dtype: Any) -> Any:
        made.append(len(images))
        return whole(self, images, dtype)

    monkeypatch.setattr(type(similarity), "parts", counting)
    i, j = all_pairs(10)
    decided(similarity, images, images, i, j, 2.0)
    assert made == [10]


def test_no_pairs() -> None:
    images = shown("aligned", 3)
    similarity = similarity_of("aligned", images.shape[1:])
    none = np.empty(0, dtype=np.int64)
    assert decided(similarity, images, images, none, none, 0.5).shape == (0, 1 + len(similarity.reports))


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_no_more_than_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = shown(name, 160, side=32)
    similarity = similarity_of(name, images.shape[1:])
    monkeypatch.setattr(similarities, "PARTS_BYTES", 2**21)
    i, j = np.arange(160), np.arange(160)[::-1].copy()
    decided(similarity, images, images, i[:1], j[:1], 0.7)
    tracemalloc.start()
    decided(similarity, images, images, i, j, 0.7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= decided_bytes(similarity)
