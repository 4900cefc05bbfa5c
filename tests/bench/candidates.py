"""Candidate pairs by parts, with growth exponents: CPU seconds; the nearest images beside the form without a screen.

The older form, which this one is set beside, multiplies every form of an image, mirrored ones too, with all others in
float32 as it is, in tiles of 2 MB, and sorts whatever reaches a query's bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from daskim.api import run_settings
from daskim.compute import open_place
from daskim.engine import Engine, Info
from daskim.kernels import nearest
from daskim.kernels.coarse import cosine_directions, odd_directions
from daskim.kernels.compiled import engine
from daskim.pipeline import size_of
from daskim.settings import Candidates
from daskim.stages import Context, candidates, exact, index
from daskim.stages import images as images_stage
from daskim.stages.candidates.features import LENGTH, project
from daskim.store import Run
from tests.bench import Options
from tests.bench.context import speed_up
from tests.bench.inputs import images, source
from tests.bench.table import Table

# Queries of one product, and of what is timed of the kernel.
QUERIES = 2048
OLD_TILE = (256, 2048)


def run(options: Options) -> Iterator[Table]:
    n = options.n or (2_000 if options.small else 20_000)
    pixels = images(n)
    sizes = [n // 4, n // 2, n]
    yield kernel(pixels, options)
    every, shown = by_parts(pixels, sizes, "all blocks", {})
    yield shown
    some, shown = by_parts(pixels, sizes, "cells", {"candidates.all_blocks": 1})
    shown.facts["share of the pairs of all blocks"] = [
        float(np.isin(whole, found, assume_unique=True).mean()) for whole, found in zip(every, some)
    ]
    yield shown


class Timed(Engine):
    """Adds up the CPU seconds of this process by group of tasks."""

    def each(self, stage: str, group: str, keys: Sequence[str], *args: Any, **kwargs: Any) -> list[Info]:
        start = time.process_time()
        found = super().each(stage, group, keys, *args, **kwargs)
        self.spent[group] = self.spent.get(group, 0.0) + time.process_time() - start
        self.tasks[group] = self.tasks.get(group, 0) + len(keys)
        return found

    def __post_init__(self) -> None:
        super().__post_init__()
        self.spent: dict[str, float] = {}
        self.tasks: dict[str, int] = {}


@dataclass(frozen=True)
class Spent:
    """CPU seconds and tasks of each part of the stage, its facts, and the pairs of neighbours as a * n + b."""

    seconds: dict[str, float]
    tasks: dict[str, int]
    facts: dict[str, Any]
    pairs: np.ndarray


def spent_on(folder: Path, pixels: np.ndarray, values: Mapping[str, Any]) -> Spent:
    """Run the stage on one worker."""
    np.savez(folder / "set.npz", images=pixels)
    given = {"method": "similarity", "images.size": "native", "images.mode": "RGB", **values}
    settings = run_settings(folder / "set.npz", given)
    store = Run(str(folder / "run"))
    with closing(open_place("threads", workers=1)) as place:
        timed = Timed(place, store)
        context = Context(store, timed, settings, {})
        for stage in (index.STAGE, images_stage.STAGE, exact.STAGE, candidates.STAGE):
            timed.spent, timed.tasks = {}, {}
            start = time.process_time()
            facts = stage.run(context)
            total = time.process_time() - start
            store.write_json({"fingerprint": "", "facts": facts}, "state", stage.name, "sealed.json")
            if stage is index.STAGE:
                context.size = size_of(settings, facts)
    seconds = {**timed.spent, "driver": total - sum(timed.spent.values()), "all": total}
    table = store.read_table("candidates", ["a", "b", "correlation"])
    a, b, correlation = (np.asarray(column) for column in table.columns)
    pairs = (a * len(pixels) + b)[~np.isnan(correlation)]
    return Spent(seconds, {**timed.tasks, "all": sum(timed.tasks.values())}, facts, pairs)


def by_parts(
    pixels: np.ndarray, sizes: list[int], join: str, values: Mapping[str, Any]
) -> tuple[list[np.ndarray], Table]:
    found = []
    for n in sizes:
        with TemporaryDirectory() as folder:
            found.append(spent_on(Path(folder), pixels[:n], values))
    last = found[-1]
    shown = Table(
        f"candidates: the stage by parts, join in {join}: CPU seconds on one worker",
        {"data": source(), "n": sizes[-1], "loops": engine()},
        ["part", *(f"CPU s, n = {n:,}" for n in sizes), "exponent", "tasks"],
    )
    for part in last.seconds:
        seconds = [each.seconds.get(part, 0.0) for each in found]
        shown.rows.append([part, *seconds, exponent(sizes, seconds), last.tasks.get(part)])
    shown.facts["candidates per image"] = [round(each.facts["candidates"] / n, 2) for n, each in zip(sizes, found)]
    shown.checks.append((f"the join was in {join}", last.facts["join"] == join))
    return [each.pairs for each in found], shown


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Of the power law through the figures; None where some are too small to tell."""
    if min(seconds) < 0.02:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def old_form(forms: np.ndarray, block: np.ndarray, settings: Candidates) -> tuple[np.ndarray, ...]:
    """The nearest rows of each query, forms (q, f, k) among rows (n, k); scores as `best_products` offers them."""
    queries, columns = OLD_TILE
    best = nearest.Nearest(len(forms), settings.neighbours, settings.correlation * LENGTH**2, np.arange(len(forms)))
    for lo in range(0, len(block), columns):
        rows = block[lo : lo + columns]
        for start in range(0, len(forms), queries):
            some = forms[start : start + queries]
            score = np.matmul(np.ascontiguousarray(some[:, 0]), rows.T)
            for form in range(1, forms.shape[1]):
                np.maximum(score, np.matmul(np.ascontiguousarray(some[:, form]), rows.T), out=score)
            best.offer(np.arange(start, start + len(some)), np.arange(lo, lo + len(rows)), score)
    return best.result()


