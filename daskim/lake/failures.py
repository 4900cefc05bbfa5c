"""What a store or a file system raised, as the status of an image."""

from __future__ import annotations

from collections.abc import Sequence

from daskim.lake.names import escape
from daskim.lake.records import Failure
from daskim.remote import blot
from daskim.retry import chain, http_status

__all__ = ["Changed", "NotAFile", "failure_of_store", "is_beyond"]


class NotAFile(OSError):
    """A path that is not a regular file."""


class Changed(OSError):
    """A file that is no longer what was listed."""


def is_beyond(error: object) -> bool:
    """Whether a store refuses a range of bytes because the file ends before it begins."""
    return isinstance(error, Exception) and (http_status(error) == 416 or "not satisfiable" in str(error))


def failure_of_store(error: BaseException, secrets: Sequence[str] = ()) -> Failure:
    """The status for an exception that a store raised; storage options are blotted out of the reason."""
    words = blot(str(error).strip(), secrets)
    reason = escape(f"{type(error).__name__}: {words}" if words else type(error).__name__)[:300]
    if isinstance(error, NotAFile):
        return Failure("not-a-file", reason)
    if isinstance(error, Changed) or http_status(error) == 412:
        return Failure("changed", reason)
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return Failure("not-a-file" if isinstance(error, IsADirectoryError) else "missing", reason)
    if isinstance(error, FileNotFoundError):
        return Failure("missing", reason)
    if isinstance(error, PermissionError):
        return Failure("no-permission", reason)
    if any(isinstance(at, TimeoutError) or "timeout" in type(at).__name__.lower() for at in chain(error)):
        return Failure("timeout", reason)
    return Failure("read-error", reason)
