"""Whole data sets for jobs end to end: CIFAR-10, photographs, synthetic lakes of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from daskim.synthetic import photographs, write_lake
from tests.bench.inputs import encode, shards, source
from tests.bench.truth import Judged, judged

__all__ = ["TRAIN", "Lake", "cifar10", "judged_pairs", "listing", "photo_folder", "synthetic", "written"]

TRAIN, TEST = 50_000, 10_000
TILE = 160  # pixels: photographs cut from the few that are free to use


@dataclass(frozen=True)
class Lake:
    """Where images lie.

    Attributes
    ----------
    name : str
    inputs : list of str
        What `reduce` takes.
    n : int
    truth : Judged or None
        Pairs that are known.
    """

    name: str
    inputs: list[str]
    n: int
    truth: Judged | None = None


def _parquet_of_test() -> list[str]:
    root = os.environ.get("DASKIM_DATA")
    return [str(path) for path in sorted((Path(root) / "cifar10_jpeg").glob("test-*.parquet"))] if root else []


@contextmanager
def cifar10(n: int) -> Iterator[Lake]:
    """The first n images of CIFAR-10 train, or with those of test after them; synthetic ones without DASKIM_DATA.

    The pairs of test and train that were judged come with all images of both.
    """
    with shards(n) as train:
        test = _parquet_of_test() if n > TRAIN else []
        yield Lake(source(), [*train, *test], n, judged_pairs() if n == TRAIN + TEST else None)


@contextmanager
def photo_folder(n: int | None) -> Iterator[Lake]:
    """A folder of photographs as files, all or n of them."""
    root = os.environ.get("DASKIM_DATA")
    with TemporaryDirectory() as made:
        if root:
            folder, name = Path(root) / "photos_caltech", "photos_caltech"
        else:
            folder, name = Path(made), "tiles of the photographs of scikit-image and scikit-learn, as JPEG"
            for title, pixels in photographs().items():
                for y in range(0, pixels.shape[0] - TILE + 1, TILE):
                    for x in range(0, pixels.shape[1] - TILE + 1, TILE):
                        path = folder / f"{title}-{y}-{x}.jpg"
                        path.write_bytes(encode(pixels[y : y + TILE, x : x + TILE], 90))
        count = sum(1 for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        yield Lake(name, [str(folder)], min(n or count, count))


@contextmanager
def synthetic(n: int, format: Literal["parquet", "tar"] = "parquet", folder: Path | None = None) -> Iterator[Lake]:
    """A synthetic lake of n images with the edits planted in it; in a temporary folder ($TMPDIR), or in one to keep."""
    with TemporaryDirectory() as made:
        lake = write_lake(folder or made, n, format=format)
        told = lake.truth()
        truth = Judged(tuple(told["id"]), tuple(told["original"]), ("1",) * len(told))
        yield Lake(f"synthetic lake, {format}", lake.files, n, truth)


def listing(lake: Lake) -> Iterator[tuple[str, bytes]]:
    """Id and file of every image of Parquet files in the common layout."""
    for path in lake.inputs:
        for batch in pq.ParquetFile(path).iter_batches(columns=["image"]):
            struct: pa.StructArray = batch.column(0)
            yield from zip(struct.field("path").to_pylist(), struct.field("bytes").to_pylist())


def judged_pairs() -> Judged | None:
    """Pairs of CIFAR-10 test and train that were judged; None without DASKIM_DATA."""
    root = os.environ.get("DASKIM_DATA")
    path = Path(root) / "truth" / "cifar10_test_train.csv" if root else None
    return judged(path) if path is not None and path.is_file() else None


def written(folder: Path, lake: Lake, first: Sequence[str] = ()) -> tuple[Lake, Lake]:
    """n of the images as files named by their ids, the bytes as they are; those of `first`, then the lake's order.

    Returns
    -------
    files, parquet : Lake
        The folder of files; and Parquet files of the same images: the lake's own where all of them were written.
    """
    found = dict(listing(lake))
    chosen = [name for name in dict.fromkeys([*first, *found]) if name in found][: lake.n]
    for name in chosen:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found[name])
    files = Lake(lake.name, [str(folder / "images")], len(chosen), lake.truth)
    if len(chosen) == len(found):
        return files, Lake(lake.name, lake.inputs, len(chosen), lake.truth)
    part = folder / "part.parquet"
    struct = [{"bytes": found[name], "path": name} for name in chosen]
    pq.write_table(pa.table({"image": struct}), part, row_group_size=1000)
    return files, Lake(lake.name, [str(part)], len(chosen), lake.truth)
