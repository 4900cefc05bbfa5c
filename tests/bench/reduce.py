"""The whole job, `python -m daskim.jobs.reduce`, in processes of its own: seconds, CPU use and memory by stage."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.bench import Options
from tests.bench.jobs import Done, Job, once, warm
from tests.bench.measured import Measured
from tests.bench.sources import TRAIN, Lake, cifar10, photo_folder, synthetic
from tests.bench.table import Table, Target
from tests.bench.watch import cores

BOTH = 60_000
SMALL = {"cifar10": 1000, "photos": 600, "lake": 1000}
JOBS = ("wavelet", "processes", "few", "similarity")
# What is aimed at on two cores, from CIFAR-10 in Parquet; memory in GB.
CORES = 2
WAVELET, SIMILARITY, MEMORY, USE = 25.0, 60.0, 2.0, 85.0
# Of the judged images that have a twin, those that were found, and the precision, before anything was made faster.
RECALL, PRECISION = 0.885, 0.96


def add_options(group: _ArgumentGroup) -> None:
    group.add_argument(
        "--source",
        nargs="+",
        choices=("cifar10", "photos", "lake"),
        default=["cifar10", "photos"],
        help="[cifar10 photos] lake: synthetic, of any --n, written first",
    )
    group.add_argument(
        "--jobs",
        nargs="+",
        choices=JOBS,
        default=["wavelet", "processes", "similarity"],
        help="[wavelet processes similarity] by wavelet with 0.94 n clusters, the same with 2 processes and columns "
        "by tsqr, with n / 100 clusters (few), by similarity",
    )
    group.add_argument("--lake-format", choices=("parquet", "tar"), default="parquet", help="[parquet]")
    group.add_argument("--lake-folder", type=Path, metavar="FOLDER", help="write the lake there and keep it [$TMPDIR]")


def job(name: str, n: int) -> Job:
    """A job of n images; of 50,000 it has 47,000 or 500 clusters."""
    near, few = max(2, round(0.94 * n)), max(2, n // 100)
    asked = ["--set", f"clusters.n_clusters={near}"]
    processes = ["--cluster", "local", "--workers", "2", "--set", "columns.method=tsqr"]
    return {
        "wavelet": Job(f"wavelet, {near:,} clusters", n, asked),
        "processes": Job(f"wavelet, {near:,} clusters, 2 processes, tsqr", n, [*asked, *processes]),
        "few": Job(f"wavelet, {few:,} clusters", n, ["--set", f"clusters.n_clusters={few}"]),
        "similarity": Job("similarity", n, ["--method", "similarity"]),
    }[name]


def opened(source: str, n: int | None, more: Namespace) -> AbstractContextManager[Lake]:
    """The images of a source: n of them, or as many as it has by default."""
    if source == "cifar10":
        return cifar10(n or TRAIN)
    if source == "photos":
        return photo_folder(n)
    return synthetic(n or TRAIN, more.lake_format, more.lake_folder)


def run(options: Options) -> Iterator[Table]:
    warm()
    for source in options.more.source:
        n = SMALL[source] if options.small else options.n
        sizes = {one: BOTH if n is None and (source, one) == ("cifar10", "similarity") else n for one in JOBS}
        rounds: dict[str, list[Done]] = {one: [] for one in options.more.jobs}
        with ExitStack() as stack:
            asked = {sizes[one] for one in rounds}
            lakes = {size: stack.enter_context(opened(source, size, options.more)) for size in asked}
            for _ in range(options.repeat):
                for one, runs in rounds.items():
                    lake = lakes[sizes[one]]
                    runs.append(once(job(one, lake.n), lake))
        name = next(iter(lakes.values())).name
        yield ends(name, rounds, options)
        yield stages(name, rounds, options)
        yield outcome(name, rounds, options)


def facts(source: str, rounds: dict[str, list[Done]], options: Options) -> dict[str, object]:
    runs = [done for runs in rounds.values() for done in runs]
    size = runs[0].summary["size"]
    told = {"data": source, "n": " and ".join(f"{n:,}" for n in sorted({done.job.n for done in runs}))}
    return {**told, "d": size["columns"], "block rows": size["rows"], "rounds": options.repeat}


def ends(source: str, rounds: dict[str, list[Done]], options: Options) -> Table:
    """From the start of the process to its exit."""
    table = Table(
        f"reduce, {source}: from start to exit",
        facts(source, rounds, options),
        ["job", "n", "seconds", "before the first stage, seconds", "after the last, seconds", "CPU seconds"],
    )
    table.columns += ["CPU use, %", "CPU use in stages, %", "peak MB, process tree", "images/s"]
    for runs in rounds.values():
        walls = Measured([done.watched.wall for done in runs])
        cells = [Measured([value(done) for done in runs]) for value in ENDS]
        row = [runs[0].job.name, runs[0].job.n, walls, *cells]
        table.rows.append([*row, Measured([done.job.n / done.watched.wall for done in runs])])
    table.targets += targets(rounds)
    return table


ENDS: tuple[Callable[[Done], float], ...] = (
    lambda done: done.first - done.watched.samples[0].at,
    lambda done: done.watched.samples[-1].at - done.last,
    lambda done: done.watched.cpu,
    lambda done: 100 * done.watched.use,
    lambda done: 100 * done.use_in_stages,
    lambda done: done.watched.peak / 1e6,
)


def targets(rounds: dict[str, list[Done]]) -> Iterator[Target]:
    """What is aimed at; judged only on the data and the number of cores that it is said of."""
    for name, full, limit in (("wavelet", TRAIN, WAVELET), ("similarity", BOTH, SIMILARITY)):
        runs = rounds.get(name, [])
        if not runs or not runs[0].lake.name.startswith("cifar10"):
            continue
        why = ""
        if runs[0].job.n != full:
            why = f"asked of n = {full:,}"
        elif cores() != CORES:
            why = f"asked of {CORES} cores, here are {cores()}"
        wall = Measured([done.watched.wall for done in runs])
        use = Measured([100 * done.use_in_stages for done in runs])
        peak = Measured([done.watched.peak / 1e9 for done in runs])
        yield Target(f"{name}, start to exit", float(wall), limit, unit="s", unjudged=why)
        yield Target(f"{name}, CPU use in stages", float(use), USE, least=True, unit="%", unjudged=why)
        if name == "wavelet":
            yield Target(f"{name}, peak memory", float(peak), MEMORY, unit="GB", unjudged=why)
        elif runs[-1].scored is not None:
            told = runs[-1].scored.all
            yield Target("similarity, recall of judged images", told.recall, RECALL, least=True, unjudged=why)
            yield Target("similarity, precision", told.precision, PRECISION, least=True, unjudged=why)


def stages(source: str, rounds: dict[str, list[Done]], options: Options) -> Table:
    table = Table(
        f"reduce, {source}: by stage",
        facts(source, rounds, options),
        ["job", "stage", "seconds", "CPU seconds", "CPU use, %", "peak MB, process tree"],
    )
    for runs in rounds.values():
        for name in runs[0].spans:
            spans = [done.spans[name] for done in runs]
            seconds = Measured([span.seconds for span in spans])
            cpu = Measured([span.cpu for span in spans])
            use = 100 * sum(span.cpu for span in spans) / max(1e-9, cores() * sum(span.seconds for span in spans))
            peak = Measured([span.peak / 1e6 for span in spans])
            table.rows.append([runs[0].job.name, name, seconds, cpu, use, peak])
    return table


def outcome(source: str, rounds: dict[str, list[Done]], options: Options) -> Table:
    """What was found, which no change of speed may change."""
    table = Table(
        f"reduce, {source}: outcome",
        facts(source, rounds, options),
        ["job", "m", "cond", "columns by", "clusters", "regime", "compared", "pairs", "recall", "precision"],
    )
    table.columns += ["dropped", "influential", "plan"]
    for name, runs in rounds.items():
        last = runs[-1].summary
        by, pairs, told = last["columns"] or {}, last.get("similarities") or {}, runs[-1].scored
        row = [runs[0].job.name, by.get("m"), by.get("cond"), by.get("method"), last["n_clusters"]]
        row += [last["clusters"]["regime"], pairs.get("compared"), pairs.get("near")]
        row += (
            [None, None]
            if told is None
            else [told.all.recall, told.all.precision if source == "cifar10_jpeg" else None]
        )
        table.rows.append([*row, last["n_drop"], last["n_influential"], last["plan_hash"][:12]])
        same = len({done.summary["plan_hash"] for done in runs}) == 1
        table.checks.append((f"{runs[0].job.name}: the same plan in every round ({len(runs)})", same))
        if name != "similarity":
            asked = last["clusters"]["n_clusters_asked"]
            table.checks.append((f"{runs[0].job.name}: exactly {asked:,} clusters", last["n_clusters"] == asked))
    if {"wavelet", "processes"} <= set(rounds):
        one, two = (rounds[name][-1].summary for name in ("wavelet", "processes"))
        table.checks.append(("the same m by both column methods", one["columns"]["m"] == two["columns"]["m"]))
        table.checks.append(("the same plan by threads and processes", one["plan_hash"] == two["plan_hash"]))
    if any(done.scored for runs in rounds.values() for done in runs):
        real = source == "cifar10_jpeg"
        table.facts["recall"] = "test images with a twin in train, as judged" if real else "planted edits"
    return table
