"""Who is an exact duplicate of whom, and which rows are clustered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import daskim
from daskim.stages.clusters.per_class import pack, shares
from daskim.stages.clusters.points import TOGETHER, points_of, spread
from daskim.stages.exact import exact_pairs, suspects
from daskim.synthetic import planted_families

Reduce = Callable[..., daskim.FinishedRun]


def table_of(rows: list[tuple[int, int, bool, int]]) -> pd.DataFrame:
    """(file, standard pixels, full, full pixels) of each row, as the table `images` has them."""
    return pd.DataFrame(
        {
            "row": np.arange(len(rows), dtype=np.int64),
            "file_digest": [b"f%d" % r[0] for r in rows],
            "digest": [b"d%d" % r[1] for r in rows],
            "full": [r[2] for r in rows],
        }
    )


images_of_files = st.lists(
    st.integers(0, 8).flatmap(lambda file: st.tuples(st.just(file), st.just(file // 4), st.just(file % 2 == 0))),
    max_size=30,
)


@given(images_of_files)
def test_exact_groups_are_equal_bytes_or_equal_full_pixels(files: list[tuple[int, int, bool]]) -> None:
    """Files 0 to 8; those of one quotient by 4 look alike at standard size, the even ones in full resolution."""
    # a file's full pixels: even files are their standard pixels; odd ones have more, files 1 and 3 the same
    full_of = {file: (f"s{file // 4}" if file % 2 == 0 else f"o{min(file % 4, 1)}{file // 4}") for file, _, _ in files}
    table = table_of([(file, small, full, 0) for file, small, full in files])
    looked = {int(row): full_of[files[row][0]].encode() for row in suspects(table)}
    by_file = {files[row][0]: value for row, value in looked.items()}
    spread = {row: by_file[file] for row, (file, _, _) in enumerate(files) if file in by_file}
    # where nothing was looked at again, equal standard pixels of full images are equal full pixels
    found = exact_pairs(table, spread)
    group = dict(zip(found["row"], found["group"]))
    for a in range(len(files)):
        for b in range(a):
            same = files[a][0] == files[b][0] or full_of[files[a][0]] == full_of[files[b][0]]
            assert (a in group and group.get(a) == group.get(b)) == same, (files[a], files[b])
    for value, members in found.groupby("group"):
        assert value == members["row"].min()
        assert len(members) > 1
    copies = table["file_digest"].value_counts()
    for row, by in zip(found["row"], found["by"]):
        assert (by == "bytes") == (copies[table["file_digest"][row]] > 1)


def test_alike_when_small_is_not_exact(tmp_path: Path) -> None:
    """Two photographs that agree at standard size but differ in full, a recoded one, and a copy."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    large = np.kron(small, np.ones((4, 4, 1), dtype=np.uint8))
    other = large.copy()
    other[0, 0], other[0, 1] = other[0, 0] ^ 1, other[0, 1]  # one bit, gone when the picture is reduced
    (tmp_path / "in").mkdir()
    for name, pixels in {"a.png": large, "b.png": other, "c.bmp": large, "d.png": large, "e.png": small}.items():
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    found = daskim.reduce(
        tmp_path / "in", run=tmp_path / "run", settings={"images.size": "8x8", "images.filter": "area"}
    )
    images = found.images.set_index("id")
    assert images["digest"].nunique() == 1, "the test is about images that are alike at standard size"
    exact = found.table("exact").set_index("row")
    groups = {name: exact["group"].get(images.loc[name, "row"]) for name in images.index}
    assert groups["a.png"] == groups["c.bmp"] == groups["d.png"]
    assert groups["b.png"] is None
    assert groups["e.png"] is None
    rules = dict(zip(found.plan["id"], found.plan["rule"]))
    assert sorted(rules.values()) == ["exact", "exact", "kept", "redundant", "redundant"]


