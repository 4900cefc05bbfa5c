"""Fixtures of the lake's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daskim.lake.cache import SHARED
from daskim.retry import READS, STORE


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    SHARED.clear()
    yield
    SHARED.clear()


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    """Stores are waited for a second, not a minute."""
    before = READS.bound, STORE.bound
    for retry in (READS, STORE):
        object.__setattr__(retry, "bound", 1.0)
    yield
    for retry, bound in zip((READS, STORE), before):
        object.__setattr__(retry, "bound", bound)
