"""Synthetic lakes: any rows by themselves, what is planted, files, and the statistics that they are made for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from daskim.errors import SettingsError
from daskim.jobs.lake import main
from daskim.lake import ImageSpec, list_images, standardise_block
from daskim.synthetic import LAKE_KINDS, Rows, lake_rows, lake_truth, write_lake
from daskim.synthetic.draws import bits, choose, log_normal, normal, shorts, uniform
from daskim.synthetic.lake import MARK
from daskim.synthetic.planted import SHIFTS, jpeg, name_of
from daskim.synthetic.scenes import CLASSES, EXACT, LARGEST, scenes

N = 2_000


@pytest.fixture(scope="module")
def rows() -> Rows:
    return lake_rows(0, N, redundancy=0.6)


def of_kind(rows: Rows, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Edits of a kind and their originals, as float."""
    edits = np.flatnonzero(rows.kind == LAKE_KINDS.index(kind))
    assert len(edits) > 3, f"too few of {kind} to say anything"
    return rows.images[edits].astype(np.float64), rows.images[rows.original[edits]].astype(np.float64)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**64 - 1), st.integers(0, 30), st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
def test_numbers_depend_on_their_row_alone(seed: int, stream: int, rows: list[int]) -> None:
    several = bits(seed, stream, np.array(rows), 5)
    for row, words in zip(rows, several):
        assert (bits(seed, stream, np.array([row]), 5)[0] == words).all()
    assert (bits(seed, stream, np.array(rows), 3) == several[:, :3]).all()


def test_distributions() -> None:
    numbers = shorts(3, 1, np.arange(5_000), 40)
    z = normal(numbers).astype(np.float64)
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert np.abs(z).max() < LARGEST
    assert abs(np.corrcoef(z, rowvar=False) - np.eye(40)).max() < 0.08  # 5 / sqrt(5,000)
    flat = uniform(numbers, -1.0, 3.0)
    assert flat.min() >= -1
    assert flat.max() < 3
    assert abs(flat.mean() - 1) < 0.02
    assert abs(np.median(log_normal(numbers, 7.0, 0.5)) - 7) < 0.1
    shares = np.bincount(choose(numbers, (1.0, 0.0, 3.0)).ravel(), minlength=3) / numbers.size
    assert np.abs(shares - (0.25, 0, 0.75)).max() < 0.01


def test_streams_and_seeds_differ() -> None:
    rows = np.arange(2_000)
    words = np.concatenate([bits(seed, stream, rows, 4).ravel() for seed in (0, 1, 2) for stream in (0, 1, 2)])
    assert len(np.unique(words)) == len(words)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, N), st.integers(0, 40))
def test_any_rows_by_themselves(lo: int, count: int) -> None:
    whole = _whole()
    hi = min(N, lo + count)
    part = lake_rows(lo, hi, redundancy=0.6)
    for ours, theirs in zip(part, whole):
        assert (ours == theirs[lo:hi]).all()


def _whole(cache: list[Rows] = []) -> Rows:  # noqa: B006
    if not cache:
        cache.append(lake_rows(0, N, redundancy=0.6))
    return cache[0]


def test_no_bit_depends_on_blas_threads_or_batches() -> None:
    grid = tuple(i + 0.5 for i in range(32))
    whole = scenes(5, np.arange(40), grid, grid)
    with threadpool_limits(2):
        assert (scenes(5, np.arange(40), grid, grid) == whole).all()
    assert (scenes(5, np.array([7, 39]), grid, grid) == whole[:, [7, 39]]).all()
    assert EXACT * 127 + 127 * 32 < 2**24


def test_truth_is_that_of_the_rows(rows: Rows) -> None:
    truth = lake_truth(N, redundancy=0.6)
    edits = np.flatnonzero(rows.kind >= 0)
    assert truth["row"].tolist() == edits.tolist()
    assert truth["original_row"].tolist() == rows.original[edits].tolist()
    assert truth["kind"].tolist() == [LAKE_KINDS[kind] for kind in rows.kind[edits]]
    assert truth["label"].tolist() == rows.labels[edits].tolist()
    assert truth["id"].tolist() == [name_of(row) for row in edits]
    assert set(LAKE_KINDS) == set(truth["kind"])
    assert lake_truth(0).empty
    assert lake_truth(100).equals(lake_truth(3_000)[lambda table: table["row"] < 100])


