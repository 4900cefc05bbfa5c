"""Benchmarks to run by hand: `python -m tests.bench NAME`; `--help` tells the options, also to compare saved runs.

Each prints its context first, then tables that set daskim beside its peers and the naive form, timed in turn in one
run. With DASKIM_DATA set they read real images from there; without it synthetic ones, and say so.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field

__all__ = ["BENCHMARKS", "Options"]

BENCHMARKS = {
    "start": "from the command to its first block, and its end: imports, --help, a run",
    "photos": "photographs of 100 kB from file to signatures, against bare loops of libjpeg-turbo",
    "calibrate": "the rates of this machine for --plan, from runs at some sizes (minutes)",
    "cost": "what --plan foretells, against runs at three sizes (minutes)",
    "scheduler": "100 and 200 simulated workers: tasks of a run, and what a scheduler takes for one (minutes)",
    "horizon": "on paper, up to a billion images: what breaks first, and what would replace it",
    "deliveries": "a lake taken in by ten deliveries, against one run of all",
    "decode": "JPEG to standard pixels, against Pillow",
    "wavelets": "integer Haar and db2, against PyWavelets looped and batched",
    "columns": "column choice by the Gram matrix, against QR trees, dask's tsqr and LAPACK",
    "join": "all pairs within a radius, against brute force and scikit-learn",
    "similarities": "SSIM in batches against scikit-image, and what a pair costs by each similarity",
    "clusters": "Ward on the join against scipy; seedings of k-means at n_clusters near n",
    "candidates": "candidate pairs by parts, with growth exponents, and the nearest images against an older form",
    "lsh": "MinHash signatures and band pairs, against datasketch",
    "spectrum": "spectra by blocks and by Lanczos quadrature, against dense eigenvalues",
    "giant": "the spectrum of connected graphs of millions of images, of 1e8 edges, against the truth (half an hour)",
    "edits": "which edits each similarity joins with their original, and what it joins wrongly",
    "training": "what the reduction costs a model: accuracies of a small net (needs torch; half an hour)",
    "faults": "killed, starved, lost, full, poisoned: what happens, and the plan afterwards (minutes)",
    "lake": "the whole job in a bucket of an S3 server on this machine, against a disk (minutes)",
    "lakes": "synthetic lakes beside CIFAR-10: neighbour distances, candidates, components, redundancy (minutes)",
    "growth": "stages on synthetic lakes of growing size: time, memory, exponents (hours for 2,000,000 images)",
    "reduce": "the whole job by stages, in processes of its own: seconds, CPU use, memory, targets (minutes)",
    "peers": "CleanVision, fastdup and imagededup on the same images: time, memory, recall, precision (minutes)",
    "profile": "where the threads of the two jobs spend their time, by py-spy (minutes)",
}


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    Attributes
    ----------
    repeat : int
        Rounds; in each, every contender runs once. The median counts.
    small : bool
        Sizes at which all runs in seconds: shows that it works, not how fast it is.
    n : int, optional
        Number of images, where a benchmark takes any.
    more : Namespace
        What a benchmark's own `add_options(parser)` asked for.
    """

    repeat: int = 3
    small: bool = False
    n: int | None = None
    more: Namespace = field(default_factory=Namespace)
