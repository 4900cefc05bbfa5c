"""Benchmarks to run by hand: `python -m tests.bench NAME [--repeat K] [--small] [--json FILE]`.

Each prints its context first, then tables that set daskim beside its peers and the naive form, timed in turn in one
run. With DASKIM_DATA set they read real images from there; without it synthetic ones, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BENCHMARKS", "Options"]

BENCHMARKS = {
    "deliveries": "a lake taken in by ten deliveries, against one run of all",
    "decode": "JPEG to standard pixels, against Pillow",
    "wavelets": "integer Haar and db2, against PyWavelets looped and batched",
    "columns": "column choice by the Gram matrix, against QR trees, dask's tsqr and LAPACK",
    "join": "all pairs within a radius, against brute force and scikit-learn",
    "similarities": "SSIM in batches against scikit-image, and what a pair costs by each similarity",
    "clusters": "Ward on the join against scipy; seedings of k-means at n_clusters near n",
    "lsh": "MinHash signatures and band pairs, against datasketch",
    "spectrum": "spectra by blocks and by Lanczos quadrature, against dense eigenvalues",
    "edits": "which edits each similarity joins with their original, and what it joins wrongly",
    "training": "what the reduction costs a model: accuracies of a small net (needs torch; half an hour)",
    "faults": "killed, starved, lost, full, poisoned: what happens, and the plan afterwards (minutes)",
    "lake": "the whole job in a bucket of an S3 server on this machine, against a disk (minutes)",
    "reduce": "the whole job by stages, in processes of its own (minutes)",
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
    """

    repeat: int = 3
    small: bool = False
