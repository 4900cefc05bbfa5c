"""What a stage has read is forgotten at its end, in every process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import daskim
from daskim import kept
from daskim.lake.cache import SHARED
from daskim.stages.similarities import compare


def test_after_a_run_nothing_is_kept(planted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = planted(60, 16, redundancy=0.5, seed=1)
    most = 0

    def fit(self: Any) -> None:
        nonlocal most
        before(self)
        most = max(most, self.bytes)

    before = compare._PartsCache.fit
    monkeypatch.setattr(compare._PartsCache, "fit", fit)
    daskim.reduce(str(source), run=tmp_path / "run", settings={"method": "similarity"})
    assert most > 0
    assert compare._CACHE.bytes == 0
    assert not compare._CACHE.held
    assert not SHARED._entries
    assert not kept._cache().held
