"""What a run costs before it is run: tasks, flops, bytes, hours and money, from counts of work and rates measured.

Each stage is counted in a few amounts, such as images, coefficients or flops; a rate is the processor seconds that one
of them takes on one core. `seconds of a stage = what the driver does alone + what the workers share / (workers x
busy) + bytes moved / (workers x bandwidth)`, and no less than the scheduler needs for the tasks. The rates in
`rates.json`, beside this file, are of one core of an AMD EPYC with AVX2: `python -m tests.bench calibrate` measures
those of another machine, and `--rates FILE` takes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daskim.errors import SettingsError, SourceError, nearest
from daskim.kernels.coarse import width
from daskim.scatter import rows_read
from daskim.settings import Settings
from daskim.stages import Need, Size
from daskim.stages.clusters import choose_regime
from daskim.stages.clusters.cells import cell_tasks, compared_in_cells
from daskim.stages.clusters.join import MANY, tile_rows
from daskim.stages.clusters.lloyd import is_checked
from daskim.stages.clusters.points import GROUP

__all__ = ["RATES", "Estimate", "Prices", "Work", "estimate", "rates_of", "total", "work_of"]

# Seconds of one core for one of each, and two numbers of another kind: `busy`, the share of its time that a worker
# computes, and `scheduler task`, the seconds that a Dask scheduler needs for a task, whatever the workers.
RATES: dict[str, float] = json.loads(Path(__file__).with_name("rates.json").read_text(encoding="utf-8"))["rates"]
# Coefficients at which `columns once` was measured: the factor and its condition numbers take d^3.
COLUMNS = 3072
# Pairs that a search finds for each image, of the neighbours that it may keep: measured on CIFAR-10.
FOUND = 0.5
# Comparisons of all rows with all centres in a check by Lloyd steps: one step at least, and its labels; the fewer the
# clusters, the more steps (CIFAR-10, 10,000 images: 1 of 9,400 clusters, 4 of 5,000, 7 of 500).
LLOYD = 4


@dataclass(frozen=True)
class Work:
    """What a stage does.

    Attributes
    ----------
    tasks : int
        Calls that go through the scheduler, at most, where nothing has to be done twice.
    flops : float
        Of matrix products and transforms.
    alone, shared : mapping
        Amounts by the name of their rate: of the process that orders the work, and of the workers together.
    """

    tasks: int
    flops: float = 0.0
    alone: Mapping[str, float] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Prices:
    """What is asked for: workers, whether a scheduler stands between, bytes a second of each worker, price of its hour.

    Attributes
    ----------
    bandwidth : float, optional
        Bytes a second between a worker and where images and run are; without it what a local disk gave when the rates
        were measured, which is in the rates.
    hour : float, optional
        Money for one worker and hour.
    """

    workers: int
    scheduler: bool = False
    bandwidth: float | None = None
    hour: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a stage, or a run, is expected to take.

    Attributes
    ----------
    tasks : int
    flops : float
    bytes : int
        Read and written.
    core_seconds : float
        Of all processors together, at work.
    seconds : float
        By the clock.
    money : float or None
        For the workers, for that long.
    """

    tasks: int
    flops: float
    bytes: int
    core_seconds: float
    seconds: float
    money: float | None


def rates_of(text: str | None, origin: str = "--rates") -> dict[str, float]:
    """The rates, with those that a JSON text gives in place of the built-in ones.

    Raises
    ------
    SettingsError
        A rate that there is not, or that is no positive number.
    """
    if text is None:
        return dict(RATES)
    try:
        given = dict(json.loads(text)["rates"])
    except (ValueError, KeyError, TypeError):
        raise SourceError(
            f"{origin}: no JSON object with `rates`", "python -m tests.bench calibrate writes one."
        ) from None
    for name, value in given.items():
        if name not in RATES:
            raise SettingsError(f"{origin}: there is no rate {name!r}", nearest(name, RATES))
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise SettingsError(f"{origin}: rate {name!r} is {value!r}", "A rate is a number of seconds.")
    return {**RATES, **given}


def estimate(work: Work, need: Need, prices: Prices, rates: Mapping[str, float]) -> Estimate:
    """What one stage is expected to take."""
    alone = sum(amount * rates[name] for name, amount in work.alone.items())
    shared = sum(amount * rates[name] for name, amount in work.shared.items())
    moved = need.read + need.write
    seconds = shared / (prices.workers * rates["busy"])
    if prices.bandwidth is not None:
        seconds += moved / (prices.workers * prices.bandwidth)
    if prices.scheduler:
        seconds = max(seconds, work.tasks * rates["scheduler task"])
    seconds += alone
    money = None if prices.hour is None else seconds / 3600 * prices.workers * prices.hour
    return Estimate(work.tasks, work.flops, moved, alone + shared, seconds, money)


