"""CleanVision, fastdup and imagededup on the same images as daskim: time, memory, recall and precision.

Each peer has an environment of its own, and runs by a small script in `peer/` on a folder of JPEG files; daskim reads
the same files, and the Parquet files that they come from. fastdup's reports to its makers are switched off.
"""

from __future__ import annotations

import json
import os
from argparse import _ArgumentGroup
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.bench import Options
from tests.bench.environments import PEERS, Unavailable, python_of
from tests.bench.hamming import by_distance
from tests.bench.jobs import JobFailed, once, warm
from tests.bench.measured import Measured
from tests.bench.reduce import BOTH, CORES, job
from tests.bench.sources import TRAIN, Lake, cifar10, written
from tests.bench.table import Table, Target
from tests.bench.truth import Figures, Judged, Scored, score
from tests.bench.watch import Watched, cores, watched

HASHES = ("PHash", "DHash", "AHash", "WHash")
DISTANCE, DISTANCES = 10, (0, 1, 2, 3, 4, 10)  # the default, and those that are scored
THRESHOLD = 0.9  # fastdup's default
OURS = ("daskim wavelet, Parquet", "daskim wavelet, files", "daskim similarity, Parquet", "daskim similarity, files")
THEIRS = ("cleanvision", "fastdup", *(f"imagededup {name}" for name in HASHES))
TRAIN_ONLY = ("daskim wavelet, Parquet", "daskim wavelet, files", "cleanvision", "fastdup")
UNSCORED = ("cleanvision", *OURS[:2])  # they say which images belong together, not how alike two are
AGAINST_CLEANVISION, AGAINST_FASTDUP = 1 / 3, 1 / 12


def add_options(group: _ArgumentGroup) -> None:
    group.add_argument("--peers", type=Path, metavar="FOLDER", help="where the peers' environments are made and kept")
    group.add_argument("--contenders", nargs="+", choices=(*OURS, *THEIRS), default=[*OURS, *THEIRS], metavar="NAME",
                       help=f"[all] some of: {', '.join((*OURS, *THEIRS))}")  # fmt: skip
    group.add_argument("--tables", nargs="+", choices=("train", "pairs"), default=["train", "pairs"],
                       help="[train pairs] the targets on train; recall of pairs between test and train")  # fmt: skip
    group.add_argument("--most-seconds", type=float, default=3600, metavar="S", help="[3600] for each peer")
    group.add_argument("--most-search", type=float, default=600, metavar="S",
                       help="[600] for imagededup, whose search steps through all pairs in Python")  # fmt: skip
    group.add_argument("--most-gb", type=float, default=12, metavar="GB", help="[12] memory of each peer")


@dataclass
class Runs:
    """The rounds of one contender.

    Attributes
    ----------
    note : str
        Why there are no figures, or what to know of them.
    """

    watched: list[Watched] = field(default_factory=list)
    pairs: int | None = None
    scored: Scored | None = None
    hashed: list[tuple[int, int, Figures]] = field(default_factory=list)
    own_pairs: int | None = None
    note: str = ""


def run(options: Options) -> Iterator[Table]:
    more = options.more
    if more.peers is None:
        raise SystemExit("peers needs --peers FOLDER, where their environments are made and kept")
    if set(more.contenders) & set(OURS):
        warm()
    n = options.n or (1000 if options.small else None)
    if "train" in more.tables:
        names = [name for name in more.contenders if name in TRAIN_ONLY]
        with cifar10(min(n or TRAIN, TRAIN)) as lake:
            yield costs("train", lake, all_of(names, lake, options), options)
    if "pairs" in more.tables:
        with cifar10(BOTH) as lake:
            if lake.truth is None:
                raise SystemExit(
                    "the pairs of CIFAR-10's test and train were judged: set DASKIM_DATA, or --tables train"
                )
            lake = replace(lake, n=n or BOTH)
            rounds = all_of(more.contenders, lake, options)
        yield costs("test and train", lake, rounds, options)
        yield worth(lake, rounds)
        if any(runs.hashed for runs in rounds.values()):
            yield distances(lake, rounds)


def all_of(names: list[str], lake: Lake, options: Options) -> dict[str, Runs]:
    """Every contender in turn, on the same images."""
    rounds = {name: Runs() for name in names}
    with TemporaryDirectory() as made:
        files, parquet = written(Path(made), lake, [] if lake.truth is None else lake.truth.ids)
        for _ in range(options.repeat):
            for name, runs in rounds.items():
                if runs.note and not runs.watched:
                    continue  # it failed in the first round
                if name in OURS:
                    ours(name, runs, parquet if name.endswith("Parquet") else files)
                else:
                    theirs(name, runs, Path(files.inputs[0]), lake.truth, options.more)
    return rounds


def ours(name: str, runs: Runs, lake: Lake) -> None:
    try:
        done = once(job("wavelet" if "wavelet" in name else "similarity", lake.n), lake, count=True)
    except JobFailed as error:
        runs.note = str(error).strip().splitlines()[-1]
        return
    runs.watched.append(done.watched)
    runs.pairs, runs.scored, runs.note = done.pairs, done.scored, done.job.name


