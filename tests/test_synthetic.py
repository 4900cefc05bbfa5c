"""The demo set, its score and the planted families: reproducible, true to their word, and hard to fool."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from daskim.errors import SettingsError
from daskim.synthetic import EDITS, KINDS, photographs, planted_families, score_demo, write_demo
from daskim.synthetic import demo as tiles_of

PIXEL_EDITS = EDITS[:-1]


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def texture(seed: int, height: int = 96, width: int = 80) -> np.ndarray:
    return planted_families(1, size=(height, width), seed=seed).images[0]


def small_demo(folder: Path, **options: Any) -> pd.DataFrame:
    photos = {f"photo{k}": texture(k) for k in range(3)}
    return write_demo(folder, **{"tile": 16, "each": 4, "flat": 5, "photos": photos, **options})


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("demo") / "images"
    return folder, write_demo(folder)


@pytest.fixture(scope="module")
def pairs(demo: tuple[Path, pd.DataFrame]) -> dict[str, list[tuple[Path, Path]]]:
    """Paths of (planted, original) by kind."""
    folder, truth = demo
    rows = truth[truth["original"] != ""]
    by_kind = rows.groupby("kind")[["id", "original"]]
    return {kind: [(folder / a, folder / b) for a, b in group.to_numpy()] for kind, group in by_kind}


# ---------------------------------------------------------------- photographs


def test_photographs_are_rgb_and_many() -> None:
    photos = photographs()
    assert list(photos) == sorted(photos)
    assert {"astronaut", "coffee", "china", "flower"} <= photos.keys()
    assert len(photos) >= 12
    for photo in photos.values():
        assert photo.dtype == np.uint8
        assert photo.ndim == 3
        assert photo.shape[2] == 3
        assert min(photo.shape[:2]) >= 300


def test_photographs_import_no_loader_and_open_no_connection() -> None:
    """In a process of its own, where a socket or an import of a downloading package is an error."""
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "sys.modules['pooch'] = None\n"
        "from daskim.synthetic import photographs\n"
        "photographs()\n"
        "loaded = {'skimage', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the demo set


def test_the_whole_demo_has_the_promised_counts(demo: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = demo
    counts = truth["kind"].value_counts().to_dict()
    assert counts == {**dict.fromkeys(EDITS, 60), "flat": 20, "broken": 6}
    names = set(digests(folder))
    assert 2000 <= len(names - set(truth["id"])) <= 2600
    assert len({name.partition("/")[0] for name in names}) >= 12


def test_truth_names_each_file_and_each_original_once(demo: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = demo
    names = set(digests(folder))
    originals = truth.loc[truth["kind"].isin(EDITS), "original"]
    assert truth["id"].is_unique
    assert originals.is_unique
    assert set(truth["id"]) <= names
    assert set(originals) <= names - set(truth["id"])
    assert (truth.loc[~truth["kind"].isin(EDITS), "original"] == "").all()
    read = pd.read_csv(folder.parent / "truth.csv", keep_default_na=False, dtype=str)
    pd.testing.assert_frame_equal(read, truth, check_dtype=False)


def test_names_and_order_do_not_tell_what_was_planted(demo: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = demo
    numbers = sorted(int(Path(name).stem) for name in digests(folder))
    assert numbers == list(range(len(numbers)))
    planted = np.array([int(Path(name).stem) for name in truth["id"]])
    # Mean rank of 506 of some 2,700 in random order: its standard deviation is near 0.012 of the range.
    assert abs(planted.mean() / len(numbers) - 0.5) < 0.06


def test_copies_and_relabelled_are_byte_equal(pairs: dict[str, list[tuple[Path, Path]]]) -> None:
    for planted, original in pairs["copy"] + pairs["relabelled"]:
        assert planted.read_bytes() == original.read_bytes()
    assert all(a.parent != b.parent for a, b in pairs["relabelled"])
    assert all(a.parent == b.parent for kind in PIXEL_EDITS for a, b in pairs[kind])


def test_recoded_are_pixel_equal_and_not_byte_equal(pairs: dict[str, list[tuple[Path, Path]]]) -> None:
    for planted, original in pairs["recoded"]:
        assert planted.read_bytes() != original.read_bytes()
        np.testing.assert_array_equal(pixels_of(planted), pixels_of(original))
    assert {planted.suffix for planted, _ in pairs["recoded"]} == {".bmp", ".webp", ".png"}


def test_noise_brightness_contrast_and_jpeg_have_their_size(
    pairs: dict[str, list[tuple[Path, Path]]],
) -> None:
    for kind in ("noise", "brightness", "contrast", "jpeg"):
        for planted, original in pairs[kind]:
            a, b = pixels_of(planted).astype(float), pixels_of(original).astype(float)
            inside = (b > 15) & (b < 240)  # where the edit was not clipped
            assert (a != b).any()
            if not inside.any():
                continue
            if kind == "brightness":
                step = (a - b)[inside]
                assert 4 <= step.min() == step.max() <= 12
            elif kind == "contrast":
                ideal = np.clip(np.rint((b - b.mean()) * 1.15 + b.mean()), 0, 255)
                np.testing.assert_allclose(a, ideal, atol=1)
            elif kind == "noise" and inside.sum() > 1000:
                assert 2.7 < (a - b)[inside].std() < 3.3
            elif kind == "jpeg":
                assert planted.suffix == ".jpg"
                assert np.abs(a - b).mean() < 20


def test_shift_moves_by_one_pixel_and_does_not_wrap(pairs: dict[str, list[tuple[Path, Path]]]) -> None:
    wrapped = 0
    for planted, original in pairs["shift"]:
        a, b = pixels_of(planted), pixels_of(original)
        overlaps = {
            "up": (a[1:], b[:-1], a[0], b[-1]),
            "down": (a[:-1], b[1:], a[-1], b[0]),
            "left": (a[:, 1:], b[:, :-1], a[:, 0], b[:, -1]),
            "right": (a[:, :-1], b[:, 1:], a[:, -1], b[:, 0]),
        }
        hits = [(new, far) for here, there, new, far in overlaps.values() if np.array_equal(here, there)]
        assert hits
        wrapped += any(np.array_equal(new, far) for new, far in hits)
    assert wrapped == 0


def test_flat_are_flat_and_distinct(demo: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = demo
    arrays = [pixels_of(folder / name) for name in truth.loc[truth["kind"] == "flat", "id"]]
    assert all(a.reshape(-1, 3).std(axis=0).max() <= 0.5 for a in arrays)
    assert any(a.std(axis=(0, 1)).max() > 0 for a in arrays)
    assert len({a.tobytes() for a in arrays}) == len(arrays)


def test_broken_cannot_be_decoded_and_differ(demo: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = demo
    contents = [(folder / name).read_bytes() for name in truth.loc[truth["kind"] == "broken", "id"]]
    assert len(set(contents)) == len(contents) == 6
    assert b"" in contents
    for data in contents:
        with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(data)) as image:
            image.load()


def test_untouched_tiles_are_distinct_and_have_features(demo: tuple[Path, pd.DataFrame]) -> None:
    folder, truth = demo
    names = sorted(set(digests(folder)) - set(truth["id"]))
    tiles = [pixels_of(folder / name) for name in names]
    assert min(tiles_of._detail(tile) for tile in tiles) >= tiles_of.FEATURELESS
    small = np.stack([np.asarray(Image.fromarray(t).resize((32, 32), Image.Resampling.BOX)) for t in tiles])
    flat = small.reshape(len(small), -1).astype(np.float64)
    squares = (flat**2).sum(axis=1)
    squared = (squares[:, None] + squares - 2 * flat @ flat.T) / flat.shape[1]
    np.fill_diagonal(squared, np.inf)
    nearest = np.sqrt(squared.min(axis=1))
    # Planted noise lies 2.6 grey levels from its original here: nobody's accidental lookalike comes as near.
    assert nearest.min() > 4.0
    assert np.quantile(nearest, 0.05) > 8.0


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((40, 40, 3), 200, np.uint8),
        np.pad(np.full((4, 4, 3), 255, np.uint8), ((36, 0), (36, 0), (0, 0))),
        np.repeat(np.linspace(0, 40, 40).astype(np.uint8)[:, None, None], 40, axis=1).repeat(3, axis=2),
    ],
    ids=["constant", "black with a corner", "smooth ramp"],
)
def test_featureless_tiles_are_left_out(pixels: np.ndarray) -> None:
    photo = np.concatenate([pixels, texture(0, 40, 40)], axis=1)
    kept = tiles_of._cut_tiles({"photo": photo}, 40)
    assert [tile.left for tile in kept] == [40]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first = small_demo(tmp_path / "a" / "images")
    second = small_demo(tmp_path / "b" / "images")
    other = small_demo(tmp_path / "c" / "images", seed=1)
    pd.testing.assert_frame_equal(first, second)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert set(first["original"]) != set(other["original"])


def test_writing_again_leaves_the_same_files_and_time_stamps(tmp_path: Path) -> None:
    def state() -> Iterator[tuple[str, int, str]]:
        for name, digest in sorted(digests(tmp_path / "images").items()):
            yield name, (tmp_path / "images" / name).stat().st_mtime_ns, digest

    small_demo(tmp_path / "images")
    before = list(state())
    small_demo(tmp_path / "images")
    assert list(state()) == before


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "mine.png").write_bytes(b"mine")
    with pytest.raises(SettingsError, match=r"cats/mine\.png"):
        small_demo(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["mine.png"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="is a file"):
        small_demo(tmp_path / "images")
    assert (tmp_path / "images").read_bytes() == b"mine"


def test_the_truth_goes_where_it_is_told(tmp_path: Path) -> None:
    inside = tmp_path / "images" / "truth.csv"
    table = small_demo(tmp_path / "images", truth=inside)
    assert len(pd.read_csv(inside)) == len(table)
    assert not (tmp_path / "truth.csv").exists()
    small_demo(tmp_path / "images", truth=inside)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"tile": 4}, "tile=4"),
        ({"each": -1}, "each=-1"),
        ({"flat": -2}, "flat=-2"),
        ({"each": 60}, "480 edits"),
        ({"photos": {"one": texture(0)}}, "1 labels"),
        ({"photos": {"a/b": texture(0)}}, "a/b"),
        ({"photos": {"grey": texture(0)[..., 0]}}, "grey"),
    ],
)
def test_impossible_demos_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        small_demo(tmp_path / "images", **options)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the score

TRUTH = pd.DataFrame(
    [(f"{kind}/new{k}", f"{kind}/old{k}" if kind in EDITS else "", kind) for kind in KINDS for k in range(2)],
    columns=["id", "original", "kind"],
)
SPARE = ["spare/0", "spare/1"]


def tables(drops: dict[str, str], status: dict[str, str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A plan with `drops` (id -> kept_id) and the table of images, all "ok" but those in `status`."""
    ids = [*TRUTH["id"], *(o for o in TRUTH["original"] if o), *SPARE]
    plan = pd.DataFrame({"id": ids, "decision": ["drop" if i in drops else "keep" for i in ids]})
    plan["kept_id"] = [drops.get(i) for i in ids]
    images = pd.DataFrame({"id": ids, "status": [(status or {}).get(i, "ok") for i in ids]})
    return plan, images


