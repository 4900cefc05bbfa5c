"""Fixtures of the lake's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daskim.lake.cache import SHARED


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    SHARED.clear()
    yield
    SHARED.clear()
