"""From a million images to a billion, on paper: what today's stages would take by the model of `--plan`, what breaks
first, and what the forms that would replace them take by the same rates.

Nothing is run. Rates are the built-in ones, or those of `--rates`.
"""

from __future__ import annotations

from argparse import _ArgumentGroup
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from daskim.cost import Prices, Work, estimate, rates_of, work_of
from daskim.pipeline import IDLE, stages_of
from daskim.resolve import resolve
from daskim.settings import Settings
from daskim.stages import Need, Size, Stage
from tests.bench import Options
from tests.bench.scheduler import size_at
from tests.bench.table import Table

__all__ = ["first_broken"]

SIZES = (1_281_167, 4_132_914, 100_000_000, 1_000_000_000)
BYTES = 110_000  # of a file
WORKERS, BANDWIDTH = 1000, 100e6
# What a driver, and a worker, may hold; and how long one stage may take.
DRIVER, WORKER, DAY = 32e9, 16e9, 86_400.0
N = 1_000_000_000


@dataclass(frozen=True)
class _Look:
    """A stage at some size."""

    need: Need
    work: Work
    seconds: float
    core_seconds: float
    scheduling: float


def add_options(group: _ArgumentGroup) -> None:
    group.add_argument("--rates", type=Path, metavar="FILE", help="of `calibrate`, in place of the built-in rates")


def run(options: Options) -> Iterator[Table]:
    path = getattr(options.more, "rates", None)
    rates = rates_of(None if path is None else path.read_text(encoding="utf-8"))
    for method in ("wavelet", "similarity"):
        yield today(method, rates)
    yield replaced(rates)


def _settings(method: str) -> Settings:
    number: float | str = 0.94 if method == "wavelet" else "auto"
    return resolve([("bench", {"source.inputs": ("made",), "method": method, "clusters.n_clusters": number})])


def _look(stage: Stage, settings: Settings, size: Size, rates: dict[str, float]) -> _Look:
    need = stage.need(size, settings, WORKERS)
    work = work_of(stage.name, size, settings, need)
    found = estimate(work, need, Prices(WORKERS, scheduler=True, bandwidth=BANDWIDTH), rates)
    return _Look(need, work, found.seconds, found.core_seconds, work.tasks * rates["scheduler task"])


_LIMITS: dict[str, Callable[[_Look], bool]] = {
    "driver memory": lambda look: IDLE + look.need.driver > DRIVER,
    "worker memory": lambda look: IDLE + look.need.process + look.need.task > WORKER,
    "scheduler": lambda look: look.scheduling > DAY,
    "time": lambda look: look.seconds > DAY,
}


def first_broken(look: Callable[[int], _Look], most: int = 10 * N) -> tuple[int, str] | None:
    """The number of images, to two digits, at which a stage first breaks a limit, and which."""
    low, high = 1_000_000, most
    if not any(limit(look(high)) for limit in _LIMITS.values()):
        return None
    while high > low * 1.02:
        middle = round((low * high) ** 0.5)
        low, high = (low, middle) if any(limit(look(middle)) for limit in _LIMITS.values()) else (middle, high)
    found = look(high)
    digits = 10 ** (len(str(high)) - 2)
    return round(high / digits) * digits, ", ".join(name for name, limit in _LIMITS.items() if limit(found))


def today(method: str, rates: dict[str, float]) -> Table:
    """The stages as they are."""
    table = Table(
        f"horizon: method {method} as it is, {N:,} images",
        {
            "workers": WORKERS,
            "MB/s of one": BANDWIDTH / 1e6,
            "kB of a file": BYTES / 1e3,
            "limits": f"driver {DRIVER / 1e9:.0f} GB, worker {WORKER / 1e9:.0f} GB, a day a stage",
        },
        ["stage", "tasks", "core hours", "hours", "TB moved", "driver GB", "worker GB", "breaks at n", "for"],
    )
    settings = _settings(method)

    def at(n: int, name: str) -> _Look:
        known, size = size_at(n, BYTES, settings)
        return _look(next(stage for stage in stages_of(known) if stage.name == name), known, size, rates)

    for stage in stages_of(size_at(N, BYTES, settings)[0]):
        look = at(N, stage.name)
        broken = first_broken(lambda n, name=stage.name: at(n, name))  # type: ignore[misc]
        need = look.need
        row = [
            stage.name,
            look.work.tasks,
            look.core_seconds / 3600,
            look.seconds / 3600,
            (need.read + need.write) / 1e12,
        ]
        row += [(IDLE + need.driver) / 1e9, (IDLE + need.process + need.task) / 1e9]
        table.rows.append([*row, *(broken or (None, "nothing up to 10 billion"))])
    return table


def replaced(rates: dict[str, float]) -> Table:
    """The forms that would take their place, by what is measured of their parts."""
    pair, compare, signature = 2.2e-9, 27e-6, 38e-6  # s: a pair of the exact join, of `aligned` to its end, an image
    cell, probes, candidates, bands, forms = 100_000, 3, 25, 17, 2
    sample = 10_000_000
    d = 3072
    table = Table(
        f"horizon: what would replace it, {N:,} images",
        {"images of a cell": cell, "cells looked up": probes, "candidates an image": candidates, "bands": bands},
        ["what", "instead of", "core hours", "TB moved", "largest in memory, GB"],
    )
    table.rows = [
        ["listing in parts, one prefix a task", "one table in the driver", N * rates["index image"] / 3600, 0.2, 0.08],
        ["exact copies by parts of the digest", "one group-by", N * rates["exact image"] / 3600, N * 80 / 1e12, 0.04],
        [
            f"Gram sum of {sample:,} images",
            "of all",
            sample * d * d * rates["columns flop"] / 3600,
            sample * d / 1e12,
            0.4,
        ],
        [
            "join inside cells, by their rows in order",
            "of all pairs",
            N * cell * probes / 2 * pair / 3600,
            4 * N * 560 / 1e12,
            0.3,
        ],
        [
            "each band by parts of its key",
            "one sort a band",
            N * signature / 3600,
            2 * bands * forms * N * 16 / 1e12,
            0.06,
        ],
        [
            "pairs compared where their cell lies",
            "copies in one order",
            N * candidates * compare / 3600,
            probes * N * d / 1e12,
            0.7,
        ],
        [
            "components merged in a tree of 1,024",
            "in the driver",
            N * candidates * 50e-9 / 3600,
            2 * N * 16 / 1e12,
            1.6,
        ],
        ["plan by parts of components", "one table", N * rates["plan image"] / 3600, N * 600 / 1e12, 1.2],
    ]
    return table