NOTHING = pd.DataFrame(columns=["id", "cluster", "label", "labels"])


def row(score: pd.DataFrame, kind: str) -> tuple[int, int]:
    line = score.set_index("kind").loc[kind]
    return int(line["planted"]), int(line["found"])


def perfect() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rows = list(TRUTH.itertuples(index=False))
    # Every other pair keeps the edit in place of the original: a policy may.
    drops = {}
    for k, r in enumerate(r for r in rows if r.kind in PIXEL_EDITS):
        drops.update({r.id: r.original} if k % 2 else {r.original: r.id})
    status = {r.id: "flat" if r.kind == "flat" else "truncated" for r in rows if r.kind in ("flat", "broken")}
    plan, images = tables(drops, status)
    plan.loc[plan["id"].isin([r.id for r in rows if r.kind == "broken"]), "decision"] = "review"
    mixed = [r for r in rows if r.kind == "relabelled"]
    listed = [(name, 7 + k) for k, r in enumerate(mixed) for name in (r.id, r.original)]
    return plan, pd.DataFrame(listed, columns=["id", "cluster"]), images


def test_a_perfect_plan_finds_all_and_damages_nothing() -> None:
    score = score_demo(TRUTH, *perfect())
    assert list(score.columns) == ["kind", "planted", "found", "recall"]
    assert list(score["kind"]) == [*KINDS, "lost pairs", "false drops"]
    assert (score["recall"][:-2] == 1.0).all()
    assert score["recall"][-2:].isna().all()
    assert row(score, "lost pairs") == row(score, "false drops") == (0, 0)


