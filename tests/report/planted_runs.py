"""Small sets with odd names whose findings are known, and finished runs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

import daskim
from daskim.results import open_run

# Labels: mathematics, markup, mentions, a turn of direction, a formula, a line break, other scripts.
LABELS = ("$x^2$|`b`", "<script>alert(1)</script>", "@all #1 www.x.org", "a\u202egpj.exe", "=1+1\n|x|", "猫 café")
SIDE = 16


def picture(seed: int) -> np.ndarray:
    """A smooth random image, shape (16, 16, 3), uint8: unlike every other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def hostile_set(folder: Path) -> Path:
    """A folder in `train/` and `test/` with, for each of 6 labels, 6 images of its own.

    Planted in train: an exact copy in each of the first 4 classes, a near copy in the first 2, one image with two
    labels (influential), one flat image, one broken file. In test: 3 images, 1 an exact copy of a training image, 1 of
    its own, 1 near copy with another label.
    """
    seed = 0
    for index, label in enumerate(LABELS):
        home = folder / "train" / folder_name(label)
        home.mkdir(parents=True)
        for k in range(6):
            write(home / f"{k}.png", picture(seed))
            seed += 1
        if index < 4:
            write(home / "copy.png", picture(seed - 1))
        if index < 2:
            write(home / "near.png", noisy(picture(seed - 2)))
    first, second = sorted((folder / "train").iterdir())[:2]
    write(first / "both.png", picture(900))
    write(second / "both.png", noisy(picture(900)))
    write(first / "flat.png", np.full((SIDE, SIDE, 3), 120, np.uint8))
    (first / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    test = folder / "test" / first.name
    test.mkdir(parents=True)
    write(test / "leak.png", picture(0))
    write(test / "own.png", picture(901))
    other = folder / "test" / second.name
    other.mkdir()
    write(other / "conflict.png", noisy(picture(1)))
    return folder


def folder_name(label: str) -> str:
    """A label as the name of a folder."""
    return label.replace("/", "\u2215").replace("\n", " ")


def write(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def noisy(pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(7).integers(-2, 3, pixels.shape)
    return np.clip(pixels.astype(int) + noise, 0, 255).astype(np.uint8)


def finished(source: Path, run: Path | str, **values: Any) -> daskim.FinishedRun:
    """A run on a folder, with settings `stage__key=value`."""
    settings = {"images.size": "16x16", **{key.replace("__", "."): value for key, value in values.items()}}
    return daskim.reduce(source, run=run, settings=settings, workers=1)


def with_leakage(run: daskim.FinishedRun) -> daskim.FinishedRun:
    """The run with the tables of a comparison of its splits, made from its pairs as `compare` describes them."""
    images = run.images.set_index("row")
    split, label, name = images["split"], images["label"], images["id"]
    least = float(run.summary["similarities"]["min_similarity"])
    exact = {(a, b) for a, b, s in run.pairs[["a", "b", "source"]].itertuples(index=False) if s == "exact"}
    rows = []
    best: dict[int, tuple[float, int]] = {}
    for a, b, value in run.pairs[["a", "b", "similarity"]].itertuples(index=False):
        if split[a] == split[b]:
            continue
        ours, theirs = (a, b) if split[a] == "test" else (b, a)
        best[ours] = max(best.get(ours, (-2.0, -1)), (float(value), int(theirs)))
        if value < least:
            continue
        rows.append(
            {
                "row": ours, "id": name[ours], "split": split[ours], "label": label[ours], "other_row": theirs,
                "other_id": name[theirs], "other_split": split[theirs], "other_label": label[theirs], "rank": 1,
                "similarity": float(value), "kind": "exact" if (a, b) in exact else "near",
                "agreement": "same" if label[ours] == label[theirs] else "conflict",
            }
        )  # fmt: skip
    evaluated = [row for row in images.index if split[row] == "test"]
    run.store.write_part("leakage", "000000", pa.Table.from_pylist(rows))
    coverage = [
        {
            "row": row, "id": name[row], "split": "test", "label": label[row], "other_split": "train",
            "other_row": best[row][1] if row in best else -1, "other_id": None,
            "similarity": best[row][0] if row in best else float("nan"), "correlation": float("nan"),
            "by": "similarity",
        }
        for row in evaluated
    ]  # fmt: skip
    run.store.write_part("coverage", "000000", pa.Table.from_pylist(coverage))
    kinds = {(row["kind"], row["agreement"]) for row in rows}
    cross = [
        {
            "split": "test", "other_split": "train", "kind": kind, "agreement": agreement,
            "pairs": sum((r["kind"], r["agreement"]) == (kind, agreement) for r in rows),
            "images": len({r["row"] for r in rows if (r["kind"], r["agreement"]) == (kind, agreement)}),
        }
        for kind, agreement in sorted(kinds)
    ]  # fmt: skip
    leakage = {
        "images": len({r["row"] for r in rows}), "exact": len({r["row"] for r in rows if r["kind"] == "exact"}),
        "near": len({r["row"] for r in rows if r["kind"] == "near"}),
        "conflicts": len({r["row"] for r in rows if r["agreement"] == "conflict"}), "pairs": len(rows),
        "evaluated": len(evaluated), "min_similarity": least, "similarity": run.summary["similarities"]["name"],
        "cross": cross, "least_covered": [],
    }  # fmt: skip
    kept = ("daskim", "n_images", "status", "n_exact", "similarities", "notes", "seconds", "seconds_total", "size")
    summary = {key: run.summary[key] for key in kept} | {"method": "compare", "leakage": leakage}
    for table in ("plan", "influential", "clusters", "spectrum", "gaps_curve", "anomalies", "extremes"):
        run.store.remove("tables", table)
    run.store.write_json(summary, "summary.json")
    return open_run(run.run)
