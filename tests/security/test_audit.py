"""The audit of dependencies: it fails for a known vulnerability, and says so where it could not look."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / ".ci" / "audit.py"))


def package(name: str, *flaws: str) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [{"id": flaw, "fix_versions": ["1.1"]} for flaw in flaws]}


def test_a_known_vulnerability_fails(audit: dict[str, Any]) -> None:
    code, lines = audit["verdict"]({"dependencies": [package("one"), package("two", "PYSEC-1", "PYSEC-2")]})
    assert code == 1
    assert lines[:2] == ["two 1.0: PYSEC-1; fixed in 1.1", "two 1.0: PYSEC-2; fixed in 1.1"]


def test_what_was_not_looked_up_is_said(audit: dict[str, Any]) -> None:
    unknown = {"name": "two", "version": "1.0", "skip_reason": "not found"}
    assert audit["verdict"]({"dependencies": [package("one"), unknown]}) == (
        0,
        ["audit: 1 of 2 packages looked up, 0 known vulnerabilities"],
    )
    code, lines = audit["verdict"]({"dependencies": [unknown]})
    assert code == 0
    assert "skipped" in lines[0]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import time; time.sleep(60)", "no answer"),
        ("import sys; sys.exit('ConnectionError: https://mirror.example/x')", "ended with 1"),
        ("print('{\"dependencies\": []}')", ""),
    ],
)
def test_it_never_hangs_and_names_no_host(
    program: str, told: str, audit: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip_audit.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(audit["report_of"].__globals__, "SECONDS", 3)
    assert sys.executable
    report = audit["report_of"]("some.lock")
    if told:
        assert told in report
        assert "mirror" not in report
        assert audit["verdict"](report)[0] == 0
    else:
        assert report == {"dependencies": []}
