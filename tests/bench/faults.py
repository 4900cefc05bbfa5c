"""Faults made for real, in processes of their own: what happened, the exit codes, and whether the plan is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

import daskim
from daskim.engine import Progress
from tests.bench import Options
from tests.bench.inputs import images, source
from tests.bench.table import Table

POISON = Path(__file__).parents[1] / "poison"
LOCAL = ("--cluster", "local", "--workers", "2")
# The image that is made bad, as its place among all.
BAD = 0.44


@dataclass
class Ground:
    """A set of images in a folder, and runs of it in another."""

    work: Path
    n: int
    runs: int = 0
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> str:
        return f"{int(BAD * self.n):05d}.png"

    def make(self) -> None:
        (self.work / "set").mkdir()
        for index, pixels in enumerate(images(self.n)):
            Image.fromarray(pixels).save(self.work / "set" / f"{index:05d}.png")

    def altered(self, change: Callable[[bytes], bytes]) -> Path:
        """A copy of the set whose bad image has other bytes; of the same name, so that ids and plans compare."""
        self.runs += 1
        folder = self.work / f"altered{self.runs}" / "set"
        shutil.copytree(self.work / "set", folder)
        (folder / self.bad).write_bytes(change((folder / self.bad).read_bytes()))
        return folder

    def poisoned(self, how: str) -> Path:
        return self.altered(lambda data: data + b"daskim-poison:" + how.encode())

    def run(self) -> Path:
        self.runs += 1
        return self.work / f"run{self.runs}"

    def words(self, images_of: Path, run: Path, *more: str) -> list[str]:
        settings = ["--n-clusters", "0.94", "--set", f"blocks.rows={self.n // 10}", "--quiet", "--no-report"]
        return [sys.executable, "-m", "daskim.jobs.reduce", str(images_of), "--run", str(run), *settings, *more]

    def start(self, images_of: Path, run: Path, *more: str, poison: bool = False) -> subprocess.Popen[str]:
        environment = {**os.environ, **({"PYTHONPATH": str(POISON)} if poison else {})}
        words = self.words(images_of, run, *more)
        return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    def do(self, images_of: Path, run: Path, *more: str, poison: bool = False) -> int:
        process = self.start(images_of, run, *more, poison=poison)
        process.communicate()
        return process.returncode


Found = tuple[str, list[int], Path, str]  # what happened, exit codes, the run, which undisturbed run it must equal


def begun(run: Path, stage: str, process: subprocess.Popen[str]) -> None:
    """Wait until a stage is at work."""
    while not (run / "state" / stage / "stage.json").exists() and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is not None:
        raise SystemExit(f"the run ended before {stage}: {process.communicate()[1]}")


def status(run: Path) -> str:
    counts = json.loads((run / "summary.json").read_text())["status"]
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def last_words(process: subprocess.Popen[str]) -> str:
    said = process.communicate()[1]
    line = next((line for line in said.splitlines() if line.startswith("error: ")), said.strip()[-80:])
    return line.removeprefix("error: ").replace(str(Path(process.args[5])), "RUN")[:110]  # type: ignore[index]


def worker_killed(ground: Ground) -> Found:
    run = ground.run()
    process = ground.start(ground.work / "set", run, *LOCAL)
    begun(run, "wavelets", process)
    children = psutil.Process(process.pid).children(recursive=True)
    worker = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
    worker.kill()
    process.communicate()
    return "its blocks were done again by others", [process.returncode], run, "whole"


def worker_out_of_memory(ground: Ground) -> Found:
    run = ground.run()
    code = ground.do(ground.poisoned("eat"), run, *LOCAL, "--memory", "4GB", poison=True)
    return status(run), [code], run, "without"


def poison_in_workers(ground: Ground) -> Found:
    run = ground.run()
    code = ground.do(ground.poisoned("crash"), run, *LOCAL, poison=True)
    return status(run), [code], run, "without"


def poison_in_threads(ground: Ground) -> Found:
    run, bad = ground.run(), ground.poisoned("crash")
    codes = [ground.do(bad, run, poison=True) for _ in range(2)]
    return f"the first ended with the image; then {status(run)}", codes, run, "without"


def never_ending(ground: Ground) -> Found:
    run = ground.run()
    code = ground.do(ground.poisoned("hang"), run, "--set", "images.max_seconds=3", poison=True)
    return status(run), [code], run, "without"


PARTS = """
import asyncio
from distributed import Scheduler, Worker
async def main():
    scheduler = await Scheduler(host="127.0.0.1", port=0, dashboard=False)
    worker = await Worker(scheduler.address, nthreads=2, dashboard=False)
    print(scheduler.address, flush=True)
    await scheduler.finished()
