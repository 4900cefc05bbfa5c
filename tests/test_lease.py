"""One run, one command at a time: who is refused, who is taken for dead, and who has lost the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from daskim import lease as leases
from daskim.errors import SourceError
from daskim.lease import SILENCE, Lease, held
from daskim.store import Run


class Time:
    """A clock that goes on only where somebody waits; `then` is called after each wait."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.now, self.then = 0.0, then

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.then()


def lease(run: Run, time: Time | None = None, machine: str | None = None) -> Lease:
    """A lease by a clock of its own; with `machine`, as one on another machine would take it."""
    time = time or Time()
    found = Lease(run, clock=time.clock, wait=time.wait)
    if machine is not None:
        found._own["machine"] = machine
        found._own["host"] = machine
    return found


@pytest.fixture(params=["disk", "object store", "no exclusive creation"])
def run(
    request: pytest.FixtureRequest, tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> Run:
    if request.param == "disk":
        return Run(str(tmp_path / "run"))
    monkeypatch.setattr(leases, "SETTLE", 0.05)
    if request.param == "no exclusive creation":
        real = type(memory).pipe_file

        def overwrite(self: Any, path: str, value: bytes, mode: str = "overwrite") -> None:
            if mode == "create":
                raise TypeError("mode")
            real(self, path, value)

        monkeypatch.setattr(type(memory), "pipe_file", overwrite)
    return Run("memory://bucket/run")


def record(run: Run) -> dict[str, Any]:
    (name,) = run.names("lock")
    found: dict[str, Any] = run.read_json("lock", name) or {}
    return found


class TestOneAtATime:
    def test_the_second_is_refused_and_told_who_it_is(self, run: Run) -> None:
        lease(run).take()
        with pytest.raises(SourceError) as caught:
            lease(run).take()
        assert caught.value.exit_code == 4
        for word in (run.url, f"process {os.getpid()} on {os.uname().nodename} since 2", "last sign of life 2"):
            assert word in caught.value.what
        assert "--run" in caught.value.hint

    def test_released_it_is_free(self, run: Run) -> None:
        run.write(b"x", "something")
        for number in (1, 2, 3):
            with held(run) as mine:
                assert mine.number == number
                mine.check()
            assert record(run)["released"] is True

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_released_by_whatever_ends_it(self, run: Run, error: type[BaseException]) -> None:
        run.write(b"x", "something")
        with pytest.raises(error), held(run):
            raise error
        assert record(run)["released"] is True

    def test_a_run_of_nothing_is_not_left_behind(self, tmp_path: Path) -> None:
        with held(Run(str(tmp_path / "run"))):
            assert (tmp_path / "run" / "lock").is_dir()
        assert list(tmp_path.iterdir()) == []

    def test_one_that_this_process_could_not_give_back_blocks_it_no_more(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run.write(b"x", "something")
        with monkeypatch.context() as full, held(run) as mine:
            full.setattr(Lease, "_record", lambda *_, **__: 1 / 0)
        assert record(run)["owner"] == mine.owner
        assert record(run)["released"] is False
        with held(run) as again:
            assert again.number == 2

    def test_of_many_at_once_one_has_it(self, tmp_path: Path) -> None:
        run, barrier, ends = Run(str(tmp_path / "run")), threading.Barrier(8), []

        def take() -> None:
            barrier.wait()
            try:
                with held(run):
                    ends.append("holds")
                    while len(ends) < 8:
                        time.sleep(0.01)
            except SourceError:
                ends.append("refused")

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        assert sorted(ends) == ["holds"] + ["refused"] * 7


class TestAnotherMachine:
    def test_a_living_one_is_not_disturbed(self, run: Run) -> None:
        other = lease(run, machine="far")
        other.take()
        time = Time(other.renew)
        with pytest.raises(SourceError, match=r"in use by .* on far"):
            lease(run, time).take()
        assert time.now <= leases.BEAT, "it was told at the first sign of life"

    def test_a_dead_one_is_succeeded_after_the_silence(self, run: Run) -> None:
        other = lease(run, machine="far")
        other.take()
        time = Time()
        mine = lease(run, time)
        mine.take()
        assert time.now >= SILENCE
        assert (mine.number, record(run)["owner"]) == (2, mine.owner)

    def test_one_that_releases_meanwhile_is_not_waited_for(self, run: Run) -> None:
        run.write(b"x", "something")
        other = lease(run, machine="far")
        other.take()
        time = Time(other.release)
        lease(run, time).take()
        assert time.now <= leases.BEAT

    def test_two_watchers_do_not_both_succeed_it(self, run: Run) -> None:
        lease(run, machine="far").take()
        second = lease(run, Time())
        first = lease(run, Time(lambda: second.number or second.take()))
        with pytest.raises(SourceError, match="in use by"):
            first.take()
        assert second.number == 2
        second.check()

    def test_a_file_that_cannot_be_read_does_not_block_for_ever(self, run: Run) -> None:
        run.write(b"{", "lock", "00000004.json")
        mine = lease(run)
        mine.take()
        assert mine.number == 5

    def test_the_clock_of_the_holder_does_not_matter(self, run: Run) -> None:
        other = lease(run, machine="far")
        other.take()
        (name,) = run.names("lock")
        for stamp in ("1970-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"):
            run.write_json({**record(run), "since": stamp, "last": stamp}, "lock", name)
            with pytest.raises(SourceError, match="in use"):
                lease(run, Time(other.renew)).take()


class TestFenced:
    def test_who_was_taken_over_writes_no_more(self, run: Run) -> None:
        slow = lease(run, machine="far")
        slow.take()
        mine = lease(run)
        mine.take()
        with pytest.raises(SourceError, match=r"no longer held by this command.*it is held by process") as caught:
            slow.check()
        assert caught.value.exit_code == 4
        mine.check()
        slow.renew()
        slow.release()
        mine.check()
        assert record(run)["owner"] == mine.owner

    def test_it_is_known_from_the_next_sign_of_life_on(self, run: Run) -> None:
        slow = lease(run, machine="far")
        slow.take()
        lease(run).take()
        slow.check(ask=False)
        slow.renew()
        with pytest.raises(SourceError):
            slow.check(ask=False)

    def test_a_run_that_is_removed_under_it_is_not_made_again(self, run: Run) -> None:
        mine = lease(run)
        mine.take()
        run.remove("lock")
        with pytest.raises(SourceError, match="folder was removed"):
            mine.check()
        mine.release()
        assert run.names("lock") == []


HOLDER = """
import sys, time
from daskim.lease import held
from daskim.store import Run
with held(Run(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds RUN = tmp_path / "run"."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestProcesses:
    def test_a_living_one_refuses_at_once_and_a_killed_one_blocks_nobody(
        self, tmp_path: Path, holder: subprocess.Popen[str]
    ) -> None:
        run = Run(str(tmp_path / "run"))
        before = time.monotonic()
        with pytest.raises(SourceError, match=f"process {holder.pid} on"), held(run):
            pass
        assert time.monotonic() - before < 5
        os.kill(holder.pid, signal.SIGKILL)
        time.sleep(0.2)  # it is not waited for: its entry stays, as that of a child whose parent is busy
        with held(run) as mine:
            assert mine.number == 2
        assert time.monotonic() - before < 10

    def test_another_process_of_the_same_number_is_not_its_holder(
        self, tmp_path: Path, holder: subprocess.Popen[str]
    ) -> None:
        path = tmp_path / "run" / "lock" / "00000001.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "started": "1"}))
        lease(Run(str(tmp_path / "run"))).take()

    def test_signs_of_life(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leases, "BEAT", 0.02)
        run = Run(str(tmp_path / "run"))
        with held(run):
            until = time.monotonic() + 10
            while record(run)["beats"] < 3 and time.monotonic() < until:
                time.sleep(0.01)
            assert record(run)["beats"] >= 3
