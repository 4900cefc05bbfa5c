"""The memory of a tree of processes, by /proc as by psutil."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daskim.compute import machine
from daskim.compute.machine import PeakMemory
from daskim.compute.threads import SWITCH, Threads

HELD = 120_000_000
CHILD = f"held = bytearray({HELD}); print('there', flush=True); input()"
GRANDCHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")


@contextmanager
def process(code: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline().strip() == b"there"
        yield
        child.stdin.write(b"\n")
        child.stdin.close()
        child.wait()


@needs_proc
@pytest.mark.parametrize("code", [CHILD, GRANDCHILD], ids=["child", "grandchild"])
def test_children_count_while_they_live(code: str) -> None:
    tree = machine._ProcTree()
    before = tree()
    with process(code):
        inside, theirs = tree(), machine._psutil_tree()
        assert inside - before >= HELD
        assert inside == pytest.approx(theirs, rel=0.05)
    assert tree() < before + HELD // 2


@pytest.mark.parametrize("proc", [pytest.param(True, marks=needs_proc), False])
def test_peaks_are_seen_between_two_looks_at_the_lap(proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not proc:
        monkeypatch.setattr(machine, "_ProcTree", lambda: machine._psutil_tree)
    with PeakMemory(0.02) as memory:
        memory.lap()
        before = memory.lap()
        with process(CHILD):
            time.sleep(0.3)
        high = memory.lap()
        low = memory.lap()
    assert high - before >= HELD
    assert low < high - HELD // 2
    assert memory.bytes >= high


def test_threads_hand_over_soon_and_leave_the_interval_as_it_was() -> None:
    before = sys.getswitchinterval()
    place = Threads(2, 10**9)
    assert sys.getswitchinterval() == pytest.approx(min(SWITCH, before))
    place.close()
    assert sys.getswitchinterval() == pytest.approx(before)
    Threads(1, 10**9).close()
    assert sys.getswitchinterval() == pytest.approx(before)
