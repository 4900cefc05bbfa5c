"""Exact duplicates: images whose bytes, or whose full-resolution pixels, are equal.

Leaves `exact` (row, group, by) and, for later deliveries, `full_digests` (row, digest; null where it could not be read)
of the images whose full-resolution pixels were looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.equals import numbered
from daskim.kernels.ward import components
from daskim.lake import Job, each_image, full_digest
from daskim.settings import Settings
from daskim.stages import Change, Context, Need, Size, Stage
from daskim.statuses import READABLE
from daskim.store import Run

__all__ = ["STAGE", "exact_pairs"]

# Images read again by one task.
BATCH = 64


def exact_pairs(table: pd.DataFrame, full_digests: Mapping[int, bytes | None]) -> pd.DataFrame:
    """Groups of exact duplicates.

    Parameters
    ----------
    table : DataFrame
        row, file_digest, digest, full of the readable images; digests or numbers that are equal where they are.
    full_digests : mapping of row to digest
        Of the full-resolution pixels, for the rows that `suspects` names; None where they could not be read. They hold
        for all copies of the same bytes.

    Returns
    -------
    DataFrame
        row, group (its smallest row), by ("bytes" where a copy of the same bytes is in the group, else "pixels");
        groups of two and more, ordered by row.
    """
    table = table.sort_values("row", ignore_index=True)
    rows = table["row"].to_numpy(dtype=np.int64)
    file, small = (pd.factorize(table[name])[0].astype(np.int64) for name in ("file_digest", "digest"))
    full, kinds = _full_of_files(rows, file, full_digests)
    # Full pixels where they are known, standard pixels that are the full ones, else the file: kinds that must not meet.
    whole = table["full"].to_numpy(dtype=bool)
    pixels = np.where(full >= 0, full, kinds + np.where(whole, small, small.max(initial=-1) + 1 + file))
    position = np.arange(len(rows))
    links = [_first(file), _first(pd.factorize(pixels)[0])]
    group = components(len(rows), np.concatenate([position, position]), np.concatenate(links))
    copies, members = np.bincount(file)[file], np.bincount(group)[group]
    out = pd.DataFrame({"row": rows, "group": rows[_first(group)], "by": np.where(copies > 1, "bytes", "pixels")})
    return out[members > 1].reset_index(drop=True)


def _first(codes: np.ndarray) -> np.ndarray:
    """For each place the first place of the same code; codes from 0 to less than their number."""
    first = np.empty(len(codes), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # the last one written stays
    return first[codes]


def _full_of_files(
    rows: np.ndarray, file: np.ndarray, full_digests: Mapping[int, bytes | None]
) -> tuple[np.ndarray, int]:
    """For each image the number of its file's full-resolution pixels, -1 where unknown; how many there are."""
    known = np.array([row for row, digest in full_digests.items() if digest is not None], dtype=np.int64)
    codes = pd.factorize(np.array([d for d in full_digests.values() if d is not None], dtype=object))[0]
    here = np.isin(known, rows)
    of_file = np.full(file.max(initial=-1) + 1, -1, dtype=np.int64)
    of_file[file[np.searchsorted(rows, known[here])]] = codes[here]
    return of_file[file], codes.max(initial=-1) + 1


def suspects(table: pd.DataFrame) -> np.ndarray:
    """Rows whose standard pixels equal another file's although they are not the full pixels: one a distinct file."""
    distinct = table.sort_values("row").drop_duplicates("file_digest")
    group = distinct.groupby("digest", sort=False)
    mixed = (group["row"].transform("size") > 1) & ~group["full"].transform("all")
    return distinct.loc[mixed, "row"].to_numpy()


def _run(context: Context) -> dict[str, Any]:
    return _find(context, "", {})


def _update(context: Context, change: Change) -> dict[str, Any]:
    """All groups anew, from digests; only images that have not been looked at again are read."""
    known = context.run.read_table("full_digests").to_pandas()
    known = known[~known["row"].isin(change.added)]
    return _find(context, f"{change.mark}-", dict(zip(known["row"].tolist(), known["digest"].tolist())))


def _find(context: Context, mark: str, found: dict[int, bytes | None]) -> dict[str, Any]:
    columns = ["row", "file_digest", "digest", "full", "status"]
    table = numbered(context.run.read_table("images", columns), "file_digest", "digest").to_pandas()
    table = table[table["status"].isin(READABLE)].reset_index(drop=True)
    rows = suspects(table)
    unread = rows[~np.isin(rows, list(found))]
    batches = [unread[start : start + BATCH] for start in range(0, len(unread), BATCH)]
    keys = [f"{index:06d}" for index in range(len(batches))]
    seconds = context.settings.images.max_seconds
    calls = [(batch, context.known.rows, seconds, context.source_options) for batch in batches]
    infos = context.engine.each(
        "exact", f"{mark}pixels", keys, calls, full_digests, alone=partial(full_digests, alone=True)
    )
    for info in infos:
        for row, text in info["digests"].items():
            found[int(row)] = bytes.fromhex(text) if text else None
    kept = pa.table({"row": pa.array(list(found), pa.int64()), "digest": pa.array(list(found.values()), pa.binary())})
    exact = exact_pairs(table, found)
    context.run.write_part("exact", "000000", pa.Table.from_pandas(exact, preserve_index=False))
    context.run.write_part("full_digests", "000000", kept)
    return {
        "n_exact_groups": int(exact["group"].nunique()),
        "n_exact": len(exact) - int(exact["group"].nunique()),
        "n_looked_at_again": len(rows),
    }


def full_digests(
    run: Run,
    key: str,
    rows: np.ndarray,
    block: int,
    max_seconds: float,
    options: Mapping[str, Any],
    *,
    alone: bool = False,
) -> dict[str, Any]:
    """Digests of the full-resolution pixels of some rows, as hexadecimal text; empty where they cannot be read."""
    out: dict[str, str] = {}
    job = Job(full_digest, max_seconds=max_seconds)
    for index in np.unique(rows // block).tolist():
        mine = rows[rows // block == index]
        part = run.read_part("index", f"{index:06d}").take(pa.array(mine - index * block))
        for row, digest in zip(mine.tolist(), each_image(part, job, options, alone=alone)):
            out[str(row)] = digest.hex() if isinstance(digest, bytes) else ""
    return {"digests": out}


def _need(size: Size, settings: Settings, workers: int) -> Need:
    photograph = 6 * min(settings.images.max_pixels, 25_000_000) if size.bytes > 20_000 * size.n else 4_000_000
    return Need(
        blocks=1, read=0, write=4 * size.n, task=photograph, driver=600 * size.n + 64_000_000, process=64_000_000
    )


STAGE = Stage(
    name="exact",
    version=2,
    reads=("images",),
    settings=(),
    leaves=("tables/exact", "tables/full_digests"),
    run=_run,
    need=_need,
    update=_update,
)
