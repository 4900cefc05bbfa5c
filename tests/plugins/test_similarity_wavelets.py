"""HaarPSI, complex wavelets and textures: their formulas taken literally, and what they are known for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.signal import convolve2d

from daskim.errors import SettingsError
from daskim.kernels.steerable import Steerable
from daskim.plugins import find
from daskim.similarities import score
from daskim.synthetic import photographs


def similarity_of(name: str, x: np.ndarray, y: np.ndarray, **options: Any) -> float:
    similarity = find("similarities", name)(x.shape, **options)
    left, right = (similarity.parts(image[None], np.float64) for image in (x, y))
    return float(score(similarity, left, right, np.array([0]), np.array([0]))[0, 0])


def crops(side: int, count: int = 6) -> list[np.ndarray]:
    """Middles of photographs, half as large again as asked for and reduced to it: some structure in all."""
    found = []
    for pixels in list(photographs().values())[:count]:
        top, left = ((length - 4 * side) // 2 for length in pixels.shape[:2])
        square = pixels[top : top + 4 * side, left : left + 4 * side].astype(np.float64)
        found.append(square.reshape(side, 4, side, 4, 3).mean(axis=(1, 3)).astype(np.uint8))
    return found


# --- HaarPSI ------------------------------------------------------------------------------------------------------


def convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """As MATLAB's conv2(image, kernel, "same"), which puts the middle of an even kernel behind, not before."""
    return np.rot90(convolve2d(np.rot90(image, 2), np.rot90(kernel, 2), mode="same"), 2)


