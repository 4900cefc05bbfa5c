"""Which edits of a photograph each similarity joins with it at its default threshold, and what it joins wrongly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageFilter, ImageOps

import daskim
from daskim.lake import ImageSpec, list_images, standardise_block
from daskim.plugins import find, names, similarity_of
from daskim.similarities import score
from daskim.synthetic import photographs
from daskim.transforms.wavelet import Wavelet
from tests.bench import Options
from tests.bench.inputs import images, source
from tests.bench.table import Table

# Folder, original, its edits.
SETS = (
    ("pdq_bridge_mods", "aaa-orig.jpg", ("*.jpg",)),
    ("pdq_dihedral", "bridge-1-original.jpg", ("*.jpg",)),
    (
        "imagededup_tests",
        "base_images/ukbench00120.jpg",
        ("alpha_channel_image.png", "mixed_images/ukbench00120_*.jpg", "ukbench00120_gray.jpg"),
    ),
    ("imagededup_tests", "base_images/ukbench09380.jpg", ("formats_images/ukbench09380.[bjpw]*",)),
    ("jenssegers_variants", "forest/forest-high.jpg", ("forest/*.jpg",)),
)
# Photographs of which no two are alike.
CONTROL = "photos_bsds60"
SIDES = (32, 64)
# So many images of the least contrast, of so many.
FLATTEST = (500, 50_000)
# Edits that no similarity may miss.
SLIGHT = ("pdq blur-a-little.jpg", "pdq shrink-a-little.jpg", "jenssegers forest-low.jpg", "half", "blurred")


@dataclass(frozen=True)
class Edit:
    """Paths of a photograph and of an edit of it, and what the edit is called in a table."""

    label: str
    original: Path
    edit: Path


def run(options: Options) -> Iterator[Table]:
    with edits() as (found, control):
        sides = SIDES[:1] if options.small else SIDES
        for side in sides:
            yield direct(found, side)
        for side in sides:
            yield end_to_end(found, control, side)
        yield false_alarms(control, sides, options)


def folder_of(name: str) -> Path | None:
    root = os.environ.get("DASKIM_DATA")
    return Path(root) / name if root else None


@contextmanager
def edits() -> Iterator[tuple[list[Edit], list[Path]]]:
    """The edits, and photographs that are no edit of anything."""
    if folder_of(CONTROL) is None:
        with TemporaryDirectory() as made:
            yield made_here(Path(made))
        return
    found: list[Edit] = []
    for folder, original, patterns in SETS:
        root = folder_of(folder)
        assert root is not None
        paths = [path for pattern in patterns for path in sorted(root.glob(pattern)) if path != root / original]
        found += [Edit(f"{folder.split('_')[0]} {path.name}", root / original, path) for path in paths]
    control = folder_of(CONTROL)
    assert control is not None
    yield found, sorted(control.glob("*.jpg"))


def made_here(folder: Path) -> tuple[list[Edit], list[Path]]:
    """Edits by Pillow of one photograph; the others are the control."""
    paths = []
    for name, pixels in photographs().items():
        paths.append(folder / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    with Image.open(paths[0]) as opened:
        picture = opened.convert("RGB")
    w, h = picture.size
    changed = {
        "half": picture.resize((w // 2, h // 2), Image.Resampling.LANCZOS),
        "blurred": picture.filter(ImageFilter.GaussianBlur(2)),
        "grey": ImageOps.grayscale(picture),
        "contrast": ImageOps.autocontrast(picture, cutoff=10),
        "cropped": picture.crop((w // 10, h // 10, w - w // 10, h - h // 10)),
        "mirrored": ImageOps.mirror(picture),
        "upside down": ImageOps.flip(picture),
        "turned": picture.transpose(Image.Transpose.ROTATE_90),
    }
    found = []
    for name, image in changed.items():
        image.save(folder / f"edit {name}.png")
        found.append(Edit(name, paths[0], folder / f"edit {name}.png"))
    return found, paths[1:]


@lru_cache(maxsize=4)
def standard(paths: tuple[Path, ...], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as a run has them, in the order of `paths`: (n, side, side, 3) uint8; and which could be read."""
    listing = list_images([str(path) for path in paths])
    pixels, table = standardise_block(listing.table, ImageSpec(height=side, width=side, filter="bilinear"))
    uris = [Path(uri) for uri in listing.table["uri"].to_pylist()]
    order = [uris.index(path) for path in paths]
    ok = np.array([status in ("ok", "flat") for status in table["status"].to_pylist()])
    return pixels[order], ok[order]


