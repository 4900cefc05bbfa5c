"""The aligned similarity: edited photographs are above the threshold, others and skies below, in any order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from daskim.errors import SettingsError
from daskim.kernels.registration import Motion, move
from daskim.plugins import find
from daskim.similarities import score
from daskim.similarities.aligned import Aligned
from daskim.synthetic import photographs, planted_families

SIDE = 32
# Photographs of things. Bricks, coins, grass, gravel and stars are patterns too fine for 32 pixels: moved by two of
# them they are other images there. The flower is nearly its own mirror.
SCENES = ("astronaut", "camera", "chelsea", "china", "coffee", "ihc", "retina", "rocket")
REPORTS = list(Aligned.reports)


def shrunk(images: np.ndarray, side: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    return np.stack([np.array(Image.fromarray(image).resize(side[::-1], Image.Resampling.BOX)) for image in images])


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    """The middle square of each photograph, 288 x 288."""
    out = []
    for name in SCENES:
        photo = photographs()[name]
        side = min(photo.shape[:2])
        top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
        square = Image.fromarray(photo[top : top + side, left : left + side])
        out.append(np.array(square.resize((288, 288), Image.Resampling.BOX)))
    return np.stack(out)


def one_to_one(images: np.ndarray, others: np.ndarray, *, screen: bool = True, dtype: type = np.float32) -> np.ndarray:
    similarity = Aligned(images.shape[1:], screen=screen)
    rows = np.arange(len(images))
    return score(similarity, similarity.parts(images, dtype), similarity.parts(others, dtype), rows, rows)


def all_with_all(images: np.ndarray, *, screen: bool, dtype: type = np.float32) -> np.ndarray:
    """(n, n, 1 + reports)"""
    similarity = Aligned(images.shape[1:], screen=screen)
    parts, n = similarity.parts(images, dtype), len(images)
    i, j = np.divmod(np.arange(n * n), n)
    return score(similarity, parts, parts, i, j).reshape(n, n, -1)


def levels(images: np.ndarray, gain: float, bias: float) -> np.ndarray:
    return np.clip(np.rint((images - 128.0) * gain + 128.0 + bias), 0, 255).astype(np.uint8)


def shifted(down: int, right: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Two cuts of one photograph, so many pixels apart at 32 x 32."""
    y, x = 8 * max(down, 0), 8 * max(right, 0)
    b, a = 8 * max(-down, 0), 8 * max(-right, 0)
    return lambda large: (shrunk(large[:, b : b + 256, a : a + 256]), shrunk(large[:, y : y + 256, x : x + 256]))


def cropped(share: float) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    at = round(288 * (1 - share) / 2)
    return lambda large: (shrunk(large), shrunk(large[:, at : 288 - at, at : 288 - at]))


def edited(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    return lambda large: (shrunk(large), change(shrunk(large)))


EDITS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "mirrored": edited(lambda images: images[:, :, ::-1]),
    "right by 2": shifted(0, 2),
    "down by 2": shifted(2, 0),
    "up and right": shifted(-2, 1),
    "crop of 7/8": cropped(7 / 8),
    "crop of 3/4": cropped(3 / 4),
    "mirrored crop": lambda large: (shrunk(large)[:, :, ::-1], cropped(7 / 8)(large)[1]),
    "brighter": edited(lambda images: levels(images, 1, 40)),
    "darker": edited(lambda images: levels(images, 1, -40)),
    "less contrast": edited(lambda images: levels(images, 0.6, 0)),
    "more contrast": edited(lambda images: levels(images, 1.4, 0)),
    "mirrored and brighter": edited(lambda images: levels(images[:, :, ::-1], 0.8, 25)),
}


