"""`python -m daskim.lake.child`: the child process of `daskim.lake.alone`.

It reads a pickle of (rows, job, options) from its parent and answers with messages, each a line of JSON and as many
bytes as its `data` says. On Linux the work on one image is bounded in memory and in processor time, and the kernel, if
it must end a process for memory, takes this one first.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pyarrow as pa

from daskim.lake.digests import digest_of
from daskim.lake.fetch import StoreDown
from daskim.lake.read import read_images
from daskim.lake.records import Raw, Standard

__all__: list[str] = []

# Memory that work on one image may take, bytes: so much for a pixel that is let through and for a byte of its file, and
# so much besides. Pixels of four channels are converted, turned and resized: each step holds one more copy.
_PIXEL, _BYTE, _BESIDES = 16, 4, 512_000_000


def main() -> int:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no message
    rows, job, options = pickle.load(sys.stdin.buffer)
    _last_to_live()
    try:
        for raw in read_images(rows, options, max_bytes=job.max_bytes):
            _say(answers, **_begun(raw))
            with _bounded(job, raw):
                result = job.work(raw)
            _say(answers, **_done(result))
    except StoreDown as error:
        _say(answers, kind="down", what=error.what, hint=error.hint)
    except Exception as error:
        _say(answers, kind="bug", text=f"{type(error).__name__}: {error}")
    else:
        _say(answers, kind="all")
    answers.flush()
    # Not by the usual way out: a decoder that went wrong may hang or crash there.
    os._exit(0)


def _say(answers: IO[bytes], *, data: bytes | memoryview = b"", **message: Any) -> None:
    answers.write(json.dumps({**message, "data": len(data)}).encode() + b"\n")
    answers.write(data)
    answers.flush()


def _begun(raw: Raw) -> dict[str, Any]:
    size, digest = 0, b""
    if isinstance(raw, bytes):
        size, digest = len(raw), digest_of(raw)
    elif not hasattr(raw, "status"):
        size, digest = raw.nbytes, digest_of(raw) if raw.dtype.kind in "biuf" else b""
    return {"kind": "begin", "bytes": size, "file_digest": digest.hex()}


def _done(result: Any) -> dict[str, Any]:
    if not isinstance(result, Standard):
        return {"kind": "done", "standard": None, "data": result or b""}
    told: dict[str, Any] = {"file_digest": result.file_digest.hex(), "digest": result.digest.hex()}
    told |= {name: getattr(result, name) for name in ("width", "height", "bytes", "full", "status", "reason")}
    data = b""
    if result.pixels is not None:
        told["shape"], data = result.pixels.shape, result.pixels.tobytes()
    return {"kind": "done", "standard": told, "data": data}


def _last_to_live() -> None:
    """No core files, and first in the kernel's choice when memory runs out."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


@contextlib.contextmanager
def _bounded(job: Any, raw: Raw) -> Iterator[None]:
    """Within it this process may take so much more memory and time and no more, where the system has such bounds."""
    try:
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    size = len(raw) if isinstance(raw, bytes) else int(getattr(raw, "nbytes", 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    # The parent bounds the time; this ends a child whose parent was killed.
    seconds = int(used.ru_utime + used.ru_stime + 2 * job.max_seconds) + 10
    bounds = {
        resource.RLIMIT_AS: held + min(_PIXEL * job.max_pixels + _BYTE * size + _BESIDES, _room()),
        resource.RLIMIT_CPU: seconds,
    }
    before = {name: resource.getrlimit(name) for name in bounds}
    for name, bound in bounds.items():
        hard = before[name][1]
        resource.setrlimit(name, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
    try:
        yield
    finally:
        for name, limits in before.items():
            resource.setrlimit(name, limits)


def _room() -> int:
    """Bytes of memory that are free, of the machine and of its control group."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        bound, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, bound - used))
    return free


if __name__ == "__main__":
    pa.set_cpu_count(1)
    sys.exit(main())
