"""Images ten times the memory limit go through candidates and similarities within what their needs promise.

What fixes how much is held (caches, tiles, rows of a product) is made small in the process that is measured, so that
ten times as much is still a set for a test; nothing else is touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

MEASURED = textwrap.dedent(
    '''
    import json, sys
    from contextlib import closing
    from threading import Event, Thread
    import numpy as np
    import psutil
    import pyarrow as pa
    from daskim import kept, scatter
    from daskim.compute import open_place
    from daskim.engine import Engine
    from daskim.resolve import resolve
    from daskim.similarities import aligned
    from daskim.stages import Context, Size, candidates, similarities
    from daskim.stages.candidates import bands, cells, features, join, order
    from daskim.stages.similarities import compare, pictures
    from daskim.store import Run

    def replace(name, value, *modules):
        for module in modules:
            assert hasattr(module, name)
            setattr(module, name, value)

    replace("CACHE_BYTES", 3_000_000, kept, candidates, similarities)
    replace("LEFT_BYTES", 0, candidates, similarities)
    replace("PARTS_BYTES", 3_000_000, similarities)
    replace("KEPT_BYTES", 1_500_000, pictures)
    replace("GROUP_BYTES", 2**22, pictures)
    replace("BLOCK_BYTES", 2**20, pictures)
    replace("READ_BYTES", 2**22, scatter)
    replace("TOLD", 1024, order, candidates)
    replace("SQUARE", 64, similarities)
    replace("PIECE", 8, compare, similarities)
    replace("READ_BYTES", 2**18, compare, similarities)
    replace("PIECE_BYTES", 2**22, aligned)
    replace("READ", 16, similarities)
    replace("VIEW_PIXELS", 2**17, features)
    replace("PIXELS", 2**21, features)
    replace("LEAF", 256, join)
    replace("QUERY", 256, cells, candidates)
    replace("CUT", 1024, bands, candidates)
    replace("BLOCK", 2048, join, candidates)

    SIDE, ROWS, EVERY = 128, 16, 100
    FOLDER = sys.argv[1]
    SETTINGS = resolve([("test", {
        "method": "similarity", "candidates.max_pairs": 40_000, "candidates.neighbours": 1,
        "candidates.directions": 32, "candidates.sample": 0, "candidates.crops": [], "candidates.correlation": 0.9,
    })])

    class Peak:
        """Resident memory of this process, looked at every 5 ms."""

        def __init__(self):
            self.process, self.bytes, self.stop = psutil.Process(), 0, Event()
            self.before = self.process.memory_info().rss
            self.thread = Thread(target=self.watch, daemon=True)
            self.thread.start()

        def watch(self):
            while not self.stop.wait(0.005):
                self.bytes = max(self.bytes, self.process.memory_info().rss)

        def end(self):
            self.stop.set()
            self.thread.join()
            return self.before, self.bytes

    def block_of(lo, hi):
        """Images lo to hi; the last of every EVERY is a brighter form, mirrored, of the first of them."""
        images = np.empty((hi - lo, SIDE, SIDE, 3), dtype=np.uint8)
        for row in range(lo, hi):
            edit = row % EVERY == EVERY - 1
            rng = np.random.default_rng(row - EVERY + 1 if edit else row)
            cells = rng.integers(20, 200, (16, 16, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            images[row - lo] = cells[:, ::-1] + 30 if edit else cells
        return images

    def run_of(folder, n):
        run = Run(folder)
        array = run.create_array("images", (n, SIDE, SIDE, 3), "u1", ROWS)
        for lo in range(0, n, ROWS):
            array[lo : lo + ROWS] = block_of(lo, min(lo + ROWS, n))
        digest = pa.array([row.to_bytes(16, "big") for row in range(n)])
        table = {"row": np.arange(n), "status": ["ok"] * n, "digest": digest, "split": pa.nulls(n, pa.string())}
        run.write_part("images", "000000", pa.table(table))
        none = np.zeros(0, dtype=np.int64)
        run.write_part("exact", "000000", pa.table({"row": none, "group": none}))
        return run

    def measured(folder, n):
        """(baseline, peak) of each stage, the larger need beyond an idle process, and what was found."""
        run, size = run_of(folder, n), Size(n, SIDE, SIDE, 3, 3 * SIDE**2, 2, ROWS, n, 0)
        peaks, needs, facts = {}, {}, {}
        with closing(open_place("threads", workers=1)) as place:
            context = Context(run, Engine(place, run), SETTINGS, {}, size)
            for stage in (candidates.STAGE, similarities.STAGE):
                run.write_json({"fingerprint": folder, "recipe": {}}, "state", stage.name, "stage.json")
                peak = Peak()
                facts[stage.name] = stage.run(context)
                peaks[stage.name] = peak.end()
                run.write_json({"facts": facts[stage.name], "fingerprint": ""}, "state", stage.name, "sealed.json")
                need = stage.need(size, SETTINGS, 1)
                needs[stage.name] = need.process + need.task + need.driver
        return peaks, needs, facts

    measured(FOLDER + "/small", 400)  # imports, caches of code
    n = int(sys.argv[2])
    peaks, needs, facts = measured(FOLDER + "/large", n)
    pairs = Run(FOLDER + "/large").read_table("pairs", ["a", "b", "similarity"]).to_pandas()
    near = pairs[pairs["similarity"] >= facts["similarities"]["min_similarity"]]
    print(json.dumps({
        "images": n * SIDE * SIDE * 3, "peaks": peaks, "needs": needs,
        "near": sorted(zip(near["a"].tolist(), near["b"].tolist())),
        "planted": [[k, k + EVERY - 1] for k in range(0, n - EVERY + 1, EVERY)],
    }))
    '''
)


@pytest.mark.slow
def test_ten_times_the_limit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", MEASURED, str(tmp_path), "8600"],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # what threads have freed is not kept apart
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    limit = max(told["needs"].values())
    assert told["images"] >= 10 * limit, f"{told['images']} are not ten times {limit}"
    for stage, (before, peak) in told["peaks"].items():
        assert peak - before <= limit, stage
    assert told["near"] == told["planted"]
