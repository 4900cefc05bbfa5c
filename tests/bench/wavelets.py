"""Wavelet coefficients of a block of images: daskim's integer Haar and batched PyWavelets, against a loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pywt

from daskim.transforms.wavelet import Wavelet
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import images, source
from tests.bench.table import Table

BLOCK = 256


def run(options: Options) -> Iterator[Table]:
    block = images(600 if options.small else 5000)
    for name, level in (("db1", 1), ("db1", 3), ("db2", 1)):
        yield compare(block, name, level, options)


def flat(bands: list, axes: int) -> np.ndarray:
    """cA, cH, cV, cD, ... of one channel, or of all images of a block, as rows."""
    lead = bands[0].shape[:axes]
    parts = [bands[0], *(band for triple in bands[1:] for band in triple)]
    return np.concatenate([part.reshape(*lead, -1) for part in parts], axis=-1)


def looped(block: np.ndarray, name: str, level: int) -> np.ndarray:
    out = np.empty((block.shape[0], block[0].size))
    for row, image in enumerate(block):
        channels = [pywt.wavedec2(image[..., c], name, mode="periodization", level=level) for c in range(3)]
        out[row] = np.concatenate([flat(bands, 0) for bands in channels])
    return out


def batched(block: np.ndarray, name: str, level: int, rows: int) -> np.ndarray:
    """dwtn over the two axes of many images at a time."""
    out = np.empty((block.shape[0], block[0].size))
    for start in range(0, len(block), rows):
        low = np.moveaxis(block[start : start + rows], 3, 1)
        bands: list = []
        for _ in range(level):
            found = pywt.dwtn(low, name, mode="periodization", axes=(2, 3))
            low, bands = found["aa"], [(found["da"], found["ad"], found["dd"]), *bands]
        out[start : start + rows] = flat([low, *bands], 2).reshape(len(low), -1)
    return out


def compare(block: np.ndarray, name: str, level: int, options: Options) -> Table:
    n, shape = len(block), block.shape[1:]
    transform = Wavelet(shape, name, level, bands="all")
    naive, ours = "pywt.wavedec2, a loop over images and channels (naive)", f"daskim Wavelet ({transform.dtype})"
    contenders = {
        naive: lambda: looped(block, name, level),
        f"pywt.dwtn, {BLOCK} images at a time": lambda: batched(block, name, level, BLOCK),
        f"pywt.dwtn, all {n} images at a time": lambda: batched(block, name, level, n),
        ours: lambda: transform(block),
    }
    found = timed(contenders, options.repeat)
    table = Table(
        f"wavelets: {name}, level {level}",
        {"data": source(), "n": n, "image": "x".join(map(str, shape)), "d": transform.columns, "block rows": BLOCK},
        ["contender", "us per image", "against the loop"],
    )
    for contender, timing in found.items():
        table.rows.append([contender, 1e6 * timing.seconds / n, speed_up(found[naive].seconds, timing.seconds)])
    truth, got = found[naive].result, found[ours].result
    if transform.exact:
        whole = np.rint(truth / transform.scale)
        near = np.abs(truth / transform.scale - whole).max() < 1e-6
        table.checks.append(("PyWavelets' coefficients times 2^level are whole, to 1e-6", bool(near)))
        table.checks.append(("daskim's are the same numbers", bool((got == whole).all())))
    else:
        worst = np.abs(got - truth).max() / np.abs(truth).max()
        table.checks.append(("daskim's float32 agree with the loop to 1e-6 of the largest", bool(worst < 1e-6)))
    return table
