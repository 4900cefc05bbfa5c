"""Shearlets: a Parseval frame also after decimation, real, directional; and a whole run on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskim
from daskim.errors import SettingsError
from daskim.kernels.shearlets import (
    coefficients,
    deepest_level,
    frame_bounds,
    ring_frequencies,
    ring_windows,
    shearlet_windows,
)
from daskim.plugins import find, transform_of
from daskim.settings import Wavelets

SIZES = [(16, 16), (15, 16), (7, 9), (5, 32), (1, 12), (2, 2), (32, 32)]


def analysis(height: int, width: int, level: int, finest: int = 1) -> np.ndarray:
    """The transform of one channel as a matrix (coefficients, pixels)."""
    unit = np.eye(height * width).reshape(-1, height, width)
    return np.concatenate(list(coefficients(unit, shearlet_windows(height, width, level, finest))), axis=1).T


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("level", [0, 1, 2, 3])
class TestFrame:
    def test_bounds_of_the_windows(self, size: tuple[int, int], level: int) -> None:
        lower, upper = frame_bounds(shearlet_windows(*size, level), size[0] * size[1])
        assert abs(lower - 1) < 1e-10
        assert abs(upper - 1) < 1e-10

    def test_bounds_of_the_decimated_system(self, size: tuple[int, int], level: int) -> None:
        """They are the extreme squared singular values of the analysis (and so of the synthesis) matrix."""
        matrix = analysis(*size, level)
        values = np.linalg.svd(matrix, compute_uv=False)
        assert len(values) == size[0] * size[1]  # at least as many coefficients as pixels
        np.testing.assert_allclose(values, 1, rtol=0, atol=1e-10)
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(len(values)), rtol=0, atol=1e-10)

    def test_no_window_overlaps_itself_in_its_period(self, size: tuple[int, int], level: int) -> None:
        for window in shearlet_windows(*size, level):
            assert len(np.unique(window.target)) == len(window.target) == len(window.source)
            assert window.target.max() < window.period[0] * window.period[1] <= size[0] * size[1]

    def test_what_is_left_out_lowers_a_alone(self, size: tuple[int, int], level: int) -> None:
        if 1 <= level <= deepest_level(*size):
            lower, upper = frame_bounds(shearlet_windows(*size, level, 2), size[0] * size[1])
            values = np.linalg.svd(analysis(*size, level, 2).T, compute_uv=False)
            assert upper == pytest.approx(values.max() ** 2, abs=1e-10) == pytest.approx(1, abs=1e-10)
            assert lower == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_energy_and_reconstruction(height: int, width: int, level: int, seed: int) -> None:
    """Any size: the energy is that of the image, and the adjoint gives the image back."""
    image = np.random.default_rng(seed).integers(0, 256, (1, height, width)).astype(np.float64)
    windows = shearlet_windows(height, width, level)
    spectrum = np.zeros(height * width, dtype=complex)
    energy = 0.0
    for window, part in zip(windows, coefficients(image, windows), strict=True):
        energy += float((part**2).sum())
        grid = np.fft.fft2(part.reshape(window.period), norm="ortho").ravel()
        spectrum[window.source] += grid[window.target] * window.weight
    assert energy == pytest.approx(float((image**2).sum()), rel=1e-12)
    again = np.fft.ifft2(spectrum.reshape(height, width), norm="ortho")
    np.testing.assert_allclose(again, image[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(16, 16), (15, 16), (7, 9)], ids=str)
def test_coefficients_are_samples_of_the_full_transform(size: tuple[int, int]) -> None:
    """Where a period divides the side, every so many-th value of the undecimated transform, times a constant."""
    image = np.random.default_rng(0).standard_normal((1, *size))
    windows = shearlet_windows(*size, 2)
    checked = 0
    for window, part in zip(windows, coefficients(image, windows), strict=True):
        whole = np.zeros(size[0] * size[1])
        whole[window.source] = window.weight
        full = np.fft.ifft2(np.fft.fft2(image[0]) * whole.reshape(size))
        assert np.abs(full.imag).max() < 1e-12  # real shearlets
        if all(side % period == 0 for side, period in zip(size, window.period)):
            steps = [side // period for side, period in zip(size, window.period)]
            sampled = full.real[:: steps[0], :: steps[1]] * np.sqrt(steps[0] * steps[1])
            np.testing.assert_allclose(part.reshape(window.period), sampled, atol=1e-12)
            checked += window.period != size
    assert checked


def edge(side: int, degrees: float) -> np.ndarray:
    """A soft step whose normal points `degrees` from the row direction (x) towards growing y; periodic ends faded."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    angle = np.deg2rad(degrees)
    step = np.tanh(2 * (x * np.cos(angle) + y * np.sin(angle)))
    return step * np.exp(-(x**2 + y**2) / (side / 6) ** 2)


