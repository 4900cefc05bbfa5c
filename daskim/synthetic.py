"""Images with planted truth: the embedded demo set, its score, and families of any number for tests.

The demo (`write_demo`) cuts photographs that scikit-image and scikit-learn carry inside their wheels into
tiles, and plants edits of known kind among them. `planted_families` needs no photograph: it draws images
whose spectrum falls by a power law as that of natural scenes does (D. J. Field, J. Opt. Soc. Am. A 4, 2379,
1987), row by row.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from daskim.errors import SettingsError, SourceError, nearest

__all__ = ["EDITS", "KINDS", "Families", "photographs", "planted_families", "score_demo", "write_demo"]

# Photographs and textures only. Left out of the same folders: drawings and text, the second view of the
# stereo pair (near-duplicates that nobody planted), and pictures that are blur or plain ground nearly
# everywhere.
_PHOTOGRAPHS = {
    "skimage/data": (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
        "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}  # fmt: skip

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


class Families(NamedTuple):
    """What `planted_families` returns: images (b, h, w, c) u1, labels (b,) i8, family (b,) i8."""

    images: np.ndarray
    labels: np.ndarray
    family: np.ndarray


def photographs() -> dict[str, np.ndarray]:
    """The photographs that lie in the installed wheels of scikit-image and scikit-learn.

    The files are read where the wheels put them. Neither package is imported and its loaders are not called,
    so nothing can be downloaded.

    Returns
    -------
    dict of str to ndarray
        By name ("astronaut"), sorted: (height, width, 3) uint8 RGB; a grey photograph has three equal
        channels. 16 of them with scikit-image 0.26 and scikit-learn 1.9; a photograph that a later wheel no
        longer carries is absent.

    Raises
    ------
    SourceError
        If none is found.
    """
    found = {}
    for folder, names in _PHOTOGRAPHS.items():
        package, _, inner = folder.partition("/")
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for path in (Path(root) / inner / name for name in names):
                if path.is_file():
                    with Image.open(path) as image:
                        found[path.stem] = np.array(image.convert("RGB"))
    if not found:
        raise SourceError(
            "The demo's photographs are not in the installed scikit-image and scikit-learn.",
            "Reinstall them from wheels: pip install --force-reinstall scikit-image scikit-learn",
        )
    return dict(sorted(found.items()))


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
        pixels = _bytes_of(pixels + 10.0)
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
    PNG), jpeg (quality 75), noise (sigma 3 grey levels), brightness (+10), contrast (times 1.15 about the
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


def _root_of(plan: pd.DataFrame) -> Callable[[str], str]:
    """A function from an id to the image that stands for it, by following kept_id of dropped images."""
    dropped = plan[plan["decision"] == "drop"]
    keeper = dict(zip(dropped["id"], dropped["kept_id"]))

    def root(name: str) -> str:
        seen = {name}
        # A missing kept_id reads as None or nan, which is no str.
        while isinstance(above := keeper.get(name), str) and above:
            if above in seen:
                raise ValueError(f"plan: kept_id runs in a circle at {above!r}")
            seen.add(above)
            name = above
        return name

    return root


def _found(truth: pd.DataFrame, plan: pd.DataFrame, influential: pd.DataFrame, images: pd.DataFrame) -> list[bool]:
    """For each row of the truth whether it was found, by the rules of `score_demo`."""
    root = _root_of(plan)
    status = dict(zip(images["id"], images["status"]))
    clusters: dict[str, set[object]] = {}
    for name, cluster in zip(influential["id"], influential["cluster"]):
        clusters.setdefault(name, set()).add(cluster)

    def one(name: str, original: str, kind: str) -> bool:
        if kind == "flat":
            return status.get(name) == "flat"
        if kind == "broken":
            return status.get(name, "ok") not in ("ok", "flat")
        if kind == "relabelled":
            return bool(clusters.get(name, set()) & clusters.get(original, set()))
        return root(name) == root(original)  # equal only if at least one of them is dropped

    return [one(*row) for row in zip(truth["id"], truth["original"], truth["kind"])]


def score_demo(
    truth: pd.DataFrame, plan: pd.DataFrame, influential: pd.DataFrame, images: pd.DataFrame
) -> pd.DataFrame:
    """What a run on the demo set found of what was planted.

    Found means, by kind: copy, recoded, jpeg, noise, brightness, contrast, shift: at least one of {planted,
    original} is dropped, and both come to the same kept image when kept_id is followed; relabelled: both are
    in `influential` under the same cluster; flat: the status is "flat"; broken: the status is neither "ok"
    nor "flat", and present.

    Parameters
    ----------
    truth : DataFrame
        Columns id, original, kind, as `write_demo` returns or writes it.
    plan : DataFrame
        Columns id, decision (keep, drop, review), kept_id (missing or "" unless dropped); others are not
        read.
    influential : DataFrame
        Columns id, cluster.
    images : DataFrame
        Columns id, status. An id that is absent counts as not found.

    Returns
    -------
    DataFrame
        Columns kind, planted (int), found (int), recall (found / planted; nan when nothing was planted). A
        row for each of `KINDS`, then two rows of damage whose planted is 0: "lost pairs" (planted edits of
        the first seven kinds that were dropped together with their original: a third image stands for both)
        and "false drops" (dropped images that are neither planted nor an original of something planted).

    Raises
    ------
    SettingsError
        If a table lacks a column, or the truth names a kind that is not in `KINDS`.
    ValueError
        If kept_id runs in a circle.
    """
    wanted = {
        "truth": (truth, ("id", "original", "kind")),
        "plan": (plan, ("id", "decision", "kept_id")),
        "influential": (influential, ("id", "cluster")),
        "images": (images, ("id", "status")),
    }
    for name, (table, columns) in wanted.items():
        if missing := [column for column in columns if column not in table.columns]:
            raise SettingsError(
                f"score_demo: the table {name} has no column {' and '.join(missing)}.",
                f"It needs {', '.join(columns)}.",
            )
    if unknown := sorted(set(truth["kind"]) - set(KINDS)):
        raise SettingsError(f"score_demo: the truth names the kind {unknown[0]!r}.", nearest(str(unknown[0]), KINDS))
    planted = truth["kind"].value_counts()
    found = truth.loc[_found(truth, plan, influential, images), "kind"].value_counts()
    dropped = set(plan.loc[plan["decision"] == "drop", "id"])
    in_pair = ~truth["kind"].isin(("relabelled", "flat", "broken"))
    lost = int((in_pair & truth["id"].isin(dropped) & truth["original"].isin(dropped)).sum())
    false_drops = len(dropped - set(truth["id"]) - set(truth["original"]))

    rows = [(kind, int(planted.get(kind, 0)), int(found.get(kind, 0))) for kind in KINDS]
    rows += [("lost pairs", 0, lost), ("false drops", 0, false_drops)]
    table = pd.DataFrame(rows, columns=["kind", "planted", "found"])
    table["recall"] = table["found"] / table["planted"].where(table["planted"] > 0)
    return table


def _rng(seed: int, stream: int, index: int) -> np.random.Generator:
    """Numbers of its own for every row, with no state handed from row to row.

    Philox is counter-based (Salmon et al., SC 2011): (seed, index) is its key, the stream its highest counter
    word.
    """
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, stream]))


@lru_cache(maxsize=8)
def _falloff(height: int, width: int) -> np.ndarray:
    """Amplitudes f ** -1.4 of a real 2-D spectrum, (height, width // 2 + 1) f4; 0 for the mean.

    Field's scenes at full resolution have f ** -1; photographs at 32 x 32 pixels measure f ** -1.5.
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    weights: np.ndarray = (frequency**-1.4).astype(np.float32)
    weights.flags.writeable = False
    return weights


def _scene(seed: int, identity: int, height: int, width: int, channels: int, classes: int) -> tuple[np.ndarray, int]:
    """The picture that a family shares, (height, width, channels) in grey levels, not clipped; its label."""
    rng = _rng(seed, 0, identity)
    label = int(rng.integers(classes))
    white = rng.standard_normal((channels + 1, height, width), dtype=np.float32)
    fields = np.fft.irfft2(np.fft.rfft2(white) * _falloff(height, width), s=(height, width))
    picture = np.moveaxis(fields[:1] + 0.4 * fields[1:], 0, -1)  # channels go together, as in photographs
    picture *= rng.uniform(25.0, 65.0) / picture.std()
    picture += rng.uniform(70.0, 185.0) + rng.normal(0.0, 15.0, channels)
    y, x = np.ogrid[:height, :width]
    for _ in range(rng.integers(1, 4)):
        cy, cx, ry, rx = rng.uniform(0.0, 1.0, 4) * (height, width, 0.3 * height, 0.3 * width)
        angle = rng.uniform(0.0, np.pi)
        u = (np.cos(angle) * (y - cy) + np.sin(angle) * (x - cx)) / (ry + 2.0)
        v = (np.cos(angle) * (x - cx) - np.sin(angle) * (y - cy)) / (rx + 2.0)
        cover = 1.0 / (1.0 + np.exp(np.minimum((np.hypot(u, v) - 1.0) * 8.0, 50.0)))
        picture += 0.8 * cover[..., None] * (rng.uniform(0.0, 255.0, channels) - picture)
    return picture, label


def _family_row(
    seed: int, row: int, position: int, n_scenes: int, shape: tuple[int, int, int], classes: int
) -> tuple[np.ndarray, int, int]:
    height, width, channels = shape
    rng = _rng(seed, 1, row)
    identity = position if position < n_scenes else int(rng.integers(n_scenes))
    # One pixel of margin on each side, so that a shifted member brings in pixels of its own.
    scene, label = _scene(seed, identity, height + 2, width + 2, channels, classes)
    top = left = 1
    if position >= n_scenes:
        kind = ("noise", "brightness", "shift")[rng.integers(3)]
        if kind == "brightness":
            scene += rng.choice([-1.0, 1.0]) * rng.uniform(6.0, 12.0)
        elif kind == "shift":
            top, left = [(0, 1), (2, 1), (1, 0), (1, 2)][rng.integers(4)]
        # Some noise in every edit: otherwise two members shifted alike would be one image twice.
        scene += rng.normal(0.0, 3.0 if kind == "noise" else 1.0, scene.shape)
    return _bytes_of(scene[top : top + height, left : left + width]), label, identity


def planted_families(
    n: int,
    *,
    size: tuple[int, int] = (32, 32),
    channels: int = 3,
    redundancy: float = 0.1,
    seed: int = 0,
    classes: int = 10,
    rows: tuple[int, int] | None = None,
) -> Families:
    """n distinct images of natural statistics, a share of which are edits of others; any rows of them.

    Scenes are noise of amplitude f ** -1.4 with one to three soft-edged ellipses. An edit is a scene with
    noise (sigma 3 grey levels), another brightness (6 to 12 levels up or down) or a shift of 1 pixel, the
    last two with noise of sigma 1. Exactly ``round(n * redundancy)`` rows are edits, spread evenly over the
    set; each edits a scene drawn at random, so family sizes are 1 + a nearly Poisson number. A family has one
    label.

    Row i depends on (seed, n, redundancy, size, channels, classes, i) alone: blocks may be made in any order,
    by any worker with the same NumPy on the same kind of CPU, and join to the same set, bit for bit. The same
    seed with another n is another set.

    Parameters
    ----------
    n : int
        Images in the whole set, at least 1.
    size : (int, int)
        Height and width in pixels, at least 4.
    channels : int
        At least 1.
    redundancy : float
        Share of edits, 0 <= redundancy < 1; at least one image stays a scene.
    seed : int
        0 <= seed < 2**64.
    classes : int
        Labels are 0 .. classes - 1.
    rows : (int, int), optional
        Only rows lo <= i < hi of the n.

    Returns
    -------
    Families
        images (b, h, w, c) u1, labels (b,) i8, family (b,) i8 from 0 to n - edits - 1, one number a scene.
        About 0.35 ms an image of 32 x 32 x 3 on one core; memory is that of the result.

    Raises
    ------
    SettingsError
        If an argument is out of its range.
    """
    lo, hi = rows if rows is not None else (0, n)
    edits = round(n * redundancy) if 0 <= redundancy < 1 else n
    bounds = {
        "n": (n, n >= 1, "n >= 1"),
        "size": (size, min(size) >= 4, "height and width >= 4"),
        "channels": (channels, channels >= 1, "channels >= 1"),
        "redundancy": (
            redundancy,
            edits < n or n < 1,
            "0 <= redundancy < 1, with a scene left over",
        ),
        "seed": (seed, 0 <= seed < 2**64, "0 <= seed < 2**64"),
        "classes": (classes, classes >= 1, "classes >= 1"),
        "rows": (rows, 0 <= lo <= hi <= n, f"0 <= lo <= hi <= {n}"),
    }
    for name, (value, good, rule) in bounds.items():
        if not good:
            raise SettingsError(f"planted_families: {name}={value} is out of range.", f"It has to be {rule}.")
    # i -> (step * i + start) mod n is a bijection when step and n have no common factor; the golden ratio
    # spreads the edits evenly over the rows.
    step = max(1, int(n * 0.6180339887498949))
    while math.gcd(step, n) != 1:
        step += 1
    start = int(_rng(seed, 2, 0).integers(n))
    shape = (size[0], size[1], channels)
    images = np.empty((hi - lo, *shape), np.uint8)
    labels, family = np.empty((2, hi - lo), np.int64)
    for out, row in enumerate(range(lo, hi)):
        position = (step * row + start) % n
        images[out], labels[out], family[out] = _family_row(seed, row, position, n - edits, shape, classes)
    return Families(images, labels, family)