def test_a_plan_that_drops_nothing_finds_nothing() -> None:
    plan, images = tables({})
    score = score_demo(TRUTH, plan, NOTHING, images)
    assert (score["found"] == 0).all()
    assert (score["recall"][:-2] == 0.0).all()
    assert (score["planted"][:-2] == 2).all()


def test_empty_tables_find_nothing() -> None:
    plan, images = tables({})
    score = score_demo(TRUTH, plan[:0], NOTHING, images[:0])
    assert (score["found"] == 0).all()


def test_a_kind_that_was_not_planted_has_no_recall() -> None:
    score = score_demo(TRUTH[TRUTH["kind"] != "flat"], *perfect()).set_index("kind")
    assert score.loc["flat", "planted"] == 0
    assert np.isnan(score.loc["flat", "recall"])


def test_kept_id_is_followed_through_a_third_image() -> None:
    chain = {"noise/new0": SPARE[0], "noise/old0": "noise/new0"}
    plan, images = tables(chain)
    score = score_demo(TRUTH, plan, NOTHING, images)
    assert row(score, "noise") == (2, 1)
    assert row(score, "lost pairs") == (0, 1)
    assert row(score, "false drops") == (0, 0)


def test_an_edit_dropped_for_a_stranger_is_not_found() -> None:
    plan, images = tables({"jpeg/new0": SPARE[0], SPARE[1]: "jpeg/old1"})
    score = score_demo(TRUTH, plan, NOTHING, images)
    assert row(score, "jpeg") == (2, 0)
    assert row(score, "false drops") == (0, 1)


