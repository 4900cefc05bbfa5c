"""Faults: each made for real, on a small set; afterwards the plan is that of an undisturbed run.

A killed driver is in `test_resume.py`, a killed worker in `test_same_result.py`, stores over the network in
`tests/stores`, poisonous images by themselves in `tests/lake/test_lake_guard.py`, the lease in `tests/test_lease.py`.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

import daskim
from daskim import retry
from daskim.compute import WorkerEnded, flow, open_place
from daskim.compute.threads import Threads
from daskim.engine import Engine, Progress
from daskim.errors import BlockFailed, SourceError
from daskim.jobs.reduce import main
from daskim.lease import held
from daskim.store import Run
from daskim.synthetic import planted_families

POISON = Path(__file__).parents[1] / "poison"
SETTINGS: dict[str, Any] = {"images.size": "16x16", "clusters.n_clusters": 0.9, "blocks.rows": 60}
WORDS = ("--size", "16x16", "--n-clusters", "0.9", "--set", "blocks.rows=60", "--workers", "1", "--quiet")
BAD = "0133.png"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 PNG; blocks of 60."""
    folder = tmp_path_factory.mktemp("set")
    images = planted_families(300, size=(16, 16), redundancy=0.2, seed=5).images
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{index:04d}.png")
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> str:
    return str(daskim.reduce(source, settings=SETTINGS).summary["plan_hash"])


@pytest.fixture(scope="module")
def without_bad(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Plan hash of a run in which the image `BAD` is broken in the usual way."""
    folder = tmp_path_factory.mktemp("broken") / source.name
    shutil.copytree(source, folder)
    (folder / BAD).write_bytes((source / BAD).read_bytes()[:100])
    summary = daskim.reduce(folder, settings=SETTINGS).summary
    assert summary["status"] == {"ok": 299, "truncated": 1}
    return str(summary["plan_hash"])


@pytest.fixture
def poisoned(source: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`poisoned(how)`: the set with one image that does this to whoever decodes it."""

    def make(how: str) -> Path:
        folder = tmp_path / "set"
        shutil.copytree(source, folder)
        with (folder / BAD).open("ab") as file:
            file.write(b"daskim-poison:" + how.encode())
        return folder

    return make


class When(Progress):
    """Does something once, when a stage begins or, with `after`, has finished a block."""

    def __init__(self, stage: str, do: Callable[[], object], *, after: bool = False) -> None:
        self.stage, self.do, self.after, self.done = stage, do, after, False
        self.said: list[str] = []

    def begin(self, stage: str, title: str, total: int, done: int) -> None:
        if not self.after:
            self._act(stage)

    def advance(self, stage: str) -> None:
        if self.after:
            self._act(stage)

    def say(self, text: str) -> None:
        self.said.append(text)

    def _act(self, stage: str) -> None:
        if stage == self.stage and not self.done:
            self.done = True
            self.do()


def resumed(source: Path, run: str, **options: Any) -> str:
    """Plan hash after the same run was started again, without any fault."""
    return str(daskim.reduce(source, run=run, settings=SETTINGS, **options).summary["plan_hash"])


class TestPoison:
    @pytest.mark.slow
    def test_in_worker_processes(
        self, poisoned: Any, without_bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", str(POISON))
        told = When("", lambda: None)
        found = daskim.reduce(
            poisoned("crash"), run=tmp_path / "run", settings=SETTINGS, cluster="local", workers=1, progress=told
        )
        assert found.summary["status"] == {"killed-worker": 1, "ok": 299}
        assert found.summary["plan_hash"] == without_bad
        bad = found.images[found.images["status"] == "killed-worker"].iloc[0]
        assert bad["id"] == BAD
        assert "SIGSEGV" in bad["reason"]
        assert any("are done again, in child processes" in line for line in told.said)

    @pytest.mark.slow
    def test_in_the_process_of_the_run(self, poisoned: Any, without_bad: str, tmp_path: Path) -> None:
        """It takes the run with it once; the same command then finds it, and every later one passes it by."""
        source, run = poisoned("kill"), tmp_path / "run"
        words = [sys.executable, "-m", "daskim.jobs.reduce", str(source), "--run", str(run), *WORDS, "--no-report"]
        environment = {**os.environ, "PYTHONPATH": str(POISON)}
        first = subprocess.run(words, env=environment, capture_output=True, timeout=120)
        assert first.returncode == -signal.SIGKILL
        second = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert second.returncode == 0, second.stderr
        found = daskim.open_run(run)
        assert found.summary["status"] == {"killed-worker": 1, "ok": 299}
        assert found.summary["plan_hash"] == without_bad
        assert found.summary["blocks"]["images"] == {"computed": 3, "resumed": 2}


class Losing:
    """Threads of which some calls lose their worker, by the number of times that they are submitted."""

    name = "losing"

    def __init__(self, losses: dict[str, int]) -> None:
        self._place = Threads(1, 10**10)
        self._losses = losses
        self.calls: list[tuple[str, str]] = []

    def unordered(self, function: Any, calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any, Any]]:
        for index, call in enumerate(calls):
            name, work = call[2], call[4]
            self.calls.append((name, work.__name__))
            if self._losses.get(name, 0) > 0:
                self._losses[name] -= 1
                yield index, None, WorkerEnded(2, "tcp://w", 10**9)
            else:
                for _, info, error in self._place.unordered(function, [call]):
                    yield index, info, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place, name)


