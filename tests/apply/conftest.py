"""The odd set, and its run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from odd_set import SETTINGS, write_source

import daskim

Sums = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_source(tmp_path_factory.mktemp("odd") / "source")


@pytest.fixture(scope="session")
def run(source: Path) -> daskim.FinishedRun:
    return daskim.reduce(source, run=source.parent / "run", settings=SETTINGS, workers=1)


@pytest.fixture
def own_source(tmp_path: Path) -> Path:
    """A source of this test's own."""
    return write_source(tmp_path / "source")


@pytest.fixture
def own_run(own_source: Path, tmp_path: Path) -> daskim.FinishedRun:
    return daskim.reduce(own_source, run=tmp_path / "run", settings=SETTINGS, workers=1)


@pytest.fixture(scope="session")
def sums() -> Sums:
    """Every path below a folder with the digest of a file, the text of a link and the time of both."""

    def look(folder: Path) -> dict[str, str]:
        found = {}
        for base, _, names in os.walk(os.fsencode(folder)):
            for name in names:
                path = os.path.join(base, name)
                text = (
                    os.readlink(path)
                    if os.path.islink(path)
                    else hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest()
                )
                found[repr(path)] = f"{text!r} {os.lstat(path).st_mtime_ns}"
        return found

    return look
