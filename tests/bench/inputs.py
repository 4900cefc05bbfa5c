"""Images for the benchmarks: real ones where DASKIM_DATA is set, else synthetic ones; rows of W; planted edits."""

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

__all__ = ["KINDS", "coefficients", "encode", "images", "photos", "planted", "shards", "source"]

KINDS = ("noise", "shift", "brightness", "exact")


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


def planted(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n images, of which about 7 % are edits of others, a quarter of each kind, at the end.

    Returns
    -------
    images : ndarray, shape (n, 32, 32, 3), uint8
    original : ndarray, shape (n,), int64
        Row of the image that was edited; -1 for the others. No image is edited twice.
    kind : ndarray, shape (n,), int64
        Index into `KINDS`, -1 for the others: noise of up to 3 grey levels, 1 pixel to the right, 8 levels brighter,
        the same pixels.
    """
    each = max(2, round(0.0175 * n))
    plain = n - each * len(KINDS)
    rng = np.random.default_rng(0)
    out = np.concatenate([images(n)[:plain], np.empty((n - plain, 32, 32, 3), np.uint8)])
    original, kind = np.full(n, -1), np.full(n, -1)
    original[plain:] = rng.permutation(plain)[: n - plain]
    kind[plain:] = np.arange(n - plain) % len(KINDS)
    for row in range(plain, n):
        pixels = out[original[row]].astype(np.int16)
        if kind[row] == 0:
            pixels += rng.integers(-3, 4, pixels.shape, dtype=np.int16)
        elif kind[row] == 1:
            pixels = np.concatenate([pixels[:, :1], pixels[:, :-1]], axis=1)
        elif kind[row] == 2:
            pixels += 8
        out[row] = np.clip(pixels, 0, 255)
    return out, original, kind
