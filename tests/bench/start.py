"""How long a command takes to say anything, a run to its first block, and its end after the last word."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from tests.bench import Options
from tests.bench.inputs import shards, source
from tests.bench.table import Table

# What a user is promised, seconds.
TARGETS = {"import daskim": 0.5, "reduce --help": 0.5, "start of process to first block": 2.0}
N = 500


def seconds(words: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of a Python process."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
    code += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    command = [sys.executable, "-S", "-c", code, sys.executable, *words]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(done.stdout)


def events(inputs: list[str], words: list[str]) -> dict[str, float]:
    """Seconds from the start of a run to each thing that it tells, and to its exit."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "daskim.jobs.reduce", *inputs, "--run", folder + "/run", "--json", *words]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            told: dict[str, float] = {}
            for line in process.stdout:
                event = json.loads(line)
                told.setdefault(f"{event['event']} {event.get('stage', '')}".strip(), time.perf_counter() - start)
        told["exit"] = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"reduce ended with code {process.returncode}")
    return told


def run(options: Options) -> Iterator[Table]:
    yield words_only(options)
    yield whole_run(options)


def words_only(options: Options) -> Table:
    contenders = {
        "python -c pass": ["-c", "pass"],
        "import daskim": ["-c", "import daskim"],
        "reduce --help": ["-m", "daskim.jobs.reduce", "--help"],
        "import daskim.api": ["-c", "import daskim.api"],
        "import numpy, pandas, zarr, scipy.sparse": ["-c", "import numpy, pandas, zarr, scipy.sparse"],
    }
    table = Table("start: processes", {"rounds": options.repeat}, ["what", "seconds", "CPU seconds", "aim", "met"])
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(options.repeat):
        for name, words in contenders.items():
            rounds[name].append(seconds(words))
    for name, found in rounds.items():
        wall, used = (statistics.median(values) for values in zip(*found))
        aim = TARGETS.get(name)
        table.rows.append([name, round(wall, 2), round(used, 2), aim, None if aim is None else wall <= aim])
    return table


def whole_run(options: Options) -> Table:
    table = Table(
        "start: a run with threads",
        {"data": source(), "n": N, "rounds": options.repeat},
        ["until", "seconds", "aim", "met"],
    )
    words = ["--no-report", "--limit", str(N), "--set", "clusters.n_clusters=0.94"]
    with shards(N) as paths:
        rounds = [events(paths[:1], words) for _ in range(options.repeat)]
    steps = {
        "the listing begins": "begin index",
        "start of process to first block": "begin images",
        "the wavelets begin (Dask's arrays are imported)": "begin wavelets",
        "the summary": "summary",
    }
    for name, key in steps.items():
        value = statistics.median(found[key] for found in rounds)
        aim = TARGETS.get(name)
        table.rows.append([name, round(value, 2), aim, None if aim is None else value <= aim])
    after = statistics.median(found["exit"] - found["summary"] for found in rounds)
    table.rows.append(["exit, after the summary", round(after, 2), None, None])
    return table