class TestPhotographs:
    @pytest.mark.parametrize("edit", EDITS)
    def test_edits_are_near_duplicates(self, large: np.ndarray, edit: str) -> None:
        images, others = EDITS[edit](large)
        found = one_to_one(images, others)
        assert (found[:, 0] >= Aligned.threshold).all(), dict(zip(SCENES, found[:, 0].round(2).tolist()))
        np.testing.assert_array_equal(found[:, 1], "mirrored" in edit)
        np.testing.assert_array_equal(found[:, 0], one_to_one(others, images)[:, 0])

    def test_different_photographs_are_not(self, large: np.ndarray) -> None:
        images = shrunk(large)
        found = all_with_all(images, screen=False)[..., 0]
        off = ~np.eye(len(images), dtype=bool)
        assert found[off].max() < Aligned.threshold / 2
        assert np.isnan(all_with_all(images, screen=True)[..., 0][off]).mean() > 0.9

    def test_an_edit_is_told(self, large: np.ndarray) -> None:
        """Scale and shift onto the left image: what they say is what was done."""
        images, others = EDITS["crop of 3/4"](large)
        found = one_to_one(images, others)
        np.testing.assert_allclose(found[:, 2:4], 4 / 3, atol=0.04)
        np.testing.assert_allclose(found[:, 4:6], 0, atol=0.02)
        np.testing.assert_allclose(found[:, 6], 3 / 4, atol=0.03)
        back = one_to_one(others, images)
        np.testing.assert_allclose(back[:, 2:4], 3 / 4, atol=0.02)
        images, others = EDITS["up and right"](large)
        found = one_to_one(images, others)
        np.testing.assert_allclose(found[:, 4], 2 / SIDE, atol=0.01)
        np.testing.assert_allclose(found[:, 5], -1 / SIDE, atol=0.015)
        np.testing.assert_allclose(found[:, 6], 30 / 32 * 31 / 32, atol=0.02)

    @pytest.mark.parametrize("edit", ["mirrored crop", "crop of 7/8", "right by 2", "up and right"])
    @pytest.mark.parametrize("swap", [False, True])
    def test_the_motion_told_moves_the_right_image_onto_the_left(
        self, large: np.ndarray, edit: str, swap: bool
    ) -> None:
        left, right = EDITS[edit](large)[:: -1 if swap else 1]
        found = one_to_one(left, right).astype(np.float32)
        clear = np.flatnonzero(found[:, 0] > 0.85)
        assert len(clear) >= len(SCENES) - 1
        turned = right[:, :, ::-1] if "mirrored" in edit else right
        pixels = np.ascontiguousarray(turned.transpose(0, 1, 3, 2)).astype(np.float32)
        moved, seen_y, seen_x = move(pixels, Motion(found[:, 2:4].T, found[:, 4:6].T))
        for k in clear:
            one = left[k].transpose(0, 2, 1)[seen_y[k]][:, :, seen_x[k]]
            other = moved[k][seen_y[k]][:, :, seen_x[k]]
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97, SCENES[k]


def skies(count: int, seed: int, side: int = SIDE) -> np.ndarray:
    """Gradients in any direction, of any colours, of at most a quarter of a grey level a pixel; a grain of one level.

    Steeper ones are alike: a ramp is any other ramp, turned, scaled and with another contrast.
    """
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    turn = rng.uniform(0, 2 * np.pi, count)[:, None, None]
    slope = (np.cos(turn) * y + np.sin(turn) * x)[..., None] * rng.uniform(1, 4, (count, 1, 1, 3))
    images = rng.uniform(90, 190, (count, 1, 1, 3)) + slope + rng.normal(0, 1, (count, side, side, 3))
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