def test_edits_are_of_earlier_images_that_are_none(rows: Rows) -> None:
    edits = np.flatnonzero(rows.kind >= 0)
    assert (rows.original[edits] < edits).all()
    assert (rows.kind[rows.original[edits]] == -1).all()
    assert abs(len(edits) / N - 0.6) < 5 * (0.6 * 0.4 / N) ** 0.5
    moved = rows.labels[edits] != rows.labels[rows.original[edits]]
    assert (moved == (rows.kind[edits] == LAKE_KINDS.index("relabelled"))).all()
    assert not (lake_rows(0, 200, redundancy=0.0).kind >= 0).any()


def test_images_are_distinct_but_for_copies(rows: Rows) -> None:
    same = {LAKE_KINDS.index(kind) for kind in ("copy", "recoded", "relabelled")}
    distinct = [row for row in range(N) if rows.kind[row] not in same]
    assert len({rows.images[row].tobytes() for row in distinct}) == len(distinct)


@pytest.mark.parametrize("kind", ["copy", "relabelled"])
def test_copies_are_equal(rows: Rows, kind: str) -> None:
    edits, originals = of_kind(rows, kind)
    assert (edits == originals).all()


def test_what_each_edit_does(rows: Rows) -> None:
    edits, originals = of_kind(rows, "noise")
    inside = (originals > 15) & (originals < 240)  # clipping takes noise away
    assert abs((edits - originals)[inside].std() - 3) < 0.2
    edits, originals = of_kind(rows, "recoded")
    assert 0.5 < np.sqrt(((edits - originals) ** 2).mean()) < 15
    edits, originals = of_kind(rows, "mirror")
    assert np.median(np.abs(edits - originals[:, :, ::-1])) <= 1
    edits, originals = of_kind(rows, "brightness")
    inside = (originals > 40) & (originals < 215)
    shift = [(e - o)[i].mean() for e, o, i in zip(edits, originals, inside) if i.sum() > 500]
    assert all(9 < abs(value) < 29 for value in shift)
    edits, originals = of_kind(rows, "contrast")
    ratio = edits.std(axis=(1, 2, 3)) / originals.std(axis=(1, 2, 3))
    assert ((ratio > 0.6) & (ratio < 1.45)).all()
    assert (np.abs(ratio - 1) > 0.03).all()
    edits, originals = of_kind(rows, "shift")
    for edit, original in zip(edits, originals):
        errors = [np.abs(edit - np.roll(original, (-dy, -dx), (0, 1)))[2:-2, 2:-2].mean() for dy, dx in SHIFTS]
        assert min(errors) < 1.2


def test_crops_show_less_of_the_scene(rows: Rows) -> None:
    edits, originals = of_kind(rows, "crop")
    grid = (np.arange(32) + 0.5) * 0.87  # in between the shares
    errors = []
    for edit, original in zip(edits, originals):
        found = []
        for top in (0.0, 0.08, 0.13):
            for left in (0.0, 0.08, 0.13):
                y, x = (np.clip(np.rint(grid + at * 32 - 0.5), 0, 31).astype(int) for at in (top, left))
                found.append(np.sqrt(((edit - original[y][:, x]) ** 2).mean()))
        errors.append(min(found) / np.sqrt(((edit - originals.mean(axis=0)) ** 2).mean()))
    assert np.median(errors) < 0.6


def test_neighbours_are_as_near_as_those_of_small_photographs() -> None:
    """RMS distances to the nearest of 1,000 images of CIFAR-10 train: 35.5, 48.0 and 62.0 at 10, 50 and 90 %."""
    flat = lake_rows(0, 1_000, redundancy=0.0).images.reshape(1_000, -1).astype(np.float32)
    norm = np.einsum("ij,ij->i", flat, flat)
    squared = norm[:, None] + norm - 2 * flat @ flat.T
    np.fill_diagonal(squared, np.inf)
    near = np.sqrt(np.maximum(squared.min(axis=1), 0) / flat.shape[1])
    ratio = np.percentile(near, (10, 50, 90)) / (35.5, 48.0, 62.0)
    assert ((ratio > 0.75) & (ratio < 1.33)).all()