@pytest.mark.parametrize("ring", [1, 2])
def test_an_edge_sits_in_the_shearlets_of_its_direction(ring: int) -> None:
    """For each shear, the step with that normal has most of the ring's energy there, and next to none across it."""
    windows = [window for window in ring_windows(64, 64, ring) if window.band != "nyquist"]
    shears = (len(windows)) // 4
    for at, window in enumerate(windows):
        slope = (at + 1 - shears) / shears  # y/x up to 1, then 2 - x/y
        degrees = np.rad2deg(np.arctan(slope)) if slope <= 1 else 90 - np.rad2deg(np.arctan(2 - slope))
        energy = np.array([(part**2).sum() for part in coefficients(edge(64, degrees)[None], windows)])
        assert energy.argmax() == at, window.band
        neighbours = energy[[at - 1, at, (at + 1) % len(windows)]].sum()
        assert neighbours > 0.95 * energy.sum()
        assert energy[(at + 2 * shears) % len(windows)] < 1e-2 * energy[at]


def test_more_directions_at_finer_scales() -> None:
    """Parabolic scaling: ceil(2^(j/2)) shears to either side."""
    counts = [sum(w.band != "nyquist" for w in ring_windows(128, 128, ring)) for ring in range(6, 0, -1)]
    assert counts == [4, 8, 8, 12, 16, 24]


@pytest.mark.parametrize("size", [(32, 32), (33, 20), (5, 64)], ids=str)
def test_a_ring_has_at_least_its_frequencies(size: tuple[int, int]) -> None:
    for ring in range(1, deepest_level(*size) + 1):
        windows = ring_windows(*size, ring)
        different = len(np.unique(np.concatenate([window.source for window in windows])))
        assert different == ring_frequencies(*size, ring)
    assert not ring_windows(*size, deepest_level(*size) + 1)


