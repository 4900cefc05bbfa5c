"""Fixtures for the tests of stages and of what carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskim
from daskim.compute.threads import Threads
from daskim.engine import Engine
from daskim.store import Run

Reduce = Callable[..., daskim.FinishedRun]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


@pytest.fixture
def engine(run: Run) -> Iterator[Engine]:
    place = Threads(2, 10**10)
    yield Engine(place, run)
    place.close()


@pytest.fixture
def reduce_arrays(tmp_path: Path) -> Reduce:
    """Run on images (n, h, w, c) or (n, h, w) u1 at their own size, with labels, and settings `stage__key=value`."""
    count = iter(range(1000))

    def run_on(images: np.ndarray, labels: Any = None, *, threads: int = 2, **values: Any) -> daskim.FinishedRun:
        here = tmp_path / f"made{next(count)}"
        here.mkdir()
        np.savez(here / "set.npz", images=images, **({} if labels is None else {"labels": np.asarray(labels)}))
        settings = {"images.size": "native", "images.mode": "L" if images.shape[-1] != 3 else "RGB"}
        settings.update({key.replace("__", "."): value for key, value in values.items()})
        return daskim.reduce(here / "set.npz", run=here / "run", settings=settings, workers=threads)

    return run_on
