"""Sets with planted copies, and a driver that takes the stages up to `similarities` one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from daskim.api import run_settings
from daskim.compute import open_place
from daskim.engine import Engine
from daskim.pipeline import size_of
from daskim.stages import Context, Stage, candidates, columns, exact, images, index, similarities, wavelets
from daskim.store import Run
from daskim.synthetic import planted_families

UP_TO_PAIRS = (index.STAGE, images.STAGE, exact.STAGE, candidates.STAGE, similarities.STAGE)
WITH_COEFFICIENTS = (*UP_TO_PAIRS[:3], wavelets.STAGE, columns.STAGE, *UP_TO_PAIRS[3:])


@dataclass(frozen=True)
class Driven:
    """A run up to its pairs."""

    run: Run
    facts: dict[str, Any]
    notes: list[str]
    computed: dict[str, int]

    def table(self, name: str) -> pd.DataFrame:
        """Ordered by (a, b), or as it is."""
        found = self.run.read_table(name).to_pandas()
        return found.sort_values(["a", "b"], ignore_index=True) if "a" in found else found

    def near(self) -> set[tuple[int, int]]:
        """Pairs that count as near-duplicates."""
        table = self.table("pairs")
        return pairs_of(table[table["similarity"] >= self.facts["similarities"]["min_similarity"]])

    def mtimes(self, table: str) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (Path(self.run.url) / "tables" / table).iterdir()}


def pairs_of(table: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(table["a"].tolist(), table["b"].tolist()))


def drive(
    folder: Path,
    source: np.ndarray | Path,
    *,
    stages: tuple[Stage, ...] = UP_TO_PAIRS,
    place: str = "threads",
    workers: int = 2,
    **values: Any,
) -> Driven:
    """Run the stages on images (n, h, w, c) at their own size, or on a path; settings as `stage__key`.

    A second call with the same folder goes on: what is sealed is skipped, finished blocks stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"method": "similarity"}
    if isinstance(source, np.ndarray):
        if not (folder / "set.npz").exists():
            np.savez(folder / "set.npz", images=source)
        given |= {"images.size": "native", "images.mode": "RGB" if source.shape[-1] == 3 else "L"}
        source = folder / "set.npz"
    settings = run_settings(source, given | {key.replace("__", "."): value for key, value in values.items()})
    run = Run(str(folder / "run"))
    facts: dict[str, Any] = {}
    with closing(open_place(place, workers=workers)) as where:
        context = Context(run, Engine(where, run), settings, {})
        for stage in stages:
            facts[stage.name] = _one(context, stage)
            if stage.name == "index":
                context.size = size_of(settings, facts["index"])
        return Driven(run, facts, context.notes, context.engine.computed)


def _one(context: Context, stage: Stage) -> Mapping[str, Any]:
    """As the pipeline does it: what is asked for, the work, the seal."""
    seal = context.run.read_json("state", stage.name, "sealed.json")
    if seal is None:
        asked = json.dumps([repr(context.settings.get(key)) for key in stage.settings])
        context.run.write_json({"fingerprint": asked, "recipe": {}}, "state", stage.name, "stage.json")
        seal = {"fingerprint": asked, "facts": stage.run(context)}
        context.run.write_json(seal, "state", stage.name, "sealed.json")
    return context.run.read_json("state", stage.name, "sealed.json")["facts"]  # type: ignore[index]


def shrunk(large: np.ndarray, side: int) -> np.ndarray:
    return np.stack(
        [np.array(Image.fromarray(one).resize((side, side), Image.Resampling.BOX)) for one in large.astype(np.uint8)]
    )


def planted_copies(
    scenes: int = 60, side: int = 32, seed: int = 0
) -> tuple[np.ndarray, dict[str, set[tuple[int, int]]]]:
    """Scenes, then edits of some of them: images (n, side, side, 3), and by kind the pairs (scene, its edit).

    Five of each: mirrored, cropped to 7/8, cropped to 3/4, brighter, of less contrast, moved by one pixel, exact
    copies; and one scene with two exact copies and a mirrored one.
    """
    large = planted_families(scenes, size=(2 * side, 2 * side), redundancy=0.0, seed=seed).images
    small = shrunk(large, side)
    wide = 2 * side

    def crop(rows: slice, share: float) -> np.ndarray:
        at = round(wide * (1 - share) / 2)
        return shrunk(large[rows, at : wide - at, at : wide - at], side)

    def levels(rows: slice, gain: float, bias: float) -> np.ndarray:
        return np.clip(np.rint((small[rows] - 128.0) * gain + 128 + bias), 0, 255).astype(np.uint8)

    def moved(rows: slice) -> np.ndarray:
        return shrunk(np.roll(large[rows], 2, axis=2), side)

    edits = {
        "mirrored": small[0:5, :, ::-1],
        "crop of 7/8": crop(slice(5, 10), 7 / 8),
        "crop of 3/4": crop(slice(10, 15), 3 / 4),
        "brighter": levels(slice(15, 20), 1.0, 25),
        "less contrast": levels(slice(20, 25), 0.7, 0),
        "moved": moved(slice(25, 30)),
        "copy": small[30:35],
    }
    parts, truth, at = [small], {}, scenes
    for number, (kind, made) in enumerate(edits.items()):
        parts.append(made)
        truth[kind] = {(5 * number + k, at + k) for k in range(5)}
        at += 5
    parts += [small[35:36], small[35:36], small[35:36, :, ::-1]]
    truth["copy"] |= {(35, at), (35, at + 1), (at, at + 1)}
    truth["mirrored"] |= {(35, at + 2), (at, at + 2), (at + 1, at + 2)}
    return np.concatenate(parts), truth


def all_of(truth: dict[str, set[tuple[int, int]]]) -> set[tuple[int, int]]:
    return set().union(*truth.values())