asyncio.run(main())
"""


def scheduler_lost(ground: Ground) -> Found:
    run, images_of = ground.run(), ground.work / "set"
    quiet = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, "-c", PARTS], stdout=subprocess.PIPE, stderr=quiet, text=True) as parts:
        assert parts.stdout is not None
        process = ground.start(images_of, run, "--cluster", f"address:{parts.stdout.readline().strip()}")
        begun(run, "wavelets", process)
        parts.kill()
        said = last_words(process)
    return said, [process.returncode, ground.do(images_of, run)], run, "whole"


def driver_ended(number: signal.Signals) -> Callable[[Ground], Found]:
    def fault(ground: Ground) -> Found:
        run, images_of = ground.run(), ground.work / "set"
        process = ground.start(images_of, run, *LOCAL)
        begun(run, "wavelets", process)
        process.send_signal(number)
        process.communicate()
        return "the same command went on", [process.returncode, ground.do(images_of, run)], run, "whole"

    return fault


class At(Progress):
    """Does something once when a stage begins."""

    def __init__(self, stage: str, do: Callable[[], object]) -> None:
        self.stage, self.do, self.done = stage, do, False

    def begin(self, stage: str, title: str, total: int, done: int) -> None:
        if stage == self.stage and not self.done:
            self.done = True
            self.do()


def in_process(ground: Ground, images_of: Path, run: str, progress: Progress) -> daskim.FinishedRun:
    settings = {"clusters.n_clusters": 0.94, "blocks.rows": ground.n // 10}
    return daskim.reduce(images_of, run=run, settings=settings, progress=progress)


def store_refuses(seconds: float) -> Callable[[Ground], Found]:
    def fault(ground: Ground) -> Found:
        until, real, refused = [0.0], MemoryFileSystem.pipe_file, [0]

        def pipe_file(self: Any, path: str, value: bytes, **options: Any) -> Any:
            if time.monotonic() < until[0]:
                refused[0] += 1
                raise ConnectionResetError("away")
            return real(self, path, value, **options)

        MemoryFileSystem.pipe_file = pipe_file
        try:
            begin = At("images", lambda: until.__setitem__(0, time.monotonic() + seconds))
            found = in_process(ground, ground.work / "set", "memory://bucket/run", begin)
        finally:
            MemoryFileSystem.pipe_file = real
        run = ground.run()
        run.mkdir()
        (run / "summary.json").write_text(json.dumps(found.summary))
        return f"{refused[0]} refusals; waited {seconds:g} s and went on", [0], run, "whole"

    return fault


def disk_full(ground: Ground) -> Found:
    disk = ground.run()
    disk.mkdir()
    size = f"{ground.n // 500 + 1}m"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        return "not made: a small disk can only be mounted by root", [], disk, ""
    try:
        process = ground.start(ground.work / "set", disk / "run")
        said = last_words(process)
        subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
        codes = [process.returncode, ground.do(ground.work / "set", disk / "run")]
        run = ground.run()
        run.mkdir()
        shutil.copy(disk / "run" / "summary.json", run)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return f"disk of {size}: {said}", codes, run, "whole"


def image_changed(ground: Ground) -> Found:
    run, images_of = ground.run(), ground.altered(lambda data: data)

    def change() -> None:
        Image.new("RGB", (50, 50), (7, 7, 7)).save(images_of / ground.bad)

    in_process(ground, images_of, str(run), At("images", change))
    return status(run), [0], run, "without"


def clocks(ground: Ground) -> Found:
    run, images_of = ground.run(), ground.altered(lambda data: data)

    def jump() -> None:
        for path in images_of.iterdir():
            os.utime(path, (time.time() + 30 * 3600,) * 2)

    in_process(ground, images_of, str(run), At("images", jump))
    return "no clock decides anything", [0], run, "whole"


def two_at_once(ground: Ground) -> Found:
    run, images_of = ground.run(), ground.work / "set"
    first = ground.start(images_of, run)
    begun(run, "index", first)
    second = ground.start(images_of, run)
    said = last_words(second)
    first.communicate()
    return said, [second.returncode, first.returncode], run, "whole"


def faults(options: Options) -> dict[str, tuple[str, Callable[[Ground], Found]]]:
    """How each is made, and what makes it."""
    refusal = 5.0 if options.small else 60.0
    return {
        "worker killed": ("SIGKILL of 1 of 2 worker processes, in wavelets", worker_killed),
        "worker out of memory": ("an image that eats memory until its worker is ended", worker_out_of_memory),
        "poisonous image, 2 processes": ("SIGSEGV in the decoder", poison_in_workers),
        "poisonous image, threads": ("SIGSEGV in the decoder; the command twice", poison_in_threads),
        "image that never decodes": ("the decoder sleeps; images.max_seconds=3", never_ending),
        "scheduler lost": ("SIGKILL of scheduler and workers, in wavelets; then without", scheduler_lost),
        "driver killed": ("SIGKILL in wavelets, 2 processes; the command again", driver_ended(signal.SIGKILL)),
        "driver pre-empted": ("SIGTERM in wavelets, 2 processes; the command again", driver_ended(signal.SIGTERM)),
        f"store refuses writes for {refusal:g} s": ("object store in memory, in images", store_refuses(refusal)),
        "disk full": ("tmpfs too small; enlarged; the command again", disk_full),
        "image changed while read": ("another file between listing and reading", image_changed),
        "clock skew": ("times of all files 30 h off between listing and reading", clocks),
        "two on one run": ("the same command beside itself; second, first", two_at_once),
    }


def run(options: Options) -> Iterator[Table]:
    n = 400 if options.small else 4000
    with TemporaryDirectory() as folder:
        ground = Ground(Path(folder), n)
        ground.make()
        for name, images_of in (("whole", ground.work / "set"), ("without", ground.altered(lambda data: data[:60]))):
            undisturbed = ground.run()
            if ground.do(images_of, undisturbed):
                raise SystemExit("the undisturbed run failed")
            ground.hashes[name] = json.loads((undisturbed / "summary.json").read_text())["plan_hash"]
        table = Table(
            "faults: the plan afterwards, against an undisturbed run's",
            {"data": source(), "n": n, "blocks": 10},
            ["fault", "how", "what happened", "exit codes", "seconds", "same plan"],
        )
        for name, (how, make) in faults(options).items():
            before = time.monotonic()
            happened, codes, where, equal = make(ground)
            took = time.monotonic() - before
            if not equal:
                table.rows.append([name, how, happened, None, None, None])
                continue
            same = json.loads((where / "summary.json").read_text())["plan_hash"] == ground.hashes[equal]
            words = ", ".join(map(str, codes))
            table.rows.append([name, how, happened, words, took, _same(same, equal)])
            table.checks.append((f"{name}: same plan, and the last exit code is 0", same and codes[-1] == 0))
        yield table


def _same(same: bool, equal: str) -> str:
    return ("yes" if same else "NO") + ("" if equal == "whole" else ", as without that image")
