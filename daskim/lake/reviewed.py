"""Verdicts of a person on pairs of images: ``reviewed.csv``, UTF-8, with the header ``a,b,verdict``.

``a`` and ``b`` are ids; the verdict is one of `VERDICTS`: they are the same thing, they are different, or they are the
same and a or b is the one to keep.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from daskim.errors import SettingsError, SourceError, nearest
from daskim.lake.failures import failure_of_store
from daskim.lake.place import locate

__all__ = ["VERDICTS", "Reviewed", "called_different", "read_reviewed"]

VERDICTS = ("same", "different", "keep-a", "keep-b")
_HEADER = ["a", "b", "verdict"]
_MAX_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Reviewed:
    """Verdicts, one a pair; the lists are parallel.

    Attributes
    ----------
    a, b : list of str
        Ids, a before b as in the file.
    verdict : list of str
    digest : str
        BLAKE2b of the file, hexadecimal.
    """

    a: list[str]
    b: list[str]
    verdict: list[str]
    digest: str


def read_reviewed(url: str, storage_options: Mapping[str, Any] | None = None) -> Reviewed:
    """The verdicts in the file at a path or fsspec URL.

    Raises
    ------
    SettingsError
        A row that is not `a,b,verdict`, a pair of one image with itself, or two verdicts on one pair that disagree;
        with its line number.
    SourceError
        The file cannot be read.
    """
    place = locate(url, storage_options)
    try:
        data = place.read(0, _MAX_BYTES)
    except Exception as error:  # stores raise classes of their own
        reason = failure_of_store(error, place.secrets).reason
        raise SourceError(f"cannot read the verdicts {url}: {reason}", "Give the file with --reviewed.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError(f"line {line} of {url} is not UTF-8", "Save it as UTF-8.") from None
    return _parse(text, url, blake2b(data, digest_size=16).hexdigest())


def _parse(text: str, url: str, digest: str) -> Reviewed:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found = Reviewed([], [], [], digest)
    lines: dict[tuple[str, str], tuple[int, str]] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        if header != _HEADER:
            raise SettingsError(f"line 1 of {url} is {','.join(header)!r}", "It must be: a,b,verdict")
        start = reader.line_num + 1
        for row in reader:
            if row:
                _take(row, f"line {start} of {url}", start, found, lines)
            start = reader.line_num + 1
    except csv.Error as error:
        raise SettingsError(f"line {reader.line_num} of {url}: {error}", "It must be CSV: a,b,verdict") from None
    return found


def _take(
    row: list[str], where: str, line: int, found: Reviewed, lines: dict[tuple[str, str], tuple[int, str]]
) -> None:
    if len(row) != 3 or not row[0] or not row[1]:
        raise SettingsError(f"{where} has {len(row)} fields: {','.join(row)!r}", "It must be: a,b,verdict")
    a, b, verdict = row[0], row[1], row[2].strip()
    if verdict not in VERDICTS:
        raise SettingsError(f"{where}: unknown verdict {verdict!r}", nearest(verdict, VERDICTS))
    if a == b:
        raise SettingsError(f"{where}: {a!r} is compared with itself", "a and b are the ids of two images.")
    turned = {"keep-a": "keep-b", "keep-b": "keep-a"}.get(verdict, verdict)
    pair, meant = ((a, b), verdict) if a < b else ((b, a), turned)
    before = lines.setdefault(pair, (line, meant))
    if before[1] != meant:
        raise SettingsError(f"{where} contradicts line {before[0]} on {a!r} and {b!r}", "Take one of them out.")
    if before[0] == line:
        found.a.append(a)
        found.b.append(b)
        found.verdict.append(verdict)


def called_different(
    url: str | None, ids: Sequence[str], storage_options: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Pairs of images of a set that a person called different; ascending, each once, int64.

    Parameters
    ----------
    url : str, optional
        As for `read_reviewed`; none give no pair.
    ids : sequence of str
        Of all n images, by row.

    Returns
    -------
    ndarray
        a * n + b for rows a < b. Pairs that name images of other sets are left out.
    """
    if url is None:
        return np.zeros(0, dtype=np.int64)
    read = read_reviewed(url, storage_options)
    row = {name: at for at, name in enumerate(ids)}
    found = set()
    for a, b, verdict in zip(read.a, read.b, read.verdict):
        if verdict == "different" and a in row and b in row:
            one, other = sorted((row[a], row[b]))
            found.add(one * len(ids) + other)
    return np.array(sorted(found), dtype=np.int64)
