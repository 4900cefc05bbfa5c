"""The images of a source, as long as they are what the run has seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from daskim.lake import (
    IMAGE_EXTENSIONS,
    Failure,
    Unsupported,
    digest_of,
    encode_png,
    extension,
    extension_of,
)
from daskim.reading import listing_of
from daskim.results import FinishedRun

__all__ = ["GONE", "Found", "Outcome", "Picture", "changes_since", "extensions_of", "pictures"]

Found = list[tuple[str, str]]
GONE = "is gone"


@dataclass
class Outcome:
    """What became of an apply: images and bytes done now and before, and (id, why) of those that were not."""

    done: int = 0
    bytes: int = 0
    before: int = 0
    changed: Found = field(default_factory=list)
    unread: Found = field(default_factory=list)
    unsupported: Found = field(default_factory=list)
    stays: Found = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """An image as it is written: its position in the table, a file's bytes, their digest and usual extension."""

    at: int
    data: bytes
    digest: bytes
    ext: str


def changes_since(
    found: FinishedRun, table: pd.DataFrame, rows: pd.Series, options: Mapping[str, Any] | None
) -> tuple[Found, int]:
    """Sources that are not as they were when the run listed them, by a listing of now; and how many images are new.

    Parameters
    ----------
    rows : Series of bool
        Those that matter.

    Returns
    -------
    changed : list of (id, why)
    new : int
    """
    source = found.settings.source
    now = listing_of(source, options, whole=True).table.to_pandas()
    now = now.assign(id=found.prefix + now["id"]).set_index("id")
    mine = table[rows].set_index("id")
    there = now.reindex(mine.index)
    gone = ~mine.index.isin(now.index)

    def differs(name: str, was: str, known: Any) -> np.ndarray:
        one, other = mine[was], there[name]
        return (known(one) & known(other) & (one != other)).to_numpy()

    size = differs("bytes", "listed_bytes", lambda column: column.fillna(-1) >= 0)
    time = differs("mtime", "mtime", lambda column: column.notna())
    tag = differs("etag", "etag", lambda column: column.notna())
    status = differs("status", "listed_status", lambda column: column.notna())
    moved = differs("container", "container", lambda column: column.notna()) | differs(
        "item", "item", lambda column: column.notna()
    )
    whys = [GONE, "has another size", "was written since", "has another etag", "changed its status", "moved"]
    which = np.stack([gone, size, time, tag, status, moved])
    changed = [(str(mine.index[k]), whys[int(which[:, k].argmax())]) for k in np.flatnonzero(which.any(axis=0))]
    new = 0 if source.limit or source.sample else int((~now.index.isin(table["id"])).sum())
    return changed, new


def extensions_of(found: FinishedRun, table: pd.DataFrame, options: Mapping[str, Any] | None) -> list[str]:
    """What each id needs to become a file name with an image's extension; "" for nothing.

    Arrays become PNG. Rows of a Parquet file without names of their own get the extension of its first image. Files
    keep their names.
    """
    out = [""] * len(table)
    of_container: dict[str, str] = {}
    for at, (id, kind, container, row) in enumerate(
        zip(table["id"], table["format"], table["container"], table["row"].tolist())
    ):
        if kind in ("folder", "webdataset") or extension(id) in IMAGE_EXTENSIONS:
            continue
        if kind in ("array", "idx"):
            out[at] = ".png"
            continue
        if container not in of_container:
            raw = next(found.originals([row], options))
            of_container[container] = (extension_of(raw) if isinstance(raw, bytes) else None) or ""
        out[at] = of_container[container]
    return out


def pictures(
    found: FinishedRun, table: pd.DataFrame, options: Mapping[str, Any] | None, outcome: Outcome
) -> Iterator[Picture | None]:
    """The images of `table` (rows ascending) as files, one an image; None, and a word in `outcome`, for each that
    cannot be read, is not what the run has seen, or cannot be written without loss.
    """
    raws = found.originals(table["row"].to_numpy(), options)
    for at, (id, digest, raw) in enumerate(zip(table["id"], table["file_digest"], raws)):
        if isinstance(raw, Failure):
            outcome.unread.append((id, f"{raw.status}: {raw.reason}"))
            yield None
        elif digest_of(raw) != digest:
            outcome.changed.append((id, "holds other bytes"))
            yield None
        elif isinstance(raw, bytes):
            own = extension(id)
            yield Picture(at, raw, digest, extension_of(raw) or (own if own in IMAGE_EXTENSIONS else ".img"))
        else:
            try:
                data = encode_png(raw)
            except Unsupported as error:
                outcome.unsupported.append((id, str(error)))
                yield None
                continue
            yield Picture(at, data, digest_of(data), ".png")
