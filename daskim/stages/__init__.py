"""One file a stage: which rows go to which kernel, and where the answer is stored.

A stage module exports `STAGE`, a record of what it reads, which settings decide its output, what it needs and how it
runs. Stages know the doors and the kernels, never one another: what flows between them is in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskim.engine import Engine
from daskim.settings import Settings
from daskim.store import Run

__all__ = ["Change", "Context", "Need", "Size", "Stage"]


@dataclass(frozen=True)
class Size:
    """The numbers that decide how much work a run is.

    Attributes
    ----------
    n : int
        Images (rows).
    height, width, channels : int
        Of the standard array.
    columns : int
        Wavelet coefficients d.
    itemsize : int
        Bytes of one stored coefficient.
    rows : int
        Images in a block.
    n_clusters : int
    bytes : int
        Size of the source files; 0 where unknown.
    crossing : int, optional
        Pairs of images of different splits, where only they are compared.
    """

    n: int
    height: int
    width: int
    channels: int
    columns: int
    itemsize: int
    rows: int
    n_clusters: int
    bytes: int
    crossing: int | None = None

    @property
    def pixels(self) -> int:
        """Values in one standard image."""
        return self.height * self.width * self.channels

    @property
    def blocks(self) -> int:
        return -(-self.n // self.rows)

    @property
    def possible(self) -> int:
        """Pairs of images that may be compared."""
        return self.n * (self.n - 1) // 2 if self.crossing is None else self.crossing


@dataclass(frozen=True)
class Need:
    """What a stage costs. Bytes; the last three are upper bounds beyond what an idle process holds.

    Attributes
    ----------
    task : int
        Held by each task under way.
    driver : int
        Held by the process that orders the work.
    process : int
        Held once by each process that works, such as a cache.
    """

    blocks: int
    read: int
    write: int
    task: int
    driver: int
    process: int = 0


@dataclass(frozen=True)
class Change:
    """What a delivery changed of the images of a run.

    Attributes
    ----------
    number : int
        Of the delivery; the run was made with number 0.
    before : int
        Rows of the run before it: new images have the rows from there on.
    added : ndarray, int64, ascending
        Rows that are read: those of new and of changed images, and of deleted ones that are back.
    removed : ndarray, int64, ascending
        Rows below `before` that no longer hold the image they held: of changed and of deleted images.
    told : ndarray, int64, ascending
        Rows of which the listing tells something else, but not another image: deleted and relabelled ones.
    """

    number: int
    before: int
    added: np.ndarray
    removed: np.ndarray
    told: np.ndarray

    @property
    def mark(self) -> str:
        """What the markers and parts of this delivery begin with."""
        return f"d{self.number:05d}"


@dataclass
class Context:
    """What a stage is given.

    Attributes
    ----------
    source_options : mapping
        fsspec options of the source; never written.
    size : Size
        Known from the end of the stage `index` on.
    notes : list of str
        What a user should know about this run; goes into the summary and on the terminal.
    grows : bool
        Deliveries are to come: blocks are made for more images than there are.
    stay : ndarray, int64, optional
        After a delivery, the rows that the plan before it kept.
    theirs : int
        With --against, rows of the run that the images are compared with: they are no part of the plan.
    """

    run: Run
    engine: Engine
    settings: Settings
    source_options: Mapping[str, Any]
    size: Size | None = None
    notes: list[str] = field(default_factory=list)
    grows: bool = False
    stay: np.ndarray | None = None
    theirs: int = 0

    def say(self, text: str) -> None:
        """A line on the terminal, kept in the summary."""
        self.notes.append(text)
        self.engine.progress.say(text)

    @property
    def known(self) -> Size:
        assert self.size is not None
        return self.size


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes
    ----------
    name : str
    version : int
        Raised when the stage's output changes for the same input.
    reads : tuple of str
        Stages whose output it reads.
    settings : tuple of str
        Settings, `stage.key` or whole sections, that decide its output.
    leaves : tuple of str
        Its tables and arrays, removed by `--restart`.
    run : callable
        Does the work; returns facts for the seal.
    need : callable
        What it costs at a size.
    versions : callable
        Versions of libraries and plug-ins that its output depends on.
    files : callable
        Digests of files beside the source that decide its output; raises where one is missing or malformed.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    settings: tuple[str, ...]
    leaves: tuple[str, ...]
    run: Callable[[Context], dict[str, Any]]
    need: Callable[[Size, Settings, int], Need]
    versions: Callable[[Settings], dict[str, str]] = lambda settings: {}
    files: Callable[[Context], dict[str, str]] = lambda context: {}
    update: Callable[[Context, Change], dict[str, Any] | None] | None = None
