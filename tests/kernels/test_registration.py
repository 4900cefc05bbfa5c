"""Registration: planted motions are found again, derivatives and overlaps are those of brute force."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels import registration
from daskim.kernels.registration import (
    Match,
    Motion,
    cell_means,
    cell_weights,
    centred,
    detrended,
    match,
    move,
    overlap,
    rough_match,
    step,
    template_of,
    unmoved,
)

SIDES = [(24, 24), (20, 36), (48, 24)]


def scene(count: int, channels: int, seed: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Pictures that are defined everywhere: sums of waves of at most 2.5 periods a side; grey levels."""
    rng = np.random.default_rng(seed)
    waves = 14
    along = rng.uniform(-2.5, 2.5, (count, waves, 2)) * 2 * np.pi
    phase = rng.uniform(0, 2 * np.pi, (count, channels, waves))
    height = rng.normal(0, 25, (count, channels, waves))

    def at(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values (count, y, c, x) at positions in sides from the centre, (count, y) and (count, x)."""
        turn = along[:, :, 0, None, None] * y[:, None, :, None] + along[:, :, 1, None, None] * x[:, None, None, :]
        return (height[..., None, None] * np.cos(turn[:, None] + phase[..., None, None])).sum(axis=2).swapaxes(1, 2)

    return at


def positions(size: int) -> np.ndarray:
    return (np.arange(size) - (size - 1) / 2) / size


def sampled(picture: Callable[..., np.ndarray], motion: Motion, height: int, width: int) -> np.ndarray:
    """What a template shows if the moved image shows the picture: it is looked up at scale * x + shift."""
    scale, shift = motion.scale.astype(np.float64)[:, :, None], motion.shift.astype(np.float64)[:, :, None]
    y, x = positions(height), positions(width)
    return 128 + picture(scale[0] * y + shift[0], scale[1] * x + shift[1]).astype(np.float32)


def motion_of(scale_y: float, scale_x: float, shift_y: float, shift_x: float, count: int = 1) -> Motion:
    made = np.array([[scale_y, shift_y], [scale_x, shift_x]], dtype=np.float32)
    return Motion(np.repeat(made[:, :1], count, axis=1), np.repeat(made[:, 1:], count, axis=1))


def settled(template: np.ndarray, moved: np.ndarray, start: Motion, steps: int = 15) -> tuple[Motion, Match]:
    template = centred(template)
    model, motion = template_of(template), start
    for _ in range(steps):
        motion = step(model, match(template, moved, motion), motion)
    return motion, match(template, moved, motion)


PLANTED = [
    (1.0, 1.0, 0.0, 0.0),
    (1.0, 1.0, 0.08, 0.0),
    (1.0, 1.0, 0.0, -0.08),
    (1.0, 1.0, -0.05, 0.06),
    (1.08, 1.0, 0.0, 0.0),
    (1.0, 0.92, 0.0, 0.0),
    (1.07, 0.94, 0.03, -0.05),
    (0.93, 0.93, -0.04, -0.04),
]


@pytest.mark.parametrize("planted", PLANTED, ids=str)
@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_planted_motions_are_found(planted: tuple[float, ...], sides: tuple[int, int], channels: int) -> None:
    count = 20
    picture = scene(count, channels, seed=sum(sides))
    truth = motion_of(*planted, count=count)
    template, moved = sampled(picture, truth, *sides), sampled(picture, unmoved(np.ones(count)), *sides)
    found, agreement = settled(template, moved, unmoved(np.ones(count)))
    np.testing.assert_allclose(found.scale, truth.scale, atol=0.02)
    np.testing.assert_allclose(found.shift, truth.shift, atol=0.15 / min(sides))  # of a pixel
    assert agreement.correlation.min() > 0.99


def test_a_crop_is_found_from_its_scale() -> None:
    """Farther than one level's derivatives reach, a start near the truth is needed."""
    picture = scene(20, 3, seed=3)
    truth = motion_of(0.74, 0.77, 0.03, -0.02, count=20)
    template, moved = sampled(picture, truth, 32, 32), sampled(picture, unmoved(np.ones(20)), 32, 32)
    found, _ = settled(template, moved, unmoved(np.full(20, 0.75)))
    np.testing.assert_allclose(found.scale, truth.scale, atol=0.02)
    np.testing.assert_allclose(found.shift, truth.shift, atol=0.005)


def test_the_mirror_is_up_to_the_caller() -> None:
    picture = scene(20, 3, seed=4)
    truth = motion_of(1.05, 0.95, 0.04, -0.03, count=20)
    template, moved = sampled(picture, truth, 24, 32), sampled(picture, unmoved(np.ones(20)), 24, 32)
    turned = moved[..., ::-1]
    _, as_it_is = settled(template, turned, unmoved(np.ones(20)))
    found, agreement = settled(template, np.ascontiguousarray(turned[..., ::-1]), unmoved(np.ones(20)))
    np.testing.assert_allclose(found.shift, truth.shift, atol=0.005)
    assert agreement.correlation.min() > 0.99
    assert as_it_is.correlation.mean() < 0.6


def test_identical_images_stay() -> None:
    images = sampled(scene(10, 3, seed=5), unmoved(np.ones(10)), 20, 28)
    found, agreement = settled(images, images, unmoved(np.ones(10)))
    np.testing.assert_array_equal(found.scale, 1)
    np.testing.assert_array_equal(found.shift, 0)
    np.testing.assert_allclose(agreement.correlation, 1, atol=1e-6)
    np.testing.assert_array_equal(agreement.gain, 1)
    np.testing.assert_array_equal(agreement.template, agreement.moved)


@settings(deadline=None, max_examples=25)
@given(gain=st.floats(0.4, 2.5), bias=st.floats(-80, 80), seed=st.integers(0, 1000))
def test_brightness_and_contrast_do_not_matter(gain: float, bias: float, seed: int) -> None:
    """Any brightness of each channel, one contrast."""
    picture = scene(6, 3, seed)
    truth = motion_of(1.04, 0.97, 0.03, -0.04, count=6)
    template, moved = sampled(picture, truth, 24, 24), sampled(picture, unmoved(np.ones(6)), 24, 24)
    levels = bias * np.array([1, -0.5, 0.3], dtype=np.float32)[None, None, :, None]
    plain, before = settled(template, moved, unmoved(np.ones(6)))
    edited, after = settled(template, np.float32(gain) * moved + levels, unmoved(np.ones(6)))
    np.testing.assert_allclose(edited.scale, plain.scale, atol=1e-3)
    np.testing.assert_allclose(edited.shift, plain.shift, atol=1e-3)
    np.testing.assert_allclose(after.gain * gain, before.gain, rtol=1e-2)


def two_steps(template: np.ndarray, moved: np.ndarray, start: Motion) -> list[np.ndarray]:
    """Everything that a pair is given on the way, pairs first."""
    template = centred(template)
    model, rough = template_of(template), rough_match(template, moved, start)
    first = match(template, moved, start)
    motion = step(model, first, start)
    second = match(template, moved, motion)
    end = step(model, second, motion)
    out = [model.along_y, model.along_x, model.inverse, rough.correlation, end.scale.T, end.shift.T, overlap(end)]
    for found in (first, second):
        out += [found.template, found.moved, found.correlation, found.gain]
    return out


@pytest.mark.parametrize(("shape", "channels"), [((8, 8), 3), ((14, 19), 1), ((32, 32), 3), ((64, 96), 3)], ids=str)
def test_no_pair_depends_on_the_others(shape: tuple[int, int], channels: int) -> None:
    """To the last bit, however the stack is cut: also where only some pairs are wholly shared."""
    rng = np.random.default_rng(0)
    count = 13
    moved = rng.integers(0, 256, (count, shape[0], channels, shape[1])).astype(np.float32)
    template = np.roll(moved, 1, axis=1) + rng.normal(0, 3, moved.shape).astype(np.float32)
    template[4] = moved[4]  # this pair stays whole
    start = unmoved(np.where(np.arange(count) % 3 == 1, 0.875, 1.0))
    whole = two_steps(template, moved, start)
    for size in (1, 2, 3, 5):
        cuts = [slice(at, at + size) for at in range(0, count, size)]
        parts = [two_steps(template[cut], moved[cut], Motion(start.scale[:, cut], start.shift[:, cut])) for cut in cuts]
        for one, many in zip(whole, zip(*parts)):
            np.testing.assert_array_equal(np.concatenate(many), one)


def test_flat_images_stay_put_and_finite() -> None:
    flat = np.full((4, 16, 3, 12), 255, dtype=np.float32)
    flat[1:3] = np.array([0, 17], dtype=np.float32)[:, None, None, None]
    other = np.random.default_rng(0).integers(0, 256, flat.shape).astype(np.float32)
    for template, moved in ((flat, flat[::-1].copy()), (flat, other), (other, flat)):
        motion, found = settled(template, moved, unmoved(np.full(4, 0.875)), steps=4)
        for part in (motion.scale, motion.shift, found.correlation, found.gain, found.moved, template_of(flat).inverse):
            assert np.isfinite(part).all()
        assert abs(found.correlation).max() < 1e-2
    still, _ = settled(flat, other, unmoved(np.ones(4)), steps=4)  # no derivative, no step
    np.testing.assert_array_equal(still.scale, 1)
    np.testing.assert_array_equal(still.shift, 0)


def test_without_texture_along_an_axis_nothing_moves_there() -> None:
    """Vertical stripes tell nothing of y."""
    x = np.cos(2 * np.pi * 2 * positions(24))
    images = np.broadcast_to(100 * x, (1, 20, 1, 24)).astype(np.float32)
    moved = np.broadcast_to(100 * np.cos(2 * np.pi * 2 * (positions(24) - 0.05)), images.shape).astype(np.float32)
    found, _ = settled(images, moved, unmoved(np.ones(1)))
    np.testing.assert_allclose(found.scale[0], 1, atol=1e-4)
    np.testing.assert_allclose(found.shift[0], 0, atol=1e-4)
    np.testing.assert_allclose(found.shift[1], 0.05, atol=0.004)


@settings(deadline=None, max_examples=60)
@given(
    scale=st.tuples(st.floats(0.55, 1.8), st.floats(0.55, 1.8)),
    shift=st.tuples(st.floats(-0.35, 0.35), st.floats(-0.35, 0.35)),
)
def test_overlap_against_a_fine_grid(scale: tuple[float, float], shift: tuple[float, float]) -> None:
    fine = (np.arange(4000) + 0.5) / 4000 - 0.5
    share = 1.0
    for s, t in zip(scale, shift):
        of_template = (np.abs(s * fine + t) <= 0.5).mean()
        of_moved = (np.abs((fine - t) / s) <= 0.5).mean()
        share *= np.sqrt(of_template * of_moved)
    found = overlap(motion_of(scale[0], scale[1], shift[0], shift[1]))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, share, atol=2e-3)


