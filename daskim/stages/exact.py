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
        row, file_digest, digest, full of the readable images.
    full_digests : mapping of row to digest
        Of the full-resolution pixels, for the rows that `suspects` names.

    Returns
    -------
    DataFrame
        row, group (its smallest row), by ("bytes" where a copy of the same bytes is in the group, else "pixels");
        groups of two and more, ordered by row.
    """
    table = table.sort_values("row", ignore_index=True)
    position = np.arange(len(table))
    by_bytes = table.groupby("file_digest", sort=False)["row"].transform("idxmin").to_numpy()
    whole = table["digest"].where(table["full"], None)
    checked = pd.Series([full_digests.get(row) for row in table["row"].tolist()], dtype=object)
    # digests of different kinds must not meet: their first byte says which they are
    pixels = [b"f" + full if full is not None else b"s" + small if small is not None else b"b" + own
              for full, small, own in zip(checked, whole, table["file_digest"])]  # fmt: skip
    by_pixels = pd.Series(position).groupby(pd.Series(pixels), sort=False).transform("min").to_numpy()
    group = components(len(table), np.concatenate([position, position]), np.concatenate([by_bytes, by_pixels]))
    size = np.bincount(group, minlength=group.max(initial=-1) + 1)
    first = np.full(size.size, -1, dtype=np.int64)
    first[group[::-1]] = table["row"].to_numpy()[::-1]
    copies = table.groupby("file_digest", sort=False)["row"].transform("size").to_numpy()
    out = pd.DataFrame({"row": table["row"], "group": first[group], "by": np.where(copies > 1, "bytes", "pixels")})
    return out[size[group] > 1].reset_index(drop=True)


def suspects(table: pd.DataFrame) -> np.ndarray:
    """Rows whose standard pixels equal another file's although they are not the full pixels: one a distinct file."""
    distinct = table.sort_values("row").drop_duplicates("file_digest")
    group = distinct.groupby("digest")
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
    table = context.run.read_table("images", columns).to_pandas()
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
    spread = {}  # copies of the same bytes have the same pixels
    by_file = dict(zip(table["row"].tolist(), table["file_digest"].tolist()))
    full = {by_file[row]: value for row, value in found.items() if row in by_file}
    for row, name in by_file.items():
        if name in full:
            spread[row] = full[name]
    exact = exact_pairs(table, spread)
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
