"""An S3 server on this machine, once for all tests of stores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "lake"))  # pictures, loopback


@pytest.fixture(scope="session")
def s3() -> Iterator[object]:
    pytest.importorskip("s3fs", reason="s3fs is not there: pip install 'daskim[test]'")
    pytest.importorskip("moto.server", reason="moto's server is not there: pip install 'daskim[test]'")
    from loopback import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def impatient(patience: Callable[[float], None]) -> None:
    """Stores are waited for a second and a half, not for minutes."""
    patience(1.5)