def usual(run: Run, key: str) -> dict[str, Any]:
    return {"how": "usual"}


def alone(run: Run, key: str) -> dict[str, Any]:
    return {"how": "alone"}


class TestLostWorkers:
    def each(self, tmp_path: Path, losses: dict[str, int], **more: Any) -> tuple[list[Any], Losing]:
        place = Losing(losses)
        engine = Engine(place, Run(str(tmp_path / "run")))  # type: ignore[arg-type]
        infos = engine.each("s", "g", ["a", "b", "c"], [()] * 3, usual, **more)
        assert engine.computed == {"s": 3}
        return infos, place

    def test_a_block_is_tried_again_and_the_others_are_not(self, tmp_path: Path) -> None:
        infos, place = self.each(tmp_path, {"g-b": 2})
        assert infos == [{"how": "usual"}] * 3
        assert [name for name, _ in place.calls] == ["g-a", "g-b", "g-c", "g-b", "g-b"]

    def test_images_are_tried_alone_from_the_second_time_on(self, tmp_path: Path) -> None:
        infos, place = self.each(tmp_path, {"g-b": 2}, alone=alone)
        assert [info["how"] for info in infos] == ["usual", "alone", "usual"]
        assert place.calls[3:] == [("g-b", "alone"), ("g-b", "alone")]

    def test_but_not_for_ever(self, tmp_path: Path) -> None:
        with pytest.raises(BlockFailed) as caught:
            self.each(tmp_path, {"g-b": 99})
        assert caught.value.exit_code == 5
        assert "stage s, block g-b" in caught.value.what
        assert "out of memory, at 1.00 GB" in caught.value.what
        assert "--memory" in caught.value.hint
        assert Run(str(tmp_path / "run")).marked("s") == {"g-a", "g-c"}, "the others are finished first"


def eat() -> None:
    held = []
    while True:
        held.append(np.ones(4_000_000))
        time.sleep(0.01)


@pytest.mark.slow
def test_a_worker_out_of_memory_is_told_as_that() -> None:
    place = open_place("local", workers=1, memory=700_000_000)
    try:
        ((_, _, error),) = place.unordered(eat, [()])
        assert isinstance(error, WorkerEnded)
        assert error.memory is not None
        assert error.memory > 0.9 * 700_000_000
        assert list(place.unordered(len, [("ab",)])) == [(0, 2, None)], "the place goes on"
        with pytest.raises(BlockFailed, match="out of memory"), place.scheduler():
            place.client.submit(eat, pure=False).result()  # type: ignore[attr-defined]
    finally:
        place.close()


PARTS = """
import asyncio, sys
from distributed import Scheduler, Worker
async def main():
    if sys.argv[1] == "scheduler":
        part = await Scheduler(host="127.0.0.1", port=0, dashboard=False)
    else:
        part = await Worker(sys.argv[1], nthreads=1, dashboard=False, local_directory=sys.argv[2])
    print(part.address, flush=True)
    await part.finished()
asyncio.run(main())
"""


