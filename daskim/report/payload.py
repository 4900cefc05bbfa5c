"""What the page's script reads: images, labels and galleries as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from daskim.lake import LOSSLESS
from daskim.report.entries import Entry, Gallery
from daskim.report.facts import Facts
from daskim.report.pictures import Pictures
from daskim.results import FinishedRun

__all__ = ["payload_of"]

# Why a gallery may have nothing to show, where a run of another kind would.
NOT_LOOKED = {
    "leaks": "leaks (only compare looks for them)",
    "uncovered": "least covered images (only compare looks for them)",
    "anomalies": "anomalies (only method similarity looks for them)",
    "borderline": "pairs near the threshold (only method similarity lists them)",
    "extremes": "most and least similar pairs (only method similarity lists them)",
}
# What a comparison shows.
COMPARED = ("leaks", "borderline", "uncovered")
TABLES = {"leaks": "leakage", "uncovered": "coverage", "anomalies": "anomalies", "extremes": "extremes"}


def payload_of(
    run: FinishedRun,
    facts: Facts,
    galleries: Sequence[Gallery],
    shown: Sequence[Sequence[Entry]],
    images: pd.DataFrame,
    pictures: Pictures,
) -> dict[str, Any]:
    """All that the script shows, as plain values; ids and labels as they are in the source."""
    place = {int(row): at for at, row in enumerate(images["row"].tolist())}
    labels, splits = _Texts(), _Texts()
    notes = _Texts()
    blank = ("", 0, 0)
    found = [pictures.found.get(row, blank) for row in place]
    return {
        "key": str(run.summary.get("plan_hash", "")) or f"{facts.title}:{facts.images}",
        "title": facts.title,
        "method": facts.method,
        "small": LOSSLESS,
        "images": {
            "id": images["id"].tolist(),
            "label": [labels.number(value) for value in images["label"]],
            "split": [splits.number(value) for value in images["split"]],
            "width": images["width"].astype(int).tolist(),
            "height": images["height"].astype(int).tolist(),
            "picture": [text for text, _, _ in found],
            "side": [max(width, height) for _, width, height in found],
        },
        "galleries": [
            {
                "name": gallery.name,
                "title": gallery.title,
                "kind": gallery.kind,
                "about": gallery.about,
                "chosen": gallery.chosen if len(entries) < gallery.total else "",
                "total": gallery.total,
                "unit": gallery.unit,
                "entries": [_entry(entry, place, notes) for entry in entries],
            }
            for gallery, entries in zip(galleries, shown)
            if entries
        ],
        "labels": labels.texts,
        "splits": splits.texts,
        "notes": notes.texts,
        "nothing": _nothing(run, galleries, shown),
    }


class _Texts:
    """Texts by number; -1 stands for none."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._place: dict[str, int] = {}

    def number(self, value: Any) -> int:
        if value is None or value is pd.NA or value != value:
            return -1
        text = str(value)
        if text not in self._place:
            self._place[text] = len(self.texts)
            self.texts.append(text)
        return self._place[text]


def _entry(entry: Entry, place: dict[int, int], notes: _Texts) -> dict[str, Any]:
    """m: images, p: partners, s: similarities, d: RMS, r: rules, t: motions, n: images in all, x: note."""
    out: dict[str, Any] = {
        "m": [place[row] for row in entry.rows],
        "p": list(entry.partner),
        "s": [_rounded(value, 5) for value in entry.similarity],
        "n": entry.total or len(entry.rows),
    }
    if any(_rounded(value, 1) is not None for value in entry.rms):
        out["d"] = [_rounded(value, 1) for value in entry.rms]
    if any(entry.rules):
        out["r"] = [notes.number(rule) if rule else -1 for rule in entry.rules]
    if any(entry.motion):
        out["t"] = [0 if motion is None else [_rounded(value, 3) for value in motion] for motion in entry.motion]
    if entry.note:
        out["x"] = notes.number(entry.note)
    return out


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


def _nothing(run: FinishedRun, galleries: Sequence[Gallery], shown: Sequence[Sequence[Entry]]) -> list[str]:
    """What there is nothing to show of, and why."""
    out = []
    for gallery, entries in zip(galleries, shown):
        if entries or (run.summary["method"] == "compare" and gallery.name not in COMPARED):
            continue
        if gallery.total:
            out.append(f"{gallery.title.lower()} (no room for their pictures)")
        elif gallery.name in NOT_LOOKED and not run.has(TABLES.get(gallery.name, "nearest")):
            out.append(NOT_LOOKED[gallery.name])
        else:
            out.append(f"{gallery.unit[1]} (none were found)")
    return out
