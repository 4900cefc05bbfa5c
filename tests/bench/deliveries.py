"""A lake that grows: ten deliveries taken in one by one, against one run of all that is there in the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from daskim.api import reduce
from daskim.results import FinishedRun
from tests.bench import Options
from tests.bench.inputs import shards, source
from tests.bench.table import Table

N, DELIVERIES = 50_000, 10
ARRAYS = ("images", "coarse", "signatures")
SETTINGS = {"method": "similarity", "clusters.by": "threshold", "plan.stay": False}


def pairs_of(found: FinishedRun) -> dict[tuple[str, str], float]:
    """Similarity of the pairs at or above min_similarity, by the ids of their images."""
    name = found.images.set_index("row")["id"]
    pairs = found.pairs[found.pairs["similarity"] >= found.summary["similarities"]["min_similarity"]]
    a, b = name.loc[pairs["a"]].tolist(), name.loc[pairs["b"]].tolist()
    return {(min(pair), max(pair)): value for *pair, value in zip(a, b, pairs["similarity"])}


def families_of(found: FinishedRun) -> set[frozenset[str]]:
    """Ids of the images of each cluster."""
    table = found.clusters.merge(found.images[["row", "id"]], on="row")
    return {frozenset(group) for _, group in table[table["cluster"] >= 0].groupby("cluster")["id"]}


def run(options: Options) -> Iterator[Table]:
    n = 2000 if options.small else N
    step = n // DELIVERIES
    with shards(n) as paths, TemporaryDirectory() as folder:
        whole = pa.concat_tables([pq.read_table(path, columns=["image", "label"]) for path in paths]).slice(0, n)
        lake, kept = Path(folder) / "lake", Path(folder) / "run"
        lake.mkdir()
        steps: list[tuple[str, dict[str, Any], float]] = []
        for number in range(DELIVERIES):
            # later deliveries are listed first: their rows come last all the same
            file = lake / f"part-{DELIVERIES - number:02d}.parquet"
            pq.write_table(whole.slice(number * step, step), file, row_group_size=1000)
            start = time.perf_counter()
            found = reduce(str(lake), run=kept, settings=SETTINGS, update=True)
            steps.append((f"delivery {number}", dict(found.summary), time.perf_counter() - start))
        start = time.perf_counter()
        fresh = reduce(str(lake), run=Path(folder) / "fresh", settings=SETTINGS)
        steps.append(("fresh run", dict(fresh.summary), time.perf_counter() - start))
        yield costs(steps, n)
        yield equality(found, fresh, n)


def costs(steps: list[tuple[str, dict[str, Any], float]], n: int) -> Table:
    table = Table(
        "deliveries: seconds, and MB read of the run's arrays as stored",
        {"data": source(), "n": n, "workers": steps[0][1]["cluster"]["workers"]},
        ["step", "images", "seconds", "pairs compared", "new files, MB", *(f"{name}, MB" for name in ARRAYS)],
    )
    for name, summary, seconds in steps:
        record = summary.get("delivery")
        compared = summary["similarities"].get("new_compared", summary["similarities"]["compared"])
        read = [None] * 4
        if record is not None:
            read = [record["source_bytes"] / 1e6, *(record["run_bytes"].get(one, 0) / 1e6 for one in ARRAYS)]
        told = [None if value is None else round(value, 1) for value in read]
        table.rows.append([name, summary["n_images"], round(seconds, 1), compared, *told])
    return table


def equality(found: FinishedRun, fresh: FinishedRun, n: int) -> Table:
    ours, theirs = pairs_of(found), pairs_of(fresh)
    table = Table(
        "deliveries: what they found, and a fresh run",
        {"data": source(), "n": n},
        ["", "deliveries", "fresh run", "only in one"],
    )
    groups, others = families_of(found), families_of(fresh)
    table.rows.append(["pairs at or above min_similarity", len(ours), len(theirs), len(set(ours) ^ set(theirs))])
    table.rows.append(["families by threshold", len(groups), len(others), len(groups ^ others)])
    table.rows.append(["dropped", found.summary["n_drop"], fresh.summary["n_drop"], None])
    table.checks.append(("equal pairs, with equal similarities", ours == theirs))
    table.checks.append(("equal families", groups == others))
    same = found.summary["plan_hash"] == fresh.summary["plan_hash"]
    table.checks.append(("equal plans (plan.stay = false)", same))
    return table
