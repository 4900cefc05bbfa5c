"""Synthetic lakes against CIFAR-10 train: do their neighbours, candidates, components and redundancy match?

Needs DASKIM_DATA for the side of CIFAR-10. Of both sides the same number of images is drawn at random from 50,000, so
that redundancy thins out alike. What was measured once is kept in --folder and not measured again.
"""

from __future__ import annotations

import json
import os
import shutil
from argparse import _ArgumentGroup
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from daskim.kernels.neighbours import candidate_pairs, principal_directions, project, squared_distances
from daskim.kernels.ward import components
from daskim.results import open_run
from daskim.synthetic import write_lake
from tests.bench import Options
from tests.bench.jobs import command
from tests.bench.table import Table
from tests.bench.watch import watched

WHOLE = 50_000
SIZES = (5_000, WHOLE)
NEIGHBOURS, QUANTILES = (1, 5, 20), (1, 10, 50, 90)
QUERIES = 1000  # images whose neighbours are looked up, among all
DIRECTIONS = 64
FACTOR = 2.0
REAL, MADE = "CIFAR-10 train", "lake"


def add_options(group: _ArgumentGroup) -> None:
    group.add_argument("--folder", type=Path, help="where the lake and what was measured are kept [temporary]")


def run(options: Options) -> Iterator[Table]:
    sizes = (300,) if options.small else SIZES if options.n is None else (options.n,)
    if max(sizes) > WHOLE:
        raise SystemExit(f"CIFAR-10 train has {WHOLE:,} images")
    with TemporaryDirectory() as made:
        folder = options.more.folder or Path(made)
        whole = 1_000 if options.small else WHOLE
        lake = write_lake(folder / f"lake-{whole}", whole)
        real = real_files()
        for n in sizes:
            ours = measured(folder, MADE, lake.files, n, str(lake.facts["version"]))
            theirs = None if real is None else measured(folder, REAL, real, n, "")
            yield beside(n, whole, theirs, ours, judged=not options.small)


def real_files() -> list[str] | None:
    root = os.environ.get("DASKIM_DATA")
    return None if not root else [str(path) for path in sorted((Path(root) / "cifar10_jpeg").glob("train-*.parquet"))]


def beside(n: int, whole: int, theirs: dict[str, float] | None, ours: dict[str, float], *, judged: bool) -> Table:
    table = Table(
        f"lakes: {n:,} images",
        {"n": n, "drawn from": f"{WHOLE:,}, of the lake {whole:,}", "neighbours of": min(n, QUERIES)},
        ["measure", REAL, MADE, "ratio"],
    )
    for name, value in ours.items():
        other = None if theirs is None else theirs[name]
        ratio = None if not other else value / other
        table.rows.append([name, other, value, ratio])
        # of fewer than about 30 images chance alone makes a factor of 2
        if judged and other is not None and not (name.startswith("dropped") and min(value, other) * n < 30):
            close = ratio is not None and 1 / FACTOR <= ratio <= FACTOR
            table.checks.append((f"n = {n:,}: {name} within a factor {FACTOR:g}", close))
    return table


def measured(folder: Path, name: str, inputs: Sequence[str], n: int, version: str) -> dict[str, float]:
    """All measures of n images of a set, from two runs; those of an earlier call where the folder has them."""
    found: dict[str, float] = {}
    for method, measure in (("wavelet", by_wavelet), ("similarity", by_similarity)):
        own = f"{name.replace(' ', '-')}{version}-{method}-{n}"
        kept, run = folder / f"measures-{own}.json", folder / f"run-{own}"
        if not kept.exists():
            told = measure(run, inputs, n)
            shutil.rmtree(run)
            kept.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        found |= json.loads(kept.read_text(encoding="utf-8"))
    return found