class TestPlugin:
    def test_energy_of_images(self) -> None:
        block = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3)).astype(np.uint8)
        found = find("transforms", "shearlet")((16, 16, 3), "meyer")(block).astype(np.float64)
        energy = (block.astype(np.float64) ** 2).sum(axis=(1, 2, 3))
        np.testing.assert_allclose((found**2).sum(axis=1), energy, rtol=1e-6)
        gram = block.reshape(300, -1).astype(np.float64)
        np.testing.assert_allclose(found @ found.T, gram @ gram.T, rtol=1e-6)

    def test_columns_are_those_of_the_table(self) -> None:
        transform = find("transforms", "shearlet")((16, 16, 2), "meyer", 2, "all")
        table = {name: np.array(column) for name, column in transform.table().items()}
        image = np.zeros((1, 16, 16, 2), dtype=np.uint8)
        image[0, :, :, 1] = np.where(np.arange(16) % 4 < 2, 255, 0)[:, None]  # varies along y alone
        energy = transform(image)[0] ** 2
        assert energy[table["channel"] == 0].sum() == 0
        assert energy[(table["band"] == "v+0") | (table["band"] == "low")].sum() > 0.999 * energy.sum()
        assert (np.diff(table["level"][table["channel"] == 0]) <= 0).all()

    def test_default_on_the_standard_size(self) -> None:
        transform = transform_of(Wavelets(transform="shearlet"), (32, 32, 3))
        assert transform.columns == 2007 <= 4096
        assert transform.columns == transform(np.zeros((2, 32, 32, 3), np.uint8)).shape[1]
        notes = " ".join(transform.notes)
        assert "db1 says nothing" in notes
        assert "level 2 instead of 1" in notes
        assert "level 1 are left out" in notes
        assert "redundancy 0.65" in notes

    def test_all_and_coarse(self) -> None:
        make = find("transforms", "shearlet")
        whole = make((32, 32, 3), "meyer", 2, "all", 10)
        assert whole.bounds == pytest.approx((1.0, 1.0), abs=1e-10)
        assert whole.columns == 3 * 3666
        assert "redundancy 3.58" in whole.notes[-1]
        coarse = make((32, 32, 3), "meyer", 2, "coarse")
        assert set(coarse.table()["band"]) == {"low"}
        block = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
        kept = np.array(whole.table()["band"]) == "low"
        np.testing.assert_array_equal(coarse(block), whole(block)[:, kept])

    @pytest.mark.parametrize("most", [1, 3, 10, 100, 1000, 3000])
    def test_auto_stays_below_the_bound(self, most: int) -> None:
        make = find("transforms", "shearlet")
        transform = make((32, 32, 1), "meyer", 1, "auto", most)
        assert transform.columns <= most
        if transform.finest > 1:  # one ring more would not fit
            assert make((32, 32, 1), "meyer", transform.level, "all").columns > most

    def test_large_images_keep_coarse_rings(self) -> None:
        transform = find("transforms", "shearlet")((512, 662, 3))
        assert 1000 < transform.columns <= 4096
        block = np.full((1, 512, 662, 3), 200, dtype=np.uint8)
        low = np.array(transform.table()["band"]) == "low"
        found = transform(block)[0]
        assert np.abs(found[~low]).max() < 1e-2
        assert (found[low] ** 2).sum() == pytest.approx(200.0**2 * block.size, rel=1e-6)

    def test_levels_without_frequencies_are_not_made(self) -> None:
        transform = find("transforms", "shearlet")((16, 16, 1), "meyer", 9, "all")
        assert transform.level == 3
        assert any("level 3 instead of 9" in note for note in transform.notes)

    @pytest.mark.parametrize(
        ("name", "level", "what"), [("db2", 1, "Meyer"), ("haar", 1, "Meyer"), ("db1", 0, "level")]
    )
    def test_what_is_refused(self, name: str, level: int, what: str) -> None:
        with pytest.raises(SettingsError, match=what) as caught:
            find("transforms", "shearlet")((8, 8, 3), name, level)
        assert caught.value.hint


@pytest.mark.parametrize("side", [16, 32])  # all shearlets, and those of the coarser rings alone
def test_a_whole_run(planted: Callable[..., tuple[Path, np.ndarray]], tmp_path: Path, side: int) -> None:
    """Planted copies, exact ones and edits, are dropped; nothing else is."""
    path, family = planted(300, side)
    archive = np.load(path)
    images, labels = archive["images"], archive["labels"]
    copied = np.arange(0, 60, 3)
    images, labels = np.concatenate([images, images[copied]]), np.concatenate([labels, labels[copied]])
    family = np.concatenate([family, family[copied]])
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    values = {"images.size": f"{side}x{side}", "wavelets.transform": "shearlet", "clusters.n_clusters": 270}
    values["clusters.verify"] = "none"  # SSIM does not confirm all edits
    found = daskim.reduce(tmp_path / "set.npz", run=tmp_path / "run", settings=values)
    plan = found.table("plan")
    dropped = np.flatnonzero(plan["decision"] == "drop")
    kept = np.flatnonzero(plan["decision"] == "keep")
    assert found.summary["n_exact"] == len(copied)
    assert all(len({row, 300 + at} & set(dropped.tolist())) >= 1 for at, row in enumerate(copied.tolist()))
    assert set(family[dropped].tolist()) <= set(family[kept].tolist())  # each stands for a family that stays
    assert len(dropped) >= len(copied) + 25  # of 30 edits
    assert any("redundancy" in note for note in found.summary["notes"])
