"""SECURITY.md promises nothing without a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", TEXT)))


@pytest.mark.parametrize("name", NAMED)
def test_the_tests_that_it_names_are_there(name: str) -> None:
    file, _, function = name.partition("::")
    assert (ROOT / file).is_file()
    assert f"def {function or 'test_'}" in (ROOT / file).read_text()


def test_every_promise_names_one() -> None:
    for section in TEXT.split("\n## ")[1:]:
        for promise in re.findall(r"(?ms)^- (.*?)(?=^- |\n\n|\Z)", section):
            assert "`tests/" in promise or "Without `--tls`" in promise, promise
    assert len(NAMED) > 12


def test_settings_that_it_names_are_there() -> None:
    from daskim.resolve import known_keys

    assert set(re.findall(r"`(\w+\.max_\w+|images\.size)`", TEXT)) <= set(known_keys())