def test_influential_images_of_different_clusters_are_not_found() -> None:
    plan, images = tables({})
    listed = [("relabelled/new0", 1), ("relabelled/old0", 2), ("relabelled/new1", 3), ("relabelled/old1", 3)]
    score = score_demo(TRUTH, plan, pd.DataFrame(listed, columns=["id", "cluster"]), images)
    assert row(score, "relabelled") == (2, 1)


def test_broken_marked_flat_and_flat_marked_broken_are_not_found() -> None:
    plan, images = tables({}, {"flat/new0": "truncated", "broken/new0": "flat", "broken/new1": "empty"})
    score = score_demo(TRUTH, plan, NOTHING, images)
    assert row(score, "flat") == (2, 0)
    assert row(score, "broken") == (2, 1)


def test_a_truth_read_with_nan_scores_the_same() -> None:
    read = TRUTH.assign(original=TRUTH["original"].where(TRUTH["original"] != ""))
    pd.testing.assert_frame_equal(score_demo(read, *perfect()), score_demo(TRUTH, *perfect()))


def test_malformed_tables_are_refused() -> None:
    plan, influential, images = perfect()
    with pytest.raises(SettingsError, match="plan has no column kept_id"):
        score_demo(TRUTH, plan.drop(columns="kept_id"), influential, images)
    with pytest.raises(SettingsError, match="blur"):
        score_demo(TRUTH.assign(kind="blur"), plan, influential, images)
    circle, images = tables({"copy/new0": "copy/old0", "copy/old0": "copy/new0"})
    with pytest.raises(ValueError, match="circle"):
        score_demo(TRUTH, circle, influential, images)


