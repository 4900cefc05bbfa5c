"""What the suite of benchmarks counts: pairs against judged ones, hashes, stacks, processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import profile
from tests.bench.hamming import by_distance, pairs_by_distance
from tests.bench.peers import UNSCORED
from tests.bench.sources import Lake, listing, synthetic, written
from tests.bench.truth import Judged, judged, score
from tests.bench.watch import watched

IDS = ["test/a", "test/b", "test/c", "train/p", "train/q", "train/r"]
PLACE = {name: at for at, name in enumerate(IDS)}
TRUTH = Judged(
    ("test/a", "test/a", "test/b", "test/b", "test/c", "test/c"),
    ("train/p", "train/q", "train/p", "train/q", "train/r", "train/p"),
    ("0", "1", "1", "N", "2", "N"),
)


def scored(*pairs: tuple[str, str, float]):
    a, b, scores = ([pair[at] for pair in pairs] for at in range(3))
    sides = [np.array([PLACE[name] for name in side], dtype=np.int64) for side in (a, b)]
    return score(IDS, *sides, np.array(scores, dtype=np.float64), TRUTH)


def test_recall_is_by_image_and_false_alarms_are_judged_ones() -> None:
    found = scored(
        ("train/p", "test/a", 0.9),  # found, listed the other way round
        ("test/a", "train/q", 0.8),  # the same image again
        ("test/c", "train/r", 0.7),  # judgment 2: neither right nor wrong
        ("test/b", "train/q", 0.6),  # N
        ("test/b", "train/r", 0.5),  # nobody judged it
        ("train/p", "train/q", 0.99),  # of a kind that the truth does not cover
    ).all
    assert (found.found, found.total, found.false, found.unjudged) == (1, 2, 1, 1)
    assert (found.recall, found.precision, found.f1) == (0.5, 0.5, 0.5)
    assert found.threshold == 0.5


def test_the_best_cut_and_cuts_at_a_threshold() -> None:
    found = scored(("test/a", "train/p", 0.9), ("test/b", "train/p", 0.8), ("test/b", "train/q", 0.7))
    assert (found.best.threshold, found.best.f1) == (0.8, 1.0)
    assert found.at(0.85).recall == 0.5
    assert found.at(0.95).recall == 0.0
    assert found.at(0.0) == found.all


def test_equal_scores_are_cut_together_and_twins_count_once() -> None:
    found = scored(("test/a", "train/p", 0.5), ("test/b", "train/q", 0.5), ("train/q", "test/b", 0.4))
    assert [cut.threshold for cut in found.cuts] == [0.5]
    assert found.all.false == 1


def test_no_pairs_and_no_known_images() -> None:
    nothing = np.empty(0, dtype=np.int64)
    assert score(IDS, nothing, nothing, np.empty(0), TRUTH).best.recall == 0.0
    assert score(["x/1", "x/2"], np.array([0]), np.array([1]), np.ones(1), TRUTH).all.total == 0


def test_the_file_of_judged_pairs(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("a,b,judgment,source\ntest/x,train/y,N,s\ntest/a,train/p,1,s\n")
    found = judged(tmp_path / "truth.csv")
    assert found.judgment == ("N", "1")
    assert found.ids == ["test/a", "train/p", "test/x", "train/y"]


hashes = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40).map(lambda found: np.array(found, np.uint64))


@given(hashes, hashes)
def test_pairs_by_distance_are_those_of_a_loop(one: np.ndarray, other: np.ndarray) -> None:
    within, across = np.zeros(65, int), np.zeros(65, int)
    for at, x in enumerate(one.tolist()):
        for y in one.tolist()[at + 1 :]:
            within[(x ^ y).bit_count()] += 1
        for y in other.tolist():
            across[(x ^ y).bit_count()] += 1
    assert (pairs_by_distance(one) == within).all()
    assert (pairs_by_distance(one, other) == across).all()


def test_tiles_count_each_pair_once() -> None:
    many = np.random.default_rng(0).integers(0, 16, 9000, dtype=np.uint64)
    assert pairs_by_distance(many).sum() == 9000 * 8999 // 2


def test_hashes_are_scored_as_their_pairs_are() -> None:
    values = np.array([0b0000, 0b1111, 0b0011, 0b0001, 0b0111, 0b1000], dtype=np.uint64)
    a, b = np.triu_indices(6, 1)
    apart = np.bitwise_count(values[a] ^ values[b]).astype(int)
    for most, count, cut in by_distance(IDS, values, TRUTH, [0, 1, 2, 4]):
        near = apart <= most
        all_of_it = score(IDS, a[near], b[near], -apart[near].astype(float), TRUTH).all
        assert count == near.sum()
        assert (cut.found, cut.false, cut.unjudged) == (all_of_it.found, all_of_it.false, all_of_it.unjudged)


def test_a_part_of_a_lake_is_written_as_files_and_as_parquet(tmp_path: Path) -> None:
    with synthetic(40) as lake:
        ids = [name for name, _ in listing(lake)]
        files, parquet = written(tmp_path / "some", Lake("x", lake.inputs, 10), [ids[30], ids[35]])
        _, whole = written(tmp_path / "all", lake)
        assert whole.inputs == lake.inputs
        assert lake.truth is not None
        assert set(lake.truth.ids) <= set(ids)
    found = {path.relative_to(files.inputs[0]).as_posix() for path in Path(files.inputs[0]).rglob("*.jpg")}
    assert found == {ids[30], ids[35], *ids[:8]}
    assert {name for name, _ in listing(parquet)} == found
    assert all((Path(files.inputs[0]) / name).read_bytes() == data for name, data in listing(parquet))


RAW = """\
<module> (daskim/jobs/reduce.py:3);run (daskim/stages/columns/__init__.py:9);gram (daskim/kernels/qr.py:73) 30
run (threading.py:1);_one (daskim/engine.py:2);gram (daskim/kernels/qr.py:70);dot (numpy/x.py:5) 20
_bootstrap (threading.py:1);_worker (concurrent/futures/thread.py:81) 500
_bootstrap (threading.py:1);loop (somewhere/else.py:81) 10
"""


def test_stacks_are_counted_for_functions_of_daskim(tmp_path: Path) -> None:
    (tmp_path / "before_wavelet.raw").write_text(RAW)
    found = profile.seconds_of(profile.Raw(tmp_path / "before_wavelet.raw", 10))
    assert found == {
        ("columns", "kernels/qr.py gram"): 3.0,
        ("kernels", "kernels/qr.py gram"): 2.0,
        ("waiting", ""): 50.0,
        ("outside daskim", ""): 1.0,
    }
    table = profile.by_function("wavelet", {"before": found, "after": found}, {})
    assert ["columns: kernels/qr.py gram", 3.0, 3.0] in table.rows
    assert table.unit(1) == "s"
    sums = profile.by_stage("wavelet", {"before": found}, {}).rows
    assert sums == [
        ["columns", 3.0],
        ["kernels", 2.0],
        ["outside daskim", 1.0],
        ["waiting", 50.0],
        ["the rest", 0.0],
        ["everything", 56.0],
    ]


def test_a_command_is_watched_with_its_children() -> None:
    child = "import time; x = bytearray(60_000_000); e = time.process_time() + .3\nwhile time.process_time() < e: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('out')"
    seen = watched([sys.executable, "-c", parent])
    assert (seen.code, seen.out, seen.stopped) == (0, "out\n", "")
    assert seen.cpu >= 0.3
    assert seen.peak >= 60e6
    assert seen.use > 0
    start, end = seen.samples[0].at, seen.samples[-1].at
    assert seen.between(start, end)[0] == pytest.approx(seen.cpu, abs=0.05)


def test_a_command_is_stopped_at_its_limits() -> None:
    waits = [sys.executable, "-c", "import time; x = bytearray(b'1') * 200_000_000; time.sleep(60)"]
    assert watched(waits, most_bytes=100_000_000).stopped.startswith("stopped at 0.")
    late = watched(waits, most_seconds=0.2)
    assert late.stopped == "stopped after 0.2 s"
    assert late.code < 0


def test_contenders_without_scores_are_known() -> None:
    assert "cleanvision" in UNSCORED
