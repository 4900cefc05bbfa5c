"""The compiled kernels of `aligned` against their array forms; and that nothing else is imported for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskim
from daskim.kernels import compiled, starts, steps
from daskim.kernels.likeness import likeness
from daskim.kernels.registration import Motion, cell_means, cell_weights, centred, move, template_of
from daskim.kernels.windows import uniform_taps, window_matrix
from daskim.plugins import find
from daskim.similarities import score

pytest.importorskip("numba")

from daskim.kernels.compiled import registered, windows

SHAPES = [(8, 3, 8), (9, 1, 7), (16, 3, 13), (21, 2, 32)]


def scenes(count: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Smooth images (n, y, c, x) uint8 and noisy, moved forms of them."""
    rng = np.random.default_rng(seed)
    height, channels, width = shape
    made = rng.integers(0, 256, (count, 5, channels, 5)).repeat(-(-height // 4), axis=1).repeat(-(-width // 4), axis=3)
    y, x = rng.integers(0, 3, (2, count))
    cut = np.stack([each[a : a + height, :, b : b + width] for each, a, b in zip(made, y, x)])
    cut[1::2] = made[: len(cut[1::2]), :height, :, :width]
    return np.clip(cut + rng.normal(0, 6, cut.shape), 0, 255).astype(np.uint8)


def level(shape: tuple[int, int, int], least: list[float], *, whole: bool) -> registered.Level:
    height, _, width = shape
    weights = cell_weights(height, height), cell_weights(width, width)
    return registered.Level(registered.Cells(*weights), *shape, np.array(least, dtype=np.float32), whole)


def motions(count: int, seed: int) -> Motion:
    rng = np.random.default_rng(seed)
    scale, shift = rng.uniform(0.8, 1.25, (2, count)), rng.uniform(-0.15, 0.15, (2, count))
    return Motion(scale.astype(np.float32), shift.astype(np.float32))


def ends(count: int, seed: int) -> tuple[np.ndarray, ...]:
    """Pairs, which is the template, which are mirrored."""
    rng = np.random.default_rng(seed)
    i, j = rng.integers(0, count, (2, 60))
    return i, j, rng.random(60) < 0.5, rng.random(60) < 0.5


def taken(images: np.ndarray, pairs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    i, j, swap, mirrored = pairs
    template, other = images[np.where(swap, j, i)], images[np.where(swap, i, j)].copy()
    other[mirrored] = other[mirrored][..., ::-1]
    return template, other


@settings(deadline=None, max_examples=25)
@given(shape=st.sampled_from(SHAPES), whole=st.booleans(), seed=st.integers(0, 50), screen=st.booleans())
def test_steps(shape: tuple[int, int, int], whole: bool, seed: int, screen: bool) -> None:
    images = centred(scenes(12, shape, seed).astype(np.float32))
    pairs, motion = ends(12, seed), motions(60, seed)
    least = [-np.inf, 0.5, 0.55] if screen else [-np.inf] * 3
    form = level(shape, least, whole=whole)
    side = images, form.inverses(images)
    before = motion.scale.copy()
    found, keep = form.settled(side, side, *pairs, motion)
    np.testing.assert_array_equal(motion.scale, before)
    expected, kept = steps.settle(*taken(images, pairs), motion, form.least, whole=whole)
    # a step that is taken back, or a screen, may be decided by rounding: seldom
    both, at, where = np.intersect1d(keep, kept, return_indices=True)
    assert len(both) >= max(len(keep), len(kept)) - 1
    off = np.abs(found.scale[:, at] - expected.scale[:, where]).max(axis=0, initial=0)
    off += np.abs(found.shift[:, at] - expected.shift[:, where]).max(axis=0, initial=0)
    assert (off > 2e-3).sum() <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inverse_normal_matrices(shape: tuple[int, int, int]) -> None:
    images = centred(scenes(9, shape, 1).astype(np.float32))
    found = level(shape, [0.0], whole=True).inverses(images)
    expected = template_of(images).inverse
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(7, 20), st.integers(7, 20)),
    cells=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    share=st.sampled_from([1.0, 7 / 8, 3 / 4]),
    grey=st.booleans(),
)
def test_cells(size: tuple[int, int], cells: tuple[int, int], share: float, grey: bool) -> None:
    images = scenes(3, (size[0], 3, size[1]), 2)
    weights = [cell_weights(n, k, n * (1 - share) / 2, n * (1 + share) / 2) for n, k in zip(size, cells)]
    expected = cell_means(images.astype(np.float32), *weights)
    expected = centred(expected.mean(axis=2, keepdims=True) if grey else expected)
    np.testing.assert_allclose(registered.Cells(*weights, grey=grey)(images), expected, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100))
def test_starts_are_the_same_to_the_last_bit(seed: int) -> None:
    """Also of equal images, of mirrors, and of images without contrast."""
    images = scenes(12, (8, 3, 8), seed)
    images[5], images[6], images[7], images[8] = images[4], images[4][..., ::-1], 90, 91
    crops = [centred(np.roll(images, k, axis=1).astype(np.float32)) for k in range(3)]
    whole = starts.unit_crops(crops)
    i, j = np.divmod(np.arange(144), 12)
    found = registered.begin(whole, whole, images, images, i, j)
    expected = starts.start(whole[i], whole[j], images[i], images[j])
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)
    back = registered.begin(whole, whole, images, images, j, i)
    np.testing.assert_array_equal(back[1], found[1])
    np.testing.assert_array_equal((back[0] != found[0])[(images[i] != images[j]).any(axis=(1, 2, 3))], True)


