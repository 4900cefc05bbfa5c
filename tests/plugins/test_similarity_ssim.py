"""SSIM against scikit-image, the volume form and several scales against windows taken out one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from daskim.errors import SettingsError
from daskim.plugins import find
from daskim.similarities import score
from daskim.synthetic import photographs

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def pairs_of(shape: tuple[int, int, int], count: int, seed: int) -> np.ndarray:
    """Noise, smooth images, flat ones, and noisy copies of their neighbours."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape)).astype(np.float64)
    images[1::4] = images[1::4].mean(axis=1, keepdims=True)
    images[2::4] = np.linspace(0, 255, shape[1])[:, None]
    images[3::4] = images[0::4][: len(images[3::4])] + rng.normal(0, 20, images[3::4].shape)
    images[-1] = rng.choice([0, 255])
    return np.clip(images, 0, 255).astype(np.uint8)


def all_pairs(similarity: Any, images: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    i, j = np.triu_indices(len(images))
    parts = similarity.parts(images, dtype)
    return score(similarity, parts, parts, i, j)[:, 0]


def by_scikit(images: np.ndarray, **options: Any) -> np.ndarray:
    i, j = np.triu_indices(len(images))
    return np.array(
        [structural_similarity(images[a], images[b], channel_axis=-1, data_range=255, **options) for a, b in zip(i, j)]
    )


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"size": 3}, {"win_size": 3}),
    ({"size": 11, "sample_covariance": False}, {"win_size": 11, "use_sample_covariance": False}),
    ({"window": "gaussian"}, {"gaussian_weights": True}),
    (
        {"window": "gaussian", "sample_covariance": False},
        {"gaussian_weights": True, "use_sample_covariance": False},
    ),
    ({"window": "gaussian", "sigma": 1.0}, {"gaussian_weights": True, "sigma": 1.0}),
    ({"k1": 0.02, "k2": 0.05}, {"K1": 0.02, "K2": 0.05}),
]


@pytest.mark.parametrize(("ours", "theirs"), OPTIONS, ids=lambda options: "-".join(options) or "default")
@pytest.mark.parametrize("shape", [(32, 32, 3), (13, 21, 3), (11, 12, 1), (90, 75, 3)], ids=str)
def test_against_scikit_image(ours: dict[str, Any], theirs: dict[str, Any], shape: tuple[int, int, int]) -> None:
    images = pairs_of(shape, 6, 0)
    similarity = find("similarities", "ssim")(shape, **ours)
    np.testing.assert_allclose(all_pairs(similarity, images), by_scikit(images, **theirs), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        all_pairs(similarity, images, np.float32), by_scikit(images, **theirs), rtol=0, atol=1e-5
    )


@settings(deadline=None, max_examples=30)
@given(
    st.integers(7, 40),
    st.integers(7, 40),
    st.sampled_from([1, 3]),
    st.sampled_from([3, 5, 7]),
    st.integers(0, 2**32 - 1),
)
def test_against_scikit_image_at_any_size(height: int, width: int, channels: int, size: int, seed: int) -> None:
    images = pairs_of((height, width, channels), 4, seed)
    similarity = find("similarities", "ssim")((height, width, channels), size=size)
    np.testing.assert_allclose(all_pairs(similarity, images), by_scikit(images, win_size=size), rtol=0, atol=1e-12)


