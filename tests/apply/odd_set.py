"""A folder with odd names, links, splits, copies and a broken file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import daskim
from daskim.lake import ImageSpec, list_images, standardise_block

SETTINGS = {"clusters.n_clusters": 0.5, "images.size": "16x16", "images.draft": False}
ODD = [
    b"train/cat/plain.png",
    b"train/cat/with space.png",
    b"train/cat/caf\xc3\xa9.png",
    b"train/cat/not utf-8 \xff.png",
    b"train/cat/line\nbreak.png",
    b"train/dog/[red]a[/].png",
    b"train/dog/=1+1.png",
    b"train/dog/Case.png",
    b"train/dog/case.png",
    b"test/cat/" + b"n" * 251 + b".png",
    b"test/dog/a,b\"c'.png",
    b"test/dog/back\\slash.png",
    b"loose.png",
]


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)


def save(folder: Path, name: bytes, values: np.ndarray) -> None:
    path = os.path.join(os.fsencode(folder), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        Image.fromarray(values).save(file, "PNG")


def write_source(folder: Path) -> Path:
    """13 images, a copy and a near copy of the first six, a link to the seventh, an influential pair, a broken file."""
    for seed, name in enumerate(ODD):
        save(folder, name, picture(seed))
    for seed, name in enumerate(ODD[:6]):
        head, _, base = name.rpartition(b"/")
        save(folder, head + b"/zz copy " + base, picture(seed))
        near = np.clip(picture(seed).astype(int) + np.random.default_rng(seed).integers(-2, 3, (16, 16, 3)), 0, 255)
        save(folder, head + b"/zz near " + base, near.astype(np.uint8))
    os.symlink("plain.png", folder / "train" / "cat" / "zz link.png")
    save(folder, b"train/cat/alike.png", picture(10) ^ np.uint8(1))
    save(folder, b"train/flat/white.png", np.full((16, 16, 3), 255, np.uint8))
    (folder / "train" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return folder


Facts = dict[str, tuple[Any, ...]]


def facts(found: daskim.FinishedRun, ids: list[str]) -> Facts:
    """Label, split and standard pixels of some images of a run."""
    table = found.images.set_index("id").loc[ids]
    pixels = found.standard(table["row"].to_numpy())
    labels = table["label"].astype(object).where(table["label"].notna(), None)
    splits = table["split"].astype(object).where(table["split"].notna(), None)
    return {id: (a, b, p.tobytes()) for id, a, b, p in zip(ids, labels, splits, pixels)}


def read_back(source: object) -> Facts:
    """Label, split and standard pixels of all images of a source, as the lake reads them."""
    listing = list_images([str(source)])
    pixels, table = standardise_block(listing.table, ImageSpec(16, 16, filter="bilinear", draft=False))
    rows = zip(table["id"].to_pylist(), table["label"].to_pylist(), table["split"].to_pylist(), pixels)
    return {id: (label, split, p.tobytes()) for id, label, split, p in rows}