def test_sizes_and_classes() -> None:
    large = lake_rows(0, 6, size=64).images
    small = lake_rows(0, 6, size=32).images
    assert large.shape == (6, 64, 64, 3)
    means = large.reshape(6, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(means - small).mean() < 6  # the same scenes
    assert set(np.unique(lake_rows(0, 300).labels)) == set(range(CLASSES))


@pytest.mark.parametrize(
    "words", [{"lo": -1, "hi": 3}, {"lo": 3, "hi": 2}, {"seed": -1}, {"redundancy": 0.95}, {"size": 4}]
)
def test_arguments_out_of_range(words: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="out of range"):
        lake_rows(**{"lo": 0, "hi": 2, **words})  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["parquet", "tar"])
def test_files_hold_the_rows(tmp_path: Path, format: str) -> None:
    lake = write_lake(tmp_path / "lake", 250, format=format, shard=100, quality=90, redundancy=0.2)  # type: ignore[arg-type]
    assert len(lake.files) == 3
    assert sorted(path.name for path in (tmp_path / "lake").iterdir()) == sorted(
        [MARK, *(Path(path).name for path in lake.files)]
    )
    rows = lake_rows(0, 250, redundancy=0.2)
    listing = list_images([str(tmp_path / "lake")]).table
    assert [str(label) for label in listing["label"].to_pylist()] == [str(label) for label in rows.labels]
    images = standardise_block(listing, ImageSpec(filter="bilinear"))[0]
    assert np.abs(images.astype(int) - rows.images).mean() < 6
    if format == "parquet":
        table = pq.read_table(lake.files[1]).to_pylist()
        assert [row["image"]["bytes"] for row in table] == [jpeg(image, 90) for image in rows.images[100:200]]
        assert [row["image"]["path"] for row in table] == [name_of(row) for row in range(100, 200)]


@pytest.mark.parametrize("format", ["parquet", "tar"])
def test_a_lake_is_the_same_by_any_number_of_workers_and_after_a_break(tmp_path: Path, format: str) -> None:
    one = write_lake(tmp_path / "one", 200, format=format, shard=60, workers=1)  # type: ignore[arg-type]
    told: list[int] = []
    two = write_lake(tmp_path / "two", 200, format=format, shard=60, workers=3, progress=told.append)  # type: ignore[arg-type]
    assert told == [60, 60, 60, 20]
    files = [Path(path).read_bytes() for path in one.files]
    assert [Path(path).read_bytes() for path in two.files] == files
    Path(two.files[2]).unlink()
    told.clear()
    write_lake(tmp_path / "two", 200, format=format, shard=60, progress=told.append)  # type: ignore[arg-type]
    assert told == [60]
    assert [Path(path).read_bytes() for path in two.files] == files


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", 5)
    with pytest.raises(SettingsError, match="lake of other n, seed"):
        write_lake(tmp_path / "lake", 6, seed=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(SettingsError, match="something else"):
        write_lake(tmp_path / "full", 5)
    with pytest.raises(SettingsError, match="is a file"):
        write_lake(tmp_path / "full" / "note.txt", 5)
    with pytest.raises(SettingsError, match="no format"):
        write_lake(tmp_path / "new", 5, format="zip")  # type: ignore[arg-type]
    for words in ({"n": 0}, {"n": 5, "quality": 0}, {"n": 5, "shard": 0}, {"n": 5, "workers": -1}):
        with pytest.raises(SettingsError, match="out of range"):
            write_lake(tmp_path / "new", **words)
    assert not (tmp_path / "new").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, truth = tmp_path / "lake", tmp_path / "truth.csv"
    words = [str(folder), "--n", "120", "--redundancy", "0.5", "--shard", "50", "--truth", str(truth)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["files"] == 3
    assert (
        sum(told["planted"].values()) == len(truth.read_text().splitlines()) - 1 == len(lake_truth(120, redundancy=0.5))
    )
    assert main([*words[:3], "--seed", "5"]) == 2
    assert "lake of other" in capsys.readouterr().err
    assert main(["/proc/none/lake", "--n", "3"]) == 4
