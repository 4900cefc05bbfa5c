"""Where the threads of the two jobs spend their time, by function of daskim: py-spy (MIT licence) watches them.

`--raw FILE@HZ` shows stacks that were saved before, side by side: one table for each of the words "wavelet" and
"similarity" in their names. Without it, or with `--run`, the jobs are run now.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from argparse import ArgumentTypeError, _ArgumentGroup
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import Options
from tests.bench.jobs import command, warm
from tests.bench.reduce import BOTH, job
from tests.bench.sources import TRAIN, cifar10
from tests.bench.table import Table

JOBS = {"wavelet": TRAIN, "similarity": BOTH}
SLOWEST, FUNCTIONS, LEAST, HZ = 3, 8, 0.01, 50
FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]+?)(?::\d+)?\)$")
# Innermost functions that only wait; the sampler takes some of them for work.
WAITING = (
    "_worker (concurrent/futures/thread.py",
    "EpollSelector.select",
    "wait (threading.py",
    "_wait_for_tstate_lock",
)
WAITING += ("PeakMemory._watch", "Lease.beat", "_Turn.take", "get (queue.py")


@dataclass(frozen=True)
class Raw:
    """Stacks with their number of samples, as `py-spy record --format raw` writes them, and samples a second."""

    path: Path
    hertz: float


def _raw(word: str) -> Raw:
    path, _, hertz = word.rpartition("@")
    try:
        return Raw(Path(path), float(hertz))
    except ValueError:
        raise ArgumentTypeError(f"{word}: FILE@HZ, the samples a second that it was recorded with") from None


def add_options(group: _ArgumentGroup) -> None:
    group.add_argument("--raw", type=_raw, nargs="+", default=[], metavar="FILE@HZ", help="saved stacks, to show")
    group.add_argument("--run", action="store_true", help="run the jobs too where --raw is given")
    group.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS), help="[both]")
    group.add_argument("--hertz", type=int, default=HZ, help=f"[{HZ}] samples a second")
    group.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the stacks as JOB.raw")


def run(options: Options) -> Iterator[Table]:
    more = options.more
    for name in more.jobs:
        found = {raw.path.stem: seconds_of(raw) for raw in more.raw if name in raw.path.stem}
        n = options.n or (1000 if options.small else JOBS[name])
        if more.run or not more.raw:
            warm()
            with TemporaryDirectory() as folder:
                found["now"] = seconds_of(record(name, n, more.hertz, Path(folder), more.keep))
        if found:
            facts = {"n": n} if "now" in found else {}
            yield by_stage(name, found, facts)
            yield by_function(name, found, facts)


def record(name: str, n: int, hertz: int, folder: Path, keep: Path | None) -> Raw:
    """Run a job under py-spy."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise SystemExit('py-spy is not installed: pip install "daskim[dev]"')
    raw = folder / f"{name}.raw"
    with cifar10(n) as lake:
        words = command(lake.inputs, folder / "run", [*job(name, n).words, "--limit", str(n)])
        spied = [spy, "record", "--rate", str(hertz), "--format", "raw", "--output", str(raw), "--", *words]
        done = subprocess.run(spied, capture_output=True, text=True, check=False)
    if not raw.is_file():
        raise SystemExit(f"py-spy ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        shutil.copy(raw, keep / raw.name)
    return Raw(raw, hertz)


def seconds_of(raw: Raw) -> Counter[tuple[str, str]]:
    """Thread-seconds by (stage, function)."""
    try:
        lines = raw.path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SystemExit(f"{raw.path} cannot be read: {error.strerror}") from None
    found: Counter[tuple[str, str]] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        found[place_of(stack.split(";"))] += int(count) / raw.hertz  # type: ignore[assignment]
    return found


def place_of(frames: list[str]) -> tuple[str, str]:
    """What a stack counts for: its stage, and the innermost function of daskim; "" where there is none.

    A stage is told by a function of daskim/stages on the stack. Blocks that the engine runs for a stage often have
    none: they count for the part of daskim that the innermost function is in.
    """
    if any(word in frames[-1] for word in WAITING):
        return "waiting", ""
    own = [match for frame in frames if (match := FRAME.match(frame)) and match["file"].startswith("daskim/")]
    if not own:
        return "outside daskim", ""
    stages = [
        match["file"].split("/")[2].removesuffix(".py") for match in own if match["file"].startswith("daskim/stages")
    ]
    last = own[-1]
    part = last["file"].removeprefix("daskim/")
    return (stages[-1] if stages else part.split("/")[0].removesuffix(".py")), f"{part} {last['function']}"


def slowest(found: Iterable[Counter[tuple[str, str]]]) -> list[str]:
    """Stages by their thread-seconds, the most of any recording first."""
    totals: Counter[str] = Counter()
    for seconds in found:
        own: Counter[str] = Counter()
        for (stage, _), value in seconds.items():
            own[stage] += value
        for stage, value in own.items():
            totals[stage] = max(totals[stage], value)
    return [stage for stage, _ in totals.most_common() if stage not in ("waiting", "outside daskim")]


def by_function(name: str, found: dict[str, Counter[tuple[str, str]]], facts: dict[str, int]) -> Table:
    """The functions with the most thread-seconds of the slowest stages."""
    table = Table(
        f"profile: {name}, thread-seconds by function",
        {**facts, "counted for": "the innermost function of daskim, with the libraries that it calls"},
        ["stage: function", *found],
        units=dict.fromkeys(found, "s"),
    )
    recordings = list(found.values())
    for stage in slowest(recordings)[:SLOWEST]:
        functions: Counter[str] = Counter()
        for seconds in recordings:
            for (where, function), value in seconds.items():
                if where == stage:
                    functions[function] = max(functions[function], value)
        for function, _ in functions.most_common(FUNCTIONS):
            table.rows.append([f"{stage}: {function}", *(float(seconds[stage, function]) for seconds in recordings)])
    return table


def by_stage(name: str, found: dict[str, Counter[tuple[str, str]]], facts: dict[str, int]) -> Table:
    """The sums of the stages and parts of daskim; what is below a hundredth of all is one row."""
    table = Table(
        f"profile: {name}, thread-seconds by stage", facts, ["stage", *found], units=dict.fromkeys(found, "s")
    )
    recordings = list(found.values())
    every = [sum(seconds.values()) for seconds in recordings]
    rest = [0.0] * len(recordings)
    for stage in [*slowest(recordings), "outside daskim", "waiting"]:
        sums = [float(sum(value for (at, _), value in seconds.items() if at == stage)) for seconds in recordings]
        if all(value < LEAST * whole for value, whole in zip(sums, every)):
            rest = [one + value for one, value in zip(rest, sums)]
        else:
            table.rows.append([stage, *sums])
    table.rows += [["the rest", *rest], ["everything", *map(float, every)]]
    return table
