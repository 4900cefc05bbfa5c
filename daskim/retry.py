"""When a store fails for the moment: what to ask again, after how long, and when to give up.

The one place for it: `daskim.store` and `daskim.lake` use the same rule. Waits grow exponentially and are drawn at
random below that bound ("full jitter"), so that many workers do not come back together; the sum is bounded in time.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["READS", "STORE", "GaveUp", "Retry", "chain", "http_status", "transient"]

T = TypeVar("T")

_ERRNOS = {
    getattr(errno, name)
    for name in [
        "EAGAIN",
        "EBUSY",
        "ECONNABORTED",
        "ECONNREFUSED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "EINTR",
        "EIO",
        "ENETDOWN",
        "ENETRESET",
        "ENETUNREACH",
        "ENOTCONN",
        "EPIPE",
        "EREMOTEIO",
        "ESHUTDOWN",
        "ESTALE",
        "ETIMEDOUT",
    ]
    if hasattr(errno, name)
}
# Classes of aiohttp, botocore, azure-core and fsspec by name, so that none of these needs to be there.
_CLASSES = frozenset(
    [
        "ClientConnectionError",
        "ClientPayloadError",
        "ServerDisconnectedError",
        "HTTPClientError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "ResponseStreamingError",
        "IncompleteReadError",
        "ServiceRequestError",
        "ServiceResponseError",
        "IncompleteRead",
        "ResponseParserError",
        "TransportError",
    ]
)
# Seconds after which a wait is told, and between two such lines of a process.
_SILENT, _PAUSE = 5.0, 20.0
_told = float("-inf")
_PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_CREDENTIALS = frozenset({"DefaultCredentialsError", "NoCredentialsError", "ClientAuthenticationError"})
_CREDENTIALS |= {"CredentialRetrievalError", "PartialCredentialsError"}
_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 509})
_CODES = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "ServiceUnavailable"})


class GaveUp(OSError):
    """A store that went on failing; `__cause__` is the last error."""


@dataclass(frozen=True)
class Retry:
    """How often and how long.

    Attributes
    ----------
    first : float
        Bound of the first wait, seconds; it doubles from wait to wait.
    most : float
        Bound of one wait, seconds.
    bound : float
        Seconds after the start of the first attempt from which on no attempt is begun.
    sleep, clock, draw : callable
        Of `time` and `random`; a test puts its own there. `draw(a, b)` is uniform on [a, b].
    """

    first: float = 0.2
    most: float = 15.0
    bound: float = 120.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[float, float], float] = random.uniform

    def waits(self, start: float) -> Iterator[float]:
        """Seconds to wait before each further attempt; ends `bound` seconds after `start`."""
        ceiling = self.first
        while (left := start + self.bound - self.clock()) > 0:
            # A tenth at least: a draw near 0 would spend an attempt on nothing. The last wait ends at the bound.
            yield min(self.draw(0.1 * ceiling, ceiling), left)
            ceiling = min(self.most, 2 * ceiling)

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`function(*args, **kwargs)`, again while it fails for the moment.

        Raises
        ------
        GaveUp
            Still failing at the bound.
        Exception
            What is not `transient`, at once.
        """
        attempt = _Attempts(self)
        while True:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                self.sleep(attempt.after(error))

    async def acall(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """`call` for a coroutine function; it waits with `asyncio.sleep`."""
        attempt = _Attempts(self)
        while True:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                await asyncio.sleep(attempt.after(error))


class _Attempts:
    """The count of one call's attempts."""

    def __init__(self, retry: Retry) -> None:
        self._clock, self._start, self._made, self._bound = retry.clock, retry.clock(), 0, retry.bound
        self._waits = retry.waits(self._start)

    def after(self, error: Exception) -> float:
        """Seconds to wait after this failure; raises where there is no further attempt."""
        self._made += 1
        if not transient(error):
            raise error
        wait = next(self._waits, None)
        took = self._clock() - self._start
        if wait is None:
            words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise GaveUp(f"{words} (still so after {self._made} attempts in {took:.0f} s)") from error
        if took > _SILENT:
            _tell(error, self._bound - took)
        return wait


def _tell(error: BaseException, left: float) -> None:
    """One line a while for whoever waits; no word of the store's own, which may hold a credential."""
    global _told
    if time.monotonic() - _told >= _PAUSE:
        _told = time.monotonic()
        kind = type(error).__name__
        logging.getLogger("daskim").warning("a store does not answer (%s): asking for another %.0f s", kind, left)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was made from, nearest first; bounded."""
    at: BaseException | None = error
    for _ in range(8):
        if at is None:
            return
        yield at
        at = at.__cause__


def http_status(error: BaseException) -> int | None:
    """The HTTP status that an error of a store tells of, or None: of aiohttp, botocore, azure-core or gcsfs."""
    for at in chain(error):
        response = getattr(at, "response", None)
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = next(
                (v for v in (getattr(at, name, None) for name in ("status", "status_code", "code")) if v), None
            )
        try:
            status = int(found)
        except (TypeError, ValueError):
            continue
        if 100 <= status < 600:
            return status
    return None


def transient(error: BaseException) -> bool:
    """Whether the same request may well succeed in a moment.

    True for answers 408, 425, 429 and 5xx (but 501 and 505), time-outs, connections that were refused, reset or cut,
    and the input-output errors that file systems make of these. False for what is not there (404) or not allowed (403),
    and for all that is not known.
    """
    status = http_status(error)
    if status is not None and status >= 400:
        return status in _STATUSES or _code(error) in _CODES
    for at in chain(error):
        names = {kind.__name__ for kind in type(at).__mro__}
        if isinstance(at, _PERMANENT) or names & _CREDENTIALS:
            return False
        if isinstance(at, ConnectionError | TimeoutError | asyncio.TimeoutError):
            return True
        if names & _CLASSES or any("Timeout" in name for name in names):
            return True
        if isinstance(at, OSError) and at.errno in _ERRNOS:
            return True
    return False


def _code(error: BaseException) -> str | None:
    """The code of an S3 error, such as SlowDown."""
    for at in chain(error):
        response = getattr(at, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code"))
    return None


# One image that cannot be had costs its task a minute; a run's store that refuses writes for a minute is waited for.
READS = Retry(bound=60.0)
STORE = Retry(bound=120.0)
