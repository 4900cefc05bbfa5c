"""Stochastic Lanczos quadrature of blocks too large for all their eigenvalues.

Two courses over each: Rademacher probes without reorthogonalisation for the density (`steps`), Gaussian ones with full
reorthogonalisation for the ends of the spectrum, where gaps are (`daskim.kernels.density`, `lanczos`). The Laplacian
lies in the run as blocks of rows (`rows`).

The course for the gaps keeps vectors of `BASIS_BYTES` in all, so that it is short where a block is large: one task
steps it, and reads the rows block by block. That for the density takes a round of tasks a step where it gains: with
several blocks of rows, several workers, and a run on a disk. From an object store each process would read the rows
anew in each step; there one task does `SAVED` steps and keeps them, if they take no more than half of its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskim.kernels.lanczos import LanczosState, RitzSpectrum, lanczos_start, lanczos_steps, probes, ritz_spectrum
from daskim.settings import Spectrum
from daskim.stages import Context
from daskim.stages.spectrum.edges import NAME
from daskim.stages.spectrum.rows import Giant, Rows, laplacian_rows, load_rows
from daskim.stages.spectrum.steps import (
    SAVED,
    Course,
    density_of,
    density_steps,
    forget,
    saved_steps,
    steps_apart,
)
from daskim.store import Run

__all__ = ["BASIS_BYTES", "lanczos_spectra"]

# Of the vectors that the course for the gaps keeps; it is shortened where they would be more.
BASIS_BYTES = 2**26
FULL_STEPS = 200


@dataclass(frozen=True)
class Ends:
    """One run of Lanczos for the ends of a spectrum, as its tasks are told of it."""

    rows: Rows
    probes: int
    steps: int
    seed: int

    @property
    def name(self) -> str:
        return f"ends-{self.rows.giant}"


def courses_of(rows: Rows, settings: Spectrum) -> tuple[Course, Ends]:
    """The courses for the density and for the gaps."""
    m, steps = rows.images, min(settings.steps, rows.images)
    density = Course(rows, settings.probes, steps, settings.seed)
    steps = min(steps, FULL_STEPS, max(2, BASIS_BYTES // (8 * m)))
    vectors = max(1, min(settings.probes, BASIS_BYTES // (8 * m * steps)))
    return density, Ends(rows, vectors, steps, settings.seed)


def lanczos_spectra(context: Context, giants: Sequence[Giant]) -> tuple[list[RitzSpectrum], list[RitzSpectrum]]:
    """What Lanczos knows of each block: for its density, and for its gaps."""
    run, courses = context.run, []
    for rows in laplacian_rows(context, giants):
        courses.append(courses_of(rows, context.settings.spectrum))
    ways = [_way(context, giant, density) for giant, (density, _) in zip(giants, courses)]
    together = [(density, held) for (density, _), (apart, held) in zip(courses, ways) if not apart]
    _steps_together(context, together, [ends for _, ends in courses])
    for (density, _), (apart, _) in zip(courses, ways):
        if apart:
            steps_apart(context, density)
    gaps = [ritz_spectrum(_load(run, ends, ends.steps, False)) for _, ends in courses]
    return [density_of(run, density) for density, _ in courses], gaps


def _way(context: Context, giant: Giant, course: Course) -> tuple[bool, bool]:
    """Whether the steps of a course are rounds of tasks; and, where they are not, whether a task keeps the rows."""
    place, far = context.engine.place, context.run.local is None
    itemsize = np.dtype(giant.dtype).itemsize
    needed = giant.nonzeros * (4 + itemsize) + 3 * giant.images * course.probes * itemsize
    fits = needed * -(-place.workers // place.processes) <= place.memory / 2
    apart = course.rows.blocks > 1 and place.workers > 1 and not (far and fits)
    return apart, far and fits


def _steps_together(context: Context, densities: list[tuple[Course, bool]], ends: list[Ends]) -> None:
    """All steps of some courses, each in tasks of `SAVED` steps."""
    run = context.run
    saved = run.names("partial", NAME)
    at: dict[str, int] = {course.name: saved_steps(run, course) for course, _ in densities}
    at |= {course.name: _saved_of_ends(saved, course) for course in ends}
    courses: list[tuple[Course | Ends, bool]] = [*densities, *((course, False) for course in ends)]
    while left := [(course, held) for course, held in courses if at[course.name] <= course.steps]:
        keys = [f"{course.name}-{at[course.name]:05d}" for course, _ in left]
        context.engine.each(NAME, "steps", keys, [(course, at[course.name], held) for course, held in left], some_steps)
        for course, _ in left:
            done = at[course.name]
            at[course.name] = min(done + SAVED, course.steps)
            at[course.name] += at[course.name] == course.steps
            if isinstance(course, Course):
                forget(run, course, done)
            elif done:
                run.remove("partial", NAME, f"{course.name}-{done:05d}-vectors.npy")


def _saved_of_ends(names: list[str], course: Ends) -> int:
    """As `saved_steps`."""
    found = [name for name in names if name.startswith(f"{course.name}-") and name.endswith("-numbers.npy")]
    done = max((int(name[len(course.name) + 1 :].partition("-")[0]) for name in found), default=0)
    return done + (done == course.steps)


def some_steps(run: Run, key: str, course: Course | Ends, done: int, held: bool) -> dict[str, Any]:
    """Up to `SAVED` further steps of a course."""
    if isinstance(course, Course):
        return density_steps(run, key, course, done, held)
    return steps_of_ends(run, key, course, done)


def steps_of_ends(run: Run, key: str, course: Ends, done: int) -> dict[str, Any]:
    """Some further steps for the ends of a spectrum."""
    blocks = range(course.rows.blocks)

    def product(vectors: np.ndarray) -> np.ndarray:
        return np.concatenate([load_rows(run, course.rows, block) @ vectors for block in blocks])

    state = lanczos_steps(_load(run, course, done), product, min(SAVED, course.steps - done))
    _save(run, course, state, done)
    return {}


def _load(run: Run, course: Ends, done: int, basis: bool = True) -> LanczosState:
    """The state after `done` steps, without its earlier vectors unless they are asked for."""
    images = course.rows.images
    if not done:
        start = probes(images, course.probes, seed=course.seed, law="gaussian")
        return lanczos_start(start, reorthogonalise=True)
    alpha, beta = run.load("partial", NAME, f"{course.name}-{done:05d}-numbers.npy")
    length = run.load("partial", NAME, f"{course.name}-{done:05d}-length.npy")
    previous, current = run.load("partial", NAME, f"{course.name}-{done:05d}-vectors.npy")
    earlier = np.zeros((course.probes, 0, images))
    if basis:
        ends = sorted({*range(SAVED, done, SAVED), done})
        names = [f"{course.name}-{end:05d}-basis.npy" for end in ends]
        earlier = np.concatenate([run.load("partial", NAME, name) for name in names], axis=1)
    return LanczosState(alpha, beta, length, previous, current, earlier, True)


def _save(run: Run, course: Ends, state: LanczosState, before: int) -> None:
    """The state; of its earlier vectors those that are new since `before` steps. The numbers come last."""
    name = f"{course.name}-{state.steps:05d}"
    run.save(state.length, "partial", NAME, f"{name}-length.npy")
    run.save(np.stack([state.previous, state.current]), "partial", NAME, f"{name}-vectors.npy")
    run.save(state.basis[:, before:], "partial", NAME, f"{name}-basis.npy")
    run.save(np.stack([state.alpha, state.beta]), "partial", NAME, f"{name}-numbers.npy")
