"""The run directory: whole files, markers, tables in order, arrays with one shard a block, a bounded cache."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskim import store
from daskim.blocks import BlockCache
from daskim.errors import SourceError
from daskim.settings import Settings
from daskim.stages.index import block_rows
from daskim.store import Run, block_bounds


@pytest.fixture(params=["directory", "memory"])
def any_run(request: pytest.FixtureRequest, tmp_path: Path, memory: fsspec.AbstractFileSystem) -> Iterator[Run]:
    return Run(str(tmp_path / "run") if request.param == "directory" else "memory://some/run")


@given(st.integers(0, 10_000), st.integers(1, 3_000))
def test_block_bounds_cover_every_row_once(n: int, rows: int) -> None:
    bounds = block_bounds(n, rows)
    assert [row for lo, hi in bounds for row in (lo, hi)] == sorted(row for lo, hi in bounds for row in (lo, hi))
    assert sum(hi - lo for lo, hi in bounds) == n
    assert all(hi - lo == rows for lo, hi in bounds[:-1])


@given(st.integers(1, 100_000), st.sampled_from([8, 28, 32, 37, 64, 100, 256, 1000]), st.booleans())
def test_blocks_fall_into_large_chunks_whatever_n(n: int, side: int, grows: bool) -> None:
    """A prime number of rows would have chunks of one row, which take thirty times as long to write and to read."""
    rows = block_rows(Settings(), n, (side, side, 3), grows=grows)
    most = store.INNER_BYTES // (side * side * 3)
    assert store._divisor(rows, max(1, most)) >= min(rows, 64, most) // 2
    assert grows or rows <= n
    assert grows or n < 512 or n // rows >= 7
    assert rows * side * side * 6 <= 16_000_000 or rows == 1


class TestFiles:
    def test_write_and_read(self, any_run: Run) -> None:
        any_run.write(b"some", "a", "b.txt")
        any_run.write(b"other", "a", "b.txt")
        assert any_run.read("a", "b.txt") == b"other"
        assert any_run.exists("a", "b.txt")
        assert any_run.names("a") == ["b.txt"]
        any_run.remove("a")
        assert not any_run.exists("a", "b.txt")
        any_run.remove("a")  # nothing there is no error
        assert any_run.names("a") == []

    def test_json_takes_numpy_and_refuses_what_json_lacks(self, any_run: Run) -> None:
        any_run.write_json({"a": np.int64(3), "b": np.arange(2), "c": None}, "x.json")
        assert any_run.read_json("x.json") == {"a": 3, "b": [0, 1], "c": None}
        assert any_run.read_json("y.json") is None
        with pytest.raises(ValueError, match="JSON"):
            any_run.write_json({"a": float("inf")}, "x.json")
        assert any_run.read_json("x.json") == {"a": 3, "b": [0, 1], "c": None}  # the file that was there stays whole

    def test_partial_results(self, any_run: Run) -> None:
        value = np.arange(12.0).reshape(3, 4)
        any_run.save(value, "partial", "x", "y.npy")
        np.testing.assert_array_equal(any_run.load("partial", "x", "y.npy"), value)
        np.testing.assert_array_equal(any_run.view("partial", "x", "y.npy"), value)

    @pytest.mark.parametrize(
        "value",
        [np.zeros((0, 3), "f4"), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(5), np.array(["a", "bcd"])],
        ids=["empty", "Fortran", "scalar", "text"],
    )
    def test_any_array_comes_back(self, value: np.ndarray, any_run: Run) -> None:
        any_run.save(value, "y.npy")
        found = any_run.load("y.npy")
        np.testing.assert_array_equal(found, value, strict=True)

    def test_what_is_no_array_of_numbers_is_refused(self, any_run: Run) -> None:
        data = io.BytesIO()
        np.save(data, np.array([{}], dtype=object), allow_pickle=True)
        whole = io.BytesIO()
        np.save(whole, np.arange(100))
        for bad in (data.getvalue(), whole.getvalue()[:-8], b"no array"):
            any_run.write(bad, "y.npy")
            with pytest.raises(ValueError):
                any_run.load("y.npy")

    def test_a_write_that_fails_leaves_what_was_there(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        run.write(b"whole", "a.txt")

        def full(self: Path, data: bytes) -> int:
            with self.open("wb") as file:
                file.write(data[:2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(SourceError, match="No space left"):
            run.write(b"halfway", "a.txt")
        assert run.read("a.txt") == b"whole"
        assert run.names() == ["a.txt"]  # and no leavings

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for run in (Run(str(tmp_path / "file")), Run(str(tmp_path / "file" / "below"))):
            with pytest.raises(SourceError) as caught:
                run.write(b"x", "a.txt")
            assert caught.value.exit_code == 4
            assert "--run" in caught.value.hint
            with pytest.raises(SourceError):
                run.read_json("a.json")

    def test_unknown_protocol(self) -> None:
        with pytest.raises(SourceError, match="nosuch"):
            Run("nosuch://bucket/run").read_json("a.json")

    def test_options_are_not_shown(self) -> None:
        run = Run("memory://x", {"key": "secret"})
        assert "secret" not in repr(run)
        assert pickle.loads(pickle.dumps(run)).options == {"key": "secret"}


class TestMarkers:
    def test_a_marker_says_what_the_task_said(self, any_run: Run) -> None:
        assert any_run.marked("images") == set()
        any_run.mark("images", "block-000001", {"rows": np.int64(3)})
        any_run.mark("images", "block-000000", {"rows": 4})
        assert any_run.marked("images") == {"block-000000", "block-000001"}
        assert any_run.marked("wavelets") == set()
        assert any_run.marker("images", "block-000001") == {"rows": 3}
        assert any_run.marker("images", "block-000009") == {}

    def test_what_is_half_written_is_no_marker(self, run: Run) -> None:
        run.mark("images", "a", {})
        folder = Path(run.url) / "state" / "images" / "blocks"
        (folder / ".b.json.123.456.tmp").write_text("{")
        assert run.marked("images") == {"a"}


class TestTables:
    def test_parts_come_in_the_order_of_their_keys(self, any_run: Run) -> None:
        for key in ("000002", "000000", "000001"):
            any_run.write_part("t", key, pa.table({"key": [key], "x": [int(key)]}))
        assert any_run.parts("t") == ["000000", "000001", "000002"]
        assert any_run.read_table("t")["x"].to_pylist() == [0, 1, 2]
        assert any_run.read_table("t", ["key"]).column_names == ["key"]
        any_run.write_part("t", "000001", pa.table({"key": ["again"], "x": [7]}))
        assert any_run.read_table("t")["x"].to_pylist() == [0, 7, 2]

    def test_no_table(self, any_run: Run) -> None:
        with pytest.raises(SourceError, match="no table nothing"):
            any_run.read_table("nothing")


class TestArrays:
    def test_a_shard_a_block(self, any_run: Run) -> None:
        array = any_run.create_array("a", (250, 4), "i2", 100, {"scale": 0.5})
        assert array.shards == (100, 4)
        array[100:200] = 7
        again = any_run.array("a")
        assert (np.asarray(again[100:200]) == 7).all()
        assert not np.asarray(again[:100]).any()
        assert again.attrs["scale"] == 0.5

    def test_made_again_it_is_empty(self, any_run: Run) -> None:
        any_run.create_array("a", (10, 2), "u1", 5)[:] = 9
        assert not np.asarray(any_run.create_array("a", (10, 3), "u1", 5)[:]).any()

    @pytest.mark.parametrize("rows", [1, 7, 97, 4096])
    def test_rows_of_any_number(self, run: Run, rows: int) -> None:
        value = np.random.default_rng(0).integers(0, 256, (500, 20, 20, 3)).astype(np.uint8)
        array = run.create_array("a", value.shape, "u1", rows)
        for lo, hi in block_bounds(500, rows):
            array[lo:hi] = value[lo:hi]
        np.testing.assert_array_equal(np.asarray(run.array("a")[:]), value)


class TestBlockCache:
    @pytest.fixture
    def stored(self, run: Run) -> tuple[Run, np.ndarray]:
        value = np.arange(1000 * 8, dtype=np.int32).reshape(1000, 8)
        run.create_array("a", value.shape, "i4", 100)[:] = value
        return run, value

    @pytest.mark.parametrize("limit", [0, 3200, 10_000, 10**9])
    def test_contents_and_bound(self, stored: tuple[Run, np.ndarray], limit: int) -> None:
        run, value = stored
        cache = BlockCache(limit)
        rng = np.random.default_rng(0)
        for _ in range(20):
            rows = rng.integers(0, 1000, 50)
            np.testing.assert_array_equal(cache.take(run, "a", rows), value[rows])
            assert cache.bytes == sum(block.nbytes for block in cache.held.values())
            assert cache.bytes <= max(limit, 3200)  # one block is kept in any case

    def test_what_is_held_is_not_read_again(self, stored: tuple[Run, np.ndarray]) -> None:
        run, value = stored
        cache = BlockCache(10**9)
        for _ in range(3):
            np.testing.assert_array_equal(cache.take(run, "a", np.arange(999, -1, -1)), value[::-1])
        assert cache.reads == 10
        cache.clear()
        assert (cache.bytes, len(cache.held)) == (0, 0)

    def test_the_oldest_goes_first(self, stored: tuple[Run, np.ndarray]) -> None:
        run, _ = stored
        cache = BlockCache(2 * 3200)
        for rows in ([0], [100], [0], [200], [0]):
            cache.take(run, "a", np.array(rows))
        assert cache.reads == 3

    def test_threads_share_it(self, stored: tuple[Run, np.ndarray]) -> None:
        run, value = stored
        cache = BlockCache(3 * 3200)

        def look(seed: int) -> bool:
            rows = np.random.default_rng(seed).integers(0, 1000, 200)
            return bool((cache.take(run, "a", rows) == value[rows]).all())

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(look, range(40)))
        assert cache.bytes == sum(block.nbytes for block in cache.held.values()) <= 3 * 3200

    def test_an_array_made_again_is_another(self, stored: tuple[Run, np.ndarray]) -> None:
        run, value = stored
        cache = BlockCache(10**9)
        cache.take(run, "a", np.arange(1000))
        run.create_array("a", value.shape, "i4", 100)[:] = value + 1
        np.testing.assert_array_equal(cache.take(run, "a", np.arange(1000)), value + 1)

    def test_no_rows(self, stored: tuple[Run, np.ndarray]) -> None:
        run, _ = stored
        assert BlockCache(10).take(run, "a", np.zeros(0, dtype=np.int64)).shape == (0, 8)


def test_state_is_plain_json(run: Run) -> None:
    run.mark("s", "k", {"status": {"ok": 3}})
    (file,) = (Path(run.url) / "state" / "s" / "blocks").iterdir()
    found: dict[str, Any] = json.loads(file.read_text())
    assert found == {"status": {"ok": 3}}
