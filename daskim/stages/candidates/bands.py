"""Pairs of images whose sets of large wavelet coefficients are alike: MinHash bands, one task a band."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dask.array as da
import numpy as np

from daskim.errors import SettingsError
from daskim.kept import order_of, take
from daskim.kernels.coarse import luma
from daskim.kernels.lsh import (
    Bands,
    band_pairs,
    band_pairs_between,
    choose_bands,
    mirrored_tokens,
    signature_table,
    signatures,
    signed_top_coefficients,
)
from daskim.renewal import renew_rows
from daskim.settings import Candidates
from daskim.stages import Change, Context
from daskim.stages.candidates.rows import NAME
from daskim.store import Run, block_bounds

__all__ = ["SIDE", "bands_of", "forms_of", "lsh_pairs"]

# Luma thumbnail whose coefficients are taken, and the number of possible tokens: two signs of each.
SIDE = 32
UNIVERSE = 2 * SIDE * SIDE
# Images of one task.
ROWS = 8192


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


def lsh_pairs(
    context: Context, rows: np.ndarray, change: Change | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Pairs a < b of images that share a band, each once, ordered; and facts.

    Parameters
    ----------
    rows : ndarray, shape (p,), int64
        Images that are searched.
    change : Change, optional
        A delivery: only the signatures of its images are made. The buckets are sorted anew, as a crowded one may have
        become a star.
    """
    run, settings = context.run, context.settings.candidates
    bands = bands_of(settings, len(rows))
    mark = "" if change is None else f"{change.mark}-"
    run.save(rows, "partial", NAME, "rows.npy")
    # a crowded bucket becomes a star around the image that is listed first
    run.save(np.argsort(order_of(run, context.known.n)[rows]), "partial", NAME, "listed.npy")
    if change is None:
        _signatures(context, bands, "signatures")
    elif str(run.array("signatures").attrs["permutations"]) != str(bands.permutations):
        context.say(f"{NAME}: {len(rows):,} images need signatures of {bands.permutations}: they are made anew")
        _signatures(context, bands, f"{mark}signatures")
    else:
        signer = _Signer(settings, bands.permutations)
        renew_rows(context.engine, NAME, f"{mark}signed", change.added, context.known.n, "signatures", signer)
    keys = [f"{mark}{band:04d}" for band in range(bands.b)]
    calls = [(band, bands.r, settings.bucket, forms_of(settings)) for band in range(bands.b)]
    infos = context.engine.each(NAME, "band", keys, calls, pairs_of_band)
    codes = np.unique(np.concatenate([run.load("partial", NAME, f"band-{key}.npy") for key in keys]))
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
        "predicted_recall": bands.recall,
        "crowded_buckets": stars,
    }
    n = context.known.n
    return codes // n, codes % n, facts


def forms_of(settings: Candidates) -> int:
    """Forms of an image that have a signature: the image, its crops if asked for, and each of them mirrored."""
    return (1 + len(settings.crops) * settings.crop_signatures) * (1 + settings.mirror)


class _Signer:
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
        _Signer(settings, bands.permutations),
        dtype="u4",
        drop_axis=[1, 2, 3],
        new_axis=[1],
        chunks=(images.chunks[0], (columns,)),
        meta=np.empty((0, 0), dtype="u4"),
    )
    context.engine.materialise(NAME, group, found, "signatures")


def pairs_of_band(run: Run, key: str, band: int, r: int, bucket: int, forms: int) -> dict[str, Any]:
    """Pairs of images that are equal in one band, in any form of one of them, as numbers a * n + b with a < b."""
    rows = run.load("partial", NAME, "rows.npy")
    n, columns = run.array("signatures").shape
    starts = [form * (columns // forms) + band * r for form in range(forms)]
    values: list[list[np.ndarray]] = [[] for _ in starts]
    for lo, hi in block_bounds(len(rows), ROWS) or [(0, 0)]:
        block = take(run, "signatures", rows[lo:hi])
        for part, start in zip(values, starts):
            part.append(block[:, start : start + r].copy())
    listed = run.load("partial", NAME, "listed.npy")
    plain, rows = np.concatenate(values[0])[listed], rows[listed]
    found = [band_pairs(plain, cap=bucket)]
    found += [band_pairs_between(plain, np.concatenate(form)[listed], cap=bucket) for form in values[1:]]
    a, b = rows[np.concatenate([part.a for part in found])], rows[np.concatenate([part.b for part in found])]
    other = a != b
    codes = np.unique(np.minimum(a, b)[other] * n + np.maximum(a, b)[other])
    run.save(codes, "partial", NAME, f"band-{key}.npy")
    capped = np.concatenate([part.capped for part in found])
    return {"stars": len(capped), "largest": int(capped.max(initial=0))}
