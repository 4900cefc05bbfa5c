"""Photographs of about 100 kB each, any number of them, made from real ones: no two alike in bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from tests.bench.inputs import photos

__all__ = ["made_photographs"]

# (width, height) of what is made, as photographs in collections are, and the bytes that each is to have.
SIZES = ((500, 375), (500, 333), (375, 500), (640, 480))
BYTES = 112_000
FOLDERS = 100


def encode(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def quality_for(image: Image.Image) -> int:
    """The quality at which a picture comes nearest to `BYTES`."""
    low, high = 40, 100
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(encode(image, middle)) < BYTES else (low, middle)
    return low


def cut(picture: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A part of a picture, of the wanted aspect ratio, mirrored or not, at the wanted size."""
    scale = min(picture.width / size[0], picture.height / size[1]) * rng.uniform(0.8, 1.0)
    width, height = scale * size[0], scale * size[1]
    left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
    if rng.random() < 0.5:
        picture, left = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.width - left - width
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def make(folder: Path, at: tuple[int, int], pictures: list[Image.Image]) -> None:
    """Files [lo, hi): each from its own seed, so that a file is the same however many there are."""
    qualities: dict[tuple[int, int], int] = {}
    for number in range(*at):
        rng = np.random.default_rng(number)
        which, shape = int(rng.integers(len(pictures))), int(rng.integers(len(SIZES)))
        image = cut(pictures[which], SIZES[shape], rng)
        if (which, shape) not in qualities:
            qualities[which, shape] = quality_for(image)
        path = folder / f"{number % FOLDERS:03d}" / f"{number:07d}.jpg"
        path.write_bytes(encode(image, qualities[which, shape]))


@contextmanager
def made_photographs(n: int) -> Iterator[Path]:
    """A folder of n JPEG files, in 100 folders of about n / 100 each."""
    with TemporaryDirectory(prefix="daskim-photos-") as made:
        folder = Path(made)
        for name in range(FOLDERS):
            (folder / f"{name:03d}").mkdir()
        sources = [data for found in photos(60).values() for data in found]
        pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in sources]
        bounds = [(lo, min(lo + 500, n)) for lo in range(0, n, 500)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(partial(make, folder, pictures=pictures), bounds))
        yield folder
