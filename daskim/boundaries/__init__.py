"""A trained model's decision boundaries on the lines between pairs of images of a run.

Leaves in the run

`boundaries`, one row a pair: kind (similar, influential, dissimilar, random, or listed: from a CSV); a, b (rows, a < b
but for listed pairs); a_id, b_id, a_label, b_label; similarity (as the run or, for dissimilar pairs of a run of
candidates, this command found it; NaN where unknown); rms (difference of the two as the model's size shows them, in
grey levels); class_a, class_b (columns of the model's scores); boundaries (number of flips); alphas (where, 0 = a,
1 = b); classes (crossed, in order; one more than alphas); returns (some class is left and met again); least_margin
(least difference of the two highest scores on the grid, in the model's units).

`boundary_lines`, a few rows for each of the first `LINES` pairs of a kind: kind, a, b, a_id, b_id, column (a class that
is met), scores (its scores at alpha = 0, 1 / steps, ..., 1).

`boundaries/summary.json`: model, preprocessing, steps, tol, seed, classes; and for each kind `basis` (how its pairs
were found, in words), `available` (how many there are; null where pairs are drawn), `unreadable` (pairs left out), and
the counts of `Tally.record`, for all pairs and for `same`, `differ` and `unknown` labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from daskim.boundaries.pairs import CHOICES, Chosen, Images, choose, read_pairs
from daskim.boundaries.pictures import Pictures
from daskim.boundaries.tally import Tally
from daskim.errors import SettingsError
from daskim.kernels.boundaries import LEAST_TOL, Path, boundaries
from daskim.models import Classifier, Preprocessing, open_model, settled
from daskim.results import FinishedRun

__all__ = ["CHOICES", "SUMMARY", "find_boundaries"]

SUMMARY = ("boundaries", "summary.json")
TABLES = ("boundaries", "boundary_lines")
# Pairs of each kind whose scores are kept, and classes of each.
LINES = 2
CLASSES = 6
# Pairs of a group, and what a group and a batch of images take at most, in bytes.
GROUP = 64
GROUP_BYTES = 128_000_000
BATCH_BYTES = 32_000_000
BATCH = 256
MOST_STEPS = 4096

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("a", pa.int64()),
        ("b", pa.int64()),
        ("a_id", pa.string()),
        ("b_id", pa.string()),
        ("a_label", pa.string()),
        ("b_label", pa.string()),
        ("similarity", pa.float64()),
        ("rms", pa.float64()),
        ("class_a", pa.int64()),
        ("class_b", pa.int64()),
        ("boundaries", pa.int64()),
        ("alphas", pa.list_(pa.float64())),
        ("classes", pa.list_(pa.int64())),
        ("returns", pa.bool_()),
        ("least_margin", pa.float64()),
    ]
)
LINE_SCHEMA = pa.schema(
    [
        *[SCHEMA.field(name) for name in ("kind", "a", "b", "a_id", "b_id")],
        ("column", pa.int64()),
        ("scores", pa.list_(pa.float64())),
    ]
)


class Progress(Protocol):
    """What is told while it works."""

    def begin(self, stage: str, title: str, total: int, done: int) -> None: ...

    def advance(self, stage: str) -> None: ...

    def say(self, text: str) -> None: ...


def find_boundaries(
    run: FinishedRun,
    model: str,
    *,
    pairs: str = ",".join(CHOICES),
    limit: int = 200,
    steps: int = 64,
    tol: float = 1e-3,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Walk the lines between pairs of images and leave what a model makes of them in the run.

    Parameters
    ----------
    model : str
        FILE.onnx or module:function (which is imported and called).
    pairs : str
        Kinds with commas, of `CHOICES`, or a file ending in .csv with columns a and b: ids.
    limit : int
        Pairs of a kind, at most; of more, these are drawn. Of a CSV all are taken.
    steps, tol : int, float
        See `daskim.kernels.boundaries`.
    output : str, optional
        The output of an ONNX model that holds the scores.
    storage_options : mapping, optional
        For fsspec, of the source, where images are read again.

    Returns
    -------
    dict
        What is left in `boundaries/summary.json`.

    Raises
    ------
    SettingsError
        A model, kind, pair or number that does not fit.
    SourceError
        A file, or a table of the run, that is not there.
    BlockFailed
        The model fails on a batch.
    """
    _check(limit, steps, tol, seed)
    started = time.monotonic()
    facts = run.summary["size"]
    opened = open_model(model, output)
    mode = "RGB" if facts["channels"] == 3 else "L"
    how = settled(preprocessing or Preprocessing(), opened.wants, (facts["height"], facts["width"]), mode)
    classify = Classifier(opened, how)
    classify(np.full((1, *how.shape), 127.5, dtype=np.float32))  # a misfit is told before anything is read
    images = Images.of(run)
    if pairs.lower().endswith(".csv"):
        chosen = [read_pairs(pairs, images)]
    else:
        chosen = choose(run, images, _kinds(pairs), limit, seed, progress.say)
    pictures = Pictures(run, how, storage_options)
    for table in TABLES:
        run.store.remove("tables", table)
    run.store.remove(*SUMMARY)
    walk = _Walk(run, images, pictures, classify, steps, tol)
    kinds = {one.kind: walk.kind(one, progress) for one in chosen}
    if pictures.changed:
        progress.say(f"warning: {pictures.changed} images differ from those that the run was made of")
    summary = {
        "model": model,
        "preprocessing": how.record(),
        "classes": classify.classes,
        "steps": steps,
        "tol": tol,
        "seed": seed,
        "limit": limit,
        "changed_images": pictures.changed,
        "kinds": kinds,
        "calls": classify.calls,
        "seconds": round(time.monotonic() - started, 3),
    }
    run.store.write_json(summary, *SUMMARY)
    return summary


