"""The only door to Dask for the stages: blocks written one by one, ragged tables, folds.

The block is the unit of work, of failure and of resume. A task computes the Dask graph of its block serially on the
worker that it runs on, writes the result into the block's own shard or part, and then leaves a marker. Tasks go out in
a bounded window; a block that has its marker is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask
import numpy as np
from threadpoolctl import threadpool_limits

from daskim.compute import Place, WorkerEnded
from daskim.errors import BlockFailed, DaskimError, SourceError
from daskim.store import Run, bytes_read

if TYPE_CHECKING:  # its import takes a second, half of it for libraries that the first stages do without
    import dask.array as da

__all__ = ["Engine", "Fold", "Progress", "total"]

Info = dict[str, Any]
Reads = dict[str, int]

# Note of a group of blocks that is under way in the process of the run itself; its orderly end removes it.
BEGUN = "begun"
# Times that blocks whose workers ended again are tried once more, beyond what the scheduler does by itself.
AGAIN = 1

# Names this process among the workers, wherever they are.
_PROCESS = uuid4().hex


class Progress:
    """What a run tells while it works; this one is silent."""

    def begin(self, stage: str, title: str, total: int, done: int) -> None:
        """A group of `total` blocks starts, `done` of which an earlier run has finished."""

    def advance(self, stage: str) -> None:
        """One block more."""

    def say(self, text: str) -> None:
        """One line for the user."""


@dataclass(frozen=True)
class Fold:
    """A reduction as data: `chunk` takes a block to something small, `combine` joins some of those, in order.

    `combine` is given an iterator, so that a sum holds two of them at a time.
    """

    chunk: Callable[[np.ndarray], np.ndarray]
    combine: Callable[[Iterator[np.ndarray]], np.ndarray]
    fan_in: int = 4


@dataclass
class Engine:
    """Runs blocks on a place and leaves them in a run.

    Attributes
    ----------
    computed, resumed : dict of str to int
        Blocks computed now, and found finished, by stage.
    held : callable
        Raises where the run is no longer ours (`daskim.lease.Lease.check`); asked after each block, with `ask=False`.
    """

    place: Place
    run: Run
    progress: Progress = field(default_factory=Progress)
    computed: dict[str, int] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)
    held: Callable[..., None] = lambda *, ask=True: None
    _reads: dict[str, tuple[Reads, Reads]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_blas_thread()
        self._note_reads(_PROCESS, bytes_read(), bytes_read())

    def _note_reads(self, process: str, before: Reads, after: Reads) -> None:
        """What a process had read from runs before a task and after it; tasks end in any order."""
        first, last = self._reads.get(process, (before, after))
        lower = {name: min(first.get(name, 0), before.get(name, 0)) for name in first}
        self._reads[process] = lower, {name: max(last.get(name, 0), after.get(name, 0)) for name in {**last, **after}}

    def bytes_read(self) -> dict[str, int]:
        """Bytes, as stored, that this process and the workers have read of each array since this engine was made."""
        self._note_reads(_PROCESS, bytes_read(), bytes_read())
        sums: dict[str, int] = {}
        for first, last in self._reads.values():
            for name, value in last.items():
                sums[name] = sums.get(name, 0) + value - first.get(name, 0)
        return sums

    def each(
        self,
        stage: str,
        group: str,
        keys: Sequence[str],
        calls: Sequence[tuple[Any, ...]],
        function: Callable[..., Info],
        *,
        alone: Callable[..., Info] | None = None,
    ) -> list[Info]:
        """`function(run, key, *call)` for every key that is not marked yet; the markers' contents, in order.

        The function writes its own output and returns a small dict, which goes into the marker.

        Parameters
        ----------
        alone : callable, optional
            Does the same, but whatever may end a process it does in a child: for blocks that ended their worker, now
            or, where this process is the worker, when an earlier one was at them.

        Raises
        ------
        BlockFailed
            After the blocks under way have ended; finished blocks stay finished.
        """
        names = [f"{group}-{key}" for key in keys]
        there = self.run.marked(stage)
        todo = [t for t, name in enumerate(names) if name not in there]
        infos: dict[int, Info] = {t: self.run.marker(stage, names[t]) for t in range(len(names)) if names[t] in there}
        self.resumed[stage] = self.resumed.get(stage, 0) + len(infos)
        self.progress.begin(stage, group, len(names), len(infos))
        work = _Work(stage, names, keys, calls, infos)
        note = ("state", stage, f"{BEGUN}-{group}")
        noted = alone is not None and self.place.name == "threads" and bool(todo)
        suspects = todo[: (self.run.read_json(*note) or {}).get("workers", 0)] if noted else []
        if noted:
            self.run.write_json({"workers": self.place.workers}, *note)
        try:
            self._rounds(work, suspects, todo[len(suspects) :], function, alone)
        finally:  # blocks that were under way have ended
            if noted:
                with suppress(SourceError):
                    self.run.remove(*note)
        return [infos[t] for t in range(len(names))]

    def _rounds(
        self,
        work: _Work,
        suspects: list[int],
        others: list[int],
        function: Callable[..., Info],
        alone: Callable[..., Info] | None,
    ) -> None:
        """All blocks that are left, again where their workers ended.

        Tasks start in order. So the blocks under way when an earlier process ended are the first that are not marked,
        as many as it had threads; they come first now too, so that this holds again.
        """
        say, stage = self.progress.say, work.stage
        if suspects and alone is not None:
            say(f"{stage}: blocks under way when an earlier run ended ({len(suspects)}) are done in child processes")
            others = sorted({*others, *self._round(work, suspects, alone)})
        ended = self._round(work, others, function)
        for _ in range(AGAIN + 1):
            if ended:
                how = "again, in child processes" if alone is not None else "again"
                say(f"{stage}: blocks whose worker processes ended ({len(ended)}) are done {how}")
                ended = self._round(work, sorted(ended), alone or function)
        for t, error in ended.items():
            raise BlockFailed(
                f"stage {stage}, block {work.names[t]}: {error}",
                "Fewer --workers, more --memory, or smaller blocks (blocks.rows). The finished blocks are kept: the "
                f"same command goes on. Run directory: {self.run.url}",
            )

    def _round(self, work: _Work, todo: Sequence[int], function: Callable[..., Info]) -> dict[int, WorkerEnded]:
        """Do some blocks; those whose worker ended, with the error."""
        calls = ((self.run, work.stage, work.names[t], work.keys[t], function, work.calls[t]) for t in todo)
        ended: dict[int, WorkerEnded] = {}
        for position, info, error in self.place.unordered(_one_block, calls):
            t = todo[position]
            if isinstance(error, WorkerEnded):
                ended[t] = error
            elif isinstance(error, DaskimError):
                raise error
            elif error is not None:
                raise BlockFailed(
                    f"stage {work.stage}, block {work.names[t]}: {type(error).__name__}: {error}",
                    f"The finished blocks are kept: run the same command again to go on. Run directory: {self.run.url}",
                ) from error
            else:
                work.infos[t] = info[0]
                self._note_reads(*info[1:])
                self.computed[work.stage] = self.computed.get(work.stage, 0) + 1
                self.progress.advance(work.stage)
                self.held(ask=False)
        return ended

    def materialise(self, stage: str, group: str, array: da.Array, target: str) -> list[Info]:
        """Compute a Dask array block by block into the Zarr array `target`, whose shards are its row blocks.

        The array is chunked along rows only. Each task carries the culled graph of one block.
        """
        bounds = _row_bounds(array)
        keys = [f"{index:06d}" for index in range(len(bounds))]
        calls = _Lazy(lambda index: (_graph_of(array, index), target, *bounds[index]), len(bounds))
        return self.each(stage, group, keys, calls, _write_block)

    def fold(self, stage: str, group: str, array: da.Array, fold: Fold) -> np.ndarray:
        """Reduce the row blocks of an array in a tree whose shape follows from their number alone."""
        count = array.numblocks[0]
        keys = [f"{index:06d}" for index in range(count)]
        names = [f"{group}-leaf-{key}" for key in keys]
        calls = _Lazy(lambda index: (_graph_of(array, index), fold.chunk, stage, names[index]), count)
        self.each(stage, f"{group}-leaf", keys, calls, _fold_leaf)
        return self.join(stage, group, names, fold.combine, fan_in=fold.fan_in)

    def join(
        self,
        stage: str,
        group: str,
        names: list[str],
        combine: Callable[[Iterator[np.ndarray]], np.ndarray],
        *,
        fan_in: int = 4,
    ) -> np.ndarray:
        """Join the partial results of these names in a tree whose shape follows from their number alone; they go."""
        level = 0
        while len(names) > 1:
            level += 1
            groups = [names[start : start + fan_in] for start in range(0, len(names), fan_in)]
            keys = [f"{index:06d}" for index in range(len(groups))]
            prefix = f"{group}-level{level}"
            calls = [(f"{prefix}-{key}", members, combine, stage) for key, members in zip(keys, groups)]
            self.each(stage, prefix, keys, calls, _fold_node)
            for name in names:  # every node that reads them is marked
                self.run.remove("partial", stage, f"{name}.npy")
            names = [f"{prefix}-{key}" for key in keys]
        return self.run.load("partial", stage, f"{names[0]}.npy")


def total(parts: Iterator[np.ndarray]) -> np.ndarray:
    """Sum of arrays of one shape, in their order: the `combine` of a fold that adds."""
    summed = next(parts).copy()
    for part in parts:
        summed += part
    return summed


@dataclass(frozen=True)
class _Work:
    """The blocks of one group; lists are parallel, and `infos` holds what is finished by position."""

    stage: str
    names: Sequence[str]
    keys: Sequence[str]
    calls: Sequence[tuple[Any, ...]]
    infos: dict[int, Info]


class _Lazy(Sequence[tuple[Any, ...]]):
    """Calls made when asked for: the graphs of all blocks are never in memory together."""

    def __init__(self, make: Callable[[int], tuple[Any, ...]], length: int) -> None:
        self._make = make
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._make(index)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return (self._make(index) for index in range(self._length))


class _Block:
    """The graph of one block. No collection to Dask's eyes: the task that holds it computes it, serially."""

    def __init__(self, array: da.Array) -> None:
        self.array = array

    def compute(self) -> np.ndarray:
        return np.asarray(self.array.compute(scheduler="synchronous"))