def new_form(
    kind: Callable[..., nearest.Found], forms: np.ndarray, block: np.ndarray, odd: np.ndarray, settings: Candidates
) -> tuple[np.ndarray, ...]:
    best = kind(len(forms), settings.neighbours, settings.correlation * LENGTH**2, np.arange(len(forms)))
    nearest.best_products(best, forms, np.arange(len(block)), block, odd)
    return best.result()


def kernel(pixels: np.ndarray, options: Options) -> Table:
    settings = Candidates()
    directions, odd = cosine_directions(3, settings.directions), odd_directions(3, settings.directions)
    made = [project(pixels[lo : lo + QUERIES], directions, settings) for lo in range(0, len(pixels), QUERIES)]
    coarse = np.concatenate(made).reshape(len(pixels), -1, directions.shape[1]).astype(np.float32)
    block, asked = np.ascontiguousarray(coarse[:, 0]), coarse[:QUERIES]
    both = np.repeat(asked, 2, axis=1)
    both[:, 1::2, odd] *= np.float32(-1)
    contenders: dict[str, Callable[[], Any]] = {
        "six forms, sorted (older form)": lambda: old_form(both, block, settings),
        "three forms in halves, sorted (numpy)": lambda: new_form(nearest.Nearest, asked, block, odd, settings),
        "three forms in halves, lists": lambda: new_form(nearest.nearest_of, asked, block, odd, settings),
    }
    flops = [2 * 2 * asked.shape[1] * len(odd), *[2 * asked.shape[1] * len(odd)] * 2]
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results = {name: call() for name, call in contenders.items()}  # compiled now, if need be
    for _ in range(options.repeat):
        for name, call in contenders.items():
            start = time.thread_time()
            call()
            seconds[name].append(time.thread_time() - start)
    shown = Table(
        "candidates: nearest images in coarse coefficients, one thread",
        {"data": source(), "queries": len(asked), "n": len(block), "directions": len(odd), "loops": engine()},
        ["contender", "CPU ns per pair", "against the older form", "GF/s"],
    )
    first = next(iter(contenders))
    for (name, each), count in zip(seconds.items(), flops):
        one = float(np.median(each)) / len(asked) / len(block)
        old = float(np.median(seconds[first])) / len(asked) / len(block)
        shown.rows.append([name, 1e9 * one, speed_up(old, one), count / one / 1e9])
        same = all(np.array_equal(mine, theirs) for mine, theirs in zip(results[name], results[first]))
        shown.checks.append((f"{name}: the same rows and scores", same))
    return shown