def total(parts: list[Estimate]) -> Estimate:
    """All stages together, which run one after another."""
    paid = [part.money for part in parts if part.money is not None]
    return Estimate(
        sum(part.tasks for part in parts),
        sum(part.flops for part in parts),
        sum(part.bytes for part in parts),
        sum(part.core_seconds for part in parts),
        sum(part.seconds for part in parts),
        sum(paid) if paid else None,
    )


def work_of(stage: str, size: Size, settings: Settings, need: Need) -> Work:
    """The work of a stage of that name."""
    return _WORK[stage](size, settings, need)


def _alone(stage: str, tasks: int = 0) -> Callable[[Size, Settings, Need], Work]:
    """A stage whose work grows as the images do, mostly in one process."""

    def work(size: Size, settings: Settings, need: Need) -> Work:
        return Work(tasks or need.blocks, alone={f"{stage} once": 1, f"{stage} image": size.n})

    return work


def _images(size: Size, settings: Settings, need: Need) -> Work:
    # the bytes of a small file are in the rate of an image
    more = max(0, size.bytes - 2_000 * size.n)
    return Work(size.blocks, 0.0, {"images once": 1}, {"images image": size.n, "images byte": more})


def _wavelets(size: Size, settings: Settings, need: Need) -> Work:
    values = size.n * size.columns
    return Work(size.blocks, 4.0 * values, {"wavelets once": 1}, {"wavelets value": values})


def _columns(size: Size, settings: Settings, need: Need) -> Work:
    d = size.columns
    tree = need.blocks + sum(-(-need.blocks // 8**level) for level in range(1, 8) if need.blocks > 8 ** (level - 1))
    flops = float(size.n) * d * d
    return Work(tree, flops + 2.0 * d**3, {"columns once": (d / COLUMNS) ** 3}, {"columns flop": flops})


def _clusters(size: Size, settings: Settings, need: Need) -> Work:
    n, d, k = size.n, size.columns, settings.clusters.directions + 1
    regime, _ = choose_regime(settings, n, size.n_clusters)
    groups = -(-n // GROUP)
    if regime == "join":
        tiles = -(-n // tile_rows(n))
        # features, sample, tiles (features read for them), pairs of tiles near one another; then rows read for
        # components and for centres, and these
        reads = -(-n // rows_read(4 * k)), 2 * -(-n // rows_read(d * size.itemsize))
        tasks = need.blocks + -(-n // 4096) + tiles + tiles * (tiles + 1) // 2 + sum(reads) + 2 * groups + 8
        # of more than MANY images the pairs within the radius are bounded by an image, and so are the rows compared
        flops = 2.0 * n * d * k + float(n) * min(n, MANY) * k / 4
    else:
        read = rows_read(d * size.itemsize)
        tasks, compared = need.blocks + groups + -(-n // read) + 8, float(size.n_clusters)
        if regime == "cells":
            # rows of the cells, each in several, and of their components; then these
            tasks += -(-n * settings.clusters.probes // read) + -(-n // read) + groups
            tasks += cell_tasks(n, d * size.itemsize, settings.clusters)
            compared = compared_in_cells(n, settings.clusters)
        flops = 2.0 * n * d * (k + compared)
    if regime != "kmeans" and is_checked(n, size.n_clusters, d, settings.clusters):
        flops += 2.0 * n * size.n_clusters * d * LLOYD
    return Work(tasks, flops, {"clusters once": 1}, {"clusters image": n, "clusters flop": flops})


def _candidates(size: Size, settings: Settings, need: Need) -> Work:
    n, asked = size.n, settings.candidates
    if asked.method == "all":
        return Work(1, 0.0, {"candidates once": 1}, {"candidates image": n})
    forms = (1 + len(asked.crops)) * (2 if asked.mirror else 1)
    k = min(asked.directions, width(size.channels))
    cells = asked.cells or max(1, round(n**0.5))
    compared = float(n) if n <= asked.all_blocks else float(n) * asked.probes / cells
    flops = 2.0 * n * compared * forms * k
    lookups = 3 * -(-n // 2048) + size.blocks  # coarse features, cells, nearest; signatures
    return Work(lookups + 64, flops, {"candidates once": 1}, {"candidates image": n, "candidates flop": flops})


def _similarities(size: Size, settings: Settings, need: Need) -> Work:
    if settings.candidates.method == "all":
        pairs = float(size.possible)
    else:
        pairs = min(FOUND * size.n * settings.candidates.neighbours, float(size.possible))
    values = min(pairs, float(settings.candidates.most_pairs(size.n))) * size.pixels
    return Work(need.blocks + 64, 60.0 * values, {"similarities once": 1}, {"similarities value": values})


_WORK: dict[str, Callable[[Size, Settings, Need], Work]] = {
    "index": _alone("index", 1),
    "images": _images,
    "exact": _alone("exact"),
    "wavelets": _wavelets,
    "columns": _columns,
    "clusters": _clusters,
    "candidates": _candidates,
    "similarities": _similarities,
    "spectrum": _alone("spectrum"),
    "spectral": _alone("spectral"),
    "anomalies": _alone("anomalies"),
    "leakage": _alone("leakage"),
    "plan": _alone("plan"),
}
