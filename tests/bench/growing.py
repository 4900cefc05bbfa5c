"""One job on lakes of growing size: what each stage and its steps took, and the memory of each process."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from tests.bench.jobs import command
from tests.bench.watch import Watched, processes_below, watched

__all__ = ["Grown", "Took", "grown", "job_words", "place_name"]

INTERVAL = 0.2  # seconds between two looks at the memory
# Below this a process is no worker: what multiprocessing keeps beside them.
WORKER_BYTES = 100_000_000


@dataclass(frozen=True)
class Took:
    """What a stage or a step of one took.

    Attributes
    ----------
    seconds, cpu : float
        Wall time; CPU time of the process tree.
    worker, driver : int
        Resident bytes at most of one worker process, and of the process that orders the work. One and the same where
        the place is threads. 0 for a step.
    promised, promised_driver : int
        What `--plan` said of them. 0 for a step.
    """

    seconds: float
    cpu: float
    worker: int = 0
    driver: int = 0
    promised: int = 0
    promised_driver: int = 0


@dataclass(frozen=True)
class Grown:
    """A finished run of one job on n images.

    Attributes
    ----------
    stages : dict of str to Took
        In their order.
    steps : dict of str to Took
        "stage: step", in their order.
    facts : dict
        What decides the amount of work besides n: candidates, pairs, components.
    """

    job: str
    n: int
    wall: float
    cpu: float
    stages: dict[str, Took]
    steps: dict[str, Took]
    facts: dict[str, Any]


def job_words(job: str, n: int) -> list[str]:
    """What is set besides the defaults."""
    return {
        "wavelet": ["--set", f"clusters.n_clusters={round(0.94 * n)}"],
        "threshold": ["--method", "similarity", "--cluster-by", "threshold"],
        "similarity": ["--method", "similarity"],
    }[job]


def place_name(place: Sequence[str]) -> str:
    """The words of a place in the name of a file."""
    return "-".join(place).replace("--", "")


def grown(folder: Path, job: str, inputs: Sequence[str], n: int, place: Sequence[str], version: int) -> Grown:
    """Measure one job, or read what an earlier call measured and left in the folder.

    A run that was broken off is begun anew: a stage that goes on would tell only its second part.
    """
    kept = folder / f"growth-{job}-{n}-{place_name(place)}-lake{version}.json"
    if kept.exists():
        told = json.loads(kept.read_text(encoding="utf-8"))
        parts = {key: {name: Took(**took) for name, took in told.pop(key).items()} for key in ("stages", "steps")}
        return Grown(**told, **parts)
    run = folder / f"growth-{job}-{n}"
    shutil.rmtree(run, ignore_errors=True)
    words = [*job_words(job, n), "--limit", str(n), *place]
    promised = _promised(command(inputs, run, words))
    with _Memory() as memory:
        seen = watched(command(inputs, run, words))
    if seen.code:
        raise SystemExit(f"reduce ended with code {seen.code}:\n{seen.err}")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    stages, steps = {}, {}
    for stage in summary["seconds"]:
        start, end = (_time(run / "state" / stage / name) for name in ("stage.json", "sealed.json"))
        worker, driver = memory.between(start, end)
        cpu, _ = seen.between(start, end)
        stages[stage] = Took(summary["seconds"][stage], cpu, worker, driver, *promised[stage])
        steps.update(_steps(stage, run / "state" / stage / "blocks", start, end, seen))
    found = Grown(job, n, seen.wall, seen.cpu, stages, steps, _facts(summary))
    shutil.rmtree(run)
    part = kept.with_suffix(".partial")
    part.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    part.replace(kept)
    return found


def _promised(words: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Bytes of a worker and of the driver for each stage, as --plan tells them."""
    seen = watched([*(word for word in words if word != "--quiet"), "--plan", "--json"])
    lines = [json.loads(line) for line in seen.out.splitlines() if line.startswith("{")]
    plans = [line for line in lines if line.get("event") == "plan"]
    if seen.code or not plans:
        raise SystemExit(f"--plan ended with code {seen.code}:\n{seen.out}{seen.err}")
    return {row["stage"]: (row["memory_bytes"], row["driver_bytes"]) for row in plans[0]["stages"]}


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _steps(stage: str, blocks: Path, start: float, end: float, seen: Watched) -> dict[str, Took]:
    """The groups of blocks of a stage, which come one after another: each ends with its last marker."""
    if not blocks.is_dir():
        return {}
    ends: dict[str, float] = {}
    with os.scandir(blocks) as scan:
        for entry in scan:
            step = re.split(r"[0-9]", entry.name.removesuffix(".json"), maxsplit=1)[0].rstrip("-")
            ends[step] = max(ends.get(step, 0.0), entry.stat().st_mtime)
    found, before = {}, start
    for step, last in sorted(ends.items(), key=lambda item: item[1]):
        found[f"{stage}: {step or 'blocks'}"] = Took(last - before, seen.between(before, last)[0])
        before = last
    if len(found) > 1:
        found[f"{stage}: the rest"] = Took(max(0.0, end - before), seen.between(before, end)[0])
        return found
    return {}  # the stage itself


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    found = {"dropped": summary["n_drop"], "clusters": summary["n_clusters"]}
    for part, names in {
        "candidates": ("candidates", "join_pairs", "lsh_pairs", "join"),
        "similarities": ("compared", "near"),
        "clusters": ("regime", "cut_rms"),
    }.items():
        told = summary.get(part)
        if isinstance(told, Mapping):
            found |= {name: told[name] for name in names if name in told}
    compared = summary.get("similarities")
    if isinstance(compared, Mapping):  # how far pairs get decides what one of them costs
        levels = compared["by_level"].items()
        found |= {f"to level {level}": told["pairs"] / max(1, compared["compared"]) for level, told in levels}
    attempts = summary["clusters"].get("attempts")
    return found | ({"pairs": attempts[-1].get("pairs"), "attempts": len(attempts)} if attempts else {})


def _resident(pid: int) -> int:
    """Resident bytes of a process; 0 for one that has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


class _Memory:
    """Resident bytes of each process below this one over time, sampled."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int, int]] = []  # time, largest worker, driver
        self._stop = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            driver, *below = [_resident(pid) for pid in processes_below(os.getpid())] or [0]
            if driver:
                workers = [size for size in below if size > WORKER_BYTES]
                self._seen.append((time.time(), max(workers, default=driver), driver))

    def between(self, start: float, end: float) -> tuple[int, int]:
        """Bytes at most of a worker and of the driver; of the nearest look where there is none in between."""
        inside = [seen for seen in self._seen if start <= seen[0] <= end]
        inside = inside or [min(self._seen, key=lambda seen: abs(seen[0] - (start + end) / 2))]
        return max(seen[1] for seen in inside), max(seen[2] for seen in inside)
