"""Similarity of pairs: SSIM against scikit-image's loop, `aligned` in both its forms, and what every one costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from daskim.kernels.compiled import SWITCH, engine
from daskim.kernels.registration import unmoved
from daskim.kernels.starts import start
from daskim.kernels.steps import settle
from daskim.plugins import find, names, similarity_of
from daskim.similarities import Similarity, score
from daskim.similarities.aligned import Aligned
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import coefficients, images, source
from tests.bench.table import Table


def run(options: Options) -> Iterator[Table]:
    n = 12 if options.small else 80
    yield against_scikit(n, "uniform 7x7", {}, {}, options)
    wang = {"window": "gaussian", "sample_covariance": False}
    yield against_scikit(n, "Gaussian 11x11", wang, {"gaussian_weights": True, "use_sample_covariance": False}, options)
    yield by_level(200 if options.small else 1000, options)
    yield every_one(12 if options.small else 120, options)


def all_pairs(similarity: Similarity, shown: np.ndarray, dtype: type) -> np.ndarray:
    i, j = np.triu_indices(len(shown), 1)
    parts = similarity.parts(shown, dtype)
    return score(similarity, parts, parts, i, j)[:, 0]


def looped(pixels: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    i, j = np.triu_indices(len(pixels), 1)
    return np.array(
        [structural_similarity(pixels[a], pixels[b], channel_axis=-1, data_range=255, **options) for a, b in zip(i, j)]
    )


def against_scikit(n: int, window: str, ours: dict[str, Any], theirs: dict[str, Any], options: Options) -> Table:
    pixels = images(n)
    similarity = find("similarities", "ssim")(pixels.shape[1:], **ours)
    naive = "skimage structural_similarity, a loop over pairs (naive)"
    contenders = {
        naive: lambda: looped(pixels, theirs),
        "daskim ssim, float64": lambda: all_pairs(similarity, pixels, np.float64),
        "daskim ssim, float32": lambda: all_pairs(similarity, pixels, np.float32),
    }
    found = timed(contenders, options.repeat)
    pairs = n * (n - 1) // 2
    facts = {"data": source(), "n": n, "pairs": pairs, "image": "32x32x3", "pairs together": similarity.batch}
    table = Table(
        f"similarities: SSIM, {window}, all pairs",
        {**facts, "time": "with what is computed once for an image"},
        ["contender", "us per pair", "against the loop", "largest difference"],
    )
    for name, timing in found.items():
        worst = None if name == naive else np.abs(timing.result - found[naive].result).max()
        seconds = timing.seconds
        speed = speed_up(found[naive].seconds, seconds)
        table.rows.append([name, 1e6 * seconds / pairs, speed, None if worst is None else f"{worst:.1e}"])
        if worst is not None:
            bound = 1e-12 if "64" in name else 1e-5
            table.checks.append((f"{name}: scikit-image's figures to {bound:g}", bool(worst <= bound)))
    return table


def by_level(n: int, options: Options) -> Table:
    """What a pair costs on each level, as arrays and compiled: pairs that all reach it, in one thread."""
    shown, count = images(n), 2 * n
    rng = np.random.default_rng(0)
    i, j = np.sort(rng.integers(0, n, count)), rng.integers(0, n, count)
    table = Table(
        "similarities: aligned, a pair by level, in arrays and compiled",
        {"data": source(), "n": n, "pairs": count, "image": "32x32x3", "time": "that of one thread"},
        ["what", "us, numpy", "us, compiled", "faster"],
    )
    if engine() == "numpy":
        table.checks.append(("numba is there", False))
        return table
    forms = {name: form_of(name, shown.shape[1:]) for name in ("numpy", "numba")}
    parts = {name: form.parts(shown, np.float32) for name, form in forms.items()}
    rows: dict[str, dict[str, Callable[[], Any]]] = {"parts of an image": {}}
    for name, form in forms.items():
        rows["parts of an image"][name] = partial(form.parts, shown[:64], np.float32)
        for label, call in stages_of(form, parts[name], i, j).items():
            rows.setdefault(label, {})[name] = call
    for label, calls in rows.items():
        calls["numba"]()  # compiled, or read from the cache
        found = timed(calls, options.repeat)
        each = 64 if label == "parts of an image" else count
        numpy_form, compiled_form = (1e6 * found[name].seconds / each for name in ("numpy", "numba"))
        table.rows.append([label, numpy_form, compiled_form, speed_up(numpy_form, compiled_form)])
        if label.startswith("all"):
            one, other = (found[name].result[:, 0] for name in ("numpy", "numba"))
            apart = float((np.abs(one - other) > 1e-3).mean())
            table.checks.append(("all but 1 % of the figures agree to 1e-3", apart < 0.01))
    return table


def form_of(name: str, shape: tuple[int, ...]) -> Aligned:
    """`aligned` without screens, in one of its forms."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = str(int(name == "numba"))
    try:
        return Aligned(shape, screen=False)
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def stages_of(form: Aligned, parts: Any, i: np.ndarray, j: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The same pairs at each stage by itself, none moved."""
    straight = np.zeros(len(i), dtype=bool)
    motion = unmoved(np.ones(len(i)))
    out: dict[str, Callable[[], Any]] = {}
    levels = len(form.levels)
    least = np.full(2, -np.inf, dtype=np.float32)
    some = range(0, len(i), 64)  # what the array form takes together
    if form.engine == "numba":
        from daskim.kernels.compiled.registered import begin

        out["start"] = lambda: begin(parts[0], parts[0], parts[-1], parts[-1], i, j)
        for number, size in enumerate(form._sizes):
            side = parts[1 + number], parts[1 + levels + number]
            two = replace(size, least=least)
            out[f"level {number + 1}, two steps"] = partial(two.settled, side, side, i, j, straight, straight, motion)
    else:
        out["start"] = lambda: [start(*(parts[k][r[at : at + 64]] for k in (0, -1) for r in (i, j))) for at in some]
        for number in range(levels):
            images_ = parts[1 + number]
            out[f"level {number + 1}, two steps"] = lambda images_=images_, whole=number == 0: [
                settle(
                    *(images_[r[at : at + 64]] for r in (i, j)),
                    motion.take(np.arange(at, min(at + 64, len(i)))),
                    least,
                    whole=whole,
                )
                for at in some
            ]
    out["all, to the end"] = lambda: score(form, parts, parts, i, j)
    return out


def every_one(n: int, options: Options) -> Table:
    table = Table(
        "similarities: every one, 32x32x3",
        {"data": source(), "n": n, "pairs": n * (n - 1) // 2, "a pair": "both parts fetched and compared"},
        [
            "similarity",
            *("us per pair", "in float32", "us once per image", "in float32 ", "KB of parts per image"),
            *("pairs together", "float32 off by"),
        ],
    )
    for name in names("similarities"):
        row, worst, largest = cost_of(name, n, options)
        table.rows.append([*row, f"{worst:.1e}"])
        table.checks.append((f"{name}: no pair above 1, float32 within 1e-4", worst < 1e-4 and largest <= 1 + 1e-9))
    return table


def cost_of(name: str, n: int, options: Options) -> tuple[list[Any], float, float]:
    """A row of the table, the largest error in float32 and the largest similarity."""
    maker, shown = find("similarities", name), images(n)
    if maker.of == "coefficients":  # stored units are twice the orthonormal ones
        shown = coefficients(n, 3072) / (2.0 * np.sqrt(3072))
    similarity = similarity_of(name, shown.shape[1:], screen=False)
    i, j = np.triu_indices(n, 1)
    parts = {dtype: similarity.parts(shown, dtype) for dtype in (np.float64, np.float32)}
    contenders: dict[Any, Callable[[], Any]] = {}
    for dtype, found in parts.items():
        contenders["pair", dtype] = partial(score, similarity, found, found, i, j)
        contenders["image", dtype] = partial(similarity.parts, shown, dtype)
    took = timed(contenders, options.repeat)
    row = [name]
    row += [1e6 * took["pair", dtype].seconds / len(i) for dtype in parts]
    row += [1e6 * took["image", dtype].seconds / n for dtype in parts]
    row += [sum(part[0].nbytes for part in parts[np.float64]) / 1024, similarity.batch]
    double, single = (took["pair", dtype].result[:, 0] for dtype in parts)
    return row, float(np.abs(single - double).max()), float(double.max())