@settings(deadline=None, max_examples=60)
@given(
    sides=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    scale=st.tuples(st.floats(0.55, 1.8), st.floats(0.55, 1.8)),
    shift=st.tuples(st.floats(-0.35, 0.35), st.floats(-0.35, 0.35)),
    seed=st.integers(0, 1000),
)
def test_move_is_linear_interpolation(
    sides: tuple[int, int], scale: tuple[float, float], shift: tuple[float, float], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (1, sides[0], 2, sides[1])).astype(np.float32)
    motion = motion_of(*scale, *shift)
    moved, seen_y, seen_x = move(image, motion)
    at = [
        float(motion.scale[k, 0]) * (positions(n) * n) + float(motion.shift[k, 0]) * n + (n - 1) / 2
        for k, n in enumerate(sides)
    ]
    expected = np.empty(image.shape)
    for c in range(2):
        rows = np.stack([np.interp(at[0], np.arange(sides[0]), image[0, :, c, x]) for x in range(sides[1])], axis=1)
        expected[0, :, c] = np.stack([np.interp(at[1], np.arange(sides[1]), row) for row in rows])
    np.testing.assert_allclose(moved, expected, atol=0.02)
    for seen, where, n in ((seen_y, at[0], sides[0]), (seen_x, at[1], sides[1])):
        inside = np.minimum(where, n - 1 - where) + registration.MARGIN
        clear = np.abs(inside) > 1e-4
        np.testing.assert_array_equal(seen[0][clear], (inside >= 0)[clear])


