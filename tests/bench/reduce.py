"""The whole job, `python -m daskim.jobs.reduce`, in processes of its own: seconds by stage, and memory."""

from __future__ import annotations

import json
import statistics
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

N = 50_000


def variants(n: int) -> dict[str, list[str]]:
    """What is set besides the defaults; n_clusters is 47,000 and 500 of 50,000."""
    near, few = f"clusters.n_clusters={round(0.94 * n)}", f"clusters.n_clusters={max(2, n // 100)}"
    return {
        f"threads, n_clusters {round(0.94 * n):,}": ["--set", near],
        "2 processes, tsqr": ["--set", near, "--cluster", "local", "--workers", "2", "--set", "columns.method=tsqr"],
        f"threads, n_clusters {max(2, n // 100):,}": ["--set", few],
    }


def once(inputs: list[str], words: list[str]) -> dict[str, Any]:
    """Summary of one run, with the seconds from the start of the process to its exit."""
    with TemporaryDirectory() as folder:
        own = ["--run", folder + "/run", "--quiet", "--no-report"]
        command = [sys.executable, "-m", "daskim.jobs.reduce", *inputs, *own, *words]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"reduce ended with code {done.returncode}:\n{done.stderr}")
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text(encoding="utf-8"))
    return {**summary, "wall": wall}


def run(options: Options) -> Iterator[Table]:
    n = 1000 if options.small else N
    with shards(n) as paths:
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in variants(n)}
        for _ in range(options.repeat):
            for name, words in variants(n).items():
                rounds[name].append(once(paths, [*words, "--limit", str(n)]))
    yield seconds_by_stage(rounds, n, options)
    yield outcome(rounds, n, options)


def middle(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def facts(n: int, options: Options, runs: list[dict[str, Any]]) -> dict[str, Any]:
    size, place = runs[0]["size"], runs[0]["cluster"]
    shown = {"data": source(), "n": n, "d": size["columns"], "workers": place["workers"], "rounds": options.repeat}
    return {**shown, "block rows": size["rows"], "BLAS in the job": "1 thread a worker"}


def seconds_by_stage(rounds: dict[str, list[dict[str, Any]]], n: int, options: Options) -> Table:
    first = next(iter(rounds))
    stages = list(rounds[first][0]["seconds"])
    table = Table(
        "reduce: median seconds by stage",
        facts(n, options, rounds[first]),
        ["variant", *stages, "all stages", "process start to exit", "least", "most", "against the first"],
    )
    for name, runs in rounds.items():
        by_stage = [statistics.median(run["seconds"][stage] for run in runs) for stage in stages]
        walls = [run["wall"] for run in runs]
        ratio = f"{middle(rounds[first], 'wall') / middle(runs, 'wall'):.2f} x"
        ends = [middle(runs, "seconds_total"), middle(runs, "wall"), min(walls), max(walls)]
        table.rows.append([name, *(round(value, 2) for value in [*by_stage, *ends]), ratio])
    return table


def outcome(rounds: dict[str, list[dict[str, Any]]], n: int, options: Options) -> Table:
    table = Table(
        "reduce: memory and outcome",
        facts(n, options, next(iter(rounds.values()))),
        [
            "variant",
            "peak MB, process tree",
            "m",
            "cond",
            "method",
            "clusters",
            "regime",
            "drop",
            "influential",
            "plan",
        ],
    )
    found = []
    for name, runs in rounds.items():
        last = runs[-1]
        table.rows.append([name, middle(runs, "peak_rss_bytes") / 1e6, last["columns"]["m"], last["columns"]["cond"]])
        table.rows[-1] += [last["columns"]["method"], last["n_clusters"], last["clusters"]["regime"], last["n_drop"]]
        table.rows[-1] += [last["n_influential"], last["plan_hash"][:12]]
        same = len({run["plan_hash"] for run in runs}) == 1
        table.checks.append((f"{name}: the same plan in every round ({len(runs)})", same))
        asked = last["clusters"]["n_clusters_asked"]
        table.checks.append((f"{name}: exactly {asked:,} clusters", last["n_clusters"] == asked))
        found.append(last)
    table.checks.append(("the same m by both column methods", found[0]["columns"]["m"] == found[1]["columns"]["m"]))
    table.checks.append(("the same plan by threads and processes", found[0]["plan_hash"] == found[1]["plan_hash"]))
    return table
