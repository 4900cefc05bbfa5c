"""Steps of Lanczos for the density of a giant block: a round of tasks each, or many in one task.

A task of step j needs the whole operand u_j (`daskim.kernels.lanczos_rows`). Each process holds one operand, which its
tasks share, and makes the next of it from the remainders that the tasks of the step left; a process that comes late
makes it from what they were made of. So a process reads n x p numbers a step, and the one that drives p numbers a
block. After a step `numbers` is saved: a run that was interrupted goes on with the blocks of the step that are missing.

Both ways do the same arithmetic in the same order, and may take turns.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from daskim.kernels.lanczos import RitzSpectrum, ritz_spectrum
from daskim.kernels.lanczos_rows import advance, floor_of, signs, state_of, step_of_rows
from daskim.release import kept_for_a_stage, let_go
from daskim.stages import Context
from daskim.stages.spectrum.edges import NAME
from daskim.stages.spectrum.rows import Rows, load_rows
from daskim.store import Run

__all__ = ["SAVED", "Course", "density_of", "density_steps", "forget", "saved_steps", "steps_apart"]

# Steps between two states that one task saves: so many are lost by an interruption at most.
SAVED = 10
# Tasks a worker in a round, where there are so many blocks. Nothing depends on it: sums go by blocks.
TASKS = 2


@dataclass(frozen=True)
class Course:
    """One run of Lanczos for a density, as its tasks are told of it."""

    rows: Rows
    probes: int
    steps: int
    seed: int

    @property
    def name(self) -> str:
        return f"density-{self.rows.giant}"

    def part(self, what: str, step: int, block: int) -> str:
        """File of some rows of u or w of a step."""
        return f"{self.name}-{step:05d}-{what}-{block:05d}.npy"

    @property
    def left(self) -> str:
        """File of the size of what is left over after the last step."""
        return f"{self.name}-left.npy"

    def numbers(self, steps: int) -> str:
        """File of alpha and size of the first steps."""
        return f"{self.name}-{steps:05d}-numbers.npy"


@dataclass(frozen=True)
class Before:
    """What a step must know of those before it: shapes (p,), float64.

    Attributes
    ----------
    alpha, size : ndarray
        Of the last one.
    floor : ndarray
        See `floor_of`.
    """

    alpha: np.ndarray
    size: np.ndarray
    floor: np.ndarray


def _before(course: Course, alpha: np.ndarray, size: np.ndarray) -> Before | None:
    return Before(alpha[-1], size[-1], floor_of(alpha, size, course.rows.dtype)) if len(alpha) else None


def saved_steps(run: Run, course: Course) -> int:
    """Steps after which the course can go on; one more than all when nothing is left to do."""
    if run.exists("partial", NAME, course.left):
        return course.steps + 1
    ends = [name for name in run.names("partial", NAME) if name.startswith(f"{course.name}-") and "numbers" in name]
    return max((int(name[len(course.name) + 1 :].partition("-")[0]) for name in ends), default=0)


def _numbers(run: Run, course: Course, done: int) -> tuple[np.ndarray, np.ndarray]:
    """alpha and size of the steps so far, shapes (done, p)."""
    if not done:
        return np.zeros((0, course.probes)), np.zeros((0, course.probes))
    alpha, size = run.load("partial", NAME, course.numbers(done))
    return alpha, size


def forget(run: Run, course: Course, done: int) -> None:
    """Remove what was saved after `done` steps."""
    run.remove("partial", NAME, course.numbers(done))
    for block in range(course.rows.blocks if done else 0):
        for what in ("u", "w"):
            run.remove("partial", NAME, course.part(what, done - 1, block))


# --- operands -----------------------------------------------------------------------------------------------------


class _Operand:
    """The last operand of this process, for all its tasks. `token` tells the runs that it has served apart."""

    def __init__(self) -> None:
        self.lock, self.key = Lock(), ("", "", -1)
        self.vectors, self.size = np.zeros((0, 0)), np.zeros(0)

    def at(
        self, run: Run, course: Course, token: str, step: int, before: Before | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """u and size of a step."""
        with self.lock:
            if self.key == (token, course.name, step):
                return self.vectors, self.size
            ready, vectors = self.key == (token, course.name, step - 1), self.vectors
            self.clear()
            if not ready:
                del vectors
                vectors = _saved(run, course, step)
            files = (run.load("partial", NAME, course.part("w", step - 1, k)) for k in range(course.rows.blocks))
            self.size = _advanced(course, vectors, files, before)
            self.vectors, self.key = vectors, (token, course.name, step)
            return self.vectors, self.size

    def clear(self) -> None:
        self.key, self.vectors = ("", "", -1), np.zeros((0, 0))


_OPERAND = _Operand()


@kept_for_a_stage
def _forget() -> None:
    with _OPERAND.lock:
        _OPERAND.clear()


def _saved(run: Run, course: Course, step: int) -> np.ndarray:
    """u of the step before, or the start."""
    rows = course.rows
    if not step:
        return signs(rows.images, course.probes, seed=course.seed, dtype=rows.dtype)
    vectors = np.empty((rows.images, course.probes), dtype=rows.dtype)
    for block, (lo, hi) in enumerate(pairwise(rows.bounds)):
        vectors[lo:hi] = run.load("partial", NAME, course.part("u", step - 1, block))
    return vectors


def _advanced(
    course: Course, vectors: np.ndarray, remainders: Iterable[np.ndarray], before: Before | None
) -> np.ndarray:
    """Turn u of a step into that of the next, in place; its size. Without a step before it stays the start."""
    if before is None:
        return np.full(course.probes, np.sqrt(course.rows.images))
    squares = np.zeros(course.probes)
    for (lo, hi), remainder in zip(pairwise(course.rows.bounds), remainders):
        squares += advance(vectors[lo:hi], remainder, before.alpha, before.size)
    size = np.sqrt(squares)
    if not np.isfinite(size).all():
        raise ValueError("a product that is not finite")
    over = size <= before.floor
    vectors[:, over] = 0.0
    return np.where(over, 0.0, size)


# --- a round of tasks a step --------------------------------------------------------------------------------------


def steps_apart(context: Context, course: Course) -> None:
    """All steps of a course that are left, each a round of tasks."""
    run, each, token = context.run, context.engine.each, secrets.token_hex(8)
    tasks = np.array_split(np.arange(course.rows.blocks), min(course.rows.blocks, TASKS * context.engine.place.workers))
    spans = [(int(blocks[0]), int(blocks[-1]) + 1) for blocks in tasks]
    keys = [f"{lo:05d}-{hi:05d}" for lo, hi in spans]
    done = saved_steps(run, course)
    if done > course.steps:
        return
    alpha, size = _numbers(run, course, done)
    while done < course.steps:
        before = _before(course, alpha, size)
        calls = [(course, token, done, before, lo, hi) for lo, hi in spans]
        infos = each(NAME, f"{course.name}-{done:05d}", keys, calls, step_in_tasks)
        parts = np.array([part for info in infos for part in info["alpha"]])
        alpha = np.concatenate([alpha, _summed(parts)[None]])
        size = np.concatenate([size, [infos[0]["size"]]])
        done += 1
        run.save(np.stack([alpha, size]), "partial", NAME, course.numbers(done))
        forget(run, course, done - 1)
    _finish(context, course, token, alpha, size)
    let_go()
    context.engine.place.everywhere(let_go)


def step_in_tasks(
    run: Run, key: str, course: Course, token: str, step: int, before: Before | None, first: int, last: int
) -> dict[str, Any]:
    """One step on some blocks of rows: their parts of alpha."""
    parts = []
    vectors, size = _OPERAND.at(run, course, token, step, before)
    for block in range(first, last):
        lo, hi = course.rows.bounds[block], course.rows.bounds[block + 1]
        back = run.load("partial", NAME, course.part("u", step - 1, block)) if before is not None else None
        matrix = load_rows(run, course.rows, block)
        remainder, part = step_of_rows(matrix, vectors, lo, back, size, None if before is None else before.size)
        run.save(vectors[lo:hi], "partial", NAME, course.part("u", step, block))
        run.save(remainder, "partial", NAME, course.part("w", step, block))
        parts.append(part.tolist())
    return {"alpha": parts, "size": size.tolist()}


def _summed(parts: np.ndarray) -> np.ndarray:
    total = np.zeros(parts.shape[1])
    for part in parts:  # in their order
        total += part
    return total


def _finish(context: Context, course: Course, token: str, alpha: np.ndarray, size: np.ndarray) -> None:
    """The size of what is left over after the last step."""
    call = (course, token, _before(course, alpha, size))
    (info,) = context.engine.each(NAME, f"{course.name}-left", ["over"], [call], left_over)
    context.run.save(np.array(info["size"]), "partial", NAME, course.left)


def left_over(run: Run, key: str, course: Course, token: str, before: Before) -> dict[str, Any]:
    _, size = _OPERAND.at(run, course, token, course.steps, before)
    return {"size": size.tolist()}


# --- many steps in a task -----------------------------------------------------------------------------------------


def density_steps(run: Run, key: str, course: Course, done: int, held: bool) -> dict[str, Any]:
    """Some further steps, by one task; with `held`, the rows stay in memory between them."""
    rows, spans = course.rows, list(pairwise(course.rows.bounds))
    alpha, size = _numbers(run, course, done)
    kept: dict[int, csr_array] = {}

    def matrix(block: int) -> csr_array:
        if not held:
            return load_rows(run, rows, block)
        if block not in kept:
            kept[block] = load_rows(run, rows, block)
        return kept[block]

    before = _before(course, alpha, size)
    vectors = _saved(run, course, done)
    earlier = vectors.copy() if done else None
    files = (run.load("partial", NAME, course.part("w", done - 1, k)) for k in range(rows.blocks))
    now = _advanced(course, vectors, files, before)
    end = min(done + SAVED, course.steps)
    remainder = np.empty_like(vectors)
    for step in range(done, end):
        parts = []
        for block, (lo, hi) in enumerate(spans):
            back = None if earlier is None else earlier[lo:hi]
            last = None if before is None else before.size
            remainder[lo:hi], part = step_of_rows(matrix(block), vectors, lo, back, now, last)
            parts.append(part)
        alpha = np.concatenate([alpha, _summed(np.array(parts))[None]])
        size = np.concatenate([size, now[None]])
        before = _before(course, alpha, size)
        if step == end - 1:
            for block, (lo, hi) in enumerate(spans):
                run.save(vectors[lo:hi], "partial", NAME, course.part("u", step, block))
                run.save(remainder[lo:hi], "partial", NAME, course.part("w", step, block))
        if earlier is None:
            earlier = np.empty_like(vectors)
        earlier[:] = vectors
        now = _advanced(course, vectors, (remainder[lo:hi] for lo, hi in spans), before)
    if end == course.steps:
        run.save(now, "partial", NAME, course.left)
    if end > done:
        run.save(np.stack([alpha, size]), "partial", NAME, course.numbers(end))
    return {}


def density_of(run: Run, course: Course) -> RitzSpectrum:
    """What a course that is done knows."""
    alpha, size = _numbers(run, course, course.steps)
    left = run.load("partial", NAME, course.left)
    return ritz_spectrum(state_of(course.rows.images, alpha, np.concatenate([size, left[None]])))