def by_wavelet(run: Path, inputs: Sequence[str], n: int) -> dict[str, float]:
    """Distances, and the graph of which method wavelet makes its clusters."""
    words = ["--sample", str(n), "--set", f"clusters.n_clusters={round(0.94 * n)}"]
    summary = finished(run, inputs, words)
    images = open_run(run).store.array("images")[:]
    found = distances(images)
    last = summary["clusters"]["attempts"][-1]
    radius = last["radius_rms"] or summary["clusters"]["cut_rms"]
    pairs, largest, heaviest = graph(images, radius)
    found["radius of the clusters' pairs, grey levels RMS"] = radius
    found["pairs within that radius, per image"] = pairs / n
    found["largest component there, share of images"] = largest / n
    found["most neighbours of one image there, share of images"] = heaviest / n
    found["height of the cut, grey levels RMS"] = summary["clusters"]["cut_rms"]
    found["dropped by method wavelet, share of images"] = summary["n_drop"] / n
    return found


def by_similarity(run: Path, inputs: Sequence[str], n: int) -> dict[str, float]:
    """Candidates and redundancy."""
    summary = finished(run, inputs, ["--sample", str(n), "--method", "similarity"])
    return {
        "candidates per image": summary["candidates"]["candidates"] / n,
        "of these by LSH, per image": summary["candidates"]["lsh_pairs"] / n,
        "dropped by method similarity, share of images": summary["n_drop"] / n,
    }


def finished(run: Path, inputs: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    """Summary of a run, which goes on where an earlier one was broken off."""
    seen = watched(command(inputs, run, words))
    if seen.code:
        raise SystemExit(f"reduce ended with code {seen.code}:\n{seen.err}")
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return summary


def distances(images: np.ndarray) -> dict[str, float]:
    """Quantiles of the distance to the nearest images, grey levels RMS."""
    flat = images.reshape(len(images), -1)
    queries = np.sort(np.random.default_rng(0).permutation(len(flat))[:QUERIES])
    left = flat[queries].astype(np.float32)
    norm = np.einsum("ij,ij->i", left, left, dtype=np.float64)
    most = min(max(NEIGHBOURS), len(flat) - 1)
    best = np.full((len(queries), most), np.inf)
    for lo in range(0, len(flat), 2_048):
        right = flat[lo : lo + 2_048].astype(np.float32)  # sums of products below 2^24 and a little: good to 1e-6
        squared = norm[:, None] - 2.0 * (left @ right.T) + np.einsum("ij,ij->i", right, right, dtype=np.float64)
        inside = np.flatnonzero((queries >= lo) & (queries < lo + len(right)))
        squared[inside, queries[inside] - lo] = np.inf
        best = np.partition(np.concatenate([best, squared], axis=1), most - 1, axis=1)[:, :most]
    near = np.sqrt(np.maximum(np.sort(best, axis=1), 0.0) / flat.shape[1])
    found = {}
    for k in NEIGHBOURS:
        for q in QUANTILES:
            value = float(np.percentile(near[:, min(k, most) - 1], q))
            found[f"distance to neighbour {k}, {q} % quantile"] = value
    return found


def graph(images: np.ndarray, radius: float) -> tuple[int, int, int]:
    """Pairs of images within a radius (grey levels RMS), images of the largest component, and of the largest degree."""
    flat = images.reshape(len(images), -1).astype(np.int16)
    sample = flat[:: max(1, len(flat) // 5_000)].astype(np.float64)
    mean = sample.mean(axis=0)
    sample -= mean
    directions = principal_directions(sample, DIRECTIONS)
    features = np.concatenate([project(flat[lo : lo + 2_048], mean, directions) for lo in range(0, len(flat), 2_048)])
    bound = radius * flat.shape[1] ** 0.5
    i, j = candidate_pairs(features, None, bound)
    inside = squared_distances(flat, flat, i, j) <= bound**2
    i, j = i[inside], j[inside]
    degree = np.bincount(np.concatenate([i, j]), minlength=len(flat))
    return len(i), int(np.bincount(components(len(flat), i, j)).max()), int(degree.max())
