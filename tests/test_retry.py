"""The rule of patience: what is tried again, how long, and what is not."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.retry import GaveUp, Retry, http_status, transient


class Clock:
    """Time that passes while one sleeps, and while a request is made."""

    def __init__(self, request: float = 0.0) -> None:
        self.now, self.request, self.slept = 100.0, request, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Answer(Exception):
    """As botocore's ClientError."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def failing(times: int, error: Exception, clock: Clock) -> Any:
    made = [0]

    def function() -> int:
        clock.now += clock.request
        made[0] += 1
        if made[0] <= times:
            raise error
        return made[0]

    return function


@settings(deadline=None)
@given(
    first=st.floats(0.01, 5),
    most=st.floats(0.01, 60),
    bound=st.floats(0.1, 500),
    request=st.floats(0.001, 50),
    share=st.floats(0, 1),
)
def test_the_wait_is_bounded_in_time(first: float, most: float, bound: float, request: float, share: float) -> None:
    clock = Clock(request)
    retry = Retry(first, most, bound, clock.sleep, clock, lambda a, b: a + share * (b - a))
    with pytest.raises(GaveUp, match=r"ConnectionError: gone \(still so after"):
        retry.call(failing(10**9, ConnectionError("gone"), clock))
    assert sum(clock.slept) <= bound * (1 + 1e-9)
    assert clock.now - 100 <= bound + request + 1e-6  # no attempt begins after the bound
    assert max(clock.slept, default=0) <= max(first, most) + 1e-9


@settings(deadline=None)
@given(times=st.integers(0, 8), seed=st.floats(0, 1))
def test_it_goes_on_once_the_store_answers(times: int, seed: float) -> None:
    clock = Clock(0.01)
    retry = Retry(bound=1000, sleep=clock.sleep, clock=clock, draw=lambda a, b: a + seed * (b - a))
    assert retry.call(failing(times, Answer(503), clock)) == times + 1
    assert len(clock.slept) == times
    for wait, ceiling in zip(clock.slept, (0.2 * 2**k for k in range(9))):
        assert 0.1 * min(ceiling, 15) - 1e-9 <= wait <= min(ceiling, 15) + 1e-9


def test_what_will_not_change_is_raised_at_once() -> None:
    clock = Clock()
    retry = Retry(sleep=clock.sleep, clock=clock)
    for error in (FileNotFoundError("x"), PermissionError("x"), Answer(404), Answer(403), ValueError("x"), KeyError(1)):
        with pytest.raises(type(error)):
            retry.call(failing(3, error, clock))
    assert clock.slept == []


def test_a_long_wait_is_told_once_a_while_without_the_words_of_the_store(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(2.0)
    with pytest.raises(GaveUp):
        Retry(sleep=clock.sleep, clock=clock).call(failing(99, ConnectionError("CANARY"), clock))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) <= 1
    assert "CANARY" not in str(told)


def test_coroutines_are_tried_again() -> None:
    made = []

    async def function() -> str:
        made.append(1)
        if len(made) < 3:
            raise ConnectionResetError
        return "there"

    assert asyncio.run(Retry(first=0.001, bound=5).acall(function)) == "there"
    assert len(made) == 3


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class ReadTimeoutError(Exception): ...


class HttpError(Exception):
    code = 429


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EBUSY, "SlowDown"), True),
        (OSError(errno.ECONNRESET, "reset"), True),
        (OSError(errno.ENOSPC, "disk full"), False),
        (OSError("says nothing"), False),
        (TimeoutError(), True),
        (ReadTimeoutError(), True),
        (HttpError(), True),
        (Answer(500), True),
        (Answer(501), False),
        (Answer(505), False),
        (Answer(400, "SlowDown"), True),
        (Answer(400, "InvalidBucketName"), False),
        (Answer(412, "PreconditionFailed"), False),
        (caused(FileNotFoundError("https://host/a"), Answer(503)), True),  # what fsspec makes of any failed HEAD
        (caused(FileNotFoundError("https://host/a"), Answer(404)), False),
        (caused(OSError(errno.EIO, "odd"), Answer(403)), False),
    ],
)
def test_which_errors_pass(error: Exception, again: bool) -> None:
    assert transient(error) is again


def test_a_status_is_read_from_what_an_error_was_made_from() -> None:
    assert http_status(caused(OSError("x"), Answer(503))) == 503
    assert http_status(OSError(5, "x")) is None
