"""Fixtures for the tests of the whole: real data, planted sets, the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from daskim.retry import READS, STORE
from daskim.synthetic import planted_families

Planted = Callable[..., tuple[Path, np.ndarray]]
Command = Callable[..., subprocess.CompletedProcess[str]]


# Nothing is timed in tests: a busy machine must not fail one.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Folders whose files take minutes, longest first: begun early, no process is left alone with one at the end.
LONG = ("system", "stores", "places", "apply", "boundaries", "report", "plugins", "stages")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(LONG)))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped without."""
    where = os.environ.get("DASKIM_DATA")
    if not where:
        pytest.skip("DASKIM_DATA does not name the folder of real data")
    return Path(where)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """An empty memory:// file system."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def patience() -> Iterator[Callable[[float], None]]:
    """Say for how many seconds stores are waited for, until the end of the test."""
    before = [(retry, retry.bound) for retry in (READS, STORE)]

    def wait(seconds: float) -> None:
        for retry, _ in before:
            object.__setattr__(retry, "bound", seconds)

    yield wait
    for retry, bound in before:
        object.__setattr__(retry, "bound", bound)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Write a planted set once a session: `planted(n, side, ...)` gives its .npz and the family of each row."""
    made: dict[tuple[object, ...], tuple[Path, np.ndarray]] = {}

    def make(
        n: int, side: int = 16, *, channels: int = 3, redundancy: float = 0.1, seed: int = 1
    ) -> tuple[Path, np.ndarray]:
        key = (n, side, channels, redundancy, seed)
        if key not in made:
            found = planted_families(n, size=(side, side), channels=channels, redundancy=redundancy, seed=seed)
            path = tmp_path_factory.mktemp("planted") / "set.npz"
            np.savez(path, images=found.images, labels=found.labels)
            made[key] = path, found.family
        return made[key]

    return make


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `python -m daskim.jobs.reduce` with some words, without a report; warnings are errors there too."""

    def run(*words: object, cwd: Path | None = None, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "daskim.jobs.reduce", "--no-report", *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    return run