def test_photographs_against_scikit_image() -> None:
    """Real ones of some size: the long axes are filtered in tiles."""
    images = np.stack([pixels[:200, :260] for pixels in photographs().values() if min(pixels.shape[:2]) > 260][:5])
    similarity = find("similarities", "ssim")((200, 260, 3))
    assert similarity.batch == 1
    np.testing.assert_allclose(all_pairs(similarity, images), by_scikit(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_single_precision_on_white_and_black_ground(value: int) -> None:
    """A line drawing on a flat ground: nothing is lost in the squares of large grey levels."""
    rng = np.random.default_rng(0)
    images = np.full((6, 32, 32, 3), value)
    images[:, 10:20] = np.where(rng.random((6, 10, 32, 1)) < 0.2, 255 - value, value)
    images = np.clip(images + rng.integers(0, 2, images.shape), 0, 255).astype(np.uint8)
    for name in ("ssim", "ssim_volume", "ms_ssim"):
        similarity = find("similarities", name)((32, 32, 3))
        np.testing.assert_allclose(
            all_pairs(similarity, images, np.float32), all_pairs(similarity, images), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((6, 40, 3), {}, ["7x7", "6x40", "at most 5", "similarities.size"]),
        ((40, 10, 1), {"window": "gaussian"}, ["11x11", "40x10", "at most 9"]),
        ((32, 32, 3), {"size": 4}, ["odd"]),
        ((32, 32, 3), {"size": -1}, ["odd"]),
        ((32, 32, 3), {"window": "gaussian", "size": 7}, ["sigma"]),
        ((32, 32, 3), {"window": "box"}, ["box", "uniform"]),
    ],
)
def test_windows_that_cannot_be(shape: tuple[int, int, int], options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        find("similarities", "ssim")(shape, **options)
    for word in words:
        assert word in str(caught.value)


# --- the image as a volume ----------------------------------------------------------------------------------------


def window_by_window(x: np.ndarray, y: np.ndarray, sigma: float, radius: int) -> float:
    """The definition: each pixel of each channel in the middle of its own window, the border repeated."""
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = taps[:, None, None] * taps[None, :, None] * taps
    weights /= weights.sum()
    x, y = (np.pad(image.astype(np.float64), radius, mode="edge") for image in (x, y))
    values = []
    for at in np.ndindex(*(side - 2 * radius for side in x.shape)):
        here = tuple(slice(first, first + 2 * radius + 1) for first in at)
        p, q = x[here], y[here]
        mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
        p, q = p - mean_p, q - mean_q
        luminance = (2 * mean_p * mean_q + C1) / (mean_p**2 + mean_q**2 + C1)
        structure = 2 * (weights * p * q).sum() + C2
        values.append(luminance * structure / ((weights * (p * p + q * q)).sum() + C2))
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("shape", "radius"), [((9, 7, 3), 5), ((3, 16, 1), 5), ((10, 10, 3), 2), ((2, 2, 2), 5)], ids=str
)
def test_volume_window_by_window(shape: tuple[int, int, int], radius: int) -> None:
    images = pairs_of(shape, 5, 3)
    similarity = find("similarities", "ssim_volume")(shape, radius=radius)
    i, j = np.triu_indices(len(images))
    expected = [window_by_window(images[a], images[b], 1.5, radius) for a, b in zip(i, j)]
    np.testing.assert_allclose(all_pairs(similarity, images), expected, rtol=0, atol=1e-12)


def test_volume_mixes_channels() -> None:
    """With the channels turned round an image is another volume; the mean over channels does not see it."""
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    turned = images[..., [1, 2, 0]]
    volume, plain = (find("similarities", name)((16, 16, 3)) for name in ("ssim_volume", "ssim"))
    assert abs(all_pairs(volume, images)[1] - all_pairs(volume, turned)[1]) > 1e-4
    np.testing.assert_allclose(all_pairs(plain, images)[1], all_pairs(plain, turned)[1], atol=1e-14)


# --- several scales -----------------------------------------------------------------------------------------------


def halved(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels; the last row or column of an odd side stands for two."""
    image = np.pad(image, [(0, side % 2) for side in image.shape], mode="edge")
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def by_definition(x: np.ndarray, y: np.ndarray, scales: int, taps: int) -> float:
    exponents = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    at = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * ((at[:, None] / 1.5) ** 2 + (at / 1.5) ** 2))
    weights /= weights.sum()
    channels = []
    for channel in range(x.shape[2]):
        p, q = x[..., channel].astype(np.float64), y[..., channel].astype(np.float64)
        value = 1.0
        for scale, exponent in enumerate(exponents / exponents.sum()):
            a, b = (np.lib.stride_tricks.sliding_window_view(image, (taps, taps)) for image in (p, q))
            mean_a, mean_b = (np.einsum("ijkl,kl", image, weights) for image in (a, b))
            a, b = a - mean_a[..., None, None], b - mean_b[..., None, None]
            cov, var_a, var_b = (np.einsum("ijkl,ijkl,kl->ij", *two, weights) for two in ((a, b), (a, a), (b, b)))
            term = (2 * cov + C2) / (var_a + var_b + C2)
            if scale == scales - 1:
                term = term * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
            value *= max(term.mean(), 0.0) ** exponent
            p, q = halved(p), halved(q)
        channels.append(value)
    return float(np.mean(channels))


@pytest.mark.parametrize(
    ("shape", "scales", "taps"),
    [((32, 32, 3), 2, 11), ((11, 30, 1), 1, 11), ((10, 30, 3), 1, 9), ((45, 91, 1), 3, 11), ((1, 9, 1), 1, 1)],
    ids=str,
)
def test_several_scales_by_definition(shape: tuple[int, int, int], scales: int, taps: int) -> None:
    images = pairs_of(shape, 5, 1)
    similarity = find("similarities", "ms_ssim")(shape)
    assert similarity.scales == scales
    i, j = np.triu_indices(len(images))
    expected = [by_definition(images[a], images[b], scales, taps) for a, b in zip(i, j)]
    np.testing.assert_allclose(all_pairs(similarity, images), expected, rtol=0, atol=1e-10)


def test_five_scales_where_they_fit() -> None:
    assert find("similarities", "ms_ssim")((176, 176, 3)).scales == 5
    assert find("similarities", "ms_ssim")((160, 300, 3)).scales == 4
    assert find("similarities", "ms_ssim")((600, 600, 1)).scales == 5
    assert find("similarities", "ms_ssim")((600, 600, 1), scales=2).scales == 2


def test_an_inverted_image_counts_as_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1)).astype(np.uint8)
    found = all_pairs(find("similarities", "ms_ssim")((32, 32, 1)), np.concatenate([image, 255 - image]))
    assert found.tolist() == [1.0, 0.0, 1.0]
    plain = all_pairs(find("similarities", "ssim")((32, 32, 1)), np.concatenate([image, 255 - image]))
    assert plain[1] < -0.7
