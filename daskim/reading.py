"""The lake as the settings say: what is listed, and how an image becomes a standard array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskim.lake import ImageSpec, Listing, list_images
from daskim.settings import Images, Source

__all__ = ["listing_of", "standard_spec"]


def listing_of(source: Source, options: Mapping[str, Any] | None = None, *, whole: bool = False) -> Listing:
    """List the source; nothing is written.

    Parameters
    ----------
    options : mapping, optional
        For fsspec, of the source.
    whole : bool
        All that is there, without `source.limit` and `source.sample`.
    """
    return list_images(
        source.inputs,
        format=source.format,
        storage_options=options,
        limit=None if whole else source.limit,
        sample=None if whole else source.sample,
        seed=source.seed,
        splits=source.splits,
    )


def standard_spec(images: Images, height: int, width: int) -> ImageSpec:
    """What the settings say, at a size in pixels."""
    return ImageSpec(
        height=height,
        width=width,
        mode=images.mode,
        filter=images.filter,
        fit="native" if images.size == "native" else images.fit,
        draft=images.draft,
        max_pixels=images.max_pixels,
        max_bytes=images.max_bytes,
        max_seconds=images.max_seconds,
        flat_std=images.flat_std,
    )
