"""Blocks one by one: what is marked is skipped, what fails is named, and a fold's tree has one shape."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import dask.array as da
import numpy as np
import pytest

from daskim.compute.threads import Threads
from daskim.engine import Engine, Fold, Progress
from daskim.errors import BlockFailed, SettingsError
from daskim.store import Run

CHUNKS = ((7, 7, 7, 4), (3,))


class Told(Progress):
    def __init__(self) -> None:
        self.begun: list[tuple[str, str, int, int]] = []
        self.steps = 0

    def begin(self, stage: str, title: str, total: int, done: int) -> None:
        self.begun.append((stage, title, total, done))

    def advance(self, stage: str) -> None:
        self.steps += 1


def value() -> np.ndarray:
    return np.random.default_rng(0).integers(-50, 50, (25, 3)).astype(np.float64)


def counted(seen: list[int], block: np.ndarray, lock: Any = Lock()) -> np.ndarray:  # noqa: B008
    with lock:
        seen.append(len(block))
    return block * 2


def doubled(seen: list[int]) -> da.Array:
    return da.from_array(value(), chunks=CHUNKS).map_blocks(partial(counted, seen), dtype="f8", meta=np.empty((0, 0)))


class TestMaterialise:
    def test_blocks_are_written_and_marked(self, engine: Engine) -> None:
        engine.progress = told = Told()
        engine.run.create_array("out", (25, 3), "f8", 7)
        infos = engine.materialise("s", "block", doubled([]), "out")
        np.testing.assert_array_equal(np.asarray(engine.run.array("out")[:]), 2 * value())
        assert [info["rows"] for info in infos] == [7, 7, 7, 4]
        assert engine.run.marked("s") == {f"block-{k:06d}" for k in range(4)}
        assert (told.begun, told.steps) == ([("s", "block", 4, 0)], 4)
        assert (engine.computed, engine.resumed) == ({"s": 4}, {"s": 0})

    def test_marked_blocks_are_skipped(self, engine: Engine) -> None:
        engine.progress = told = Told()
        array = engine.run.create_array("out", (25, 3), "f8", 7)
        array[7:14] = -1.0
        engine.run.mark("s", "block-000001", {"rows": 7, "mine": True})
        seen: list[int] = []
        infos = engine.materialise("s", "block", doubled(seen), "out")
        assert sorted(seen) == [4, 7, 7]
        assert infos[1] == {"rows": 7, "mine": True}
        assert (np.asarray(engine.run.array("out")[7:14]) == -1.0).all()
        assert told.begun == [("s", "block", 4, 1)]
        assert (engine.computed, engine.resumed) == ({"s": 3}, {"s": 1})
        seen.clear()
        assert engine.materialise("s", "block", doubled(seen), "out") == infos
        assert seen == []

    def test_a_failing_block_is_named_and_the_others_stay(self, engine: Engine) -> None:
        engine.run.create_array("out", (25, 3), "f8", 7)

        def broken(block: np.ndarray) -> np.ndarray:
            if len(block) == 4:
                raise ZeroDivisionError("by nought")
            return block

        array = da.from_array(value(), chunks=CHUNKS).map_blocks(broken, dtype="f8", meta=np.empty((0, 0)))
        with pytest.raises(BlockFailed) as caught:
            engine.materialise("s", "block", array, "out")
        assert caught.value.exit_code == 5
        assert "stage s, block block-000003: ZeroDivisionError: by nought" in caught.value.what
        assert engine.run.url in caught.value.hint
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert engine.run.marked("s") == {f"block-{k:06d}" for k in range(3)}
        seen: list[int] = []
        engine.materialise("s", "block", doubled(seen), "out")
        assert seen == [4]

    def test_what_daskim_says_itself_is_passed_on(self, engine: Engine) -> None:
        def refuse(run: Run, key: str) -> dict[str, Any]:
            raise SettingsError("so not")

        with pytest.raises(SettingsError, match="so not"):
            engine.each("s", "g", ["a"], [()], refuse)


class TestEach:
    @pytest.mark.parametrize("workers", [1, 2, 5])
    def test_results_come_in_the_order_of_the_keys(self, run: Run, workers: int) -> None:
        place = Threads(workers, 10**10)
        engine = Engine(place, run)
        keys = [f"{k:03d}" for k in range(40)]
        infos = engine.each("s", "g", keys, [(k,) for k in range(40)], lambda run, key, k: {"k": k * k})
        assert [info["k"] for info in infos] == [k * k for k in range(40)]
        place.close()

    def test_no_keys(self, engine: Engine) -> None:
        assert engine.each("s", "g", [], [], lambda run, key: {}) == []

    def test_few_are_under_way_at_a_time(self, engine: Engine) -> None:
        made = 0
        ended = 0
        most = 0

        class Calls(list[tuple[Any, ...]]):
            def __getitem__(self, index: Any) -> Any:
                nonlocal made, most
                made += 1
                most = max(most, made - ended)
                return ()

        def work(run: Run, key: str) -> dict[str, Any]:
            nonlocal ended
            ended += 1
            return {}

        engine.each("s", "g", [str(k) for k in range(50)], Calls([()] * 50), work)
        assert made == 50
        assert most <= 2 * engine.place.workers + 1

    def test_groups_of_one_stage_do_not_meet(self, engine: Engine) -> None:
        engine.each("s", "one", ["a"], [()], lambda run, key: {"x": 1})
        assert engine.each("s", "two", ["a"], [()], lambda run, key: {"x": 2}) == [{"x": 2}]


def joined(parts: Iterator[np.ndarray]) -> np.ndarray:
    """The tree that was walked, written down: the leaves in order, -1 at the end of each node."""
    return np.concatenate([*parts, [-1.0]])


class TestFold:
    def test_the_tree_follows_from_the_blocks_alone(self, tmp_path: Path) -> None:
        shapes = []
        for workers in (1, 3):
            place = Threads(workers, 10**10)
            engine = Engine(place, Run(str(tmp_path / f"run{workers}")))
            array = da.from_array(np.arange(11.0), chunks=1)
            shapes.append(engine.fold("s", "g", array, Fold(lambda block: block, joined, fan_in=3)))
            place.close()
        np.testing.assert_array_equal(shapes[0], shapes[1])
        low = [[0, 1, 2, -1], [3, 4, 5, -1], [6, 7, 8, -1], [9, 10, -1]]
        assert shapes[0].tolist() == [*low[0], *low[1], *low[2], -1, *low[3], -1, -1]

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17])
    @pytest.mark.parametrize("fan_in", [2, 4])
    def test_sums(self, engine: Engine, count: int, fan_in: int) -> None:
        values = np.random.default_rng(1).integers(0, 100, (count, 2)).astype(np.float64)
        array = da.from_array(values, chunks=(1, 2))
        fold = Fold(lambda block: block.sum(axis=0), lambda parts: np.sum(list(parts), axis=0), fan_in)
        np.testing.assert_array_equal(engine.fold("s", "g", array, fold), values.sum(axis=0))

    def test_a_finished_leaf_is_not_folded_again(self, engine: Engine) -> None:
        seen: list[int] = []
        array = da.from_array(np.arange(5.0), chunks=1)

        def failing(parts: Iterator[np.ndarray]) -> np.ndarray:
            raise RuntimeError("stopped")

        with pytest.raises(BlockFailed, match="g-level1"):
            engine.fold("s", "g", array, Fold(partial(counted, seen), failing, 2))
        assert len(seen) == 5
        total = engine.fold("s", "g", array, Fold(partial(counted, seen), lambda parts: sum(parts), 2))  # type: ignore[arg-type,return-value]
        assert len(seen) == 5
        assert total == 20.0

    def test_what_was_folded_is_removed(self, engine: Engine) -> None:
        array = da.from_array(np.arange(9.0), chunks=1)
        engine.fold("s", "g", array, Fold(lambda block: block, lambda parts: np.sum(list(parts), axis=0), 3))
        assert len(engine.run.names("partial", "s")) == 1
