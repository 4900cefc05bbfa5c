"""One run of `reduce` in a process of its own, with what each stage took of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from daskim.kernels.neighbours import squared_distances
from daskim.kernels.ward import COMPILED, ward_merges
from daskim.results import FinishedRun, open_run
from daskim.synthetic import write_lake
from tests.bench.sources import Lake
from tests.bench.truth import Scored, score
from tests.bench.watch import Watched, cores, watched

__all__ = ["Done", "Job", "JobFailed", "Span", "command", "near_pairs", "once", "warm"]


class JobFailed(SystemExit):
    """A job ended with an error; the text tells it."""


@dataclass(frozen=True)
class Job:
    """Name, number of images, and words of the command besides inputs and run."""

    name: str
    n: int
    words: Sequence[str]


@dataclass(frozen=True)
class Span:
    """What a stage took: seconds, CPU seconds of the process tree, and bytes at most."""

    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Done:
    """A finished run.

    Attributes
    ----------
    spans : dict of str to Span
        By stage, in their order.
    first, last : float
        When the first stage began and the last one ended, in seconds since the epoch.
    pairs : int or None
        How many pairs of images it says are alike, where that was asked.
    scored : Scored or None
        Against the pairs that are known of the lake.
    """

    job: Job
    lake: Lake
    summary: dict[str, Any]
    watched: Watched
    spans: dict[str, Span]
    first: float
    last: float
    pairs: int | None = None
    scored: Scored | None = None

    @property
    def use_in_stages(self) -> float:
        """Share of the cores' time that was used between the first stage's start and the last one's end."""
        cpu, _ = self.watched.between(self.first, self.last)
        return cpu / (cores() * (self.last - self.first))


def command(inputs: Sequence[str], run: Path, words: Sequence[str]) -> list[str]:
    """The command of a job, without progress and report."""
    return [sys.executable, "-m", "daskim.jobs.reduce", *inputs, "--run", str(run), "--quiet", "--no-report", *words]


@lru_cache(maxsize=1)
def warm() -> None:
    """Have every kernel of the jobs compiled and kept: the compiler's time is no stage's."""
    rows = np.random.default_rng(0).integers(0, 255, (400, 64)).astype(np.int16)
    a, b = np.triu_indices(len(rows), 1)
    if len(a) < COMPILED:
        raise AssertionError("too few pairs for the compiled form")
    ward_merges(rows, np.ones(len(rows)), a, b, squared_distances(rows, rows, a, b), float("inf"))
    with TemporaryDirectory() as folder:
        lake = write_lake(Path(folder) / "lake", 2000, shard=2000)
        for method in ("wavelet", "similarity"):
            seen = watched(command(lake.files, Path(folder) / method, ["--method", method]))
            if seen.code:
                raise JobFailed(f"reduce ended with code {seen.code}:\n{seen.err}")


def once(job: Job, lake: Lake, *, count: bool = False) -> Done:
    """Run a job in a temporary folder ($TMPDIR); count its pairs, and score them where the lake has a truth."""
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        seen = watched(command(lake.inputs, run, [*job.words, "--limit", str(job.n)]))
        if seen.code:
            raise JobFailed(f"reduce ended with code {seen.code}:\n{seen.err}")
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        times = {name: _times(run / "state" / name) for name in summary["seconds"]}
        spans = {
            name: Span(summary["seconds"][name], *seen.between(start, end)) for name, (start, end) in times.items()
        }
        first, last = min(start for start, _ in times.values()), max(end for _, end in times.values())
        pairs, scored = None, None
        if count or lake.truth is not None:
            ids, *found = near_pairs(open_run(run))
            pairs, scored = int(found[0].size), None if lake.truth is None else score(ids, *found, lake.truth)
    return Done(job, lake, summary, seen, spans, first, last, pairs, scored)


def _times(state: Path) -> tuple[float, float]:
    """When a stage began and ended, by the files that it writes then."""
    return (state / "stage.json").stat().st_mtime, (state / "sealed.json").stat().st_mtime


def near_pairs(found: FinishedRun) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """What a run says is alike: ids, and pairs a, b (places in ids) with a score.

    Method similarity lists pairs at or above min_similarity; method wavelet puts images in one cluster, and every two
    of a cluster are a pair, scored 1.
    """
    images = found.table("images", ["row", "id"]).sort_values("row")
    ids, rows = images["id"].tolist(), images["row"].to_numpy()
    if found.has("pairs") and "similarities" in found.summary:
        pairs = found.pairs[found.pairs["similarity"] >= found.summary["similarities"]["min_similarity"]]
        a, b = (np.searchsorted(rows, pairs[name].to_numpy()) for name in ("a", "b"))
        return ids, a, b, pairs["similarity"].to_numpy(dtype=np.float64)
    table = found.clusters
    table = table[(table["cluster"] >= 0) & table["cluster"].duplicated(keep=False)].sort_values(["cluster", "row"])
    sides: tuple[list[int], list[int]] = ([], [])
    for _, group in table.groupby("cluster")["row"]:
        members = np.searchsorted(rows, group.to_numpy())
        for side, at in zip(sides, np.triu_indices(members.size, 1)):
            side.extend(members[at].tolist())
    a, b = (np.array(side, dtype=np.int64) for side in sides)
    return ids, a, b, np.ones(a.size)