def _graph_of(array: da.Array, index: int) -> _Block:
    (block,) = dask.optimize(array.blocks[index])
    return _Block(block)


def _row_bounds(array: da.Array) -> list[tuple[int, int]]:
    ends = np.cumsum(array.chunks[0]).tolist()
    return list(zip([0, *ends[:-1]], ends))


def _one_block(
    run: Run, stage: str, name: str, key: str, function: Callable[..., Info], call: tuple[Any, ...]
) -> tuple[Info, str, Reads, Reads]:
    """Do and mark one block; what it found, the process it ran in, and what that had read before and after."""
    one_blas_thread()
    before = bytes_read()
    info = function(run, key, *call)
    run.mark(stage, name, info)
    return info, _PROCESS, before, bytes_read()


def _write_block(run: Run, key: str, block: _Block, target: str, lo: int, hi: int) -> Info:
    run.array(target)[lo:hi] = block.compute()
    return {"rows": hi - lo}


def _fold_leaf(
    run: Run, key: str, block: _Block, chunk: Callable[[np.ndarray], np.ndarray], stage: str, name: str
) -> Info:
    run.save(chunk(block.compute()), "partial", stage, f"{name}.npy")
    return {}


def _fold_node(
    run: Run, key: str, name: str, members: list[str], combine: Callable[[Iterator[np.ndarray]], np.ndarray], stage: str
) -> Info:
    parts = (run.load("partial", stage, f"{member}.npy") for member in members)
    run.save(combine(parts), "partial", stage, f"{name}.npy")
    return {}


@lru_cache(maxsize=1)
def one_blas_thread() -> Any:
    """Limit BLAS to one thread in this process, once: workers are the parallelism, and sums then have one order."""
    return threadpool_limits(1)
