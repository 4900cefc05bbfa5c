"""Graphs with known answers, in runs that hold only what the stages of the graph read: images, pairs, a seal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from daskim.engine import Engine
from daskim.resolve import resolve
from daskim.settings import Settings
from daskim.similarities import score
from daskim.similarities.ssim_volume import SsimVolume
from daskim.stages import Context, Size, Stage
from daskim.store import Run

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def some_settings(**values: Any) -> Settings:
    """Settings of method similarity, `stage__key=value`."""
    given = {key.replace("__", "."): value for key, value in values.items()}
    return resolve([("test", {"method": "similarity", **given})])


def write_images(run: Run, n: int, *, broken: Sequence[int] = (), flat: Sequence[int] = ()) -> None:
    """Images a0, a1, ... of two labels and splits, in two parts."""
    row = np.arange(n)
    status = np.full(n, "ok", dtype=object)
    status[list(flat)] = "flat"
    status[list(broken)] = "undecodable"
    table = pa.table(
        {
            "row": row,
            "id": [f"a{i}" for i in row],
            "label": [f"label{i % 2}" for i in row],
            "split": ["test" if i % 3 == 0 else "train" for i in row],
            "status": status.astype(str),
        }
    )
    run.write_part("images", "000000", table.slice(0, n // 2))
    run.write_part("images", "000001", table.slice(n // 2))


def write_pairs(
    run: Run,
    a: Any,
    b: Any,
    similarity: Any,
    *,
    min_similarity: float = 0.5,
    parts: int = 3,
    source: Any = None,
    seed: int = 0,
) -> None:
    """The table `pairs` in some parts, in an order that the seed gives, and the seal of similarities."""
    a, b, similarity = np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64), np.asarray(similarity, dtype=float)
    source = np.full(len(a), "join", dtype=object) if source is None else np.asarray(source, dtype=object)
    run.remove("tables", "pairs")
    for key, mine in enumerate(np.array_split(np.random.default_rng(seed).permutation(len(a)), parts)):
        columns = {"a": a[mine], "b": b[mine], "similarity": similarity[mine], "source": source[mine].astype(str)}
        run.write_part("pairs", f"{key:06d}", pa.table(columns))
    run.write_json({"fingerprint": "made", "recipe": {}}, "state", "similarities", "stage.json")
    facts = {"min_similarity": min_similarity, "name": "made", "listed": len(a)}
    run.write_json({"fingerprint": "made", "facts": facts}, "state", "similarities", "sealed.json")


def context_of(engine: Engine, settings: Settings, n: int, rows: int = 64) -> Context:
    size = Size(n, 8, 8, 3, 192, 2, rows, n, 0)
    return Context(engine.run, engine, settings, {}, size)


def seal(context: Context, stage: Stage) -> dict[str, Any]:
    """Run a stage and leave its seal; its facts as they are read again."""
    facts = stage.run(context)
    context.run.write_json({"fingerprint": "made", "facts": facts}, "state", stage.name, "sealed.json")
    return context.run.read_json("state", stage.name, "sealed.json")["facts"]  # type: ignore[index]


def on_a_sphere(n: int, seed: int = 0, twins: int = 0) -> Pairs:
    """All pairs of n points, similarity their cosine; (0, 1), (2, 3), ... of the first are identical."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, 12)) * np.geomspace(1, 0.2, 12)
    points[1 : 2 * twins : 2] = points[0 : 2 * twins : 2]
    points /= np.linalg.norm(points, axis=1)[:, None]
    a, b = np.triu_indices(n, 1)
    similarity = np.minimum((points @ points.T)[a, b], 1.0)
    similarity[(a % 2 == 0) & (b == a + 1) & (b < 2 * twins)] = 1.0
    return a, b, similarity


def above(pairs: Pairs, least: float) -> Pairs:
    kept = pairs[2] >= least
    return pairs[0][kept], pairs[1][kept], pairs[2][kept]


def cliques(*parts: tuple[list[int], float]) -> Pairs:
    """All pairs of each list of images, with one similarity for each list."""
    listed = [(i, j, value) for images, value in parts for k, i in enumerate(images) for j in images[k + 1 :]]
    a, b, value = (np.array(column) for column in zip(*listed))
    return a.astype(np.int64), b.astype(np.int64), value.astype(float)


def giant_and_small() -> tuple[int, Pairs]:
    """One component of 150 images, cliques of 3, single images: 210 in all."""
    a, b, value = above(on_a_sphere(150, twins=5), 0.3)
    threes = cliques(*(([k, k + 1, k + 2], 0.9) for k in range(150, 200, 3)))
    return 210, tuple(np.concatenate(column) for column in zip((a, b, value), threes))  # type: ignore[return-value]


class Failing:
    """A task's function that raises once, at its call number `at`."""

    def __init__(self, function: Callable[..., Any], at: int) -> None:
        self.function, self.at, self.calls = function, at, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("lost")
        return self.function(*args)


@lru_cache(maxsize=1)
def aquarium_pairs(data: Path) -> Pairs:
    """All pairs of the 500 training images of aquarium_fish by `ssim_volume`."""
    files = sorted((data / "cifar100_aquarium_fish" / "train").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    similarity = SsimVolume(images.shape[1:])
    parts = similarity.parts(images, np.float64)
    a, b = np.triu_indices(len(images), 1)
    return a, b, score(similarity, parts, parts, a, b)[:, 0]
