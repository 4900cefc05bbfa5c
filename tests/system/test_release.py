"""What a stage has read is forgotten at its end, in every process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import daskim
from daskim import kept
from daskim.lake.cache import SHARED
from daskim.stages.similarities import pictures
from daskim.store import Run


def test_after_a_run_nothing_is_kept(planted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = planted(60, 16, redundancy=0.5, seed=1)
    most = 0

    def places(run: Run, array: str, made: str) -> Any:
        nonlocal most
        found = before(run, array, made)
        most = max(most, before.cache_info().currsize)
        return found

    before = pictures._places
    monkeypatch.setattr(pictures, "_places", places)
    monkeypatch.setattr(pictures, "KEPT_BYTES", 1)
    daskim.reduce(str(source), run=tmp_path / "run", settings={"method": "similarity"})
    assert most > 0
    assert before.cache_info().currsize == 0
    assert not (tmp_path / "run" / "arrays" / "arranged").exists()
    assert not SHARED._entries
    assert not kept._cache().held