def similarities(name: str, pixels: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Similarity of images i[t] and j[t], none of them given up early; in float64."""
    shown = pixels
    if find("similarities", name).of == "coefficients":  # stored units are twice the orthonormal ones
        w = Wavelet(pixels.shape[1:])(pixels)
        shown = w / (2.0 * np.sqrt(w.shape[1]))
    similarity = similarity_of(name, shown.shape[1:], screen=False)
    parts = similarity.parts(shown, np.float64)
    return score(similarity, parts, parts, i, j)[:, 0]


def threshold_of(name: str) -> float:
    return float(find("similarities", name).threshold)


def head(every: list[str]) -> list[str]:
    return ["edit", *(f"{name} {threshold_of(name):g}" for name in every)]


def data() -> str:
    return source(CONTROL) if folder_of(CONTROL) is None else "pdq, imagededup and jenssegers edits by name"


def direct(found: list[Edit], side: int) -> Table:
    """Every edit against its original; in brackets what lies below the threshold."""
    every = list(names("similarities"))
    paths = tuple(dict.fromkeys([path for edit in found for path in (edit.original, edit.edit)]))
    pixels, ok = standard(paths, side)
    i = np.array([paths.index(edit.original) for edit in found])
    j = np.array([paths.index(edit.edit) for edit in found])
    values = np.stack([similarities(name, pixels, i, j) for name in every], axis=1)
    joined = values >= [threshold_of(name) for name in every]
    readable = ok[i] & ok[j]
    table = Table(
        f"edits: similarity with the original at {side}x{side}, threshold beside the name",
        {"data": data(), "in brackets": "below the threshold", "-": "no image that can be read"},
        head(every),
    )
    for row, edit in enumerate(found):
        cells = [f"{v:.3f}" if above else f"({v:.3f})" for v, above in zip(values[row], joined[row])]
        table.rows.append([edit.label, *(cells if readable[row] else [None] * len(every))])
    table.rows.append([f"joined, of {readable.sum()}", *joined[readable].sum(axis=0).tolist()])
    slight = np.array([edit.label in SLIGHT for edit in found])
    table.checks.append(
        ("slightly blurred, shrunken and compressed ones are joined by all", bool(joined[slight].all()))
    )
    return table


def end_to_end(found: list[Edit], control: list[Path], side: int) -> Table:
    """A run over all files together: is the pair listed above the threshold, are both in one group?"""
    every = list(names("similarities"))
    paths = list(dict.fromkeys([*(edit.original for edit in found), *(edit.edit for edit in found), *control]))
    table = Table(
        f"edits: one run over all files, by links, similarities.size {side}x{side}",
        {"data": data(), "files": len(paths), "one": "in one group and listed", "group": "in one group, by others"},
        head(every),
    )
    columns = []
    counts: dict[str, list[float]] = {"joined": [], "pairs compared, %": [], "control: images not alone": []}
    for name in every:
        words, compared, together = run_of(name, paths, found, control, side)
        columns.append(words)
        counts["joined"].append(sum(word in ("one", "group") for word in words))
        counts["pairs compared, %"].append(100 * compared)
        counts["control: images not alone"].append(together)
    table.rows += [[edit.label, *row] for edit, row in zip(found, zip(*columns))]
    table.rows += [[label, *row] for label, row in counts.items()]
    return table


def run_of(
    name: str, paths: list[Path], found: list[Edit], control: list[Path], side: int
) -> tuple[list[str | None], float, int]:
    """A word for each edit; the share of pairs that was compared; images of the control in a group with another."""
    settings: dict[str, str | int] = {"method": "similarity", "similarities.name": name, "clusters.by": "threshold"}
    settings["candidates.sample"] = 0  # the estimate of recall would compare most pairs of so few images
    if find("similarities", name).of == "pixels":
        settings["similarities.size"] = f"{side}x{side}"
    done = daskim.reduce([str(path) for path in paths], settings=settings)
    plan = done.plan.assign(path=[Path(uri) for uri in done.plan["uri"]]).set_index("path")
    row, cluster, status = (plan[column].to_dict() for column in ("row", "cluster", "status"))
    facts = done.summary["similarities"]
    pairs = done.pairs
    near = pairs[pairs["similarity"] >= facts["min_similarity"]]
    listed = set(zip(near["a"], near["b"]))
    words: list[str | None] = []
    for edit in found:
        pair = sorted((row[edit.original], row[edit.edit]))
        if status[edit.edit] not in ("ok", "flat"):
            words.append(None)
        elif cluster[edit.original] == cluster[edit.edit]:
            words.append("one" if tuple(pair) in listed else "group")
        else:
            words.append("listed" if tuple(pair) in listed else "no")
    sizes = plan["cluster"].value_counts()
    return words, float(facts["compared_share"]), int(sum(sizes[cluster[path]] > 1 for path in control))


def flattest(count: int, of: int) -> np.ndarray:
    """The images of the set with the least contrast: mostly sky. Contrast: that of the channel that varies most."""
    pixels = images(of)
    blocks = np.array_split(pixels, max(1, of // 1000))
    spread = np.concatenate([block.std(axis=(1, 2)).max(axis=1) for block in blocks])
    return pixels[np.sort(np.argsort(spread, kind="stable")[:count])]


def false_alarms(control: list[Path], sides: tuple[int, ...], options: Options) -> Table:
    """All pairs of images that are not alike, and those at or above the threshold."""
    count, of = FLATTEST if folder_of(CONTROL) and not options.small else (60, 600)
    real = folder_of(CONTROL) is not None
    unlike = CONTROL if real else "photographs"
    shown = {f"{unlike} {side}x{side}": standard(tuple(control), side)[0] for side in sides}
    shown[f"flattest {count} of {of}"] = flattest(count, of)
    table = Table(
        "edits: pairs of unlike images at or above the threshold",
        {"data": f"{data()}; {source()}", "flattest": "least contrast, mostly sky; a few of their pairs are alike"},
        ["similarity", "threshold", *(text for what in shown for text in (what, f"largest of {what}"))],
    )
    for name in names("similarities"):
        table.rows.append([name, threshold_of(name)])
        for what, pixels in shown.items():
            i, j = np.triu_indices(len(pixels), 1)
            values = similarities(name, pixels, i, j)
            above = int((values >= threshold_of(name)).sum())
            table.rows[-1] += [above, float(values.max())]
            if real and what.startswith(CONTROL):
                table.checks.append((f"{name}: no pair of {what}", above == 0))
    return table
