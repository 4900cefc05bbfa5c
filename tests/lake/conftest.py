"""Fixtures of the lake's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from daskim.lake.cache import SHARED


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    SHARED.clear()
    yield
    SHARED.clear()


@pytest.fixture(autouse=True)
def _impatient(patience: Callable[[float], None]) -> None:
    """Stores are waited for a second, not a minute."""
    patience(1.0)
