"""Images for the benchmarks: real ones where DASKIM_DATA is set, else synthetic ones; rows of W."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from daskim.lake import ImageSpec, list_images, standardise_block
from daskim.synthetic import photographs, planted_families
from daskim.transforms.wavelet import Wavelet

__all__ = ["coefficients", "encode", "images", "photos", "shards", "source"]


def _data(folder: str) -> Path | None:
    root = os.environ.get("DASKIM_DATA")
    if not root:
        return None
    path = Path(root) / folder
    if not path.is_dir():
        raise SystemExit(f"DASKIM_DATA has no folder {folder}; unset it to use synthetic images")
    return path


def source(folder: str = "cifar10_jpeg") -> str:
    """What the figures are from, for the context line."""
    return folder if _data(folder) else "synthetic images (DASKIM_DATA is not set)"


def encode(pixels: np.ndarray, quality: int = 75) -> bytes:
    """`pixels` (h, w, 3) uint8 as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


@contextmanager
def shards(n: int) -> Iterator[list[str]]:
    """Parquet files in the common layout that hold at least n JPEGs of 32 x 32; n of them where they are made here."""
    folder = _data("cifar10_jpeg")
    if folder is not None:
        yield [str(path) for path in sorted(folder.glob("train-*.parquet"))]
        return
    with TemporaryDirectory() as made:
        path = Path(made) / "train-00000-of-00001.parquet"
        scenes = planted_families(n)
        struct = [{"bytes": encode(image), "path": f"{row:06d}.jpg"} for row, image in enumerate(scenes.images)]
        pq.write_table(pa.table({"image": struct, "label": scenes.labels}), path, row_group_size=1000)
        yield [str(path)]


@lru_cache(maxsize=2)
def images(n: int) -> np.ndarray:
    """n images of 32 x 32, shape (n, 32, 32, 3) uint8: the first of CIFAR-10 train, else synthetic."""
    if _data("cifar10_jpeg") is None:
        return planted_families(n).images
    with shards(n) as paths:
        return standardise_block(list_images(paths, limit=n).table, ImageSpec(filter="bilinear"))[0]


def photos(limit: int) -> dict[str, list[bytes]]:
    """Photographs as JPEG files, at most `limit` of each set."""
    found: dict[str, list[bytes]] = {}
    for folder in ("photos_caltech", "photos_bsds60"):
        root = _data(folder)
        if root is None:
            pictures = list(photographs().values())[:limit]
            return {"photographs of scikit-image and scikit-learn, as JPEG": [encode(p, 90) for p in pictures]}
        paths = sorted(root.rglob("*.jpg"))
        found[folder] = [path.read_bytes() for path in paths[:: max(1, len(paths) // limit)][:limit]]
    return found


def coefficients(n: int, d: int) -> np.ndarray:
    """W of n images with level-1 integer Haar, stored units (2 x orthonormal), shape (n, d) int16.

    d = 3072: colour; 1024: the green channel; 256: the green channel, each second pixel.
    """
    pixels = images(n)
    block = {3072: pixels, 1024: pixels[..., 1:2], 256: pixels[:, ::2, ::2, 1:2]}[d]
    return Wavelet(block.shape[1:])(block)
