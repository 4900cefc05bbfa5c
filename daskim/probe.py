"""Before any work: does every worker process see what the driver sees?

A path on a laptop's disk says nothing to a worker on another machine; without a look beforehand the first block would
fail, or, worse, a private disk would take the results and lose them. So every worker reads what the driver reads of
each INPUT, reads a file that the driver left in RUN, and leaves one of its own there, which the driver reads.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from daskim.compute import Place
from daskim.errors import SourceError
from daskim.lake import decoder_versions
from daskim.lake.manifest import MANIFEST_EXTENSIONS, manifest_columns
from daskim.lake.place import failure_of_store, is_local, locate
from daskim.remote import Options
from daskim.store import Run

__all__ = ["check_workers"]

_HEAD = 64  # bytes of a file that are compared
_ENTRIES = 1000  # of a local folder, that are looked at for a file


@dataclass(frozen=True)
class _Seen:
    """What one worker process said.

    Attributes
    ----------
    host, process : str, int
    name : str
        The file that it left in the probe's folder.
    errors : tuple of (str, str)
        (INPUT, RUN or decoders; what is wrong there).
    """

    host: str
    process: int
    name: str
    errors: tuple[tuple[str, str], ...]


def check_workers(
    place: Place,
    run: Run,
    inputs: Sequence[str],
    source_options: Mapping[str, Any] | None = None,
    *,
    others: Sequence[Run] = (),
) -> int:
    """Make sure that every worker process reads each INPUT and shares RUN with this process.

    Nothing is left in RUN. Threads share everything, and nothing is done.

    Parameters
    ----------
    inputs : sequence of str
        Paths or fsspec URLs; of a folder, one file is read.
    source_options : mapping, optional
        For fsspec, of the source.
    others : sequence of Run
        Finished runs that workers will read, too.

    Returns
    -------
    int
        Worker processes that were asked.

    Raises
    ------
    SourceError
        A worker sees something else than the driver: which, where, and the remedy.
    """
    if place.name == "threads":
        return 0
    new = run.local is not None and not os.path.lexists(run.local)
    folder = f".probe-{secrets.token_hex(8)}"
    token = secrets.token_bytes(16)
    options = Options(source_options or {})
    answers: dict[str, Any] = {}
    try:
        run.write(token, folder, "driver")
        looks = [look for url in inputs for look in _looks(url)]
        known = [(other, other.read("settings.toml")) for other in others]
        answers = place.everywhere(_see, run, folder, token, looks, options, known, decoder_versions())
        _judge(place, run, answers)
        _find_theirs(place, run, folder, token, answers)
    finally:
        _remove(run, folder, answers, new)
    return len(answers)


def _remove(run: Run, folder: str, answers: Mapping[str, Any], new: bool) -> None:
    """Take the probe away, and RUN too where the probe made it."""
    with suppress(SourceError):
        # By name first: a file system over a network may not list at once what others wrote.
        for name in ("driver", *(answer.name for answer in answers.values() if isinstance(answer, _Seen))):
            run.remove(folder, name)
        run.remove(folder)
    if new and run.local is not None:
        with suppress(OSError):
            run.local.rmdir()


def _looks(url: str) -> Iterator[tuple[str, str, bytes]]:
    """(INPUT, a path, the first bytes of that file) for what workers are to read of one INPUT.

    The INPUT itself or, of a folder, a file in it; of a manifest also an image that it names. What this process cannot
    read is for the listing to tell.
    """
    if not is_local(url):
        yield url, url, b""
        return
    path = locate(url).path
    named = [next(_files(path), path)] if os.path.isdir(path) else [path, *_named(path)]
    for name in named:
        with suppress(OSError):
            yield url, name, b"" if os.path.isdir(name) else locate(name).read(0, _HEAD)


def _named(path: str) -> list[str]:
    """An image on a disk that a manifest names, if there is one among its first rows."""
    ext = os.path.splitext(path)[1].lower()
    if ext not in MANIFEST_EXTENSIONS:
        return []
    try:
        columns = manifest_columns(locate(path), ext)
    except SourceError:  # a table of images and no manifest, or one that the listing will refuse
        return []
    names = next((columns[key] for key in ("file_name", "uri") if key in columns), [])[:_ENTRIES]
    paths = (os.path.join(os.path.dirname(path), name) for name in names if name and "://" not in name)
    return [name for name in paths if os.path.isfile(name) and os.access(name, os.R_OK)][:1]


def _files(folder: str) -> Iterator[str]:
    """Some regular files below a folder, without reading all of it."""
    left = _ENTRIES
    for at, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names)[:left]:
            left -= 1
            path = os.path.join(at, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                yield path
        if left <= 0:
            return


def _see(
    run: Run,
    folder: str,
    token: bytes,
    looks: Sequence[tuple[str, str, bytes]],
    options: Mapping[str, Any],
    known: Sequence[tuple[Run, bytes]],
    decoders: Mapping[str, str],
) -> _Seen:
    """On a worker: read, write, read back."""
    errors: list[tuple[str, str]] = []
    for url, path, head in looks:
        if wrong := _input_error(path, head, options):
            errors.append((f"INPUT {url}", wrong))
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    wrong = _run_error(run, folder, token, name)
    if wrong:
        errors.append((f"RUN {run.url}", wrong))
    for other, settings in known:
        if wrong := _other_error(other, settings):
            errors.append((f"RUN {other.url}", wrong))
    mine = decoder_versions()
    for library in sorted({*mine, *decoders}):
        if mine.get(library) != decoders.get(library):
            words = f"{library} is {mine.get(library)} where the driver has {decoders.get(library)}"
            errors.append(("decoders", words))
    return _Seen(socket.gethostname(), os.getpid(), name, tuple(errors))


def _input_error(path: str, head: bytes, options: Mapping[str, Any]) -> str:
    """What is wrong with a file or folder of INPUT here; empty where nothing is."""
    try:
        place = locate(path, options)
        is_folder, _, _ = place.info()
        if head and (is_folder or place.read(0, len(head)) != head):
            return f"{path} is another file"
    except (OSError, SourceError) as error:
        return str(error.what) if isinstance(error, SourceError) else f"{path}: {failure_of_store(error).reason}"
    return ""


def _run_error(run: Run, folder: str, token: bytes, name: str) -> str:
    """What is wrong with RUN here; empty where nothing is."""
    try:
        if run.read(folder, "driver") != token:
            return "holds another file than the driver wrote"
    except FileNotFoundError:
        return "is not the driver's: a file that the driver wrote is not there"
    except (OSError, SourceError) as error:
        return f"cannot be read: {getattr(error, 'what', error)}"
    try:
        run.write(token, folder, name)
        if run.read(folder, name) != token:
            return "gives back something else than was written"
    except (OSError, SourceError) as error:
        return f"cannot be written: {getattr(error, 'what', error)}"
    return ""


def _other_error(run: Run, settings: bytes) -> str:
    """What is wrong with a finished run here; empty where nothing is."""
    try:
        return "" if run.read("settings.toml") == settings else "is another run here"
    except FileNotFoundError:
        return "is not here"
    except (OSError, SourceError) as error:
        return f"cannot be read: {getattr(error, 'what', error)}"


def _judge(place: Place, run: Run, answers: Mapping[str, Any]) -> None:
    """Raise what the workers found wrong, workers with the same words together."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for address, answer in answers.items():
        if not isinstance(answer, _Seen):
            found["it", f"fails ({type(answer).__name__}: {answer})"].append(address)
            continue
        for what, wrong in answer.errors:
            found[what, wrong].append(f"{answer.host}, process {answer.process}, {address}")
    if not found:
        return
    told = []
    for (what, wrong), workers in list(found.items())[:4]:
        more = f" and {len(workers) - 1} more" if len(workers) > 1 else ""
        told.append(f"{what}: {wrong} (worker {workers[0]}{more})")
    if len(found) > 4:
        told.append(f"and {len(found) - 4} more")
    raise SourceError(f"--cluster {place.name}: {'; '.join(told)}", _remedy({what for what, _ in found}))


def _remedy(what: set[str]) -> str:
    if what == {"decoders"}:
        return "Install the same versions everywhere (one image, or one lock file): pixels could differ."
    names = sorted({name.partition(" ")[0] for name in what} & {"INPUT", "RUN"})
    which = " and ".join(names) or "INPUT and RUN"
    return (
        f"All workers and this machine must see the same {which}: give a URL that all can reach, such as "
        "s3://bucket/path, or a path on a file system that all of them have mounted."
    )


def _find_theirs(place: Place, run: Run, folder: str, token: bytes, answers: Mapping[str, _Seen]) -> None:
    """The driver reads the files that the workers left."""
    lost = []
    for address, answer in answers.items():
        try:
            if run.read(folder, answer.name) == token:
                continue
        except FileNotFoundError:
            pass
        lost.append(f"{answer.host}, process {answer.process}, {address}")
    if lost:
        raise SourceError(
            f"--cluster {place.name}: {len(lost)} of {len(answers)} workers wrote into RUN {run.url} what is not there "
            f"for this machine (worker {lost[0]})",
            _remedy({"RUN"}),
        )
