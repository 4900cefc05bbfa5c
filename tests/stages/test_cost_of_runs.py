"""What --plan counts holds for runs: tasks at most so many, calls that are small, whatever the number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import daskim
from daskim.compute.threads import Threads
from daskim.cost import work_of
from daskim.pipeline import settled, size_of, stages_of
from daskim.resolve import from_toml, resolve
from daskim.stages import Size
from daskim.stages.index import block_rows
from daskim.store import Run

METHODS = ("wavelet", "similarity")
# Bytes of one call at most: a graph of one block, settings, the run, at most the directions of a projection (43 kB, for
# any n). The pixels of a block are more.
CALL, ROWS = 100_000, 200


class Weighed(Threads):
    """Threads that weigh what would go to a worker."""

    def __init__(self) -> None:
        super().__init__(2, 10**10)
        self.heaviest: dict[str, int] = {}

    def unordered(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any, BaseException | None]]:
        def weighed() -> Iterator[tuple[Any, ...]]:
            for call in calls:
                name = f"{call[1]} {call[2].rpartition('-')[0]}"  # stage and group
                self.heaviest[name] = max(self.heaviest.get(name, 0), len(cloudpickle.dumps((function, call))))
                yield call

        return super().unordered(function, weighed())


def settings_of(method: str, rows: int) -> dict[str, Any]:
    values: dict[str, Any] = {"method": method, "blocks.rows": rows}
    return {**values, "clusters.n_clusters": 0.9} if method == "wavelet" else values


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_tasks_are_no_more_than_counted_and_calls_are_small(method: str, planted: Any, tmp_path: Path) -> None:
    source, _ = planted(1_200, 16, redundancy=0.2, seed=5)
    place = Weighed()
    try:
        daskim.reduce(source, run=tmp_path / "run", settings=settings_of(method, ROWS), cluster=place)
    finally:
        place.close()
    run = Run(str(tmp_path / "run"))
    settings = from_toml(run.read("settings.toml").decode(), "settings.toml")
    facts = run.facts("index")
    settings, size = settled(settings, facts), size_of(settings, facts)
    for stage in stages_of(settings):
        seal = run.read_json("state", stage.name, "sealed.json")
        assert seal is not None
        most = work_of(stage.name, size, settings, stage.need(size, settings, 2)).tasks
        assert seal["blocks"] <= most, stage.name
        assert seal["cpu_seconds"] >= 0
    heavy = {name: weight for name, weight in place.heaviest.items() if weight > CALL}
    assert not heavy, f"bytes of the heaviest call: {heavy}"


def size_at(n: int, method: str) -> tuple[Any, Size]:
    clusters = 0.94 if method == "wavelet" else "auto"
    settings = resolve([("test", {"source.inputs": ("x",), "method": method, "clusters.n_clusters": clusters})])
    facts: dict[str, Any] = {"n": n, "height": 32, "width": 32, "channels": 3, "bytes": 110_000 * n, "splits": {}}
    facts["rows"] = block_rows(settings, n, (32, 32, 3))
    return settled(settings, facts), size_of(settings, facts)


@pytest.mark.parametrize("method", METHODS)
def test_five_million_images_take_less_than_200_000_tasks(method: str) -> None:
    settings, size = size_at(5_000_000, method)
    counts = {s.name: work_of(s.name, size, settings, s.need(size, settings, 100)).tasks for s in stages_of(settings)}
    assert 1_000 < sum(counts.values()) < 200_000, counts


@pytest.mark.parametrize("method", METHODS)
def test_tasks_of_an_image_are_bounded(method: str) -> None:
    shares = []
    for n in (100_000, 400_000, 1_600_000, 6_400_000):
        settings, size = size_at(n, method)
        works = [work_of(s.name, size, settings, s.need(size, settings, 100)) for s in stages_of(settings)]
        assert all(value >= 0 for work in works for value in {**work.alone, **work.shared}.values())
        shares.append(sum(work.tasks for work in works) / n)
    assert max(shares) < 0.03, shares
