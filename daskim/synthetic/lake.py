"""Synthetic lakes as files: Parquet in the common layout, or WebDataset; shard by shard, each whole or not there."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from daskim.errors import SettingsError, nearest
from daskim.synthetic.planted import REDUNDANCY, VERSION, jpeg, lake_rows, lake_truth, name_of

__all__ = ["FORMATS", "MARK", "Lake", "write_lake"]

FORMATS = ("parquet", "tar")
# Names what the folder holds, so that the same lake is not made twice and another one not mixed in. Hidden: no image.
MARK = ".daskim-lake.json"
PARTIAL = ".partial-"
# Pixels of the images that are encoded and written together: 1,024 of 32 x 32, which are a row group.
GROUP_PIXELS = 1 << 20
# 2000-01-01 UTC, the time of every member of a tar file, so that a lake written again is the same lake.
WRITTEN = 946_684_800


@dataclass(frozen=True)
class Lake:
    """A synthetic lake on disk.

    Attributes
    ----------
    folder : str
    n, seed, format, size, quality, redundancy, shard
        As `write_lake` was told.
    """

    folder: str
    n: int
    seed: int
    format: str
    size: int
    quality: int
    redundancy: float
    shard: int

    @property
    def files(self) -> list[str]:
        """Paths of the shards, in order."""
        count = max(1, -(-self.n // self.shard))
        ending = {"parquet": f"-of-{count:05d}.parquet", "tar": ".tar"}[self.format]
        return [os.path.join(self.folder, f"train-{index:05d}{ending}") for index in range(count)]

    def truth(self) -> pd.DataFrame:
        """What is planted in it: see `lake_truth`."""
        return lake_truth(self.n, seed=self.seed, redundancy=self.redundancy)

    @property
    def facts(self) -> dict[str, object]:
        """What decides the content; the marker's."""
        return {"version": VERSION, **{name: value for name, value in asdict(self).items() if name != "folder"}}


def write_lake(
    folder: str | Path,
    n: int,
    *,
    seed: int = 0,
    format: Literal["parquet", "tar"] = "parquet",
    size: int = 32,
    quality: int = 75,
    redundancy: float = REDUNDANCY,
    shard: int = 10_000,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Lake:
    """Write the first n images of a lake (see `lake_rows`) as JPEG, in shards that threads make.

    Parquet has the columns image {bytes, path} and label; a tar file has NAME.jpg and NAME.cls for each image. Where
    the folder holds this very lake, only shards that are not there yet are written; a broken-off call goes on when it
    is made again. About 7,000 images of 32 x 32 a second on each core. Memory is that of 1,024 such images and their
    work for each worker, whatever n.

    Parameters
    ----------
    folder : path
        New, empty, or with this lake. Give it, or the `files` of the result, to a job as INPUT.
    n : int
        At least 1.
    format : {"parquet", "tar"}
    quality : int
        Of the JPEG files, 1 to 100.
    shard : int
        Images in one file, at least 1.
    workers : int, optional
        Threads; by default as many as this process may use cores. No byte depends on them.
    progress : callable, optional
        Told the number of images of each shard that was finished, in order.

    Raises
    ------
    SettingsError
        An argument out of its range, or a folder that holds something else.
    """
    if format not in FORMATS:
        raise SettingsError(f"lake: there is no format {format!r}", nearest(format, FORMATS))
    workers = workers or _cores()
    bounds = {"n": (n, n >= 1), "quality": (quality, 1 <= quality <= 100), "shard": (shard, shard >= 1)}
    for name, (value, good) in {**bounds, "workers": (workers, workers >= 1)}.items():
        if not good:
            raise SettingsError(f"lake: {name} = {value} is out of range", "See the help.")
    lake_rows(0, 0, seed=seed, redundancy=redundancy, size=size)  # refuses what is out of range
    lake = Lake(str(folder), n, seed, format, size, quality, redundancy, shard)
    _claim(lake)
    todo = [(at, path) for at, path in enumerate(lake.files) if not os.path.exists(path)]
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:  # BLAS threads of their own would fight these
        futures = [pool.submit(_write, lake, at * shard, min(n, (at + 1) * shard), path) for at, path in todo]
        try:
            for future in futures:
                written = future.result()
                if progress is not None:
                    progress(written)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return lake


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _claim(lake: Lake) -> None:
    """Mark the folder as this lake's, or see that it is."""
    folder, mark = Path(lake.folder), Path(lake.folder, MARK)
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file", "Name an empty or new folder.")
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder} holds something else", "Name an empty or new folder.") from None
    except ValueError:
        raise SettingsError(f"{mark} cannot be read", "Name an empty or new folder.") from None
    else:
        if found != lake.facts:
            names = [name for name, value in lake.facts.items() if found.get(name) != value]
            raise SettingsError(
                f"{folder} holds a lake of other {', '.join(names)}", "Name an empty or new folder, or remove this one."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = Path(lake.folder, MARK + PARTIAL)
    part.write_text(json.dumps(lake.facts, indent=1) + "\n", encoding="utf-8")
    os.replace(part, mark)


def _groups(lake: Lake, lo: int, hi: int) -> Iterator[tuple[range, list[bytes], list[int]]]:
    """Rows, files and labels, group by group."""
    step = max(1, GROUP_PIXELS // lake.size**2)
    for start in range(lo, hi, step):
        end = min(hi, start + step)
        rows = lake_rows(start, end, seed=lake.seed, redundancy=lake.redundancy, size=lake.size)
        encode = partial(jpeg, quality=lake.quality)
        yield range(start, end), [encode(pixels) for pixels in rows.images], rows.labels.tolist()


def _write(lake: Lake, lo: int, hi: int, path: str) -> int:
    """Write one shard under a hidden name, and rename it."""
    head, tail = os.path.split(path)
    part = os.path.join(head, PARTIAL + tail)
    {"parquet": _write_parquet, "tar": _write_tar}[lake.format](lake, lo, hi, part)
    os.replace(part, path)
    return hi - lo


def _write_parquet(lake: Lake, lo: int, hi: int, path: str) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
        for rows, files, labels in _groups(lake, lo, hi):
            names = pa.array([name_of(row) for row in rows], pa.string())
            images = pa.StructArray.from_arrays([pa.array(files, pa.binary()), names], fields=list(image))
            file.write_table(pa.table([images, pa.array(labels, pa.int64())], schema=schema), row_group_size=len(rows))


def _write_tar(lake: Lake, lo: int, hi: int, path: str) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for rows, files, labels in _groups(lake, lo, hi):
            for row, data, label in zip(rows, files, labels):
                name = name_of(row)
                for member, content in ((name, data), (name.replace(".jpg", ".cls"), b"%d" % label)):
                    info = tarfile.TarInfo(member)
                    info.size, info.mtime = len(content), WRITTEN
                    file.addfile(info, io.BytesIO(content))