def _check(limit: int, steps: int, tol: float, seed: int) -> None:
    if limit < 1:
        raise SettingsError(f"--limit {limit}: fewer than one pair", "Give the number of pairs of each kind.")
    if not 1 <= steps <= MOST_STEPS:
        raise SettingsError(f"--steps {steps}: out of range", f"Give 1 to {MOST_STEPS} intervals of the line.")
    if not LEAST_TOL <= tol <= 1:
        raise SettingsError(f"--tol {tol:g}: out of range", f"Give a length of alpha from {LEAST_TOL:g} to 1.")
    if seed < 0:
        raise SettingsError(f"--seed {seed}: out of range", "Give 0 or more.")


def _kinds(text: str) -> list[str]:
    asked = [word.strip() for word in text.split(",")]
    for word in asked:
        if word not in CHOICES:
            raise SettingsError(
                f"--pairs {text}: no kind of pairs is {word!r}", f"Known: {', '.join(CHOICES)}; or FILE.csv."
            )
    return [kind for kind in CHOICES if kind in asked]


class _Walk:
    """The pairs of all kinds, a group of pairs at a time: memory does not grow with their number."""

    def __init__(
        self, run: FinishedRun, images: Images, pictures: Pictures, classify: Classifier, steps: int, tol: float
    ) -> None:
        self.run, self.images, self.pictures = run, images, pictures
        self.classify, self.steps, self.tol = classify, steps, tol
        pixels = 4 * int(np.prod(classify.prepared.shape))
        scores = 8 * (steps + 1) * classify.classes
        self.batch = max(1, min(BATCH, BATCH_BYTES // pixels))
        self.group = max(1, min(GROUP, GROUP_BYTES // (4 * pixels + 5 * scores)))
        self.parts = self.line_parts = 0

    def kind(self, chosen: Chosen, progress: Progress) -> dict[str, Any]:
        """All pairs of one kind; what the summary tells of them."""
        tallies = {name: Tally() for name in ("all", "same", "differ", "unknown")}
        total = -(-len(chosen.a) // self.group)
        progress.begin("boundaries", chosen.kind, total, 0)
        walked = 0
        for at in range(0, len(chosen.a), self.group):
            rows = self._group(chosen.part(slice(at, at + self.group)), walked)
            walked += len(rows)
            for row in rows:
                tallies["all"].take(row)
                tallies[_labels(row)].take(row)
            progress.advance("boundaries")
        found = {"basis": chosen.basis, "available": chosen.available, "unreadable": len(chosen.a) - walked}
        of = {name: tally.record() for name, tally in tallies.items() if name != "all" and tally.pairs}
        return {**found, **tallies["all"].record(), "labels": of}

    def _group(self, chosen: Chosen, before: int) -> list[dict[str, Any]]:
        a, b = chosen.a, chosen.b
        rows, at = np.unique(np.stack([a, b]), return_inverse=True)
        pixels, good = self.pictures.take(rows)
        left, right = at.reshape(2, -1)
        fine = np.flatnonzero(good[left] & good[right])
        left, right = left[fine], right[fine]
        first, second = pixels[left], pixels[right]
        paths = boundaries(self.classify, first, second, steps=self.steps, tol=self.tol, batch=self.batch)
        found = []
        for index, path in enumerate(paths):
            pair = int(fine[index])
            similarity = float(chosen.similarity[pair])
            rms = float(np.sqrt(np.square(first[index] - second[index], dtype=np.float64).mean()))
            found.append(self._row(chosen.kind, int(a[pair]), int(b[pair]), similarity, rms, path))
        self.run.store.write_part("boundaries", f"{self.parts:06d}", pa.Table.from_pylist(found, schema=SCHEMA))
        self.parts += 1
        if before < LINES or not self.line_parts:
            lines = [
                line for row, path in list(zip(found, paths))[: max(0, LINES - before)] for line in _lines(row, path)
            ]
            table = pa.Table.from_pylist(lines, schema=LINE_SCHEMA)
            self.run.store.write_part("boundary_lines", f"{self.line_parts:06d}", table)
            self.line_parts += 1
        return found

    def _row(self, kind: str, a: int, b: int, similarity: float, rms: float, path: Path) -> dict[str, Any]:
        ids, labels = self.images.ids, self.images.labels
        return {
            "kind": kind,
            "a": a,
            "b": b,
            "a_id": ids[a],
            "b_id": ids[b],
            "a_label": labels[a],
            "b_label": labels[b],
            "similarity": similarity,
            "rms": rms,
            "class_a": int(path.classes[0]),
            "class_b": int(path.classes[-1]),
            "boundaries": len(path.alphas),
            "alphas": path.alphas.tolist(),
            "classes": path.classes.tolist(),
            "returns": path.returns,
            "least_margin": path.margin,
        }


def _labels(row: Mapping[str, Any]) -> str:
    if row["a_label"] is None or row["b_label"] is None:
        return "unknown"
    return "same" if row["a_label"] == row["b_label"] else "differ"


def _lines(row: Mapping[str, Any], path: Path) -> Sequence[dict[str, Any]]:
    """The scores of the classes that are met and, up to `CLASSES`, of those that come nearest to them."""
    met = list(dict.fromkeys(path.classes.tolist()))
    nearest = np.argsort(-path.scores.max(axis=0), kind="stable").tolist()
    columns = list(dict.fromkeys([*met, *nearest]))[: max(2, min(CLASSES, len(met) + 1))]
    pair = {name: row[name] for name in ("kind", "a", "b", "a_id", "b_id")}
    return [{**pair, "column": column, "scores": path.scores[:, column].tolist()} for column in columns]
