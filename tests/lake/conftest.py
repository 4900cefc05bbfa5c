"""Fixtures of the lake's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from daskim.lake.cache import SHARED


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    SHARED.clear()
    yield
    SHARED.clear()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """An empty memory:// file system."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped without."""
    where = os.environ.get("DASKIM_DATA")
    if not where:
        pytest.skip("DASKIM_DATA does not name the folder of real data")
    return Path(where)
