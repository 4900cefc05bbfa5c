"""Similarity of pairs of images: batches of SSIM against scikit-image's loop, and the cost of every similarity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from daskim.plugins import find, names, similarity_of
from daskim.similarities import Similarity, score
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import coefficients, images, source
from tests.bench.table import Table


def run(options: Options) -> Iterator[Table]:
    n = 12 if options.small else 80
    yield against_scikit(n, "uniform 7x7", {}, {}, options)
    wang = {"window": "gaussian", "sample_covariance": False}
    yield against_scikit(n, "Gaussian 11x11", wang, {"gaussian_weights": True, "use_sample_covariance": False}, options)
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
