"""The stage `spectrum` on one connected graph of millions of images: time, memory, distance to the truth, error bars.

python -m tests.bench giant --nodes 1300000 --nodes 4100000 --edges 1e8 --workers 2
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from daskim.compute import open_place
from daskim.engine import Engine, Progress
from daskim.kernels.density import wasserstein
from daskim.resolve import resolve
from daskim.stages import Context, Size
from daskim.stages.spectrum import STAGE, rows
from daskim.stages.spectrum.giant import courses_of
from daskim.store import Run
from tests.bench import Options
from tests.bench.giant_graphs import Torus, write_neighbours
from tests.bench.table import Table, Target
from tests.bench.watch import watched

NODES, EDGES = (1_300_000, 4_100_000), 1e8
AIM = 0.005  # Wasserstein distance to the exact spectrum, as a share of its range
SIGMA = 4.0  # standard errors within which the truth has to lie


def add_options(parser: Any) -> None:
    parser.add_argument("--nodes", type=int, action="append", metavar="N", help="[1300000 and 4100000] may be repeated")
    parser.add_argument("--edges", type=float, default=EDGES, metavar="E", help="[1e8] at least")
    parser.add_argument("--graph", choices=["torus", "neighbours"], action="append", help="[both] may be repeated")
    parser.add_argument("--steps", type=int, default=100, help="[100] of Lanczos")
    parser.add_argument("--probes", type=int, default=16, help="[16] random vectors")
    parser.add_argument(
        "--cluster", action="append", metavar="PLACE", help="[threads] threads or local; may be repeated"
    )
    parser.add_argument("--workers", type=int, default=2, help="[2]")
    parser.add_argument("--memory", type=float, metavar="GB", help="of this machine that the workers may use")
    parser.add_argument("--folder", type=Path, help="where graphs are made (16 GB), instead of the system's own")


def run(options: Options) -> Iterator[Table]:
    more = options.more
    small = {"nodes": [20_000], "edges": 3e5, "steps": 30, "probes": 4} if options.small else {}
    asked = argparse.Namespace(**{**vars(more), **small})
    for nodes in asked.nodes or NODES:
        for kind in asked.graph or ("torus", "neighbours"):
            with TemporaryDirectory(dir=asked.folder) as folder:
                yield from measured(kind, nodes, asked, folder)


def measured(kind: str, nodes: int, asked: argparse.Namespace, folder: str) -> Iterator[Table]:
    """Make one graph, and have the stage work on it in a process of its own."""
    start = time.perf_counter()
    made = Run(folder + "/run")
    torus = Torus(nodes, asked.edges) if kind == "torus" else None
    n = nodes if torus is None else torus.n
    edges = write_neighbours(made, n, asked.edges) if torus is None else torus.write(made)
    facts = {"data": f"synthetic {kind}", "n": n, "edges": edges, "steps": asked.steps, "probes": asked.probes}
    facts |= {"seconds to make it": round(time.perf_counter() - start, 1), "disk": "page cache may hold it all"}
    found: list[tuple[str, dict[str, Any], Any]] = []
    for place in asked.cluster or ["threads"]:
        for name in ("state/spectrum", "partial", "tables/graph", "tables/spectrum"):
            made.remove(*name.split("/"))
        words = [made.url, str(n), place, str(asked.workers), str(asked.steps), str(asked.probes)]
        words += [] if asked.memory is None else [str(round(asked.memory * 1e9))]
        went = watched([sys.executable, "-m", "tests.bench.giant", *words])
        if went.code:
            raise SystemExit(f"the stage ended with code {went.code}:\n{went.err}")
        found.append((f"{place}, {asked.workers} workers", json.loads(went.out.splitlines()[-1]), went))
        found[-1][1]["spectrum"] = made.read_table("spectrum", ["value", "weight"])
    yield times(kind, facts, found)
    yield truth(kind, facts, found, torus)


def times(kind: str, facts: dict[str, Any], found: list[tuple[str, dict[str, Any], Any]]) -> Table:
    parts = list(dict.fromkeys(part for _, told, _ in found for part in told["seconds"]))
    columns = [
        "place",
        *(f"{part}, s" for part in parts),
        "wall s",
        "CPU s",
        "peak GB, process tree",
        "peak GB, driver",
    ]
    columns += ["blocks of rows", "tasks", "passes over the edges", "GB/s of edges", "G multiply-adds/s"]
    table = Table(f"giant {kind}, {facts['n']:,} nodes: time and memory", facts, columns)
    for place, told, went in found:
        table.rows.append([place, *(round(told["seconds"].get(part, 0.0), 1) for part in parts), went.wall, went.cpu])
        seconds = told["seconds"]["steps"]
        table.rows[-1] += [went.peak / 1e9, told["driver"] / 1e9, told["blocks"], told["tasks"], told["passes"]]
        table.rows[-1] += [told["bytes"] * told["passes"] / seconds / 1e9, told["products"] / seconds / 1e9]
    return table


def truth(kind: str, facts: dict[str, Any], found: list[tuple[str, dict[str, Any], Any]], torus: Torus | None) -> Table:
    columns = ["what", "estimate", "standard error", "truth", "standard errors away"]
    table = Table(f"giant {kind}, {facts['n']:,} nodes: against the truth", facts, columns)
    first = found[0][1]["facts"]
    rows = [("sum of eigenvalues", *_beside(first["trace"])), ("sum of their squares", *_beside(first["squares"]))]
    width = first["largest"]
    if torus is not None:
        value, weight = torus.eigenvalues()
        width = float(np.ptp(value))
        for power in (3, 4):
            exact = float((value**power * weight).sum() / weight.sum())
            rows.append((f"mean of their powers, {power}", *first["moments"][power], exact))
        spectrum = found[0][1]["spectrum"]
        away = wasserstein(spectrum["value"].to_numpy(), spectrum["weight"].to_numpy(), value, weight) / width
        few = "" if facts["steps"] >= 100 else f"{facts['steps']} steps, not 100"
        table.targets.append(Target("Wasserstein-1 distance to the exact spectrum / range", away, AIM, unjudged=few))
    else:
        rows += [(f"mean of their powers, {power}", *first["moments"][power], None) for power in (3, 4)]
    for what, estimate, error, exact in rows:
        sigmas = None if exact is None else abs(estimate - exact) / error
        table.rows.append([what, estimate, error, exact, sigmas])
        if sigmas is not None:
            table.checks.append((f"{what}: within {SIGMA:g} standard errors", sigmas < SIGMA))
    bound, scatter = first["density"]["quadrature"] / width, first["density"]["probes"] / width
    table.rows.append(["distance / range: bound by the quadrature", bound, None, None, None])
    table.rows.append(["distance / range: from the scatter of probes", scatter, None, None, None])
    if torus is not None:
        table.rows.append(["distance / range: to the exact spectrum", away, None, None, None])
        table.checks.append(("the distance is within its error bars", away < bound + SIGMA * scatter))
    table.checks.append(("one component", first["n_components"] == 1))
    same = all(told["spectrum"].equals(found[0][1]["spectrum"]) for _, told, _ in found)
    table.checks.append((f"the same spectrum everywhere ({len(found)})", same))
    return table


def _beside(fact: dict[str, float]) -> tuple[float, float, float]:
    return fact["eigenvalues"], fact["error"], fact["graph"]


# --- in a process of its own --------------------------------------------------------------------------------------

# Groups of tasks, by the part of the work they are.
PARTS = {"exact": "graph", "count": "rows", "lay": "rows", "rows": "rows"}


class Clock(Progress):
    """Seconds from the start of each group of tasks to the next."""

    def __init__(self) -> None:
        self.since, self.part = time.perf_counter(), "graph"
        self.seconds: dict[str, float] = {}

    def begin(self, stage: str, title: str, total: int, done: int) -> None:
        now = time.perf_counter()
        self.seconds[self.part] = self.seconds.get(self.part, 0.0) + now - self.since
        self.since, self.part = now, PARTS.get(title, "steps")


def stage(url: str, n: int, place: str, workers: int, steps: int, probes: int, memory: int | None) -> dict[str, Any]:
    """Run the stage on a graph; what it found and what it took."""
    if n < min(NODES) / 10:  # as many blocks as a large graph has, and its arithmetic
        rows.NONZEROS, rows.SINGLE = 2**16, 2**16
    values = {"method": "similarity", "spectrum.steps": steps, "spectrum.probes": probes}
    settings, clock = resolve([("giant", values)]), Clock()
    where = open_place(place, workers=workers, memory=memory)
    try:
        engine = Engine(where, Run(url), progress=clock)
        context = Context(engine.run, engine, settings, {}, Size(n, 32, 32, 3, 3072, 2, 4096, n, 0))
        facts = STAGE.run(context)
    finally:
        where.close()
    clock.begin("", "", 0, 0)
    (key,) = [name for name in engine.run.marked("spectrum") if name.startswith("bounds-")]
    bounds = tuple(engine.run.marker("spectrum", key)["bounds"])
    whole = rows.Rows(key.removeprefix("bounds-"), n, "", bounds)
    density, ends = courses_of(whole, settings.spectrum)
    nonzeros = 2 * facts["edges"] + n
    entry = engine.run.load("partial", "spectrum", f"rows-{whole.giant}-00000-data.npy").itemsize + 4
    return {
        "facts": facts,
        "seconds": clock.seconds,
        "tasks": engine.computed["spectrum"],
        "driver": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "passes": density.steps + ends.steps,
        "blocks": whole.blocks,
        "bytes": nonzeros * entry,
        "products": nonzeros * (density.steps * density.probes + ends.steps * ends.probes),
    }


if __name__ == "__main__":
    url, n, place, workers, steps, probes, *memory = sys.argv[1:]
    most = int(memory[0]) if memory else None
    print(json.dumps(stage(url, int(n), place, int(workers), int(steps), int(probes), most)))
