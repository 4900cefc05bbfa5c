"""Lakes of any number of images with known redundancy: any rows of one, as arrays, and what is planted among them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import simplejpeg

from daskim.errors import SettingsError
from daskim.synthetic.draws import bits, choose, normal, shorts, uniform
from daskim.synthetic.scenes import CLASSES, WINDOW, Grid, labels_of, scenes

__all__ = ["LAKE_KINDS", "REDUNDANCY", "VERSION", "Rows", "jpeg", "lake_rows", "lake_truth", "name_of"]

# To be raised whenever the same arguments give other images.
VERSION = 1
LAKE_KINDS = ("copy", "recoded", "brightness", "contrast", "shift", "mirror", "crop", "noise", "relabelled")
"""Kinds of edit; `Rows.kind` is an index into it."""
# How often each kind is. In CIFAR-10 most near-duplicates are other crops and shifts of one photograph, and only 1 % of
# the images have a neighbour within 19 grey levels RMS: byte copies, recoded and noisy ones have to be few.
WEIGHTS = (1.0, 1.0, 5.0, 4.0, 28.0, 16.0, 43.0, 1.0, 1.0)
# Share of edits: what method similarity drops of CIFAR-10 train, 4.2 %, and a little for what it does not find.
REDUNDANCY = 0.045
# Streams of random numbers; those of a scene are below.
EDIT, ORIGINAL, NOISE, NUMBERS = 10, 11, 12, 20
RECODED = 50  # quality of the JPEG in between
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (2, 0), (0, 2))
# Share of the window that a crop shows, and where it is: 0 at the upper or left edge, 1 at the lower or right.
CROPS = ((0.84, 0.5, 0.5), (0.84, 0.0, 1.0), (0.84, 1.0, 0.0), (0.9, 0.5, 0.5), (0.9, 0.0, 0.0), (0.9, 1.0, 1.0))
# Pixels of the rows made together, so that edits seen through one window come together too; and of the scenes made
# together: 128 of 32 x 32 keep the work in the cache.
BATCH_PIXELS, SCENE_PIXELS = 1 << 20, 1 << 17


class Rows(NamedTuple):
    """Rows of a lake.

    Attributes
    ----------
    images : ndarray, shape (b, size, size, 3), uint8
    labels : ndarray, shape (b,), int64
    original : ndarray, shape (b,), int64
        The row that was edited, always an earlier one that is no edit itself; -1 where this is no edit.
    kind : ndarray, shape (b,), int64
        Index into `LAKE_KINDS`; -1 where this is no edit.
    """

    images: np.ndarray
    labels: np.ndarray
    original: np.ndarray
    kind: np.ndarray


def name_of(row: int) -> str:
    """The id of an image of a lake."""
    return f"{row:010d}.jpg"


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """An image as a JPEG file with the colours at half the resolution, as most files have it."""
    data: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420")
    return data


def _is_edit(seed: int, rows: np.ndarray, redundancy: float) -> np.ndarray:
    below = bits(seed, EDIT, rows, 1)[:, 0] >> np.uint64(11)
    return (below < np.uint64(round(redundancy * 2**53))) & (rows > 0)


def _originals(seed: int, rows: np.ndarray, redundancy: float) -> np.ndarray:
    """The scene of each row: its own, or that of an earlier row, which may have it from an earlier one in turn."""
    scene = rows.copy()
    todo = np.flatnonzero(_is_edit(seed, scene, redundancy))
    while len(todo):
        mine = scene[todo]
        scene[todo] = (bits(seed, ORIGINAL, mine, 1)[:, 0] % mine.astype(np.uint64)).astype(np.int64)
        todo = todo[_is_edit(seed, scene[todo], redundancy)]
    return scene


def _refuse(lo: int, hi: int, seed: int, redundancy: float, size: int) -> None:
    bounds = {
        "rows": ((lo, hi), 0 <= lo <= hi, "0 <= lo <= hi"),
        "seed": (seed, 0 <= seed < 2**64, "0 <= seed < 2**64"),
        "redundancy": (redundancy, 0 <= redundancy <= 0.9, "0 <= redundancy <= 0.9"),
        "size": (size, 8 <= size <= 1024, "8 <= size <= 1024"),
    }
    for name, (value, good, rule) in bounds.items():
        if not good:
            raise SettingsError(f"lake: {name} = {value} is out of range", f"It has to be {rule}.")


class _Told(NamedTuple):
    """Scene, kind (-1 for none), label, and the numbers of the edit, of some rows."""

    scene: np.ndarray
    kind: np.ndarray
    label: np.ndarray
    numbers: np.ndarray


def _told(seed: int, rows: np.ndarray, redundancy: float) -> _Told:
    scene = _originals(seed, rows, redundancy)
    numbers = shorts(seed, NUMBERS, rows, 4)
    kind = np.where(scene != rows, choose(numbers[:, 0], WEIGHTS), -1)
    label = labels_of(seed, scene)
    other = (label + 1 + numbers[:, 1].astype(np.int64) * (CLASSES - 1) // 65536) % CLASSES
    return _Told(scene, kind, np.where(kind == LAKE_KINDS.index("relabelled"), other, label), numbers)


def _plain(size: int) -> Grid:
    return tuple((i + 0.5) * WINDOW / size for i in range(size))


def _view(kind: str, number: int, size: int) -> tuple[Grid, Grid]:
    """The points at which an edit of that kind sees the scene."""
    plain = _plain(size)
    if kind == "mirror":
        return plain, plain[::-1]
    if kind == "shift":
        dy, dx = (step * WINDOW / size for step in SHIFTS[number % len(SHIFTS)])
        return tuple(y + dy for y in plain), tuple(x + dx for x in plain)
    if kind == "crop":
        share, top, left = CROPS[number % len(CROPS)]
        room = (1 - share) * WINDOW
        return tuple(top * room + share * y for y in plain), tuple(left * room + share * x for x in plain)
    return plain, plain


def _whole(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)


def _edited(pixels: np.ndarray, kind: str, numbers: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """One image, (size, size, 3) uint8, after its edit; what is seen through another window is seen so already."""
    if kind in ("copy", "relabelled"):
        return pixels
    if kind == "recoded":
        decoded: np.ndarray = simplejpeg.decode_jpeg(jpeg(pixels, RECODED))
        return decoded
    values = pixels.astype(np.float32)
    strength = numbers[2:3]
    if kind == "brightness":
        values += uniform(strength, 10.0, 28.0) * np.float32(1 if numbers[3] & 1 else -1)
    elif kind == "contrast":
        mean = np.float32(int(pixels.sum(dtype=np.int64)) / pixels.size)
        values = (values - mean) * uniform(strength, *((1.15, 1.4) if numbers[3] & 1 else (0.65, 0.85))) + mean
    # some noise in every edit: two of one kind and one original would be one image twice
    values += noise * np.float32(3 if kind == "noise" else 1)
    return _whole(values)


def _batch(seed: int, rows: np.ndarray, redundancy: float, size: int) -> tuple[np.ndarray, _Told]:
    told = _told(seed, rows, redundancy)
    images = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    views: dict[tuple[Grid, Grid], list[int]] = {}
    plain = _view("", 0, size)
    edits = np.flatnonzero(told.kind >= 0)
    for at in edits.tolist():
        views.setdefault(_view(LAKE_KINDS[told.kind[at]], int(told.numbers[at, 3]), size), []).append(at)
    views[plain] = [*np.flatnonzero(told.kind < 0).tolist(), *views.get(plain, [])]
    step = max(1, SCENE_PIXELS // size**2)
    for (gy, gx), members in views.items():
        for some in (members[lo : lo + step] for lo in range(0, len(members), step)):
            images[some] = _whole(scenes(seed, told.scene[some], gy, gx)).transpose(1, 2, 3, 0)
    if len(edits):
        noise = normal(shorts(seed, NOISE, rows[edits], size * size * 3)).reshape(-1, size, size, 3)
        for at, own in zip(edits.tolist(), noise):
            images[at] = _edited(images[at], LAKE_KINDS[told.kind[at]], told.numbers[at], own)
    return images, told


def lake_rows(lo: int, hi: int, *, seed: int = 0, redundancy: float = REDUNDANCY, size: int = 32) -> Rows:
    """Rows lo <= i < hi of a lake, as arrays.

    Row i is a function of (seed, redundancy, size, i) alone: a lake of fewer images is the beginning of a larger one,
    and any rows can be made by themselves, in any order, by any number of workers, bit for bit the same (recoded ones
    by the same libjpeg-turbo). Images that are no edits are distinct, and have the statistics of `scenes`. An edit is
    of an earlier row drawn at random, which may have other edits too.

    Kinds: copy (the same pixels), recoded (JPEG of quality 50 in between), brightness (10 to 28 grey levels up or
    down), contrast (times 1.15 to 1.4, or 0.65 to 0.85, about the mean), shift (the window 1 or 2 pixels further),
    mirror (left and right), crop (84 or 90 % of the window, enlarged), noise (sigma 3), relabelled (the same pixels
    under another label). Brightness, contrast, shift, mirror and crop have noise of sigma 1 besides.

    Parameters
    ----------
    lo, hi : int
        0 <= lo <= hi.
    seed : int
        0 <= seed < 2**64.
    redundancy : float
        Share of rows that are edits, 0 to 0.9, each row by chance.
    size : int
        Height and width in pixels, 8 to 1,024.

    Raises
    ------
    SettingsError
        An argument out of its range.
    """
    _refuse(lo, hi, seed, redundancy, size)
    images = np.empty((hi - lo, size, size, 3), dtype=np.uint8)
    labels, original, kind = np.empty((3, hi - lo), dtype=np.int64)
    step = max(1, BATCH_PIXELS // size**2)
    for start in range(lo, hi, step):
        rows = np.arange(start, min(hi, start + step), dtype=np.int64)
        part = slice(start - lo, start - lo + len(rows))
        images[part], told = _batch(seed, rows, redundancy, size)
        labels[part], kind[part] = told.label, told.kind
        original[part] = np.where(told.kind >= 0, told.scene, -1)
    return Rows(images, labels, original, kind)


def lake_truth(n: int, *, seed: int = 0, redundancy: float = REDUNDANCY) -> pd.DataFrame:
    """What is planted in a lake of n images, without making them.

    Returns
    -------
    DataFrame
        A row for each edit, by rising row. Columns id, original (the id of the image that was edited), kind, label (its
        own), row, original_row.
    """
    _refuse(0, n, seed, redundancy, WINDOW)
    parts: list[tuple[np.ndarray, ...]] = []
    for lo in range(0, n, 1 << 18):
        rows = np.arange(lo, min(n, lo + (1 << 18)), dtype=np.int64)
        rows = rows[_is_edit(seed, rows, redundancy)]
        told = _told(seed, rows, redundancy)
        parts.append((rows, told.scene, told.kind, told.label))
    none = (np.zeros(0, dtype=np.int64),) * 4
    row, scene, kind, label = (np.concatenate(column) for column in zip(none, *parts))
    return pd.DataFrame(
        {
            "id": [name_of(at) for at in row.tolist()],
            "original": [name_of(at) for at in scene.tolist()],
            "kind": np.array(LAKE_KINDS, dtype=object)[kind],
            "label": label,
            "row": row,
            "original_row": scene,
        }
    )