def haarpsi_by_formula(x: np.ndarray, y: np.ndarray, c: float, alpha: float, subsample: bool) -> float:
    def magnitudes(image: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        image = image.astype(np.float64)
        planes = [image[..., 0]]
        if image.shape[2] == 3:
            r, g, b = np.moveaxis(image, 2, 0)
            planes = [
                0.299 * r + 0.587 * g + 0.114 * b,
                0.596 * r - 0.274 * g - 0.322 * b,
                0.211 * r - 0.523 * g + 0.312 * b,
            ]
        if subsample:
            planes = [convolved(plane, np.ones((2, 2)) / 4)[::2, ::2] for plane in planes]
        details = []
        for s in (1, 2, 3):
            kernel = np.ones((2**s, 2**s)) / 2**s
            kernel[: 2 ** (s - 1)] *= -1
            details.append([np.abs(convolved(planes[0], k)) for k in (kernel, kernel.T)])
        chroma = [np.abs(convolved(plane, np.ones((2, 2)) / 4)) for plane in planes[1:]]
        return details, chroma

    def similar(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (2 * a * b + c) / (a**2 + b**2 + c)

    (dx, cx), (dy, cy) = magnitudes(x), magnitudes(y)
    local = [(similar(dx[0][k], dy[0][k]) + similar(dx[1][k], dy[1][k])) / 2 for k in (0, 1)]
    weight = [np.maximum(dx[2][k], dy[2][k]) for k in (0, 1)]
    if cx:
        local.append((similar(cx[0], cy[0]) + similar(cx[1], cy[1])) / 2)
        weight.append((weight[0] + weight[1]) / 2)
    mean = sum((w / (1 + np.exp(-alpha * s))).sum() for w, s in zip(weight, local)) / sum(w.sum() for w in weight)
    return float((np.log(mean / (1 - mean)) / alpha) ** 2)


@pytest.mark.parametrize("shape", [(32, 32, 3), (17, 26, 3), (9, 14, 1), (3, 2, 1), (1, 1, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"subsample": False}, {"c": 5.0, "alpha": 5.8}], ids=str)
def test_haarpsi_by_formula(shape: tuple[int, int, int], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    near = np.clip(x + rng.normal(0, 15, shape), 0, 255).astype(np.uint8)
    for other in (y, near):
        expected = haarpsi_by_formula(x, other, **{"c": 30.0, "alpha": 4.2, "subsample": True, **options})
        np.testing.assert_allclose(similarity_of("haarpsi", x, other, **options), expected, rtol=1e-11)


def test_haarpsi_falls_with_blur_and_with_noise() -> None:
    rng = np.random.default_rng(0)
    for image in crops(48):
        blurred = [ndimage.gaussian_filter(image, (sigma, sigma, 0)) for sigma in (0.6, 1.0, 2.0, 4.0)]
        grain = rng.normal(0, 1, image.shape)
        noisy = [np.clip(image + level * grain, 0, 255).astype(np.uint8) for level in (4, 10, 25, 60)]
        for steps in (blurred, noisy):
            found = [similarity_of("haarpsi", image, other) for other in (image, *steps)]
            assert all(np.diff(found) < -0.005), found


def test_two_black_images_are_identical() -> None:
    black = np.zeros((16, 16, 3), dtype=np.uint8)
    assert similarity_of("haarpsi", black, black) == pytest.approx(1.0, abs=1e-12)
    assert similarity_of("haarpsi", black, black + 200) < 0.9


# --- complex wavelets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "levels"), [((32, 32, 3), 3), ((16, 30, 1), 2), ((7, 9, 3), 1)], ids=str)
def test_complex_wavelets_by_formula(shape: tuple[int, int, int], levels: int) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.uint8)
    similarity = find("similarities", "cw_ssim")(shape)
    assert similarity.levels == levels
    steerable = Steerable(shape[:2], levels, 4, decimate=True)
    bands = [steerable.bands(np.moveaxis(image, 2, 0)[None].astype(np.float64)) for image in (x, y)]
    means = []
    for left, right in zip(*bands):
        a, b = (np.lib.stride_tricks.sliding_window_view(band[0], (7, 7), axis=(2, 3)) for band in (left, right))
        cross = np.abs((a * b.conj()).mean(axis=(4, 5)))
        energy = (np.abs(a) ** 2 + np.abs(b) ** 2).mean(axis=(4, 5))
        means.append(((2 * cross + 1.0) / (energy + 1.0)).mean())
    np.testing.assert_allclose(similarity_of("cw_ssim", x, y), np.mean(means), rtol=1e-10)


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1)])
def test_complex_wavelets_forgive_a_shift(shift: tuple[int, int]) -> None:
    for image in crops(33):
        here, there = image[:32, :32], image[shift[0] : shift[0] + 32, shift[1] : shift[1] + 32]
        forgiving, strict = (similarity_of(name, here, there) for name in ("cw_ssim", "ssim"))
        assert forgiving > strict + 0.05
        assert forgiving > 0.75


def test_complex_wavelets_do_not_forgive_everything() -> None:
    images = crops(32)
    for at, image in enumerate(images):
        assert similarity_of("cw_ssim", image, images[at - 1]) < 0.6


def test_complex_wavelets_need_room() -> None:
    with pytest.raises(SettingsError, match=r"7x7.*6x30") as caught:
        find("similarities", "cw_ssim")((6, 30, 3))
    assert "at most 6" in caught.value.hint
    assert find("similarities", "cw_ssim")((6, 30, 3), size=5).levels == 1


# --- textures -----------------------------------------------------------------------------------------------------