def test_match_agrees_with_sums_over_the_shared_part() -> None:
    rng = np.random.default_rng(2)
    template, moved = rng.integers(0, 256, (2, 6, 12, 3, 17)).astype(np.float32)
    motion = Motion(
        rng.uniform(0.8, 1.25, (2, 6)).astype(np.float32), rng.uniform(-0.2, 0.2, (2, 6)).astype(np.float32)
    )
    found = match(centred(template), moved, motion)
    image, seen_y, seen_x = move(moved, motion)
    for k in range(6):
        one = template[k][seen_y[k]][:, :, seen_x[k]].astype(np.float64)
        other = image[k][seen_y[k]][:, :, seen_x[k]].astype(np.float64)
        assert 0 < one.size < template[k].size
        one, other = (part - part.mean(axis=(0, 2), keepdims=True) for part in (one, other))
        np.testing.assert_allclose(found.correlation[k], np.corrcoef(one.ravel(), other.ravel())[0, 1], atol=1e-5)
        slope = (one * other).sum() / (other * other).sum()
        np.testing.assert_allclose(found.gain[k], np.clip(slope, *registration.GAIN), atol=1e-5)
        np.testing.assert_allclose(found.template[k][seen_y[k]][:, :, seen_x[k]], one, atol=1e-3)
        outside = ~(seen_y[k][:, None] & seen_x[k][None, :])
        assert not found.moved[k].swapaxes(0, 1)[:, outside].any()
        assert not found.template[k].swapaxes(0, 1)[:, outside].any()


