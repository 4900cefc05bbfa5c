"""One run, one command at a time: a lease on the run, renewed while its holder lives.

    RUN/lock/00000007.json   the holder: host, process, since when, and a count of its signs of life

A lease is taken by creating the next number, which must not be there: the store decides who was first. Numbers only
grow, so whoever has not the highest one has lost the run, and finds that out before it seals a stage. A released lease
keeps its number; the next holder removes the lower ones.

Who has ended without releasing is found out in one of two ways. On the same machine the process is looked up, with the
time of its start: a dead one blocks nobody. On another machine its count is watched: when it does not change for
`SILENCE` seconds of the watcher's own clock, the holder is taken for dead. No two clocks are ever compared.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from daskim.errors import SourceError
from daskim.store import Run

__all__ = ["BEAT", "SILENCE", "Lease", "held"]

FOLDER = "lock"
# Seconds between signs of life, and seconds without one after which a holder on another machine is taken for dead: long
# enough for a store that answers nothing for a minute.
BEAT = 10.0
SILENCE = 90.0
# Where a store cannot refuse to create what is there, seconds until a holder makes sure that its file is still its own.
SETTLE = 3.0
# Stores whose exclusive creation is atomic, where they have it at all; the lease tries that out.
ATOMIC = frozenset(["file", "local", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"])


# Owners of the leases that this process holds: one of its own that it could not give back, on a full disk, is dead.
_HERE: set[str] = set()


@contextmanager
def held(run: Run, say: Callable[[str], None] = lambda text: None) -> Iterator[Lease]:
    """Hold a run while the context is open; released at its end, also by errors and interruptions.

    Parameters
    ----------
    say : callable
        Told what is waited for.

    Raises
    ------
    SourceError
        Another command is at work on the run.
    """
    lease = Lease(run, say)
    lease.take()
    beating = threading.Thread(target=lease.beat, name="daskim-lease", daemon=True)
    beating.start()
    try:
        yield lease
    finally:
        lease.ended.set()
        beating.join(timeout=BEAT)
        lease.release()


class Lease:
    """A lease on a run; `held` takes, renews and releases it.

    Parameters
    ----------
    clock, wait : callable
        Seconds of a clock of this process that only goes on, and what waits so many seconds; a test has its own.

    Attributes
    ----------
    owner : str
        Of this lease alone.
    number : int
        0 while it is not taken.
    ended : threading.Event
        Set when no sign of life is to be given any more.
    """

    def __init__(
        self,
        run: Run,
        say: Callable[[str], None] = lambda text: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.run = run
        self.number = 0
        self.ended = threading.Event()
        self._say, self._clock, self._wait = say, clock, wait
        self._fresh = False
        self._beats = 0
        self._lost = ""
        protocol = run.url.partition("://")[0] if "://" in run.url else "file"
        self._refuses = protocol in ATOMIC
        self.owner = secrets.token_hex(16)
        self._own = {
            "owner": self.owner,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "command": " ".join(os.path.basename(word) for word in sys.argv[:1]),
            "since": _now(),
        }

    def take(self) -> None:
        """Take the lease, from a holder that is dead if there is one.

        Raises
        ------
        SourceError
            Its holder lives.
        """
        _HERE.add(self.owner)
        try:
            self._fresh = not self.run.exists()
            self.number = self._taken()
        except BaseException:
            _HERE.discard(self.owner)
            raise
        for name in self.run.names(FOLDER):
            if name < _name(self.number):
                self.run.remove(FOLDER, name)

    def _taken(self) -> int:
        while True:
            number, record = self._highest()
            if number and not record.get("released") and not self._dead(number, record):
                continue  # it was released, or lost, while it was watched
            if self._create(number + 1) and self._first(number + 1):
                return number + 1

    def beat(self) -> None:
        """Give a sign of life every `BEAT` seconds until `ended` is set or the lease is lost."""
        while not self.ended.wait(BEAT):
            # A store that fails for the moment is asked again at the next beat; `check` tells if the lease went.
            with suppress(Exception):
                self.renew()
            if self._lost:
                return

    def renew(self) -> None:
        """One sign of life, if the lease is still held."""
        self._look()
        if not self._lost:
            self._beats += 1
            self.run.write(self._record(), FOLDER, _name(self.number))

    def check(self, *, ask: bool = True) -> None:
        """Make sure that the run is still ours.

        Parameters
        ----------
        ask : bool
            Ask the store; else what the last sign of life found.

        Raises
        ------
        SourceError
            Another command has taken the run over: this one must not write into it any more.
        """
        if ask:
            self._look()
        if self._lost:
            raise SourceError(
                f"run {self.run.url}: no longer held by this command; it is held by {self._lost}",
                f"This one gave no sign of life for {SILENCE:.0f} s, and another took over. Leave the run to it.",
            )

    def _look(self) -> None:
        number, record = self._highest()
        if number != self.number:
            self._lost = _holder(record) if number > self.number else "nobody: the folder was removed"

    def release(self) -> None:
        """Give the lease back. A run in which nothing else was written is not left behind."""
        _HERE.discard(self.owner)
        with suppress(Exception):  # whoever comes next finds out that this process has ended
            if self._lost or self._highest()[0] != self.number:
                return
            if self._fresh and self.run.names() == [FOLDER]:
                self.run.remove(FOLDER)
                if self.run.local is not None:
                    self.run.local.rmdir()
                return
            self.run.write(self._record(released=True), FOLDER, _name(self.number))

    def _record(self, *, released: bool = False) -> bytes:
        record = {**self._own, "beats": self._beats, "last": _now(), "released": released}
        return (json.dumps(record, indent=1) + "\n").encode()

    def _highest(self) -> tuple[int, dict[str, Any]]:
        """Number and record of the lease that counts; 0 where there is none, {} where its file is being written."""
        numbers = [int(name[:-5]) for name in self.run.names(FOLDER) if name[:-5].isdecimal()]
        if not numbers:
            return 0, {}
        number = max(numbers)
        try:
            record = json.loads(self.run.read(FOLDER, _name(number)))
        except (FileNotFoundError, ValueError):
            return number, {}
        return number, record if isinstance(record, dict) else {}

    def _dead(self, number: int, record: dict[str, Any]) -> bool:
        """Whether the holder has ended; False when the lease has passed on meanwhile.

        Raises
        ------
        SourceError
            It lives.
        """
        if record.get("machine") == self._own["machine"]:
            mine = record.get("pid") == os.getpid() and record.get("started") == self._own["started"]
            if mine and record.get("owner") not in _HERE:
                return True
            if _lives(record.get("pid"), record.get("started")):
                raise self._in_use(record)
            return True
        self._say(
            f"run {self.run.url}: held by {_holder(record)}, on another machine: watching for {SILENCE:.0f} s at most "
            "whether that lives"
        )
        until = self._clock() + SILENCE
        while self._clock() < until:
            self._wait(min(BEAT / 2, SILENCE))
            now, other = self._highest()
            if now != number or other.get("released"):
                return False
            if record and other.get("beats") != record.get("beats"):
                raise self._in_use(other)
            record = record or other
        self._say(f"run {self.run.url}: no sign of life of {_holder(record)} for {SILENCE:.0f} s: taken over")
        return True

    def _in_use(self, record: dict[str, Any]) -> SourceError:
        return SourceError(
            f"run {self.run.url}: in use by {_holder(record)}",
            "Wait until that has ended, end it, or choose another --run.",
        )

    def _create(self, number: int) -> bool:
        try:
            return self.run.create(self._record(), FOLDER, _name(number))
        except NotImplementedError:
            self._refuses = False
            self.run.write(self._record(), FOLDER, _name(number))
            return True

    def _first(self, number: int) -> bool:
        """Whether the lease of this number, just created, is ours and counts."""
        where = (FOLDER, _name(number))
        # Where the store refuses to create what is there, two cannot both have created it.
        if not (self._refuses and not self._create(number)):
            self._wait(SETTLE)
        if self._highest()[0] != number:
            self.run.remove(*where)
            return False
        try:
            found = json.loads(self.run.read(*where))
        except (FileNotFoundError, ValueError):
            return False
        return bool(found.get("owner") == self.owner)


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _holder(record: dict[str, Any]) -> str:
    """Who holds a lease, in words; times are by the holder's clock."""
    if not record:
        return "a command that has just begun"
    told = f"process {record.get('pid')} on {record.get('host')} since {record.get('since')}"
    return f"{told} (last sign of life {record.get('last')}, by its clock)"


def _machine() -> str:
    """What processes that can look one another up have in common: the boot of a machine and a space of numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {sys.platform}"


def _started(pid: int) -> str:
    """When a process started, by a clock that is never set; empty where it cannot be seen or has ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if after_name[0] in "ZX" else after_name[19]
    except (OSError, IndexError):
        pass
    if sys.platform.startswith("linux"):
        return ""
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.Error:
        return ""


def _lives(pid: Any, started: Any) -> bool:
    """Whether a process of this machine, with this time of start, is there."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    found = _started(pid)
    if found:
        return not started or found == started
    if not psutil.pid_exists(pid):
        return False
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True  # of another user, who hides it
