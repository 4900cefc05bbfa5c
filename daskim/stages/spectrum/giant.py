"""Stochastic Lanczos quadrature of blocks too large for all their eigenvalues.

Two courses over each: Rademacher probes without reorthogonalisation for the density, Gaussian ones with full
reorthogonalisation for the ends of the spectrum, where gaps are (`daskim.kernels.density`, `lanczos`). The Laplacian
lies in the run as blocks of rows of about `NONZEROS` entries.

A Laplacian of one such block is stepped inside one task, `SAVED` steps at a time: a product then takes some 30 ms for
16 probes, less than to write its (n, p) operand, send a task and read the result (60,000 images, 900,000 edges, two
threads: 4.3 s in one task, 7.0 s with four blocks of rows). Where there are several, each product is a group of tasks,
one a block of rows, and the short recurrences are done between them. A row of a product is summed in one order in both
cases, so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array

from daskim.kernels.graph import laplacian, similarity_matrix
from daskim.kernels.lanczos import LanczosState, RitzSpectrum, lanczos_start, lanczos_steps, probes, ritz_spectrum
from daskim.settings import Spectrum
from daskim.stages import Context
from daskim.stages.spectrum.exact import entries
from daskim.stages.spectrum.graph import NAME
from daskim.store import Run

__all__ = ["BASIS_BYTES", "NONZEROS", "Giant", "lanczos_spectra"]

# Entries of one block of rows. Constants: neither workers nor blocks of the run decide a bit.
NONZEROS = 2_000_000
# Steps between two states that are saved: so many are lost by an interruption at most.
SAVED = 10
# Of the vectors that one course with reorthogonalisation keeps; it is shortened where they would be more.
BASIS_BYTES = 2**26
FULL_STEPS = 200


@dataclass(frozen=True)
class Giant:
    """One block: some parts of the graph, one after the other.

    Attributes
    ----------
    pieces : tuple of tuple of str
        By part.
    sizes : tuple of int
        Images of each part.
    """

    key: str
    pieces: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]

    @property
    def images(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class Course:
    """One run of Lanczos, as its tasks are told of it; see `lanczos_start` and `probes`."""

    giant: str
    images: int
    law: Literal["rademacher", "gaussian"]
    probes: int
    steps: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.giant}-{self.law}"

    @property
    def full(self) -> bool:
        """With reorthogonalisation."""
        return self.law == "gaussian"


def courses_of(giant: Giant, settings: Spectrum) -> tuple[Course, Course]:
    """The courses for the density and for the gaps."""
    m, steps = giant.images, min(settings.steps, giant.images)
    density = Course(giant.key, m, "rademacher", settings.probes, steps, settings.seed)
    steps = min(steps, FULL_STEPS, max(2, BASIS_BYTES // (8 * m)))
    vectors = max(1, min(settings.probes, BASIS_BYTES // (8 * m * steps)))
    return density, Course(giant.key, m, "gaussian", vectors, steps, settings.seed)


def lanczos_spectra(context: Context, giants: Sequence[Giant]) -> tuple[list[RitzSpectrum], list[RitzSpectrum]]:
    """What Lanczos knows of each block: for its density, and for its gaps."""
    keys = [giant.key for giant in giants]
    infos = context.engine.each(NAME, "rows", keys, [(giant,) for giant in giants], write_rows)
    courses = [courses_of(giant, context.settings.spectrum) for giant in giants]
    inside = [course for pair, info in zip(courses, infos) if len(info["bounds"]) == 2 for course in pair]
    for done in range(0, max((course.steps for course in inside), default=0), SAVED):
        mine = [course for course in inside if done < course.steps]
        names = [course.name for course in mine]
        context.engine.each(NAME, f"steps-{done:04d}", names, [(course, done) for course in mine], steps_in_task)
        for course in mine:
            _forget(context.run, course, done)
    for pair, info in zip(courses, infos):
        if len(info["bounds"]) > 2:
            for course in pair:
                _steps_apart(context, course, info["bounds"])
    spectra = [[ritz_spectrum(_load(context.run, course, course.steps, False)) for course in pair] for pair in courses]
    return [pair[0] for pair in spectra], [pair[1] for pair in spectra]


def write_rows(run: Run, key: str, giant: Giant) -> dict[str, Any]:
    """The Laplacian of one block, by blocks of rows; their bounds."""
    found = [entries(run, pieces) for pieces in giant.pieces]
    offsets = np.cumsum([0, *giant.sizes])
    i = np.concatenate([part[0] + offset for part, offset in zip(found, offsets)])
    j = np.concatenate([part[1] + offset for part, offset in zip(found, offsets)])
    value = np.concatenate([part[2] for part in found])
    found.clear()
    matrix = laplacian(similarity_matrix(giant.images, i, j, value, negative="signed"))
    block = matrix.indptr[:-1] // NONZEROS  # of each row, by where it starts
    bounds = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), giant.images]
    for at, (lo, hi) in enumerate(pairwise(bounds)):
        rows = matrix[lo:hi]
        for name in ("indptr", "indices", "data"):
            run.save(getattr(rows, name), "partial", NAME, f"rows-{key}-{at:05d}-{name}.npy")
    return {"bounds": bounds, "nonzeros": int(matrix.nnz)}


def _rows(run: Run, giant: str, at: int, images: int) -> csr_array:
    indptr, indices, data = (
        run.load("partial", NAME, f"rows-{giant}-{at:05d}-{name}.npy") for name in ("indptr", "indices", "data")
    )
    return csr_array((data, indices, indptr), shape=(len(indptr) - 1, images))


def steps_in_task(run: Run, key: str, course: Course, done: int) -> dict[str, Any]:
    """Some further steps of a block whose Laplacian is in one piece."""
    matrix = _rows(run, course.giant, 0, course.images)
    state = lanczos_steps(_load(run, course, done), lambda vectors: matrix @ vectors, _ahead(course, done))
    _save(run, course, state, done)
    return {}


def _ahead(course: Course, done: int) -> int:
    return min(SAVED, course.steps - done)


def _steps_apart(context: Context, course: Course, bounds: list[int]) -> None:
    """All steps of a block whose products are groups of tasks."""
    run, there = context.run, context.run.marked(NAME)
    for done in range(0, course.steps, SAVED):
        mark = f"steps-{done:04d}-{course.name}"
        if mark in there:
            continue
        step = count(done)
        product = _Product(context, course, bounds, step)
        state = lanczos_steps(_load(run, course, done), product, _ahead(course, done))
        _save(run, course, state, done)
        run.mark(NAME, mark, {})
        _forget(run, course, done)
        for name in product.left:
            run.remove("partial", NAME, name)


class _Product:
    """The Laplacian times a block of vectors, by tasks; the files it left stay until the steps after it are saved."""

    def __init__(self, context: Context, course: Course, bounds: list[int], step: count[int]) -> None:
        self.context, self.course, self.bounds, self.step = context, course, bounds, step
        self.left: list[str] = []

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        run, group = self.context.run, f"product-{self.course.name}-{next(self.step):04d}"
        run.save(vectors, "partial", NAME, f"{group}.npy")
        keys = [f"{at:05d}" for at in range(len(self.bounds) - 1)]
        calls = [(self.course, group, at) for at in range(len(keys))]
        self.context.engine.each(NAME, group, keys, calls, rows_times_vectors)
        names = [f"{group}-{key}.npy" for key in keys]
        out = np.empty_like(vectors)
        for (lo, hi), name in zip(pairwise(self.bounds), names):
            out[lo:hi] = run.load("partial", NAME, name)
        self.left += [f"{group}.npy", *names]
        return out


def rows_times_vectors(run: Run, key: str, course: Course, group: str, at: int) -> dict[str, Any]:
    """One block of rows times all vectors."""
    vectors = run.load("partial", NAME, f"{group}.npy")
    run.save(_rows(run, course.giant, at, course.images) @ vectors, "partial", NAME, f"{group}-{key}.npy")
    return {}


def _load(run: Run, course: Course, done: int, basis: bool = True) -> LanczosState:
    """The state after `done` steps, without its earlier vectors unless they are asked for."""
    if not done:
        start = probes(course.images, course.probes, seed=course.seed, law=course.law)
        return lanczos_start(start, reorthogonalise=course.full)
    alpha, beta = run.load("partial", NAME, f"state-{course.name}-{done:04d}-numbers.npy")
    length = run.load("partial", NAME, f"state-{course.name}-{done:04d}-length.npy")
    previous, current = run.load("partial", NAME, f"state-{course.name}-{done:04d}-vectors.npy")
    earlier = np.zeros((course.probes, 0, course.images))
    if basis and course.full:
        ends = sorted({*range(SAVED, done, SAVED), done})
        names = [f"state-{course.name}-{end:04d}-basis.npy" for end in ends]
        earlier = np.concatenate([run.load("partial", NAME, name) for name in names], axis=1)
    return LanczosState(alpha, beta, length, previous, current, earlier, course.full)


def _save(run: Run, course: Course, state: LanczosState, before: int) -> None:
    """The state; of its earlier vectors those that are new since `before` steps."""
    name = f"state-{course.name}-{state.steps:04d}"
    run.save(np.stack([state.alpha, state.beta]), "partial", NAME, f"{name}-numbers.npy")
    run.save(state.length, "partial", NAME, f"{name}-length.npy")
    run.save(np.stack([state.previous, state.current]), "partial", NAME, f"{name}-vectors.npy")
    if course.full:
        run.save(state.basis[:, before:], "partial", NAME, f"{name}-basis.npy")


def _forget(run: Run, course: Course, done: int) -> None:
    """The last two vectors after `done` steps, when later ones are saved."""
    if done:
        run.remove("partial", NAME, f"state-{course.name}-{done:04d}-vectors.npy")
