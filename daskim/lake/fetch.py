"""Whole files from a store: a bounded number at a time, patiently, and never another version than was listed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import md5
from typing import Any

from daskim.errors import SourceError
from daskim.lake.failures import Changed, failure_of_store, is_beyond
from daskim.lake.place import UNKNOWN, etag_of, size_of
from daskim.lake.records import Failure
from daskim.lake.streams import read_stream
from daskim.retry import READS, Retry, transient

__all__ = ["CONNECTIONS", "StoreDown", "Wanted", "fetch", "refuse_if_down"]

# Requests that one task has under way.
CONNECTIONS = 16
_MD5 = re.compile(r"[0-9a-f]{32}")


class StoreDown(SourceError):
    """A source that answers nothing at all: no state of its images, but a reason to go on later."""


@dataclass(frozen=True)
class Wanted:
    """A file: its path in the store, and its size (-1 unknown) and entity tag as listed."""

    path: str
    size: int
    etag: str | None


Answer = bytes | Failure | Callable[[], bytes | Failure]


def fetch(
    fs: Any, wanted: Sequence[Wanted], max_bytes: int, secrets: Sequence[str] = (), retry: Retry = READS
) -> list[Answer]:
    """The bytes of each file, or why there are none.

    Parameters
    ----------
    wanted : sequence of Wanted
        As many as may be in memory together.
    max_bytes : int
        Larger files are not read in full, but reported as too-large.
    retry : Retry
        For what fails for the moment: all such files are asked for again together.

    Returns
    -------
    list of bytes, Failure or callable
        A callable reads a file that turned out to be large, when its turn comes.

    Raises
    ------
    StoreDown
        A file cannot be read, and the store now answers nothing about one that could be either.
    """
    answers: dict[int, Any] = {}
    todo = list(range(len(wanted)))
    start = retry.clock()
    waits = retry.waits(start)
    while todo:
        got = dict(zip(todo, _once(fs, [wanted[i] for i in todo], max_bytes)))
        answers.update(got)
        todo = [i for i, answer in got.items() if isinstance(answer, BaseException) and transient(answer)]
        wait = next(waits, None) if todo else None
        if wait is None:
            break
        retry.sleep(wait)
    if todo:
        read = next((i for i in range(len(wanted)) if i not in todo), todo[0])
        refuse_if_down(fs, wanted[read].path, answers[todo[0]], secrets)
    words = f" (still so after {retry.clock() - start:.0f} s)"
    return [_told(answers[i], secrets, words if i in todo else "") for i in range(len(wanted))]


def _told(answer: Any, secrets: Sequence[str], words: str) -> Answer:
    if not isinstance(answer, BaseException):
        return answer
    failure = failure_of_store(answer, secrets)
    return Failure(failure.status, failure.reason + words)


def refuse_if_down(fs: Any, path: str, error: BaseException, secrets: Sequence[str]) -> None:
    """Raise StoreDown where the store does not even say what it knows of a file."""
    try:
        fs.info(path)
    except Exception as other:
        if transient(other):
            reason = failure_of_store(error, secrets).reason
            raise StoreDown(
                f"the source does not answer: {reason}", "The same command goes on where it was, when it does."
            ) from None


def _once(fs: Any, wanted: Sequence[Wanted], max_bytes: int) -> list[Any]:
    """One try for each; exceptions are answers."""
    known = [i for i, one in enumerate(wanted) if one.size >= 0 and not _web(one.path)]
    answers: dict[int, Any] = {}
    if known:
        # One byte more than was listed, so that a file that grew is seen to have grown.
        paths, stops = [wanted[i].path for i in known], [wanted[i].size + 1 for i in known]
        bounded = {"batch_size": CONNECTIONS} if getattr(fs, "async_impl", False) else {}
        try:
            got = fs.cat_ranges(paths, [0] * len(known), stops, on_error="return", **bounded)
        except Exception as error:
            got = [error] * len(known)
        answers.update(zip(known, (b"" if is_beyond(one) else one for one in got)))
    rest = [i for i in range(len(wanted)) if i not in answers]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answers.update(zip(rest, pool.map(lambda i: _try(_read_start, fs, wanted[i], max_bytes), rest)))
        unsure = [i for i, data in answers.items() if isinstance(data, bytes) and not _surely(wanted[i], data)]
        for i, doubt in zip(unsure, pool.map(lambda i: _try(_confirm, fs, wanted[i], answers[i]), unsure)):
            answers[i] = doubt or answers[i]
    return [_bounded(answers[i], max_bytes) for i in range(len(wanted))]


def _try(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception as error:
        return error


def _web(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _read_start(fs: Any, one: Wanted, max_bytes: int) -> Any:
    """A file of unknown size; one that is longer than `UNKNOWN` is read again, alone, when its turn comes."""
    first = one.size if one.size >= 0 else min(UNKNOWN, max_bytes)
    data = _read(fs, one.path, first + 1)
    if len(data) <= first or one.size >= 0 or first == max_bytes:
        return data

    def later() -> bytes | Failure:
        try:
            return _bounded(READS.call(_read, fs, one.path, max_bytes + 1), max_bytes)
        except Exception as error:
            return failure_of_store(error)

    return later


def _read(fs: Any, path: str, most: int) -> bytes:
    if _web(path):
        return read_stream(fs, path, most)
    try:
        return bytes(fs.cat_file(path, start=0, end=most))
    except Exception as error:
        if is_beyond(error):
            return b""
        raise


def _bounded(data: Any, max_bytes: int) -> Any:
    if isinstance(data, bytes) and len(data) > max_bytes:
        return Failure("too-large", f"more than {max_bytes} bytes")
    return data


def _surely(one: Wanted, data: bytes) -> bool:
    """Whether `data` is what was listed, as far as can be told without another request."""
    if one.size >= 0 and len(data) != one.size:
        return False
    if one.etag is None:
        return True
    # The tag of an object that was put in one piece is its MD5; another tag must be asked for again.
    return _MD5.fullmatch(one.etag) is not None and md5(data, usedforsecurity=False).hexdigest() == one.etag


def _confirm(fs: Any, one: Wanted, data: bytes) -> None:
    """Ask the store whether the file is still the one that was listed. Raises Changed."""
    now = fs.info(one.path)
    if one.etag is not None and etag_of(now) == one.etag:
        if len(data) == size_of(now) or _web(one.path):  # a web server may send it packed
            return
        raise ConnectionError(f"{len(data)} bytes of {size_of(now)} came")
    raise Changed(f"it is no longer the file that was listed: {one.size} bytes then, {size_of(now)} now")