def theirs(name: str, runs: Runs, folder: Path, truth: Judged | None, more: Any) -> None:
    peer, _, hash_name = name.partition(" ")
    try:
        python = python_of(peer, more.peers)
    except Unavailable as error:
        runs.note = str(error)
        return
    with TemporaryDirectory() as work:
        out = Path(work) / "found.npz"
        words = {
            "cleanvision": [],
            "fastdup": [str(THRESHOLD), str(Path(work) / "fastdup")],
            "imagededup": [hash_name, str(DISTANCE)],
        }[peer]
        script = Path(__file__).parent / "peer" / f"run_{peer}.py"
        seen = watched(
            [str(python), str(script), str(folder), str(out), *words],
            cwd=folder.parent,
            env=surroundings(),
            most_bytes=int(more.most_gb * 1e9),
            most_seconds=more.most_search if peer == "imagededup" else more.most_seconds,
        )
        told = [json.loads(line) for line in seen.out.splitlines() if line.startswith("{")]
        if (seen.code and not seen.stopped) or not out.is_file():
            last = (seen.err.strip().splitlines() or ["no words"])[-1]
            runs.note = seen.stopped or f"ended with code {seen.code}: {last[-160:]}"
            return
        runs.watched.append(seen)
        runs.note = "; ".join(part for part in (seen.stopped, PEERS[peer].note) if part)
        with np.load(out) as found:
            ids = found["ids"].tolist()
            if "hashes" not in found:
                runs.pairs = int(found["a"].size)
                runs.scored = None if truth is None else score(ids, found["a"], found["b"], found["scores"], truth)
            elif truth is not None and not runs.hashed:
                runs.hashed = by_distance(ids, found["hashes"], truth, DISTANCES)
                runs.pairs = runs.hashed[-1][1]
        runs.own_pairs = told[-1].get("pairs")


def surroundings() -> dict[str, str]:
    """The environment of a peer: all cores, whatever was set for daskim, and no reports to its makers."""
    return {name: text for name, text in os.environ.items() if "NUM_THREADS" not in name} | {"SENTRY_OPT_OUT": "1"}


def costs(which: str, lake: Lake, rounds: dict[str, Runs], options: Options) -> Table:
    table = Table(
        f"peers: {which}, what it costs",
        {"data": lake.name, "n": lake.n, "rounds": options.repeat},
        ["contender", "seconds", "CPU seconds", "CPU use, %", "peak MB, process tree", "pairs", "note"],
    )
    for name, runs in rounds.items():
        cells: list[Any] = [None] * 4
        if runs.watched:
            values = [(one.wall, one.cpu, 100 * one.use, one.peak / 1e6) for one in runs.watched]
            cells = [Measured(column) for column in zip(*values)]
        table.rows.append([name, *cells, runs.pairs, runs.note])
        if runs.own_pairs is not None and runs.pairs is not None:
            table.checks.append((f"{name}: its search finds the pairs of its hashes", runs.own_pairs == runs.pairs))
    if which == "train":
        table.targets += targets(lake, rounds)
    return table


def targets(lake: Lake, rounds: dict[str, Runs]) -> Iterator[Target]:
    """daskim against CleanVision's time and fastdup's CPU time: from Parquet to plan, else from the same files."""
    own = next((rounds[name] for name in OURS[:2] if name in rounds and rounds[name].watched), None)
    if own is None:
        return
    why = f"asked of n = {TRAIN:,}" if lake.n != TRAIN else ""
    if not why and cores() != CORES:
        why = f"asked of {CORES} cores, here are {cores()}"
    for name, limit, what in (("cleanvision", AGAINST_CLEANVISION, "wall"), ("fastdup", AGAINST_FASTDUP, "cpu")):
        peer = rounds.get(name)
        if peer is None or not peer.watched:
            continue
        mine, other = (Measured([getattr(one, what) for one in runs.watched]) for runs in (own, peer))
        text = f"daskim wavelet's {'time' if what == 'wall' else 'CPU time'} as a part of {name}'s"
        stopped = "it was stopped" if any(one.stopped for one in peer.watched) else ""
        yield Target(text, float(mine) / float(other), limit, unjudged=why or stopped)


def worth(lake: Lake, rounds: dict[str, Runs]) -> Table:
    """Recall and precision as each comes, and at the best of the thresholds that it lists."""
    table = Table(
        "peers: test and train, what the pairs are worth",
        {"data": lake.name, "n": lake.n, "truth": "judged pairs; recall by test image; pairs nobody judged are apart"},
        ["contender", "pairs", "recall", "precision", "F1", "false", "unjudged", "best F1", "recall at it", "its cut"],
    )
    for name, runs in rounds.items():
        if runs.scored is not None:
            one, best = runs.scored.all, runs.scored.best
        elif runs.hashed:
            one, best = runs.hashed[-1][2], max((cut for _, _, cut in runs.hashed), key=lambda cut: cut.f1)
        else:
            table.rows.append([name, *[None] * 9])
            continue
        as_it_is = [one.recall, one.precision, one.f1, one.false, one.unjudged]
        scores = name not in UNSCORED
        cut = abs(float(best.threshold)) if scores else None
        table.rows.append([name, runs.pairs, *as_it_is, *([best.f1, best.recall] if scores else [None] * 2), cut])
    return table


def distances(lake: Lake, rounds: dict[str, Runs]) -> Table:
    """imagededup's hashes at each distance; the pairs are counted here from its hashes."""
    table = Table(
        "peers: imagededup's hashes by distance",
        {"data": lake.name, "n": lake.n, "default distance": DISTANCE},
        ["contender", "bits", "pairs", "recall", "precision", "F1", "false", "unjudged"],
    )
    for name, runs in rounds.items():
        for most, count, cut in runs.hashed:
            row = [name, most, count, cut.recall, cut.precision, cut.f1, cut.false, cut.unjudged]
            table.rows.append(row)
    return table