def test_products_of_crops_do_not_overflow() -> None:
    spike = np.zeros((1, 8, 3, 8), dtype=np.float32)
    spike[0, 0, 0, 0] = 1000
    whole = starts.unit_crops([spike, -spike, spike])
    assert abs(whole.astype(np.int64)).max() == starts.UNIT
    pixels = np.zeros((1, 4), dtype=np.uint8)
    at = np.zeros(1, dtype=np.int64)
    assert registered.begin(whole, whole, pixels, pixels, at, at)[2].tolist() == [2**28]


@settings(deadline=None, max_examples=20)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 50))
def test_windows(shape: tuple[int, int, int], seed: int) -> None:
    images = scenes(12, shape, seed)
    pairs, motion = ends(12, seed), motions(60, seed)
    constants = {"c2": 58.5 * shape[1], "texture": 9.0, "contrast": (0.25, 4.0)}
    found = registered.windows(images, images, *pairs, motion, **constants)
    template, other = (part.astype(np.float64) for part in taken(images, pairs))
    moved, seen_y, seen_x = move(other, motion)
    bands = [window_matrix(n, uniform_taps(windows.WINDOW), "valid") for n in (shape[0], shape[2])]
    expected = likeness(template, moved, seen_y, seen_x, *bands, **constants)
    np.testing.assert_allclose(found[:, :2], np.stack(expected, axis=1), atol=1e-6)
    np.testing.assert_array_equal(found[:, 2], (images[pairs[0]] == images[pairs[1]]).all(axis=(1, 2, 3)))


def test_interpolations_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    images, pairs, motion = scenes(12, SHAPES[0], 0), ends(12, 0), motions(60, 0)
    constants = {"c2": 58.5, "texture": 9.0, "contrast": (0.25, 4.0)}
    whole = registered.windows(images, images, *pairs, motion, **constants)
    monkeypatch.setattr(registered, "LOOK_UPS", 2000)
    np.testing.assert_array_equal(registered.windows(images, images, *pairs, motion, **constants), whole)


@pytest.fixture
def array_form(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(compiled.SWITCH, "0")
    return


@pytest.mark.parametrize("screen", [True, False])
@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32, 1), (16, 19, 3), (40, 70, 3), (8, 7, 1)], ids=str)
def test_both_forms_of_the_similarity_agree(
    shape: tuple[int, int, int], screen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = scenes(24, (shape[0], shape[2], shape[1]), 4).transpose(0, 1, 3, 2)
    i, j = np.divmod(np.arange(24 * 24), 24)
    maker = find("similarities", "aligned")
    found = maker(shape, screen=screen)
    assert found.engine == "numba"
    parts = found.parts(images, np.float32)
    one = score(found, parts, parts, i, j)
    monkeypatch.setenv(compiled.SWITCH, "0")
    arrays = maker(shape, screen=screen)
    assert arrays.engine == "numpy"
    parts = arrays.parts(images, np.float64)
    other = score(arrays, parts, parts, i, j)
    given_up = np.isnan(one[:, 0]) != np.isnan(other[:, 0])
    assert given_up.sum() <= 4  # on the edge of a screen
    both = np.isfinite(one[:, 0]) & np.isfinite(other[:, 0])
    assert (np.abs(one[both, 0] - other[both, 0]) > 1e-3).mean() < 0.02
    assert ((one[both, 0] >= found.threshold) != (other[both, 0] >= found.threshold)).sum() <= 1


def test_the_array_form_passes_its_order_test(array_form: None) -> None:
    """Without numba the order of a pair matters as little."""
    images = scenes(16, (16, 3, 16), 0).transpose(0, 1, 3, 2)
    similarity = find("similarities", "aligned")((16, 16, 3), screen=False)
    parts = similarity.parts(images, np.float64)
    i, j = np.divmod(np.arange(256), 16)
    found = score(similarity, parts, parts, i, j)[:, 0].reshape(16, 16)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diagonal(found), 1)


RUN = """
import sys, numpy as np
from daskim.plugins import find
from daskim.similarities import score
assert "numba" not in sys.modules
similarity = find("similarities", "aligned")((8, 8, 1), screen=False)
images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
parts = similarity.parts(images, np.float32)
print(similarity.engine, score(similarity, parts, parts, np.arange(4), np.arange(4)[::-1].copy())[:, 0].tolist())
"""


def said(package: Path, home: Path, count: int = 1, **environment: str) -> list[str]:
    """What processes that are started at once print."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", compiled.SWITCH)}
    kept |= {"PYTHONPATH": str(package), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), **environment}
    words = [sys.executable, "-W", "error", "-c", RUN]
    with ThreadPoolExecutor(count) as pool:
        done = list(
            pool.map(
                lambda _: subprocess.run(words, capture_output=True, text=True, env=kept, cwd=home, timeout=600),
                range(count),
            )
        )
    assert not any(each.returncode for each in done), [each.stderr for each in done]
    return [each.stdout for each in done]


@pytest.mark.slow
def test_two_processes_compile_at_once_where_nothing_can_be_kept_beside_the_source(tmp_path: Path) -> None:
    """The package's caches are files where folders should be: so that no user may write there."""
    package, home = tmp_path / "package", tmp_path / "home"
    home.mkdir()
    shutil.copytree(Path(daskim.__file__).parent, package / "daskim", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "daskim/kernels/compiled/__pycache__").write_text("")
    one, other = said(package, home, 2, PYTHONDONTWRITEBYTECODE="1")
    assert one == other
    assert one.startswith("numba ")
    assert list((home / "cache").rglob("*.nbc")), "kept in the user's folder"


def test_without_numba_the_array_form_is_taken(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('not made for this numpy')")
    assert said(tmp_path, tmp_path)[0].startswith("numpy ")