@pytest.mark.parametrize("shape", [(9, 3, 14), (16, 1, 8)], ids=str)
def test_normal_matrices_against_brute_force(shape: tuple[int, int, int]) -> None:
    """Columns of the Jacobian: the derivative of the moved template with respect to each parameter."""
    height, _, width = shape
    images = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.float32)
    found = template_of(images)
    along_y, along_x = np.zeros(images.shape), np.zeros(images.shape)
    for y in range(1, height - 1):
        along_y[:, y] = (images[:, y + 1] - images[:, y - 1]) * height / 2
    for x in range(1, width - 1):
        along_x[..., x] = (images[..., x + 1] - images[..., x - 1]) * width / 2
    np.testing.assert_array_equal(found.along_y, along_y)
    np.testing.assert_array_equal(found.along_x, along_x)
    y, x = positions(height)[:, None, None], positions(width)
    jacobian = np.stack([along_y * y, along_y, along_x * x, along_x], axis=1).reshape(5, 4, -1)
    normal = jacobian @ jacobian.swapaxes(1, 2)
    ridge = registration.RIDGE * np.trace(normal, axis1=1, axis2=2) / 4 + 1e-3
    normal += ridge[:, None, None] * np.eye(4)
    np.testing.assert_allclose(found.inverse @ normal, np.broadcast_to(np.eye(4), normal.shape), atol=2e-4)


