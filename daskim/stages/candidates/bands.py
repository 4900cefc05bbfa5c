"""Pairs of images whose sets of large wavelet coefficients are alike: MinHash bands.

The signatures are cut into bands, a file for each and for each run of images. Then a task sorts one band, or of many
images a share of its values: so it holds as much however many images there are. Unrelated images meet too, the more the
more images there are: nearly all such pairs are told by a bit of each number of their signatures, and left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from daskim.errors import SettingsError
from daskim.kept import order_of, take
from daskim.kernels.coarse import luma
from daskim.kernels.lsh import (
    Bands,
    agreement,
    band_pairs,
    band_pairs_between,
    choose_bands,
    kept_recall,
    least_agreement,
    mirrored_tokens,
    signature_table,
    signatures,
    signed_top_coefficients,
    sketches,
)
from daskim.kernels.lsh.sketch import SPREAD
from daskim.renewal import renew_rows
from daskim.settings import Candidates
from daskim.stages import Change, Context
from daskim.stages.candidates.order import order_in
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["CUT", "SIDE", "SORTED", "Signer", "bands_of", "forms_of", "lsh_files"]

# Luma thumbnail whose coefficients are taken, and the number of possible tokens: two signs of each.
SIDE = 32
UNIVERSE = 2 * SIDE * SIDE
# Images whose signatures are cut by one task, and whose values of a band are sorted by one, about.
CUT = 16_384
SORTED = 2**19


class Asked(NamedTuple):
    """What is asked of pairs that share a band.

    Attributes
    ----------
    bucket : int
        Images of a bucket above which it becomes a star.
    bits : int
        Of a sketch.
    least : int
        Of these that have to be equal.
    """

    bucket: int
    bits: int
    least: int


def bands_of(settings: Candidates, n: int) -> Bands:
    """Bands and numbers in each that reach the stated recall.

    Raises
    ------
    SettingsError
        The permutations do not suffice.
    """
    try:
        return choose_bands(settings.jaccard, settings.recall, n, allowed=settings.permutations)
    except ValueError as error:
        raise SettingsError(
            f"candidates: {error}", "Lower candidates.recall, raise candidates.jaccard or candidates.permutations."
        ) from None


def lsh_files(
    context: Context, rows: np.ndarray, edges: list[int], change: Change | None = None
) -> tuple[list[list[str]], dict[str, Any]]:
    """Files of the pairs that share a band and are no chance, as a * n + b, a < b, for each range of a; and facts.

    a and b are places (`order.py`); after a delivery, rows.

    Parameters
    ----------
    rows : ndarray, shape (p,), int64
        Images that are searched.
    edges : list of int
        Where the ranges begin.
    change : Change, optional
        A delivery: only the signatures of its images are made. The buckets are sorted anew, as a crowded one may have
        become a star.
    """
    run, settings = context.run, context.settings.candidates
    bands = bands_of(settings, len(rows))
    mark = "" if change is None else f"{change.mark}-"
    if change is None:
        _signatures(context, bands, "signatures")
    elif str(run.array("signatures").attrs["permutations"]) != str(bands.permutations):
        context.say(f"{NAME}: {len(rows):,} images need signatures of {bands.permutations}: they are made anew")
        _signatures(context, bands, f"{mark}signatures")
    else:
        signer = Signer(settings, bands.permutations)
        renew_rows(context.engine, NAME, f"{mark}signed", change.added, context.known.n, "signatures", signer)
    # a crowded bucket becomes a star around the image that is listed first
    place = order_of(run, context.known.n)
    bounds = block_bounds(len(rows), CUT) or [(0, 0)]
    groups = [f"{mark}{index:06d}" for index in range(len(bounds))]
    cuts = [(rows[lo:hi], place[rows[lo:hi]], bands.b, bands.r, forms_of(settings)) for lo, hi in bounds]
    context.engine.each(NAME, "cut", groups, cuts, cut_bands)
    shares = -(-len(rows) // SORTED) or 1
    each = [(band, share) for band in range(bands.b) for share in range(shares)]
    keys = [f"{mark}{index:04d}" for index in range(len(each))]
    least = least_agreement(settings.least_jaccard, bands.permutations)
    asked = Asked(settings.bucket, bands.permutations, least)
    calls = [(groups, band, share, shares, asked, context.known.n, edges, change is None) for band, share in each]
    infos = context.engine.each(NAME, "band", keys, calls, pairs_of_band)
    stars = sum(info["stars"] for info in infos)
    if stars:
        largest = max(info["largest"] for info in infos)
        context.say(
            f"candidates: {stars} crowded buckets, up to {largest:,} images, were searched around one image each "
            f"(candidates.bucket = {settings.bucket})"
        )
    facts = {
        "bands": bands.b,
        "band_rows": bands.r,
        "permutations": bands.permutations,
        "predicted_recall": kept_recall(bands, settings.jaccard, least),
        "met": sum(info["met"] for info in infos),
        "crowded_buckets": stars,
    }
    files = [
        [f"band-{key}-{index:03d}.npy" for key, info in zip(keys, infos) if index in info["ranges"]]
        for index in range(len(edges))
    ]
    return files, facts


def forms_of(settings: Candidates) -> int:
    """Forms of an image that have a signature: the image, its crops if asked for, and each of them mirrored."""
    return (1 + len(settings.crops) * settings.crop_signatures) * (1 + settings.mirror)


class Signer:
    """Signatures of all forms of a block of images, beside one another; the images as they are first."""

    def __init__(self, settings: Candidates, permutations: int) -> None:
        self.settings, self.permutations = settings, permutations

    def __call__(self, block: np.ndarray) -> np.ndarray:
        table = _table(self.permutations, self.settings.seed)
        found = []
        for share in (1.0, *(self.settings.crops if self.settings.crop_signatures else ())):
            tokens = signed_top_coefficients(luma(block, SIDE, share), self.settings.coefficients)
            found.append(signatures(tokens, table))
            if self.settings.mirror:
                found.append(signatures(mirrored_tokens(tokens, SIDE), table))
        return np.concatenate(found, axis=1)


@lru_cache(maxsize=1)
def _table(permutations: int, seed: int) -> np.ndarray:
    return signature_table(UNIVERSE, permutations, seed)


def _signatures(context: Context, bands: Bands, group: str) -> None:
    """Leave the array `signatures` (n, forms * permutations) in the run."""
    import dask.array as da

    run, size, settings = context.run, context.known, context.settings.candidates
    columns = bands.permutations * forms_of(settings)
    if not any(key.startswith(f"{group}-") for key in run.marked(NAME)):
        attributes = {
            "bands": bands.b,
            "rows": bands.r,
            "permutations": bands.permutations,
            "seed": settings.seed,
            "coefficients": settings.coefficients,
        }
        run.create_array("signatures", (size.n, columns), "u4", size.rows, attributes)
    images = da.from_zarr(run.array("images"), chunks=(size.rows, -1, -1, -1))
    found = images.map_blocks(
        Signer(settings, bands.permutations),
        dtype="u4",
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(images.chunks[0], (columns,)),
        meta=np.empty((0, 0), dtype="u4"),
    )
    context.engine.materialise(NAME, group, found, "signatures")


def cut_bands(run: Run, key: str, rows: np.ndarray, place: np.ndarray, b: int, r: int, forms: int) -> dict[str, Any]:
    """Values of some images in each band, files (forms, r, images), uint32; sketches; and their rows and places."""
    found = take(run, "signatures", rows)
    found = found.reshape(len(rows), forms, found.shape[1] // forms)
    for band in range(b):
        values = found[:, :, band * r : (band + 1) * r].transpose(1, 2, 0)
        run.save(np.ascontiguousarray(values), "partial", NAME, f"cut-{key}-{band:03d}.npy")
    run.save(np.ascontiguousarray(sketches(found).transpose(1, 0, 2)), "partial", NAME, f"cut-{key}-sketch.npy")
    run.save(np.stack([rows, place]), "partial", NAME, f"cut-{key}-rows.npy")
    return {}


def pairs_of_band(
    run: Run,
    key: str,
    groups: list[str],
    band: int,
    share: int,
    shares: int,
    asked: Asked,
    n: int,
    edges: list[int],
    placed: bool,
) -> dict[str, Any]:
    """Pairs of images that are equal in one band, in any form of one of them, as numbers a * n + b with a < b.

    With `placed`, a and b are their places.

    Of all values of the band only a share, told by a hash of the first number: images that are equal have the same.
    """
    parts: list[list[_Listed]] = []
    for group in groups:
        values = run.load("partial", NAME, f"cut-{group}-{band:03d}.npy")
        bits = run.load("partial", NAME, f"cut-{group}-sketch.npy")
        rows, place = run.load("partial", NAME, f"cut-{group}-rows.npy")
        mine = [_share_of(form[0], shares) == share for form in values]
        parts.append(
            [
                _Listed(form[:, some].T, bit[some], rows[some], place[some])
                for form, bit, some in zip(values, bits, mine)
            ]
        )
    plain, *others = [_in_order(form) for form in zip(*parts)]
    pairs, capped, met = [], [], 0
    for other in (None, *others):
        if other is None:
            found, other = band_pairs(plain.values, cap=asked.bucket), plain
        else:
            found = band_pairs_between(plain.values, other.values, cap=asked.bucket)
        alike = agreement(plain.bits, found.a, other.bits, found.b, asked.bits) >= asked.least
        pairs.append(np.stack([plain.rows[found.a[alike]], other.rows[found.b[alike]]]))
        capped.append(found.capped)
        met += len(found.a)
    both = np.concatenate(pairs, axis=1)
    both = both[:, both[0] != both[1]]
    both = np.sort(order_in(run, n).places[both] if placed else both, axis=0)
    codes = np.unique(both[0] * n + both[1])
    owner = np.searchsorted(edges, codes // n, side="right") - 1
    ranges = np.unique(owner).tolist()
    for index in ranges:
        run.save(codes[owner == index], "partial", NAME, f"band-{key}-{index:03d}.npy")
    stars = np.concatenate(capped)
    return {"stars": len(stars), "largest": int(stars.max(initial=0)), "ranges": ranges, "met": met}


class _Listed(NamedTuple):
    """Values (images, r), sketches (images, bytes), rows and places (images,) of some images."""

    values: np.ndarray
    bits: np.ndarray
    rows: np.ndarray
    place: np.ndarray


def _share_of(first: np.ndarray, shares: int) -> np.ndarray:
    """Which share values (images,) uint32 are in, by the upper bits of their hash."""
    return (first * SPREAD).astype(np.uint64) * np.uint64(shares) >> np.uint64(32)


def _in_order(parts: tuple[_Listed, ...]) -> _Listed:
    """All of some images in the order of the listing."""
    whole = _Listed(*map(np.concatenate, zip(*parts)))
    order = np.argsort(whole.place, kind="stable")
    return _Listed(*(column[order] for column in whole))
