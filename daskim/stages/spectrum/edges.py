"""Edges of any number on their way to the table `graph`: sorted by both ends, and cut into pieces by part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from daskim.store import Run

__all__ = ["EDGE", "HELD", "NAME", "PIECE", "Edges", "Pieces", "part_name"]

NAME = "spectrum"
# Ends as places among the readable images, a < b, and the similarity.
EDGE = np.dtype([("a", "i4"), ("b", "i4"), ("value", "f8")])
# Edges that are held at a time (some 50 bytes each while they are sorted), and those of one piece at most. Constants:
# what lies in which file does not depend on workers.
HELD = 4_000_000
PIECE = 1_000_000


def part_name(part: int) -> str:
    """A part as a key."""
    return f"{part:06d}"


class Edges:
    """Edges that are added in any order and come back sorted by a and b, at most about `HELD` at a time.

    Up to `HELD` / 2 stay in memory; more are written as they come, then laid out by ranges of a.
    """

    def __init__(self, run: Run, n: int) -> None:
        self.run, self.n, self.count = run, n, 0
        self.starts = np.zeros(n, dtype=np.int64)
        self.files: list[str] = []
        self.last: np.ndarray | None = None

    def add(self, batch: np.ndarray) -> None:
        """Further edges, of dtype `EDGE`."""
        if self.last is not None:
            self.files.append(f"edges-{len(self.files):05d}.npy")
            self.run.save(self.last, "partial", NAME, self.files[-1])
        self.last = batch
        self.count += len(batch)
        self.starts += np.bincount(batch["a"], minlength=self.n)

    def sorted(self) -> Iterator[np.ndarray]:
        """All edges, once. Where one lot ends and the next begins depends on the edges alone."""
        ranges = (np.cumsum(self.starts) - self.starts) // HELD
        if self.last is None:
            return
        if not self.files:
            batch = self._ordered(self.last)
            yield from np.split(batch, np.flatnonzero(np.diff(ranges[batch["a"]])) + 1)
            return
        self.add(self.last[:0])  # all are in files now
        self.last = None
        laid: dict[int, list[str]] = {}
        for file in self.files:
            batch = self.run.load("partial", NAME, file)
            of = ranges[batch["a"]].astype(np.int32)
            order = np.argsort(of, kind="stable")
            cuts = np.cumsum(np.bincount(of))
            for at in np.unique(of).tolist():
                mine = batch[order[cuts[at - 1] if at else 0 : cuts[at]]]
                laid.setdefault(at, []).append(f"{file.removesuffix('.npy')}-{at:05d}.npy")
                self.run.save(mine, "partial", NAME, laid[at][-1])
            self.run.remove("partial", NAME, file)
        for _, names in sorted(laid.items()):
            yield self._ordered(np.concatenate([self.run.load("partial", NAME, name) for name in names]))
            for name in names:
                self.run.remove("partial", NAME, name)

    def _ordered(self, batch: np.ndarray) -> np.ndarray:
        return batch[np.argsort(batch["a"] * np.int64(self.n) + batch["b"])]


class Pieces:
    """The table `graph`, written as sorted edges come.

    A piece is written when `PIECE` edges of its part are there. What is begun of all parts waits for more, up to `HELD`
    / 2 edges together; then all of it is written, in smaller pieces.
    """

    def __init__(self, run: Run, rows: np.ndarray, part: np.ndarray, order: np.ndarray, start: np.ndarray) -> None:
        run.remove("tables", "graph")  # an attempt with other settings may have ended before its first task
        self.run, self.rows, self.part = run, rows, part.astype(np.int32)
        self.place = np.zeros(len(rows), dtype=np.int32)
        self.place[order] = np.arange(len(order)) - start[self.part[order]]
        parts = len(start) - 1
        self.begun: list[list[np.ndarray]] = [[] for _ in range(parts)]
        self.waiting = 0
        self.keys: list[list[str]] = [[] for _ in range(parts)]
        self.links: list[list[int]] = [[] for _ in range(parts)]

    def add(self, batch: np.ndarray) -> None:
        """Edges of dtype `EDGE` that come after all before, by a and b."""
        owner = self.part[batch["a"]]
        order = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=len(self.keys)))
        for part in np.unique(owner).tolist():
            mine = batch[order[ends[part - 1] if part else 0 : ends[part]]]
            self.begun[part].append(mine)
            self.waiting += len(mine)
            if sum(map(len, self.begun[part])) >= PIECE:
                self._write(part, whole=True)
        if self.waiting > HELD // 2:
            for part in range(len(self.begun)):
                self._write(part, whole=False)

    def finish(self) -> tuple[list[tuple[str, ...]], list[tuple[int, ...]]]:
        """The keys of the table and the edges of each, by part."""
        for part in range(len(self.begun)):
            self._write(part, whole=False)
        if not self.keys:
            self._put("none", np.zeros(0, dtype=EDGE))  # a table without a row, so that it can be read
        return [tuple(keys) for keys in self.keys], [tuple(links) for links in self.links]

    def _write(self, part: int, *, whole: bool) -> None:
        """What is begun of a part, up to the last multiple of `PIECE` or to its end."""
        if not self.begun[part]:
            return
        edges = np.concatenate(self.begun[part])
        end = len(edges) // PIECE * PIECE if whole else len(edges)
        for lo in range(0, end, PIECE):
            piece = edges[lo : min(lo + PIECE, end)]
            self.keys[part].append(f"{part_name(part)}-{len(self.keys[part]):04d}")
            self.links[part].append(len(piece))
            self._put(self.keys[part][-1], piece)
        self.begun[part] = [edges[end:].copy()] if end < len(edges) else []
        self.waiting -= end

    def _put(self, key: str, edges: np.ndarray) -> None:
        one, other = edges["a"], edges["b"]
        columns = {"a": self.rows[one], "b": self.rows[other], "similarity": edges["value"]}
        columns |= {"i": self.place[one], "j": self.place[other]}
        self.run.write_part("graph", key, pa.table({name: np.ascontiguousarray(c) for name, c in columns.items()}))
