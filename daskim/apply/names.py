"""Where an image goes in a folder: its id as a path where that is safe and tells its label and split, else a new name.

An id is whatever a source called an image: it may climb (``..``), be absolute, hold any byte, be too long, or differ
from another by case only. No path that comes from here leaves the folder, and no two are one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import pandas as pd

from daskim.lake import IMAGE_EXTENSIONS, escape, extension, label_of, unescape

__all__ = ["KEPT", "Named", "column_of", "paths_for", "plain_name"]

KEPT = "kept.csv"
_PART = 255  # bytes of a name on usual file systems
_PATH = 900  # bytes of a whole path: object stores allow 1024, with the prefix
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$")


class Named(NamedTuple):
    """A path inside the folder, and whether its folders tell the image's label and split as daskim reads them."""

    path: str
    told: bool


def _bytes(part: str) -> bytes | None:
    try:
        return part.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None


def _safe(part: str, portable: bool) -> bool:
    raw = _bytes(part)
    if raw is None or not 0 < len(raw) <= _PART or "\0" in part or "/" in part:
        return False
    if part.startswith(".") or part.endswith((".", " ")) or _RESERVED.match(part) or part.lower().endswith(".zarr"):
        return False
    return not portable or escape(part) == part


def plain_name(text: str, mark: str) -> str:
    """A safe name that begins as `text` does and ends in a mark of its own (of `mark`), before the extension."""
    ext = extension(text)
    ext = ext if ext in IMAGE_EXTENSIONS else ""
    stem = text[: len(text) - len(ext)]
    stem = "".join("_" if c in "/\\\0" or unicodedata.category(c)[0] == "C" else c for c in stem)
    stem = stem.strip(". ").encode("utf-8")[: _PART - 20].decode("utf-8", "ignore")
    return f"{stem or 'image'}~{blake2b(mark.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}{ext}"


def _folder(text: str, portable: bool) -> str:
    raw = unescape(text)
    return raw if _safe(raw, portable) else plain_name(text, text)


def _path_of(id: str, label: str | None, split: str | None, ext: str, portable: bool) -> str:
    path = unescape(id) + ext
    parts = path.split("/")
    if (
        all(_safe(part, portable) for part in parts)
        and len(_bytes(path) or b"") <= _PATH
        and label_of(escape(path)) == (split, label)
        and path.lower() != KEPT
    ):
        return path
    base = parts[-1] if _safe(parts[-1], portable) else plain_name(parts[-1] or "image", id)
    return "/".join([*(_folder(text, portable) for text in (split, label) if text), base])


def paths_for(
    ids: Sequence[str],
    labels: Sequence[str | None],
    splits: Sequence[str | None],
    extensions: Sequence[str],
    *,
    portable: bool = False,
    fold: bool = False,
) -> list[Named]:
    """A path for each image, all different.

    Parameters
    ----------
    ids, labels, splits : sequences, parallel
    extensions : sequence of str
        What is added to an id to make it a file name; "" for nothing.
    portable : bool
        No control characters and no bytes that are not UTF-8 (object stores).
    fold : bool
        Names that differ by case only are one name there.
    """
    paths = [_path_of(*four, portable) for four in zip(ids, labels, splits, extensions)]
    folders: dict[str, str] = {}
    for path in paths:
        for folder in _above(path):
            folders.setdefault(_key(folder, fold), folder)
    taken: set[str] = {_key(KEPT, fold)}
    found = []
    for path, id, label, split in zip(paths, ids, labels, splits):
        mark = id
        while (key := _key(path, fold)) in taken or key in folders:
            head, slash, base = path.rpartition("/")
            path, mark = head + slash + plain_name(base, mark), mark + "+"
        taken.add(key)
        merged = any(folders[_key(folder, fold)] != folder for folder in _above(path))
        found.append(Named(path, not merged and label_of(escape(path)) == (split, label)))
    return found


def column_of(named: Sequence[Named], index: pd.Index) -> pd.Series:
    """The paths as a column of Python texts: they may hold bytes that are not UTF-8, which other kinds refuse."""
    return pd.Series([name.path for name in named], index=index, dtype=object)


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:k]) for k in range(1, len(parts))]


def _key(path: str, fold: bool) -> str:
    return unicodedata.normalize("NFC", path).casefold() if fold else path
