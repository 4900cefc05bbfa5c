"""Fixtures for tests that run the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tree = Callable[[Path], dict[str, tuple[int, int]]]


@pytest.fixture(scope="session")
def tree() -> Tree:
    """Every path below a folder, with the size and time of each file: equal exactly when nothing was touched.

    The lease of a run, who holds or held it, is no part of it.
    """

    def look(folder: Path) -> dict[str, tuple[int, int]]:
        found = {}
        for path in sorted(folder.rglob("*")):
            if path.parent.name == "lock":
                continue
            state = path.lstat()
            found[str(path.relative_to(folder))] = (-1, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
        return found

    return look


@pytest.fixture(scope="session")
def summary_of() -> Callable[[Path], dict[str, Any]]:
    def read(run: Path) -> dict[str, Any]:
        return json.loads((run / "summary.json").read_text())  # type: ignore[no-any-return]

    return read
