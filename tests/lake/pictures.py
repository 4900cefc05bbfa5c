"""Small pictures as arrays and as files' bytes, for the tests of the lake."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pyarrow as pa
from PIL import Image


def picture(seed: int = 0, height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth, coloured picture (h, w, 3) uint8 that differs by seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """`pixels` as the bytes of a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    """An uncompressed tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def column(table: pa.Table, name: str) -> list:
    """A column as a list."""
    return table.column(name).to_pylist()