# ---------------------------------------------------------------- planted families


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_blocks_join_to_the_whole_set(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    options: dict[str, Any] = {
        "size": data.draw(st.tuples(st.integers(4, 12), st.integers(4, 12))),
        "channels": data.draw(st.integers(1, 4)),
        "redundancy": data.draw(st.floats(0.0, 0.9)),
        "seed": data.draw(st.integers(0, 2**64 - 1)),
    }
    if round(n * options["redundancy"]) >= n:
        options["redundancy"] = 0.0
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=4))), n]
    whole = planted_families(n, **options)
    blocks = [planted_families(n, rows=(lo, hi), **options) for lo, hi in pairwise(cuts)]
    for field in whole._fields:
        joined = np.concatenate([getattr(block, field) for block in reversed(blocks)][::-1])
        np.testing.assert_array_equal(joined, getattr(whole, field))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), redundancy=st.floats(0.0, 0.95), seed=st.integers(0, 1000))
def test_counts_labels_and_distinctness(n: int, redundancy: float, seed: int) -> None:
    edits = round(n * redundancy)
    if edits >= n:
        return
    images, labels, family = planted_families(n, size=(8, 6), redundancy=redundancy, seed=seed, classes=4)
    assert images.shape == (n, 8, 6, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == family.dtype == np.int64
    assert set(family) == set(range(n - edits))
    assert len({image.tobytes() for image in images}) == n
    assert ((labels >= 0) & (labels < 4)).all()
    assert all(len(set(labels[family == f])) == 1 for f in set(family))


def test_families_are_nearer_than_strangers() -> None:
    images, _, family = planted_families(600, redundancy=0.3, seed=3)
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = (flat**2).sum(axis=1)
    rms = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0) / flat.shape[1])
    same = family[:, None] == family
    strangers = np.where(same, np.inf, rms).min(axis=1)
    np.fill_diagonal(same, False)
    inside = rms[same]
    assert len(inside) >= 2 * 180
    assert np.quantile(inside, 0.9) < 28 < np.quantile(strangers, 0.01)
    nearest = np.where(same, rms, np.inf).min(axis=1)
    related = np.isfinite(nearest)
    assert (nearest[related] < strangers[related]).mean() > 0.99


def test_the_spectrum_falls_as_that_of_photographs() -> None:
    """Slope of the mean amplitude against frequency, log to log; a set of small photographs measures -1.5."""
    images = planted_families(300, redundancy=0.0).images.mean(axis=-1)
    window = np.hanning(34)[1:-1]
    images = (images - images.mean(axis=(1, 2), keepdims=True)) * window[:, None] * window
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=0)
    radius = np.rint(32 * np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32))).astype(int)
    rings = np.arange(2, 15)
    slope = np.polyfit(np.log(rings), np.log([power[radius == r].mean() for r in rings]), 1)[0] / 2
    assert -1.7 < slope < -1.3


def test_seeds_differ_and_rows_of_a_huge_set_are_cheap() -> None:
    first = planted_families(5, seed=1, redundancy=0.0)
    second = planted_families(5, seed=2, redundancy=0.0)
    assert not {i.tobytes() for i in first.images} & {i.tobytes() for i in second.images}
    n = 2**40
    block = planted_families(n, rows=(n - 2, n))
    assert block.images.shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    ("n", "options", "said"),
    [
        (0, {}, "n=0"),
        (5, {"size": (2, 8)}, "size"),
        (5, {"channels": 0}, "channels"),
        (5, {"redundancy": 1.0}, "redundancy"),
        (5, {"redundancy": 0.95}, "redundancy"),
        (5, {"redundancy": -0.1}, "redundancy"),
        (5, {"redundancy": float("nan")}, "redundancy"),
        (5, {"seed": -1}, "seed"),
        (5, {"classes": 0}, "classes"),
        (5, {"rows": (3, 6)}, "rows"),
        (5, {"rows": (3, 2)}, "rows"),
    ],
)
def test_arguments_out_of_range_are_refused(n: int, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        planted_families(n, **options)
