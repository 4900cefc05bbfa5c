"""Rows for stacks of images: IDX files and arrays, with the labels that lie beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from daskim.errors import SourceError
from daskim.lake import arrays, idx
from daskim.lake.entries import Entry
from daskim.lake.failures import failure_of_store
from daskim.lake.names import escape, split_of_folder, split_of_prefix
from daskim.lake.rows import broken_rows, make_rows

__all__ = ["list_arrays", "list_idx"]


def list_idx(chosen: list[Entry], alone: bool) -> list[pa.Table]:
    """Rows of each IDX file of images. Labels come from the file named alike (images -> labels, idx1)."""
    by_name = {idx.plain_name(entry.rel): entry for entry in chosen}
    tables = []
    for entry in chosen:
        if not alone and not idx.is_idx_images(entry.rel):
            continue
        try:
            source = idx.open_idx(entry.place)
            labels = _idx_labels(entry, by_name, alone)
        except (OSError, SourceError) as error:
            tables.append(_broken_container(entry, "idx", error))
            continue
        name = idx.plain_name(entry.rel)
        tables += _stack_rows(entry, "idx", name, None, source.shape, source.whole, labels, split_of_prefix(name))
    return tables


def _idx_labels(entry: Entry, by_name: Mapping[str, Entry], alone: bool) -> list[str | None] | None:
    for name in idx.sibling_labels(entry.rel):
        if name in by_name:
            return list(idx.read_idx_labels(by_name[name].place))
        if alone:
            base = name.rpartition("/")[2]
            for suffix in ("", ".gz"):
                place = entry.place.parent().join(base + suffix)
                if place.exists():
                    return list(idx.read_idx_labels(place))
    return None


def _broken_container(entry: Entry, kind: str, error: Exception) -> pa.Table:
    if isinstance(error, SourceError):
        reason = f"{error.what} {error.hint}".strip()
        return broken_rows(entry.rel, entry.place.url, kind, "corrupt", reason, entry.mtime, entry.etag)
    failure = failure_of_store(error, entry.place.secrets)
    return broken_rows(entry.rel, entry.place.url, kind, failure.status, failure.reason, entry.mtime, entry.etag)


def list_arrays(chosen: list[Entry], alone: bool, options: Mapping[str, Any]) -> list[pa.Table]:
    """Rows of each .npy, .npz or Zarr hierarchy of images.

    Labels come from beside them (`arrays.label_names`); with `alone`, the INPUT is one file, and its neighbours
    are looked for by those names.
    """
    by_name = {entry.rel: entry for entry in chosen}
    tables = []
    for entry in chosen:
        if not alone and arrays.is_label_name(entry.rel):
            continue
        try:
            tables += _list_array(entry, by_name, alone, options)
        except (OSError, SourceError, KeyError) as error:
            tables.append(_broken_container(entry, "array", error))
    return tables


def _list_array(entry: Entry, by_name: Mapping[str, Entry], alone: bool, options: Mapping[str, Any]) -> list[pa.Table]:
    shapes = arrays.shapes_inside(entry.place, options)
    if shapes is None:
        source = arrays.open_array(entry.place, None, options)
        labels = _sibling_labels(entry, by_name, alone, source.shape[0], options)
        split = split_of_folder(entry.rel) or arrays.split_of_key(entry.rel)
        return _stack_rows(entry, "array", entry.rel, None, source.shape, source.whole, labels, split)
    pairs = arrays.pair_keys(shapes)
    if not pairs:
        what = ", ".join(f"{key} {shape}" for key, shape in sorted(shapes.items())) or "nothing"
        raise SourceError(f"{entry.place.url} holds no array of images (n, h, w[, c]), but {what}")
    tables = []
    for key, label_key in pairs.items():
        source = arrays.open_array(entry.place, key, options)
        labels = None
        if label_key is not None:
            labels = arrays.read_labels(entry.place, label_key, source.shape[0], options)
        split = arrays.split_of_key(key) or split_of_prefix(entry.rel)
        name = f"{entry.rel}/{escape(key)}"
        tables += _stack_rows(entry, "array", name, key, source.shape, source.whole, labels, split)
    return tables


def _sibling_labels(
    entry: Entry, by_name: Mapping[str, Entry], alone: bool, count: int, options: Mapping[str, Any]
) -> list[str | None] | None:
    """Labels of an .npy or Zarr array from a file beside it."""
    folder, slash, _ = entry.rel.rpartition("/")
    stacks = [name for name in by_name if not arrays.is_label_name(name) and name.rpartition("/")[0] == folder]
    for name in arrays.label_names(entry.rel):
        if name == "labels" and len(stacks) > 1:
            continue  # whose would they be?
        for ext in (".npy", ".zarr"):
            rel = folder + slash + name + ext
            if rel in by_name:
                return arrays.read_labels(by_name[rel].place, None, count, options)
            if alone and ext == ".npy":
                place = entry.place.parent().join(name + ext)
                if place.exists():
                    return arrays.read_labels(place, None, count, options)
    return None


def _stack_rows(
    entry: Entry,
    kind: str,
    name: str,
    member: str | None,
    shape: tuple[int, ...],
    whole: int,
    labels: list[str | None] | None,
    split: str | None,
) -> list[pa.Table]:
    """Rows of a stack: one for each image that is there, and one for all that the header claims beyond."""
    count = shape[0] if whole < 0 else min(shape[0], whole)
    given = labels
    if given is not None:
        given = (given + [None] * count)[:count]
    url = entry.place.url
    tables = [
        make_rows(
            count,
            id=[f"{name}#{row:08d}" for row in range(count)],
            uri=[f"{url}{'/' + member if member else ''}#{row}" for row in range(count)],
            label=given,
            split=split,
            format=kind,
            container=url,
            item=np.arange(count, dtype=np.int64),
            member=member,
            mtime=entry.mtime,
            etag=entry.etag,
        )
    ]
    if count < shape[0]:
        reason = f"the file ends after {count} of {shape[0]} images"
        tables.append(broken_rows(name, url, kind, "truncated", reason, entry.mtime, entry.etag))
    return tables
