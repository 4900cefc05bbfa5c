"""The whole job with its source and its run in a bucket of an S3 server on this machine, against a disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench import Options
from tests.bench.inputs import shards, source
from tests.bench.table import Table
from tests.lake.loopback import S3, s3_server

N = 50_000


def start(inputs: list[str], run: str, words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "daskim.jobs.reduce", *inputs, "--run", run, "--quiet", "--no-report", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def finish(inputs: list[str], run: str, words: list[str]) -> float:
    """Seconds from the start of the process to its exit."""
    before = time.perf_counter()
    process = start(inputs, run, words)
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"reduce ended with code {process.returncode}:\n{said}")
    return time.perf_counter() - before


def killed(inputs: list[str], run: str, words: list[str], after: float) -> float:
    """Kill the process after so many seconds, then run it to its end: seconds of both."""
    process = start(inputs, run, words)
    time.sleep(after)
    if process.poll() is not None:
        raise SystemExit("the run was over before it was killed")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return after + finish(inputs, run, words)


def run(options: Options) -> Iterator[Table]:
    n = 1000 if options.small else N
    common = ["--set", f"clusters.n_clusters={round(0.94 * n)}", "--limit", str(n)]
    found: list[tuple[str, float, dict[str, Any]]] = []
    with shards(n) as paths, s3_server() as server, TemporaryDirectory() as folder:
        fs = server.fs()
        fs.mkdir("bench")
        for path in paths:
            fs.put_file(path, "bench/lake/" + Path(path).name)
        speed = _speed(server, paths)
        lake, words = ["s3://bench/lake"], [*common, *server.words]
        for round_ in range(options.repeat):
            here, there = f"{folder}/run{round_}", f"s3://bench/run{round_}"
            seconds = finish(paths, here, common)
            found.append(("disk", seconds, json.loads(Path(here, "summary.json").read_text(encoding="utf-8"))))
            seconds = finish(lake, there, words)
            found.append(("bucket", seconds, json.loads(fs.cat_file(f"{there}/summary.json"))))
        # In the middle by time: the longest stages are at work there.
        seconds = killed(lake, "s3://bench/killed", words, max(3.0, found[1][1] * 0.5))
        found.append(("bucket, killed", seconds, json.loads(fs.cat_file("bench/killed/summary.json"))))
    yield _table(n, found, speed, options)


def _speed(server: S3, paths: list[str]) -> dict[str, Any]:
    """What the server itself gives, without daskim: MB/s of whole objects, and small requests a second."""
    fs, data = server.fs(), os.urandom(50_000_000)
    fs.pipe_file("bench/speed/large", data)
    before = time.perf_counter()
    fs.cat_file("bench/speed/large", max_concurrency=1)
    get = 50 / (time.perf_counter() - before)
    before = time.perf_counter()
    fs.pipe_file("bench/speed/again", data)
    put = 50 / (time.perf_counter() - before)
    before = time.perf_counter()
    for index in range(100):
        fs.pipe_file(f"bench/speed/{index}", b"x" * 300)
    small = 100 / (time.perf_counter() - before)
    return {"get MB/s": round(get), "put MB/s": round(put), "small puts/s": round(small)}


def _table(n: int, found: list[tuple[str, float, dict[str, Any]]], speed: dict[str, Any], options: Options) -> Table:
    stages = list(found[0][2]["seconds"])
    table = Table(
        "lake: source and run in a bucket (moto's server on loopback) against a disk, seconds",
        {"data": source(), "n": n, "rounds": options.repeat, **{f"server {k}": v for k, v in speed.items()}},
        ["where", *stages, "start to exit", "peak MB", "plan"],
    )
    for name, wall, summary in found:
        by_stage = [round(summary["seconds"].get(stage, 0.0), 2) for stage in stages]
        peak = summary["peak_rss_bytes"] / 1e6
        table.rows.append([name, *by_stage, round(wall, 1), round(peak), summary["plan_hash"][:12]])
    table.checks.append(("one plan", len({summary["plan_hash"] for _, _, summary in found}) == 1))
    return table