@contextmanager
def parts(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str], subprocess.Popen[str]]]:
    """A scheduler and a worker without a nanny: address, and both processes."""

    def start(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", PARTS, *words], stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )

    with start("scheduler") as scheduler:
        worker = None
        try:
            assert scheduler.stdout is not None
            address = scheduler.stdout.readline().strip()
            worker = start(address, str(folder))
            yield address, scheduler, worker
        finally:
            scheduler.kill()
            if worker is not None:
                worker.kill()
                worker.communicate()


class TestScheduler:
    @pytest.mark.slow
    def test_lost(self, source: Path, undisturbed: str, tmp_path: Path) -> None:
        with parts(tmp_path) as (address, scheduler, _):
            progress = When("images", scheduler.kill, after=True)
            before = time.monotonic()
            with pytest.raises(SourceError, match="the scheduler is gone") as caught:
                resumed(source, str(tmp_path / "run"), cluster=f"address:{address}", progress=progress)
            assert time.monotonic() - before < 60
        assert "goes on" in caught.value.hint
        assert Run(str(tmp_path / "run")).marked("images")
        assert resumed(source, str(tmp_path / "run")) == undisturbed

    @pytest.mark.slow
    def test_without_any_worker(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flow, "LOOK", 0.2)
        monkeypatch.setattr(flow, "NO_WORKERS", 0.5)
        with parts(tmp_path) as (address, _, worker):
            progress = When("images", worker.kill, after=True)
            with pytest.raises(SourceError, match="there has been no worker for"):
                resumed(source, str(tmp_path / "run"), cluster=f"address:{address}", progress=progress)


class TestStore:
    @pytest.fixture
    def refusing(self, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """`refusing(seconds)`: from now on memory:// takes nothing for so long."""
        until, real = [0.0], type(memory).pipe_file

        def pipe_file(self: Any, path: str, value: bytes, **options: Any) -> Any:
            if time.monotonic() < until[0]:
                raise ConnectionResetError("the store is away")
            return real(self, path, value, **options)

        monkeypatch.setattr(type(memory), "pipe_file", pipe_file)
        return lambda seconds: until.__setitem__(0, time.monotonic() + seconds)

    def test_that_refuses_writes_for_a_while(self, source: Path, undisturbed: str, refusing: Any) -> None:
        progress = When("images", lambda: refusing(3.0))
        before = time.monotonic()
        assert resumed(source, "memory://bucket/run", progress=progress) == undisturbed
        assert progress.done
        assert time.monotonic() - before > 3.0

    def test_that_goes_on_refusing(
        self, source: Path, undisturbed: str, refusing: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient = retry.Retry(bound=0.5)
        for module in ("files", "zarrstore"):
            monkeypatch.setattr(f"daskim.{module}.STORE", patient)
        with pytest.raises((SourceError, BlockFailed), match="the store is away") as caught:
            resumed(source, "memory://bucket/run", progress=When("images", lambda: refusing(60), after=True))
        assert "go on" in caught.value.hint or "goes on" in caught.value.hint
        refusing(0)
        assert resumed(source, "memory://bucket/run") == undisturbed


class TestDisk:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A disk of 500 kB."""
        folder = tmp_path / "disk"
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("a small disk can only be mounted by root")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_full(self, source: Path, undisturbed: str, small: Path, capfd: pytest.CaptureFixture[str]) -> None:
        words = [str(source), "--run", str(small / "run"), *WORDS, "--no-report"]
        code = main(words)
        error = capfd.readouterr().err
        assert code in (4, 5)
        assert "No space left on device" in error
        assert "go on" in error or "goes on" in error
        assert "Traceback" not in error
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert main(words) == 0
        assert daskim.open_run(small / "run").summary["plan_hash"] == undisturbed


class TestSource:
    def test_an_image_that_changes_between_listing_and_reading(
        self, source: Path, without_bad: str, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(source, tmp_path / "set"))
        other = io.BytesIO()
        Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(other, "PNG")
        change = When("images", lambda: (folder / BAD).write_bytes(other.getvalue()))
        found = daskim.reduce(folder, settings=SETTINGS, progress=change)
        assert found.summary["status"] == {"changed": 1, "ok": 299}
        assert found.summary["plan_hash"] == without_bad

    @pytest.mark.parametrize("hours", [-30, 30])
    def test_clocks_do_not_decide(self, source: Path, undisturbed: str, tmp_path: Path, hours: int) -> None:
        """The store's clock jumps between listing and reading: all files have another time by then."""
        folder = Path(shutil.copytree(source, tmp_path / "set"))
        shifted = time.time() + 3600 * hours

        def jump() -> None:
            for path in folder.iterdir():
                os.utime(path, (shifted, shifted))

        found = daskim.reduce(folder, settings=SETTINGS, progress=When("images", jump))
        assert found.summary["plan_hash"] == undisturbed


class TestTwoOnOneRun:
    def test_the_second_is_refused(self, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        run = tmp_path / "run"
        with held(Run(str(run))):
            assert main([str(source), "--run", str(run), *WORDS]) == 4
            assert f"process {os.getpid()} on" in capfd.readouterr().err
        assert not run.exists()

    def test_one_that_was_taken_over_seals_nothing_more(self, source: Path, undisturbed: str, tmp_path: Path) -> None:
        run = Run(str(tmp_path / "run"))
        other = When("wavelets", lambda: run.write_json({"pid": 1, "host": "far"}, "lock", "00000009.json"))
        with pytest.raises(SourceError, match="no longer held by this command"):
            resumed(source, run.url, progress=other)
        assert run.exists("state", "exact", "sealed.json")
        assert not run.exists("state", "wavelets", "sealed.json")
        run.remove("lock")
        assert resumed(source, run.url) == undisturbed
