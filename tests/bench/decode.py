"""JPEG files to standard pixels: libjpeg-turbo through daskim, against Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image

from daskim.lake import ImageSpec, list_images, standardise, standardise_block
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import photos, shards, source
from tests.bench.table import Table

BLOCK = 2000
SIZE = (32, 32)


def run(options: Options) -> Iterator[Table]:
    with shards(400 if options.small else 10_000) as paths:
        yield small_images(paths, options)
    for name, files in photos(8 if options.small else 300).items():
        yield photographs(name, files, options)


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def small_images(paths: list[str], options: Options) -> Table:
    """32 x 32: the decoder alone, then with what daskim does besides (two digests, flatness, reading)."""
    n = 400 if options.small else 10_000
    rows = list_images(paths[:1], limit=n).table
    spec = ImageSpec(*SIZE, filter="bilinear")

    def read() -> list[bytes]:
        return pq.read_table(paths[0], columns=["image"])["image"].combine_chunks().field("bytes")[:n].to_pylist()

    def blocks() -> np.ndarray:
        return np.concatenate([standardise_block(rows.slice(at, BLOCK), spec)[0] for at in range(0, n, BLOCK)])

    files = read()
    pillow_read, here = "Pillow, read from Parquet: open, convert, asarray (naive)", "daskim standardise_block"
    contenders = {
        pillow_read: lambda: np.stack([pillow(data) for data in read()]),
        here + ": read from Parquet, decode, 2 digests, flatness": blocks,
        "Pillow, bytes in memory": lambda: [pillow(data) for data in files],
        "simplejpeg, bytes in memory": lambda: [simplejpeg.decode_jpeg(data) for data in files],
        "daskim standardise, bytes in memory": lambda: [standardise(data, spec).pixels for data in files],
    }
    table = Table(
        "decode: 32 x 32 JPEG",
        {"data": source(), "n": n, "bytes of one": float(np.mean([len(f) for f in files])), "block rows": BLOCK},
        ["contender", "us per image", "against Pillow"],
    )
    found = timed(contenders, options.repeat)
    for name, timing in found.items():
        naive = found[pillow_read if "Parquet" in name else "Pillow, bytes in memory"].seconds
        table.rows.append([name, 1e6 * timing.seconds / n, speed_up(naive, timing.seconds)])
    ours, theirs = (next(t.result for name, t in found.items() if name.startswith(p)) for p in (here, pillow_read))
    table.checks.append((f"all {n:,} images have the pixels that Pillow gives", bool((ours == theirs).all())))
    return table


def photographs(name: str, files: list[bytes], options: Options) -> Table:
    """Photographs to 32 x 32: in full or at a reduced scale, which of 1/2, 1/4, 1/8 still leaves twice the target."""

    def pillow_resized(data: bytes, draft: bool) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        if draft:
            image.draft("RGB", (2 * SIZE[1], 2 * SIZE[0]))
        return np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR))

    full = ImageSpec(*SIZE, filter="bilinear", draft=False)
    draft = ImageSpec(*SIZE, filter="bilinear", draft=True)
    naive = "Pillow: full decode, resize (naive)"
    contenders = {
        naive: lambda: np.stack([pillow_resized(data, False) for data in files]),
        "Pillow: draft, resize": lambda: np.stack([pillow_resized(data, True) for data in files]),
        "daskim draft off": lambda: np.stack([standardise(data, full).pixels for data in files]),
        "daskim draft on": lambda: np.stack([standardise(data, draft).pixels for data in files]),
    }
    found = timed(contenders, options.repeat)
    table = Table(
        f"decode: photographs to 32 x 32, {name}",
        {"data": name, "n": len(files), "kB of one": float(np.mean([len(data) for data in files])) / 1e3},
        ["contender", "ms per image", "against Pillow", "mean difference from it", "largest (grey levels)"],
    )
    gap = {}
    for contender, timing in found.items():
        gap[contender] = np.abs(timing.result.astype(np.int16) - found[naive].result)
        row = [contender, 1e3 * timing.seconds / len(files), speed_up(found[naive].seconds, timing.seconds)]
        table.rows.append([*row, float(gap[contender].mean()), int(gap[contender].max())])
    table.checks.append(("daskim with draft off gives Pillow's pixels", not gap["daskim draft off"].any()))
    table.checks.append(("daskim with draft on is within 3 grey levels on average", gap["daskim draft on"].mean() < 3))
    return table