def test_a_step_is_that_of_least_squares() -> None:
    """Of the template moved by a small change, against the other image; undone before the motion (equation 30)."""
    picture = scene(4, 2, seed=8)
    truth = motion_of(1.03, 0.98, 0.02, -0.02, count=4)
    template = centred(sampled(picture, truth, 20, 24))
    start = motion_of(1.01, 0.99, 0.0, 0.01, count=4)
    model = template_of(template)
    found = match(template, sampled(picture, unmoved(np.ones(4)), 20, 24), start)
    y, x = positions(20)[:, None, None], positions(24)
    along_y, along_x = model.along_y.astype(np.float64), model.along_x.astype(np.float64)
    jacobian = np.stack([along_y * y, along_y, along_x * x, along_x], axis=1).reshape(4, 4, -1)
    residual = (found.moved * found.gain[:, None, None, None] - found.template).reshape(4, -1).astype(np.float64)
    after = step(model, found, start)
    for k in range(4):
        ridge = np.sqrt(registration.RIDGE * (jacobian[k] ** 2).sum() / 4 + 1e-3) * np.eye(4)
        change = np.linalg.lstsq(
            np.concatenate([jacobian[k].T, ridge]), np.concatenate([residual[k], np.zeros(4)]), rcond=None
        )[0]
        for axis in range(2):
            scale, shift = float(start.scale[axis, k]), float(start.shift[axis, k])
            ds, dt = change[2 * axis], change[2 * axis + 1]
            # W(W_change^-1(x)) = scale (x - dt) / (1 + ds) + shift
            np.testing.assert_allclose(after.scale[axis, k], scale / (1 + ds), atol=1e-5)
            np.testing.assert_allclose(after.shift[axis, k], shift - scale * dt / (1 + ds), atol=1e-5)


def test_steps_end_at_their_bounds() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 10, 3, 10)).astype(np.float32)
    motion, _ = settled(noise, noise[::-1].copy(), unmoved(np.ones(30)), steps=40)
    low, high = registration.SCALE
    assert (motion.scale >= np.float32(low)).all()
    assert (motion.scale <= np.float32(high)).all()
    assert abs(motion.shift).max() <= np.float32(registration.SHIFT)
    one = step(template_of(centred(noise)), match(centred(noise), noise[::-1].copy(), unmoved(np.ones(30))),
               unmoved(np.ones(30)))  # fmt: skip
    assert abs(1 / one.scale - 1).max() <= registration.STEP_SCALE + 1e-6
    assert abs(one.shift / one.scale).max() <= registration.STEP_SHIFT + 1e-6


@pytest.mark.parametrize(("size", "cells"), [(32, 8), (12, 4), (8, 8), (7, 7)])
def test_cells_are_means_of_blocks(size: int, cells: int) -> None:
    weights = cell_weights(size, cells)
    expected = np.kron(np.eye(cells), np.full((1, size // cells), cells / size))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 40), cells=st.integers(1, 40), share=st.sampled_from([1.0, 7 / 8, 3 / 4]))
def test_cells_that_do_not_divide_share_pixels(size: int, cells: int, share: float) -> None:
    """A cell's mean of a ramp, each pixel of it constant, is the integral over the cell."""
    low, high = size * (1 - share) / 2, size * (1 + share) / 2
    weights = cell_weights(size, cells, low, high)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    fine = np.clip((np.linspace(low, high, cells * 400, endpoint=False) + (high - low) / cells / 800), 0, size)
    ramp = np.minimum(np.floor(fine), size - 1).reshape(cells, 400).mean(axis=1)
    np.testing.assert_allclose(weights @ np.arange(size), ramp, atol=0.02 + size / cells / 200)


def test_cell_means_of_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 2, 20)).astype(np.float32)
    found = cell_means(images, cell_weights(12, 4), cell_weights(20, 5))
    np.testing.assert_allclose(found, images.reshape(3, 4, 3, 2, 5, 4).mean(axis=(2, 5)), rtol=1e-5)
    assert cell_means(images[:0], cell_weights(12, 4), cell_weights(20, 5)).shape == (0, 4, 2, 5)


@given(seed=st.integers(0, 2**16), height=st.integers(2, 9), width=st.integers(2, 9))
def test_detrended_is_the_remainder_of_least_squares(seed: int, height: int, width: int) -> None:
    images = np.random.default_rng(seed).uniform(0, 255, (2, height, 3, width))
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(float)
    plane = np.stack([np.ones_like(y), y, x], axis=1)
    for image, found in zip(images, detrended(images)):
        for channel in range(3):
            values = image[:, channel].ravel()
            rest = values - plane @ np.linalg.lstsq(plane, values, rcond=None)[0]
            np.testing.assert_allclose(found[:, channel].ravel(), rest, atol=1e-8)