class TestWithoutTexture:
    @pytest.mark.parametrize("screen", [False, True])
    def test_two_skies_are_not_alike(self, screen: bool) -> None:
        """Although their contrast-structure is high: every smooth patch is alike."""
        images = skies(24, 0)
        found = all_with_all(images, screen=screen)[..., 0]
        off = ~np.eye(24, dtype=bool)
        assert np.nanmax(found[off]) < Aligned.threshold
        np.testing.assert_array_equal(np.diagonal(found), 1)

    def test_a_sky_and_its_edit_are(self) -> None:
        """The grain is the same: it is that picture."""
        images = skies(12, 1)
        for change in (images[:, :, ::-1], levels(images, 1.0, 12)):
            assert (one_to_one(images, change)[:, 0] > 0.9).all()

    @pytest.mark.parametrize("screen", [False, True])
    @pytest.mark.parametrize("shape", [(32, 32, 3), (14, 19, 3), (9, 7, 1)], ids=str)
    def test_flat_images(self, shape: tuple[int, int, int], screen: bool) -> None:
        """Of one level, of two, of noise of one level: finite, and nothing is a near-duplicate but itself."""
        grey = np.array([0, 1, 128, 255])[:, None, None, None]
        flat = np.broadcast_to(grey, (4, *shape)).astype(np.uint8)
        halves = np.zeros((2, *shape), dtype=np.uint8)
        halves[0, : shape[0] // 2], halves[1, :, : shape[1] // 2] = 1, 1
        noise = 100 + np.random.default_rng(0).integers(0, 2, (3, *shape)).astype(np.uint8)
        found = all_with_all(np.concatenate([flat, halves, noise]), screen=screen)[..., 0]
        off = ~np.eye(9, dtype=bool)
        assert np.nanmax(found[off], initial=0.0) < Aligned.threshold
        if not screen:
            assert np.isfinite(found).all()
            np.testing.assert_array_equal(np.diagonal(found), 1)
            np.testing.assert_array_equal(found[:4, :4][~np.eye(4, dtype=bool)], 0)


def mixed(seed: int) -> np.ndarray:
    """Scenes, edits of them, skies."""
    made = planted_families(40, size=(SIDE, SIDE), redundancy=0.5, seed=seed).images
    return np.concatenate([made, made[:6, :, ::-1], levels(made[6:12], 0.7, 10), skies(6, seed)])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_screens_change_no_figure(seed: int, dtype: type) -> None:
    """What is given up has no similarity; all else has the same, and what is given up was below the threshold."""
    images = mixed(seed)
    whole, screened = (all_with_all(images, screen=screen, dtype=dtype) for screen in (False, True))
    given_up = np.isnan(screened[..., 0])
    assert 0.5 < given_up.mean() < 0.98
    assert not np.isnan(whole).any()
    np.testing.assert_array_equal(screened[~given_up], whole[~given_up])
    assert whole[given_up, 0].max() < Aligned.threshold
    level = screened[..., 1 + REPORTS.index("level")]
    assert set(np.unique(level[given_up])) <= {1, 2, 3}
    assert (level[~given_up] == 3).all()
    assert (whole[..., 0] >= Aligned.threshold).sum() > len(images) + 40


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32, 1), (17, 12, 3)], ids=str)
def test_the_order_of_a_pair_does_not_matter(shape: tuple[int, int, int]) -> None:
    """To the last bit, also for images that are their own mirror, or alike up to a crop, or equal when coarse."""
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.linspace(0, 255, shape[0])[:, None, None], shape)
    board = np.indices(shape[:2]).sum(axis=0)[..., None] % 2 * np.full(shape, 255)
    cells = rng.integers(0, 256, (4, -(-shape[0] // 4), -(-shape[1] // 4), shape[2]))
    coarse = cells.repeat(4, axis=1).repeat(4, axis=2)[:, : shape[0], : shape[1]]
    images = np.concatenate(
        [
            np.stack([ramp, ramp * 0.8, ramp[::-1], np.abs(ramp - 128), board, 255 - board]),
            coarse,
            coarse[:2, :, ::-1],
            coarse[:2] * 0.7 + 20,
        ]
    ).astype(np.uint8)
    found = all_with_all(images, screen=False)[..., 0]
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diagonal(found), 1)


@pytest.mark.parametrize("shape", [(64, 96, 3), (96, 64, 1), (45, 31, 3), (16, 200, 3)], ids=str)
def test_larger_and_oblong_images(shape: tuple[int, int, int]) -> None:
    made = planted_families(8, size=(2 * shape[0], 2 * shape[1]), channels=shape[2], redundancy=0.0, seed=2).images
    means = made.reshape(8, shape[0], 2, shape[1], 2, shape[2]).mean(axis=(2, 4))
    images = np.rint(means).astype(np.uint8)
    y, x = shape[0] // 4, shape[1] // 4
    middle = made[:, y : 2 * shape[0] - y, x : 2 * shape[1] - x]
    sides = (shape[1], shape[0])
    crops = np.stack(
        [
            np.array(Image.fromarray(image.squeeze()).resize(sides, Image.Resampling.BOX)).reshape(shape)
            for image in middle
        ]
    )
    for others in (images[:, :, ::-1], levels(images, 0.7, 15), crops, np.roll(images, 2, axis=2)):
        assert (one_to_one(images, others)[:, 0] >= Aligned.threshold).all()
    found = all_with_all(images, screen=False)[..., 0]
    assert found[~np.eye(8, dtype=bool)].max() < Aligned.threshold


@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 7, 3), (7, 7, 1), (7, 40, 3)], ids=str)
def test_tiny_images(shape: tuple[int, int, int]) -> None:
    images = planted_families(12, size=shape[:2], channels=shape[2], redundancy=0.0, seed=3).images
    found = all_with_all(images, screen=False)[..., 0]
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(np.diagonal(found), 1)
    assert (one_to_one(images, images[:, :, ::-1], screen=False)[:, 0] > 0.99).all()
    assert (one_to_one(images, levels(images, 0.7, 10), screen=False)[:, 0] > 0.95).all()
    assert np.median(found[~np.eye(12, dtype=bool)]) < Aligned.threshold / 2


@pytest.mark.parametrize("shape", [(6, 32, 3), (32, 6, 3), (1, 1, 1)], ids=str)
def test_images_below_the_window_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(SettingsError, match="7x7 does not fit"):
        find("similarities", "aligned")(shape)


@pytest.mark.parametrize("screen", [False, True])
def test_a_pair_does_not_depend_on_its_batch(screen: bool) -> None:
    """The last batch is filled up; here batches of one, of three, and all at once give the same bits."""
    images = mixed(3)[:30]
    similarity = Aligned(images.shape[1:], screen=screen)
    parts = similarity.parts(images, np.float32)
    i, j = np.divmod(np.arange(900), 30)
    whole = score(similarity, parts, parts, i, j)
    for batch in (1, 3, 100):
        similarity.batch = batch
        np.testing.assert_array_equal(score(similarity, parts, parts, i, j), whole)


def test_skies_share_nothing_but_their_gradient() -> None:
    """Two unrelated ramps of light with hardly any grain are no near-duplicates."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:32, :32] / 31.0
    slopes = rng.uniform(30, 90, (40, 1, 1, 1))
    skies = 90 + slopes * y[None, :, :, None] + 8 * x[None, :, :, None] + rng.normal(0, 1.0, (40, 32, 32, 3))
    images = np.clip(np.rint(skies), 0, 255).astype(np.uint8)
    similarity = Aligned((32, 32, 3), screen=False)
    parts = similarity.parts(images, np.float64)
    one, other = np.triu_indices(40, 1)
    found = similarity.compare([part[one] for part in parts], [part[other] for part in parts])[:, 0]
    assert (found >= similarity.threshold).mean() < 0.1
