"""The embedded demo set: tiles of real photographs with planted edits of known kind."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from daskim.errors import SettingsError
from daskim.synthetic.photographs import photographs

__all__ = ["EDITS", "FEATURELESS", "KINDS", "write_demo"]

# Grey levels a pixel at 32 x 32: tiles of one photograph with less detail become each other's lookalikes.
FEATURELESS = 2.5
# 2000-01-01 UTC, the time stamp of every file, so that a set written again is the same set.
WRITTEN = 946_684_800

EDITS = ("copy", "recoded", "jpeg", "noise", "brightness", "contrast", "shift", "relabelled")
"""Kinds of edit that have an original; the first seven share its label."""
KINDS = (*EDITS, "flat", "broken")
"""All that is planted, in the order of the score's rows."""


class _Tile(NamedTuple):
    label: str
    top: int
    left: int
    pixels: np.ndarray


class _File(NamedTuple):
    label: str
    suffix: str
    data: bytes
    kind: str = ""  # "" for an untouched tile
    original: int = -1  # index among the tiles


def _detail(pixels: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels at 32 x 32, grey levels, of the channel that has most.

    Not the standard deviation: a black tile with one bright corner has a large one, and many lookalikes.
    """
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    across = np.abs(np.diff(small, axis=1)).mean(axis=(0, 1))
    down = np.abs(np.diff(small, axis=0)).mean(axis=(0, 1))
    return float(((across + down) / 2).max())


def _cut_tiles(photos: Mapping[str, np.ndarray], tile: int) -> list[_Tile]:
    """Non-overlapping tiles in raster order, the featureless left out.

    A photograph that is one tile gives none, because a shifted copy has to be cut from it too.
    """
    tiles = []
    for label, photo in photos.items():
        height, width = photo.shape[:2]
        if height == width == tile:
            continue
        for top in range(0, height - tile + 1, tile):
            for left in range(0, width - tile + 1, tile):
                pixels = photo[top : top + tile, left : left + tile]
                if _detail(pixels) >= FEATURELESS:
                    tiles.append(_Tile(label, top, left, pixels))
    return tiles


def _encode(pixels: np.ndarray, form: str, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def _bytes_of(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _shifted(tile: _Tile, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The tile cut again one pixel further, in a direction that the photograph has room for."""
    size = len(tile.pixels)
    corners = [(tile.top + dy, tile.left + dx) for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    room = [(t, x) for t, x in corners if 0 <= t <= photo.shape[0] - size and 0 <= x <= photo.shape[1] - size]
    top, left = room[rng.integers(len(room))]
    return photo[top : top + size, left : left + size]


def _edited(kind: str, tile: _Tile, photo: np.ndarray, turn: int, rng: np.random.Generator) -> tuple[str, bytes]:
    """Suffix and bytes of one edit; `turn` counts those of its kind, so that lossless formats alternate."""
    pixels = tile.pixels
    if kind == "recoded":
        if turn % 3 == 0:
            return ".bmp", _encode(pixels, "BMP")
        if turn % 3 == 1:
            return ".webp", _encode(pixels, "WEBP", lossless=True)
        return ".png", _encode(pixels, "PNG", compress_level=0)
    if kind == "jpeg":
        return ".jpg", _encode(pixels, "JPEG", quality=75)
    if kind == "noise":
        pixels = _bytes_of(pixels + rng.normal(0.0, 3.0, pixels.shape))
    elif kind == "brightness":
        pixels = _bytes_of(pixels + rng.uniform(4.0, 12.0))
    elif kind == "contrast":
        mean = pixels.mean()
        pixels = _bytes_of((pixels - mean) * 1.15 + mean)
    elif kind == "shift":
        pixels = _shifted(tile, photo, rng)
    elif kind not in ("copy", "relabelled"):
        raise ValueError(f"no such edit: {kind}")
    return ".png", _encode(pixels, "PNG")


def _flat_files(count: int, tile: int, labels: list[str], rng: np.random.Generator) -> list[_File]:
    """Nearly constant images, no two of one colour: in turn constant, with a step of one grey level, and with
    noise of one level (standard deviation 0.5, below any useful bound on "flat")."""
    colours = rng.choice(255**3, size=count, replace=False)
    files = []
    for turn, colour in enumerate(colours):
        pixels = np.empty((tile, tile, 3), np.uint8)
        pixels[:] = (colour % 255, colour // 255 % 255, colour // 255**2)
        if turn % 3 == 1:
            pixels[tile // 2 :] += 1
        elif turn % 3 == 2:
            pixels += rng.integers(0, 2, size=(tile, tile, 1), dtype=np.uint8)
        files.append(_File(labels[rng.integers(len(labels))], ".png", _encode(pixels, "PNG"), "flat"))
    return files


def _broken_files(tile: int, labels: list[str], rng: np.random.Generator) -> list[_File]:
    """Six files that are no whole image, each for another reason, made from pixels that are in no tile."""
    pixels = rng.integers(0, 256, size=(tile, tile, 3), dtype=np.uint8)
    png, jpeg = _encode(pixels, "PNG"), _encode(pixels, "JPEG", quality=75)
    contents = [
        (".png", png[: len(png) // 2]),
        (".png", png[:20]),  # ends inside the header
        (
            ".jpg",
            jpeg[: len(jpeg) * 3 // 4],
        ),  # ends inside the scan: lenient decoders fill the rest with grey
        (".png", b""),
        (".png", b"This is a text file and no image.\n"),
        (".jpg", b"<!DOCTYPE html><title>404 Not Found</title>\n"),  # what a failed download leaves
    ]
    return [_File(labels[rng.integers(len(labels))], suffix, data, "broken") for suffix, data in contents]


def _planted(
    tiles: list[_Tile], photos: Mapping[str, np.ndarray], each: int, flat: int, tile: int, seed: int
) -> list[_File]:
    rng = np.random.default_rng(seed)
    labels = sorted({t.label for t in tiles})
    if len(tiles) < each * len(EDITS) or len(labels) < 2:
        raise SettingsError(
            f"{each * len(EDITS)} edits and at least 2 labels are wanted, but tiles of {tile} pixels give "
            f"{len(tiles)} originals under {len(labels)} labels.",
            "Make the tiles smaller or plant fewer of each kind.",
        )
    picks = iter(rng.permutation(len(tiles))[: each * len(EDITS)])
    files = []
    for kind in EDITS:
        for turn, pick in zip(range(each), picks):
            source = tiles[pick]
            suffix, data = _edited(kind, source, photos[source.label], turn, rng)
            others = [label for label in labels if label != source.label]
            label = others[rng.integers(len(others))] if kind == "relabelled" else source.label
            files.append(_File(label, suffix, data, kind, int(pick)))
    return files + _flat_files(flat, tile, labels, rng) + _broken_files(tile, labels, rng)


def _write(folder: Path, contents: Mapping[str, bytes], spare: Path) -> None:
    if folder.exists():
        if not folder.is_dir():
            raise SettingsError(f"{folder} is a file.", "Name an empty or new folder.")
        strangers = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() and p != spare}
        strangers -= contents.keys()
        if strangers:
            raise SettingsError(
                f"{folder} holds {len(strangers)} files of something else, such as {min(strangers)!r}.",
                "Name an empty or new folder: what lies there would be taken for images of the set.",
            )
    for label in {name.partition("/")[0] for name in contents}:
        (folder / label).mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        path = folder / name
        path.write_bytes(data)
        os.utime(path, (WRITTEN, WRITTEN))


def write_demo(
    folder: Path,
    *,
    seed: int = 0,
    tile: int = 40,
    each: int = 60,
    flat: int = 20,
    truth: Path | None = None,
    photos: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Write a labelled set of real image tiles with planted edits, and the truth about them.

    Every file is `folder/LABEL/NUMBER.EXT`, LABEL the photograph's name. Originals and edits share one
    shuffled numbering, so that neither name nor order tells what was planted. Originals are PNG. Every file
    has the same time stamp. A folder that holds this very set already is written again, unchanged. With the
    default arguments and the wheels of `photographs`: 2,213 originals, 480 edits, 20 flat and 6 broken files.

    Kinds, `each` times: copy (byte for byte), recoded (the same pixels as BMP, lossless WebP or uncompressed
    PNG), jpeg (quality 75), noise (sigma 3 grey levels), brightness (4 to 12 levels up), contrast (times 1.15 about the
    tile's mean), shift (cut again 1 pixel further, so real pixels come in), relabelled (byte copy under
    another label). Values beyond 0..255 are clipped. No original has two edits. flat: nearly constant,
    standard deviation at most 0.5. broken: 6 files, truncated (3), empty, or text under an image's name (2).

    Parameters
    ----------
    folder : Path
        Where to write; new, empty, or holding this set.
    seed : int
        At least 0. The same seed and the same installed decoders give the same bytes.
    tile : int
        Side of a tile in pixels, at least 8. Tiles with hardly any detail are left out, see `FEATURELESS`.
    each, flat : int
        How many of each kind of edit, and how many flat images, at least 0.
    truth : Path, optional
        Where to write the truth as CSV; by default `truth.csv` beside `folder`.
    photos : mapping of str to (h, w, 3) uint8 array, optional
        Other photographs than those of `photographs`; the names become labels, hence folder names.

    Returns
    -------
    DataFrame
        One row per planted file, ordered by kind and id: `id` (path relative to `folder`, POSIX), `original`
        (id of the untouched tile; "" for flat and broken), `kind`. Read the CSV with
        ``keep_default_na=False``.

    Raises
    ------
    SettingsError
        If a number is out of range, the photographs give too few tiles, or the folder holds other files.
    SourceError
        If the wheels hold no photographs.
    """
    for name, value, least in (("seed", seed, 0), ("tile", tile, 8), ("each", each, 0), ("flat", flat, 0)):
        if value < least:
            raise SettingsError(f"write_demo: {name}={value} is out of range.", f"It is at least {least}.")
    folder = Path(folder)
    truth = folder.parent / "truth.csv" if truth is None else Path(truth)
    photos = photographs() if photos is None else photos
    for name, photo in photos.items():
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or {*"/\\"} & {*name}:
            raise SettingsError(
                f"write_demo: photograph {name!r} is {photo.dtype} {photo.shape}.",
                "It has to be uint8 (height, width, 3) under a name that can be a folder's.",
            )
    tiles = _cut_tiles(photos, tile)
    files = [_File(t.label, ".png", _encode(t.pixels, "PNG")) for t in tiles]
    files += _planted(tiles, photos, each, flat, tile, seed)

    # A stream of its own: the numbering stays unrelated to the choice of tiles.
    numbers = np.random.default_rng([seed, 1]).permutation(len(files))
    ids = [f"{file.label}/{number:05d}{file.suffix}" for file, number in zip(files, numbers)]
    _write(folder, {name: file.data for name, file in zip(ids, files)}, truth)

    planted = [(name, file) for name, file in zip(ids, files) if file.kind]
    planted.sort(key=lambda row: (KINDS.index(row[1].kind), row[0]))
    table = pd.DataFrame(
        {
            "id": [name for name, _ in planted],
            "original": [ids[file.original] if file.original >= 0 else "" for _, file in planted],
            "kind": [file.kind for _, file in planted],
        },
        dtype=str,
    )
    truth.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(truth, index=False, lineterminator="\n")
    return table
