"""What every kind of target shares: the work in hand, and files that are noted before they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from daskim.apply.journal import Journal, Note, in_the_way
from daskim.apply.selection import Request
from daskim.apply.sources import Outcome, Picture, pictures
from daskim.lake import Folder
from daskim.results import FinishedRun

__all__ = ["Planned", "Work", "batches_of", "write_files"]

# Files that are noted together, their bytes at most, and how many are written at a time.
_BATCH, _BATCH_BYTES, _WRITERS = 256, 64_000_000, 8


@dataclass(frozen=True)
class Planned:
    """What will be written: paths of files in the target, the table of images, and what a user should know.

    Attributes
    ----------
    files : tuple of str
        Every path that will be there in the end.
    table : DataFrame
        The chosen images in order of rows, with what the kind of target needs.
    notes : tuple of str
    """

    files: tuple[str, ...]
    table: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass
class Work:
    """An apply that is carried out.

    Attributes
    ----------
    options : mapping
        fsspec options of the source.
    advance : callable
        Told after each image.
    """

    found: FinishedRun
    request: Request
    folder: Folder
    journal: Journal
    options: Mapping[str, Any]
    advance: Callable[[], None]
    outcome: Outcome = field(default_factory=Outcome)

    def pictures(self, table: pd.DataFrame) -> Iterator[Picture | None]:
        """The images of `table`, one by one; None for what `outcome` tells of."""
        for picture in pictures(self.found, table, self.options, self.outcome):
            self.advance()
            yield picture


def batches_of(pictures: Iterator[Picture | None]) -> Iterator[list[Picture]]:
    """Runs of images within bounds of number and bytes."""
    batch: list[Picture] = []
    held = 0
    for picture in pictures:
        if picture is None:
            continue
        batch.append(picture)
        held += len(picture.data)
        if len(batch) >= _BATCH or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def write_files(work: Work, files: Sequence[tuple[Note, Callable[[], None]]]) -> None:
    """Note some files, and then make them.

    Raises
    ------
    SettingsError
        Somebody else has put a file there meanwhile.
    """
    if not files:
        return
    work.journal.expect([note for note, _ in files])

    def one(file: tuple[Note, Callable[[], None]]) -> None:
        note, make = file
        try:
            make()
        except FileExistsError:
            raise in_the_way([note[0]], work.folder.root.url) from None

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(one, files))