def textures(side: int) -> dict[str, list[np.ndarray]]:
    """Four crops that do not overlap of three photographed textures and of four made ones."""
    found = {}
    for name in ("brick", "grass", "gravel"):
        pixels = photographs()[name]
        found[name] = [pixels[y : y + side, x : x + side] for y in (0, 256) for x in (0, 256)]
    rng = np.random.default_rng(0)
    spreads = {"blobs": (3.0, 3.0), "fine": (0.7, 0.7), "across": (0.7, 6.0), "upright": (6.0, 0.7)}
    for name, spread in spreads.items():
        pixels = ndimage.gaussian_filter(rng.standard_normal((2 * side, 2 * side)), spread, mode="wrap")
        pixels = np.clip(128 + 40 * pixels / pixels.std(), 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
        found[name] = [pixels[y : y + side, x : x + side] for y in (0, side) for x in (0, side)]
    return found


def test_texture_similarity_knows_textures() -> None:
    """Every crop is more like its own texture's other crops than like any other texture; SSIM sees nothing."""
    by_name = textures(128)
    labels = np.repeat(np.arange(len(by_name)), 4)
    images = np.stack([crop for some in by_name.values() for crop in some])
    right = {}
    for name in ("stsim", "ssim"):
        similarity = find("similarities", name)(images.shape[1:])
        parts = similarity.parts(images, np.float64)
        i, j = np.divmod(np.arange(len(images) ** 2), len(images))
        found = score(similarity, parts, parts, i, j)[:, 0].reshape(len(images), -1)
        np.fill_diagonal(found, -1)
        own = labels[:, None] == labels
        np.fill_diagonal(own, False)
        right[name] = np.mean(np.where(own, found, 2.0).min(axis=1) > np.where(own, -1.0, found).max(axis=1))
    assert right["stsim"] == 1.0
    assert right["ssim"] < 0.5


def test_texture_similarity_has_82_statistics() -> None:
    similarity = find("similarities", "stsim")((32, 32, 1))
    moments, neighbours, magnitudes = similarity.parts(np.zeros((1, 32, 32, 1), dtype=np.uint8), np.float64)
    # An autocorrelation is one (complex) number.
    assert moments[0].size + neighbours[0].size // 2 + magnitudes[0].size == 82


def statistics(pixels: np.ndarray) -> tuple[list[tuple[complex, ...]], list[float]]:
    """Mean, deviation and two autocorrelations of 14 bands, 26 correlations: one band at a time."""
    steerable = Steerable(pixels.shape, 3, 4, decimate=False)
    oriented = [band[0, 0, k] for band in steerable.bands(pixels[None, None]) for k in range(4)]
    each = []
    for band in [*oriented, *steerable.residuals(pixels[None, None])[0, 0]]:
        mean = band.mean()
        centred = band - mean
        row = [abs(mean), np.sqrt((np.abs(centred) ** 2).mean())]
        for a, b in ((centred[:, :-1], centred[:, 1:]), (centred[:-1], centred[1:])):
            spread = np.sqrt((np.abs(a) ** 2).mean() * (np.abs(b) ** 2).mean())
            row.append((a * b.conj()).mean() / (spread + 1.0))
        each.append(tuple(row))
    pairs = [(4 * s + k, 4 * s + m) for s in range(3) for k in range(4) for m in range(k + 1, 4)]
    pairs += [(4 * s + k, 4 * s + 4 + k) for s in range(2) for k in range(4)]
    cross = []
    for i, j in pairs:
        a, b = (np.abs(oriented[at]) - np.abs(oriented[at]).mean() for at in (i, j))
        cross.append((a * b).mean() / (a.std() * b.std() + 1.0))
    return each, cross


@pytest.mark.parametrize("shape", [(32, 32, 1), (9, 21, 3)], ids=str)
def test_texture_similarity_by_formula(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, shape).astype(np.uint8)
    y = ndimage.gaussian_filter(rng.integers(0, 256, shape).astype(np.uint8), (1, 1, 0))
    channels = []
    for channel in range(shape[2]):
        (each_x, cross_x), (each_y, cross_y) = (statistics(image[..., channel].astype(float)) for image in (x, y))
        terms = [1 - abs(a - b) / 2 for a, b in zip(cross_x, cross_y)]
        for a, b in zip(each_x, each_y):
            alike = [(2 * a[k] * b[k] + 1) / (a[k] ** 2 + b[k] ** 2 + 1) for k in (0, 1)]
            alike += [1 - abs(a[k] - b[k]) / 2 for k in (2, 3)]
            terms.append(np.prod(alike) ** 0.25)
        assert len(terms) == 40
        channels.append(np.mean(terms))
    np.testing.assert_allclose(similarity_of("stsim", x, y), np.mean(channels), rtol=1e-10)


def test_texture_similarity_needs_neighbours() -> None:
    with pytest.raises(SettingsError, match="1x30"):
        find("similarities", "stsim")((1, 30, 3))
