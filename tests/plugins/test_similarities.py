"""The contract of similarities, on every file of the folder."""

from __future__ import annotations

import pickle
import tracemalloc
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.plugins import find, names, similarity_of
from daskim.similarities import Parts, Similarity, score

SHAPES = {"pixels": [(32, 32, 3), (14, 19, 3), (16, 13, 1)], "coefficients": [(3072,), (77,), (1,)]}
CASES = [(name, shape) for name in names("similarities") for shape in SHAPES[find("similarities", name).of]]
contract = pytest.mark.parametrize(("name", "shape"), CASES, ids=str)


@lru_cache(maxsize=64)
def made(name: str, shape: tuple[int, ...], screen: bool = False) -> Similarity:
    """As it decides; with `screen`, as it looks for candidates, if it knows how."""
    return similarity_of(name, shape, screen=screen)


def hostile(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Noise, flat images, two flat halves, almost flat ones, gradients, black and white, and edits of one another."""
    rng = np.random.default_rng(seed)
    side = np.linspace(0, 255, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    kinds = [
        lambda: rng.integers(0, 256, shape),
        lambda: np.full(shape, rng.choice([0, 1, 128, 254, 255])),
        lambda: np.where(side > rng.integers(0, 255), rng.choice([0, 255]), rng.integers(0, 256)) + np.zeros(shape),
        lambda: rng.integers(0, 255) + rng.integers(0, 2, shape),
        lambda: side * rng.random() + np.zeros(shape),
        lambda: rng.choice([0, 255], shape),
    ]
    images = [np.asarray(kinds[rng.integers(len(kinds))]()) for _ in range(count)]
    for at in range(1, count):
        if rng.random() < 0.4:
            images[at] = images[rng.integers(at)] * rng.choice([0.5, 1.0, 1.0]) + rng.integers(-3, 4, shape)
    return np.clip(np.stack(images), 0, 255).astype(np.uint8)


def shown(name: str, shape: tuple[int, ...], count: int, seed: int = 0) -> np.ndarray:
    """What the similarity is shown: pixels, or coefficients scaled as it says."""
    images = hostile(count, shape, seed)
    if made(name, shape).of == "coefficients":
        return (images.astype(np.float64) - 100.0) / np.sqrt(shape[0])
    return images


def matrix(similarity: Similarity, parts: Parts) -> np.ndarray:
    """All pairs, both ways and with themselves; only the similarity."""
    n = len(parts[0])
    i, j = np.divmod(np.arange(n * n), n)
    return score(similarity, parts, parts, i, j)[:, 0].reshape(n, n)


@contract
class TestContract:
    def test_says_what_it_is(self, name: str, shape: tuple[int, ...]) -> None:
        similarity = made(name, shape)
        assert similarity.lowest in (-1.0, 0.0)
        assert similarity.of in ("pixels", "coefficients")
        assert similarity.batch >= 1
        assert similarity.pair_bytes >= 1
        assert all(isinstance(word, str) for word in similarity.reports)
        assert similarity.versions
        assert all(isinstance(text, str) for text in similarity.versions.values())

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @settings(deadline=None, max_examples=8)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_identical_symmetric_in_range(self, name: str, shape: tuple[int, ...], dtype: type, seed: int) -> None:
        similarity = made(name, shape)
        found = matrix(similarity, similarity.parts(shown(name, shape, 6, seed), dtype))
        assert np.isfinite(found).all()
        assert found.max() <= 1.0 + 1e-9
        assert found.min() >= similarity.lowest - 1e-9
        rounding = 1e-10 if dtype is np.float64 else 1e-5
        np.testing.assert_allclose(np.diagonal(found), 1.0, atol=rounding)
        np.testing.assert_allclose(found, found.T, atol=rounding)

    def test_different_images_are_below_one(self, name: str, shape: tuple[int, ...]) -> None:
        similarity = made(name, shape)
        images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.uint8)
        parts = similarity.parts(images, np.float64)
        assert matrix(similarity, parts)[0, 1] < 0.99

    def test_flat_images(self, name: str, shape: tuple[int, ...]) -> None:
        similarity = made(name, shape)
        grey = np.array([0, 1, 127, 254, 255, 255]).reshape(-1, *[1] * len(shape))
        images = np.broadcast_to(grey, (6, *shape)).astype(np.uint8)
        for dtype in (np.float32, np.float64):
            found = matrix(similarity, similarity.parts(images, dtype))
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found[4, 5], 1.0, atol=1e-6)

    def test_single_precision_is_near_double(self, name: str, shape: tuple[int, ...]) -> None:
        similarity = made(name, shape)
        for seed in range(6):
            images = shown(name, shape, 12, seed)
            single, double = (matrix(similarity, similarity.parts(images, dtype)) for dtype in (np.float32, np.float64))
            np.testing.assert_allclose(single, double, atol=3e-5)

    def test_parts_belong_to_images(self, name: str, shape: tuple[int, ...]) -> None:
        """In the dtype asked for, and the same bits whatever the block."""
        similarity = made(name, shape)
        images = shown(name, shape, 11)
        for dtype in (np.float32, np.float64):
            together = similarity.parts(images, dtype)
            assert {len(part) for part in together} == {11}
            screened = np.float32 if getattr(similarity, "engine", "") == "numba" else dtype
            assert {part.dtype for part in together if part.dtype.kind == "f"} == {np.dtype(screened)}
            for at in (0, 7, 10):
                alone = similarity.parts(images[at : at + 1], dtype)
                for a, b in zip(alone, together):
                    np.testing.assert_array_equal(a[0], b[at])
            for empty, part in zip(similarity.parts(images[:0], dtype), together):
                assert empty.shape == (0, *part.shape[1:])

    @pytest.mark.parametrize("screen", [False, True])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_same_bits_however_pairs_are_cut(
        self, name: str, shape: tuple[int, ...], dtype: type, screen: bool
    ) -> None:
        similarity = made(name, shape, screen)
        left = similarity.parts(shown(name, shape, 7, 1), dtype)
        right = similarity.parts(shown(name, shape, 5, 2), dtype)
        i, j = np.divmod(np.arange(35), 5)
        whole = score(similarity, left, right, i, j)
        assert whole.shape == (35, 1 + len(similarity.reports))
        assert whole.dtype == np.float64
        for cuts in ([1, 3, 4, 17], [20], list(range(1, 35))):
            parts = [score(similarity, left, right, a, b) for a, b in zip(np.split(i, cuts), np.split(j, cuts))]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
        order = np.random.default_rng(0).permutation(35)
        np.testing.assert_array_equal(score(similarity, left, right, i[order], j[order]), whole[order])
        assert score(similarity, left, right, i[:0], j[:0]).shape == (0, 1 + len(similarity.reports))

    def test_what_it_is_given_stays(self, name: str, shape: tuple[int, ...]) -> None:
        similarity = made(name, shape)
        images = shown(name, shape, 4)
        images.flags.writeable = False
        parts = similarity.parts(images, np.float64)
        for part in parts:
            part.flags.writeable = False
        first = similarity.compare(parts, parts)
        np.testing.assert_array_equal(similarity.compare(parts, parts), first)

    def test_survives_the_way_to_a_worker(self, name: str, shape: tuple[int, ...]) -> None:
        similarity = made(name, shape)
        again = pickle.loads(pickle.dumps(similarity))
        images = shown(name, shape, 3)
        np.testing.assert_array_equal(
            matrix(again, again.parts(images, np.float64)), matrix(similarity, similarity.parts(images, np.float64))
        )

    def test_memory_is_bounded(self, name: str, shape: tuple[int, ...]) -> None:
        """`pair_bytes` covers the parts that `score` takes out for a batch, and what `compare` makes of them."""
        similarity = made(name, shape)
        parts = similarity.parts(shown(name, shape, 8), np.float64)
        i, j = np.divmod(np.arange(64), 8)
        i, j = (np.resize(at, similarity.batch) for at in (i, j))
        score(similarity, parts, parts, i, j)  # what is made once is there
        peak = peak_of(lambda: score(similarity, parts, parts, i, j))
        assert peak <= similarity.batch * similarity.pair_bytes + 20_000  # the frames of a few calls


def peak_of(call: Any) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_distance_of_coefficients() -> None:
    similarity = find("similarities", "wavelet")((3,))
    parts = similarity.parts(np.array([[0, 0, 0], [0, 3, 4], [0, 0, 1]]), np.float64)
    np.testing.assert_allclose(matrix(similarity, parts)[0], [1, 1 / 6, 1 / 2], rtol=1e-15)
