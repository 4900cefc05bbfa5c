"""The small pictures of the page: of which images, within how many bytes, and from where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from daskim.lake import Failure, Thumbnail, quiet_native_stderr, thumbnail
from daskim.report.embed import base64_text, json_block
from daskim.report.entries import Entry, Gallery
from daskim.results import FinishedRun
from daskim.statuses import READABLE

__all__ = ["SIDE", "Pictures", "fill", "pictures_of", "queue_of"]

# Pixels a side, at most.
SIDE = 128
# Pictures of one page at most, whatever they weigh: time to read them, and a page that opens at once.
MOST = 3_000
# Pictures from which the weight of the others is reckoned.
SAMPLE = 48
# What the facts of an image and of its place in an entry take besides its picture and its id, in bytes, at most.
IMAGE_BYTES, ENTRY_BYTES = 60, 110
# Standard images that are held together where the source fails.
FALLBACK = 64
COLUMNS = ["row", "id", "label", "split", "width", "height", "status", "file_digest"]


@dataclass
class Pictures:
    """Small pictures by row, as (base64 of WebP, width, height); and why some are not from the source."""

    found: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    fallback: Counter[str] = field(default_factory=Counter)

    @property
    def bytes(self) -> int:
        return sum(len(text) for text, _, _ in self.found.values())


def queue_of(galleries: Sequence[Gallery]) -> Iterator[tuple[int, int]]:
    """(gallery, entry) in the order in which they get room: each gallery as often as its share says."""
    at = [0] * len(galleries)
    while any(at[g] < len(gallery.entries) for g, gallery in enumerate(galleries)):
        for g, gallery in enumerate(galleries):
            for _ in range(gallery.share):
                if at[g] < len(gallery.entries):
                    yield g, at[g]
                    at[g] += 1


def fill(
    run: FinishedRun,
    galleries: Sequence[Gallery],
    room: int,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[list[list[Entry]], pd.DataFrame, Pictures]:
    """The entries that fit with their pictures, the facts of their images, and the pictures.

    Parameters
    ----------
    room : int
        Bytes of the page at most, for pictures and all that is said of their images.

    Returns
    -------
    shown : list of list of Entry
        By gallery, a beginning of its entries.
    images : DataFrame
        Columns `COLUMNS` of the images in them, by row.
    pictures : Pictures
    """
    queue = [(g, galleries[g].entries[e]) for g, e in queue_of(galleries)]
    asked = _first_rows(queue, MOST)
    images = _facts(run, asked)
    sample = pictures_of(run, images, asked[:: max(1, len(asked) // SAMPLE)], storage_options)
    weight = sample.bytes / max(1, len(sample.found)) + IMAGE_BYTES
    fits = min(len(asked), int(1.05 * room / weight) + 1)
    pictures = pictures_of(run, images, asked[:fits], storage_options)
    shown: list[list[Entry]] = [[] for _ in galleries]
    full = [False] * len(galleries)
    weights = {row: _bytes(text, pictures, row) for row, text in images["id"].items()}
    readable = set(images.index[images["status"].isin(READABLE)])
    spent, drawn = 0, set[int]()
    for g, entry in queue:
        new = [row for row in entry.rows if row not in drawn]
        cost = ENTRY_BYTES * (1 + len(entry.rows)) + sum(weights.get(row, 0) for row in new)
        missing = any(row not in pictures.found and (row in readable or row not in weights) for row in new)
        full[g] = full[g] or missing or spent + cost > room
        if full[g]:
            continue
        spent += cost
        drawn.update(new)
        shown[g].append(entry)
    pictures.found = {row: picture for row, picture in pictures.found.items() if row in drawn}
    return shown, images.loc[images.index.isin(drawn)], pictures


def _bytes(name: str, pictures: Pictures, row: int) -> int:
    """What an image takes in the page: its picture, its id and its facts."""
    picture = len(pictures.found[row][0]) if row in pictures.found else 0
    return picture + IMAGE_BYTES + len(json_block(name))


def _first_rows(queue: Sequence[tuple[int, Entry]], most: int) -> list[int]:
    """Rows of the entries of a queue, each once, in order, whole entries up to `most`."""
    found: dict[int, None] = {}
    for _, entry in queue:
        if len(found) + len(entry.rows) > most:
            break
        found.update(dict.fromkeys(entry.rows))
    return list(found)


def _facts(run: FinishedRun, rows: Sequence[int]) -> pd.DataFrame:
    """Columns `COLUMNS` of some images, by row."""
    wanted = np.unique(np.asarray(rows, dtype=np.int64))
    parts = []
    for batch in run.store.batches("images", COLUMNS):
        inside = np.isin(np.asarray(batch["row"]), wanted)
        if inside.any():
            parts.append(batch.filter(inside).to_pandas())
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in COLUMNS})
    return table.set_index("row", drop=False).sort_index()


def pictures_of(
    run: FinishedRun, images: pd.DataFrame, rows: Sequence[int], storage_options: Mapping[str, Any] | None = None
) -> Pictures:
    """Pictures of some images, as the source holds them now; where it does not hold what was scanned, from the run.

    Parameters
    ----------
    images : DataFrame
        As `fill` returns it.
    """
    some = images.loc[images.index.isin(rows) & images["status"].isin(READABLE)]
    wanted = some["row"].tolist()
    known = zip(wanted, some["width"].tolist(), some["height"].tolist(), some["file_digest"].tolist())
    out = Pictures()
    lost: list[int] = []
    limit = run.settings.images.max_pixels
    with quiet_native_stderr():
        for (row, width, height, digest), raw in zip(known, run.originals(wanted, storage_options)):
            made = thumbnail(raw, int(width), int(height), side=SIDE, max_pixels=limit)
            if isinstance(made, Thumbnail) and made.file_digest == digest:
                out.found[row] = (base64_text(made.webp), made.width, made.height)
                continue
            lost.append(row)
            out.fallback[made.status if isinstance(made, Failure) else "changed"] += 1
    for start in range(0, len(lost), FALLBACK):
        held = lost[start : start + FALLBACK]
        for row, pixels in zip(held, run.standard(held)):
            made = thumbnail(pixels, pixels.shape[1], pixels.shape[0], side=SIDE)
            if isinstance(made, Thumbnail):
                out.found[row] = (base64_text(made.webp), made.width, made.height)
    return out
