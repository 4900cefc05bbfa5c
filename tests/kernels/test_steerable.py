"""Oriented bands: they hold the energy of an image once, and know scale and direction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels.steerable import Steerable


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.sampled_from([16, 24, 40]),
    columns=st.sampled_from([16, 32, 48]),
    levels=st.integers(1, 3),
    orientations=st.integers(2, 6),
    decimate=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_energy_is_held_once(
    rows: int, columns: int, levels: int, orientations: int, decimate: bool, seed: int
) -> None:
    """Without a margin the bands are a tight frame (their sizes need no padding here)."""
    steerable = Steerable((rows, columns), levels, orientations, decimate=decimate, margin=0)
    maps = noise(2, 1, rows, columns, seed=seed)
    energy = (steerable.residuals(maps) ** 2).sum(axis=(1, 2, 3, 4))
    for s, band in enumerate(steerable.bands(maps)):
        assert band.shape == (2, 1, orientations, *steerable.sizes[s])
        # Each sample of a coarse level stands for 4^s; the imaginary part holds as much as the real one.
        energy += 0.5 * (np.abs(band) ** 2).sum(axis=(1, 2, 3, 4)) * (4**s if decimate else 1)
    np.testing.assert_allclose(energy, (maps**2).sum(axis=(1, 2, 3)), rtol=1e-10)


@pytest.mark.parametrize("size", [(32, 32), (31, 18), (7, 50), (1, 1)])
def test_coarse_sampling_leaves_out_samples_only(size: tuple[int, int]) -> None:
    maps = noise(1, 2, *size)
    fine = Steerable(size, 3, 4, decimate=False).bands(maps)
    coarse = Steerable(size, 3, 4, decimate=True).bands(maps)
    for s, (every, some) in enumerate(zip(fine, coarse)):
        step = 2**s
        np.testing.assert_allclose(every[..., ::step, ::step], some, atol=1e-12)


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("s", [1, 2, 3])
def test_a_wave_is_found_at_its_scale_and_direction(s: int, k: int) -> None:
    frequency, angle = np.pi / 2**s, np.pi * k / 4
    y, x = np.mgrid[:64, :64]
    wave = np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y))[None, None]
    bands = Steerable((64, 64), 3, 4, decimate=True).bands(wave)
    strength = np.array([(np.abs(band) ** 2).mean(axis=(0, 1, 3, 4)) for band in bands])
    assert np.unravel_index(strength.argmax(), strength.shape) == (s - 1, k)
    # An analytic signal: the amplitude of a wave is the same everywhere away from the mirror.
    inside = np.abs(bands[s - 1][0, 0, k])
    middle = inside[inside.shape[0] // 2, inside.shape[1] // 4 : -(inside.shape[1] // 4)]
    assert middle.std() < 0.1 * middle.mean()


def test_a_shift_turns_phases_only() -> None:
    maps = noise(1, 1, 32, 32)
    steerable = Steerable((32, 32), 2, 4, decimate=False, margin=0)
    here, there = steerable.bands(maps), steerable.bands(np.roll(maps, 3, axis=3))
    for a, b in zip(here, there):
        np.testing.assert_allclose(np.roll(a, 3, axis=4), b, atol=1e-12)


def test_flat_images_have_no_bands() -> None:
    steerable = Steerable((20, 30), 3, 4, decimate=True)
    flat = np.full((1, 1, 20, 30), 200.0)
    for band in steerable.bands(flat):
        np.testing.assert_allclose(band, 0.0, atol=1e-11)
    fine, coarse = steerable.residuals(flat)[0, 0]
    np.testing.assert_allclose(fine, 0.0, atol=1e-11)
    np.testing.assert_allclose(coarse, 200.0, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_independence_of_the_stack(dtype: type) -> None:
    maps = noise(5, 3, 17, 22).astype(dtype)
    steerable = Steerable((17, 22), 3, 4, decimate=True)
    together, rest = steerable.bands(maps), steerable.residuals(maps)
    assert rest.dtype == dtype
    assert {band.dtype for band in together} == {np.result_type(dtype, np.complex64)}
    for at in range(5):
        alone = steerable.bands(maps[at : at + 1])
        for a, b in zip(alone, together):
            np.testing.assert_array_equal(a[0], b[at])
        np.testing.assert_array_equal(steerable.residuals(maps[at : at + 1])[0], rest[at])
    exact = steerable.bands(maps.astype(np.float64))
    for a, b in zip(exact, together):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(("levels", "orientations"), [(0, 4), (2, 1)])
def test_too_few(levels: int, orientations: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        Steerable((32, 32), levels, orientations, decimate=True)