statuses = st.lists(st.tuples(st.sampled_from(["ok", "flat", "truncated"]), st.integers(0, 5)), max_size=40)


@given(statuses, st.randoms())
def test_points(rows: list[tuple[str, int]], shuffle: object) -> None:
    table = pd.DataFrame(
        {
            "row": np.arange(len(rows), dtype=np.int64),
            "status": [status for status, _ in rows],
            "digest": [status.encode() + bytes([picture]) for status, picture in rows],
        }
    )
    mixed = table.sample(frac=1.0, random_state=1) if len(table) else table
    points = points_of(mixed, len(rows))
    good = [(row, key) for row, (status, key) in enumerate(rows) if status == "ok"]
    firsts = {key: min(row for row, other in good if other == key) for _, key in good}
    assert points.rows.tolist() == sorted(firsts.values())
    assert points.weights.sum() == len(good)
    for row, (status, key) in enumerate(rows):
        assert (points.owner[row] >= 0) == (status == "ok")
        assert (points.flat[row] >= 0) == (status == "flat")
        if status == "ok":
            assert points.rows[points.owner[row]] == firsts[key]
            assert points.weights[points.owner[row]] == sum(other == key for _, other in good)
    assert points.n_flat == len({key for status, key in rows if status == "flat"})


@given(st.integers(0, 400_000), st.integers(1, 7), st.integers(1, 2000), st.integers(1, 9))
def test_a_sample_is_spread_over_few_parts(n: int, step: int, count: int, blocks: int) -> None:
    """It rests on the rows alone: what is made from it must not depend on the blocks of a run."""
    rows = np.arange(0, n, step)
    found = spread(rows, count, blocks)
    assert len(found) == len(np.unique(found)) <= count
    assert np.isin(found, rows).all()
    assert len(np.unique(found // TOGETHER)) <= blocks
    if len(rows) > count > 1:
        assert found[0] == rows[0]
        assert found[-1] == rows[-1] or len(np.unique(rows // TOGETHER)) > blocks == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.data())
def test_shares_sum_and_stay_in_bounds(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(len(sizes), sum(sizes)))
    count = shares(np.array(sizes), total)
    assert count.sum() == total
    assert (count >= 1).all()
    assert (count <= sizes).all()


@given(st.lists(st.integers(1, 50), min_size=2, max_size=30))
def test_shares_where_the_classes_are_more_than_the_clusters(sizes: list[int]) -> None:
    assert shares(np.array(sizes), 1).tolist() == [1] * len(sizes)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
def test_equal_classes_get_equal_shares(size: int, classes: int, each: int) -> None:
    each = min(each, size)
    assert shares(np.full(classes, size), each * classes).tolist() == [each] * classes


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_packed_classes_are_all_there_once(sizes: list[int]) -> None:
    packed = pack(np.array(sizes))
    assert sorted(c for members in packed for c in members) == list(range(len(sizes)))
    work = [sum(float(sizes[c]) ** 2 for c in members) for members in packed]
    # no task is heavier than the bound by more than its last and smallest class
    assert max(work) <= max(2 * 2000.0**2, float(max(sizes)) ** 2)


@pytest.mark.parametrize("status", ["flat", "ok"])
def test_exact_copies_count_once(status: str, reduce_arrays: Reduce) -> None:
    images = planted_families(20, size=(8, 8), redundancy=0.0).images
    if status == "flat":
        images[:5] = 90
    images[10:15] = images[:5]
    found = reduce_arrays(images, clusters__n_clusters=20)
    assert found.summary["n_exact"] == (9 if status == "flat" else 5)
    assert found.summary["status"] == ({"flat": 10, "ok": 10} if status == "flat" else {"ok": 20})
    if status == "ok":
        assert found.summary["n_clusters"] == 15
        assert (found.plan["rule"] == "exact").sum() == 5
    else:
        assert found.summary["n_drop"] == 0
        assert (found.plan["rule"] == "flat").sum() == 10
