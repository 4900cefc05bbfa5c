"""The columns in which a listing keeps its files."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.lake import Place, escape
from daskim.lake.entries import CHUNK, Entries, Entry

# Names as a system gives them: any bytes but "/" and NUL, those that are no UTF-8 as `os.fsdecode` has them.
BYTES = st.binary(min_size=1, max_size=8).filter(lambda name: not {0, 47} & set(name))
NAMES = st.lists((BYTES | st.text("aé\U0001f600.x\\", min_size=1).map(os.fsencode)).map(os.fsdecode), unique=True)


@settings(deadline=None)
@given(names=NAMES)
def test_entries_come_back_in_the_order_of_their_names(names: list[str]) -> None:
    root = Place("/lake")
    entries = Entries(root)
    for index, name in enumerate(names):
        entries.add_file(name, f"/lake/{name}", index, float(index), f"tag{index}")
    entries.sort()
    expected = sorted((escape(name), index) for index, name in enumerate(names))
    assert [(entry.rel, entry.bytes) for entry in entries] == expected
    for entry, (_, index) in zip(entries, expected):
        assert entry == Entry(entry.rel, root.join(names[index]), index, float(index), etag=f"tag{index}")


def test_what_is_odd_is_kept() -> None:
    root = Place("/lake")
    entries = Entries(root)
    entries.add(Entry("b.png", root.at("/lake/a-link\udcff"), 1, 2.0))
    entries.add(Entry("a.png", root.at("/else/where"), status="missing", reason="gone"))
    entries.sort()
    assert [entry.place.path for entry in entries] == ["/else/where", "/lake/a-link\udcff"]
    assert (entries[0].status, entries[0].reason, entries[0].etag) == ("missing", "gone", None)
    assert [entry.rel for entry in entries[1:]] == ["b.png"]
    entries.drop(["b"])
    assert [entry.rel for entry in entries] == ["a.png"]
    with pytest.raises(IndexError):
        entries[1]


def test_a_file_takes_about_a_hundred_bytes() -> None:
    entries = Entries(Place("/lake"))
    count = 3 * CHUNK
    for index in range(count):
        name = f"train/n{index // 1000:08d}/n{index:010d}.jpg"
        entries.add_file(name, f"/lake/{name}", index, 0.0, f"{index:032x}")
    entries.sort()
    assert len(entries) == count
    assert sum(len(chunk) for chunk in entries.chunks()) == count
    assert entries.bytes / count < 120
