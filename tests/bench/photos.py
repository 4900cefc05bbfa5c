"""Photographs of about 100 kB from file to signatures, against bare loops of libjpeg-turbo; where the rest goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pyarrow as pa
import simplejpeg

from daskim.lake import ImageSpec, list_images, standardise_block
from daskim.lake.decode import convert, digest_of
from daskim.lake.fit import draft_scale
from daskim.lake.jpeg import jpeg_orientation
from daskim.lake.read import read_images
from daskim.reading import standard_spec
from daskim.resolve import resolve
from daskim.settings import Candidates
from daskim.stages.candidates.bands import Signer, bands_of
from daskim.stages.candidates.features import Projector
from tests.bench import Options
from tests.bench.inputs import source
from tests.bench.made_photos import made_photographs
from tests.bench.table import Table

N = 2000
AIM = 1.3
THREADS = 2
# Groups of blocks up to and with the last one that makes something of every image by itself.
SIGNED = ("coarse", "signatures")
CHUNK = 100


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--photographs", type=int, default=N, metavar="N", help=f"[{N}] 20,000 for the record")


def spec_of(folder: Path) -> ImageSpec:
    return standard_spec(resolve([("bench", {"source.inputs": (str(folder),)})]).images, 32, 32)


def bare(paths: list[str], spec: ImageSpec) -> None:
    """Read and decode each file once, at the scale that the settings allow; nothing else."""
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        scale = draft_scale(width, height, spec)
        simplejpeg.decode_jpeg(data, "RGB", min_height=-(-height // scale), min_width=-(-width // scale))


def bare_loops(paths: list[str], spec: ImageSpec) -> tuple[float, float]:
    """Wall and processor seconds of bare loops in threads."""
    wall, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(bare, [paths[at::THREADS] for at in range(THREADS)], [spec] * THREADS))
    return time.perf_counter() - wall, time.process_time() - used


def to_signatures(folder: Path) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds of a run at each stage's end, from the start of the listing until all is signed."""
    with TemporaryDirectory() as made:
        words = [sys.executable, "-m", "daskim.jobs.reduce", str(folder), "--run", made + "/run", "--json"]
        words += ["--no-report", "--method", "similarity", "--workers", str(THREADS)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            seen, ends, at = psutil.Process(process.pid), dict[str, tuple[float, float]](), ("", (0.0, 0.0))
            signed: set[str] = set()
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] != "begin":
                    continue
                times = seen.cpu_times()
                now = time.perf_counter(), times.user + times.system
                if at[0]:
                    before = ends.get(at[0], (0.0, 0.0))
                    ends[at[0]] = before[0] + now[0] - at[1][0], before[1] + now[1] - at[1][1]
                if event["stage"] == "candidates" and event["group"] not in SIGNED:
                    if signed.issuperset(SIGNED):
                        process.send_signal(signal.SIGTERM)
                        break
                    at = "candidates, not of one image", now
                else:
                    at = event["stage"], now
                signed.add(event["group"])
            else:
                raise SystemExit("the run ended before all images were signed")
            process.stdout.read()
    ends.pop("candidates, not of one image", None)
    return ends


def run(options: Options) -> Iterator[Table]:
    n = 200 if options.small else getattr(options.more, "photographs", N)
    with made_photographs(n) as folder:
        paths = sorted(str(path) for path in folder.rglob("*.jpg"))
        kilobytes = sum(os.stat(path).st_size for path in paths) / n / 1e3
        facts = {
            "data": f"made from {source('photos_bsds60')}",
            "n": n,
            "kB of one": kilobytes,
            "rounds": options.repeat,
        }
        yield whole(folder, paths, facts, options.repeat)
        yield parts(folder, facts, 2 if options.small else 10)


def whole(folder: Path, paths: list[str], facts: dict[str, Any], repeat: int) -> Table:
    spec, table = (
        spec_of(folder),
        Table(
            "photos: from file to signatures, 2 threads",
            facts,
            ["what", "us per image", "CPU us per image", "ratio", "CPU ratio"],
        ),
    )
    bare_loops(paths, spec)  # the files come into the cache of the system
    loops, runs = [], []
    for _ in range(repeat):
        loops.append(bare_loops(paths, spec))
        runs.append(to_signatures(folder))
    n = len(paths)
    wall, used = (median(values) / n * 1e6 for values in zip(*loops))
    table.rows.append(["read and decoded in bare loops", wall, used, 1.0, 1.0])
    sums = [0.0, 0.0]
    for stage in runs[0]:
        ours = [median(found[stage][at] for found in runs) / n * 1e6 for at in (0, 1)]
        sums = [total + value for total, value in zip(sums, ours)]
        table.rows.append([f"stage {stage}" + ", up to signatures" * (stage == "candidates"), *ours])
        table.rows[-1] += [ours[0] / wall, ours[1] / used]
    table.rows.append(["all of it", *sums, sums[0] / wall, sums[1] / used])
    table.facts["aim"] = AIM
    return table


def parts(folder: Path, facts: dict[str, Any], chunks: int) -> Table:
    """Processor time of each step in one thread, all steps in turn on the same 100 files."""
    spec, settings = spec_of(folder), Candidates()
    rows = list_images([str(folder)]).table.slice(0, chunks * CHUNK)
    signer = Signer(settings, bands_of(settings, 20_000).permutations)
    projector = Projector(settings, 3)
    held: dict[str, Any] = {}

    def block(part: pa.Table) -> None:
        held["pixels"] = standardise_block(part, spec)[0]

    steps: dict[str, Callable[[pa.Table], Any]] = {
        "bare loop: read, decode": lambda part: bare(part["container"].to_pylist(), spec),
        "read": lambda part: held.update(raws=list(read_images(part))),
        "digest of the file": lambda part: [digest_of(raw) for raw in held["raws"]],
        "orientation": lambda part: [jpeg_orientation(raw) for raw in held["raws"]],
        "decode, resize, both digests, orientation": lambda part: [convert(raw, spec) for raw in held["raws"]],
        "a block: all of that, guarded, as a table": block,
        "signatures": lambda part: signer(held["pixels"]),
        "coarse features": lambda part: projector(held["pixels"]),
    }
    best = dict.fromkeys(steps, 0.0)
    for at in range(0, rows.num_rows, CHUNK):
        part = rows.slice(at, CHUNK)
        least = dict.fromkeys(steps, float("inf"))
        for _ in range(3):
            for name, step in steps.items():
                start = time.process_time()
                step(part)
                least[name] = min(least[name], time.process_time() - start)
        best = {name: best[name] + least[name] for name in steps}
    table = Table(
        "photos: one thread, CPU", {**facts, "images": rows.num_rows}, ["step", "us per image", "of the bare loop"]
    )
    first = next(iter(best.values()))
    for name, value in best.items():
        table.rows.append([name, value / rows.num_rows * 1e6, value / first])
    return table
