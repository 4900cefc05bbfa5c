"""What `--cluster ssh` runs on a host: `python -m daskim.compute.node`, told on its standard input what to be.

The first line is an order in JSON; the answer, one line of JSON on standard output, is sent when all has started. From
then on the driver sends an empty line now and then. When its input ends or falls silent, the program ends itself with
all that it started: so nothing stays on a host whether the driver ends, is killed or is cut off. Certificates come
with the order and are never written on the host.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from daskim.compute.machine import cores, memory_limit

__all__ = ["SILENCE", "Order", "own_address"]

# Seconds without a line from the driver, and seconds for an orderly end.
SILENCE = 120.0
END = 15.0


@dataclass(frozen=True)
class Order:
    """What a host is to run.

    Attributes
    ----------
    scheduler : str
        Address that workers join; empty: be the scheduler.
    workers : int or None
        Worker processes, of one thread; None for one a core.
    memory : int or None
        Bytes for all of them; None for what the host has.
    protocol : str
        "tcp" or "tls".
    certificates : dict or None
        ca, cert and key as PEM texts.
    config, environment : dict
        For Dask, and for all processes.
    folder : str
        Working directory of the driver, taken where the host has it.
    """

    scheduler: str = ""
    workers: int | None = None
    memory: int | None = None
    protocol: str = "tcp"
    certificates: dict[str, str] | None = field(default=None, repr=False)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def own_address() -> str:
    """This host's address in the network through which the driver came: other hosts of it come by the same."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    if len(words) != 4:
        raise RuntimeError("SSH_CONNECTION is not set: this program is started through ssh")
    return words[2].removeprefix("::ffff:").partition("%")[0]


def _main() -> None:
    order = Order(**json.loads(sys.stdin.buffer.readline()))
    os.environ.update(order.environment)  # before anything heavy is imported
    if order.folder and os.path.isdir(order.folder):
        os.chdir(order.folder)
        sys.path.insert(0, order.folder)
    spill = tempfile.mkdtemp(prefix="daskim-spill-")
    try:
        asyncio.run(_serve(order, spill))
    finally:
        shutil.rmtree(spill, ignore_errors=True)


async def _serve(order: Order, spill: str) -> None:
    """Start, answer, and stay until the driver has gone or all has ended by itself."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threading.Thread(target=_watch, args=(lambda: loop.call_soon_threadsafe(stop.set),), daemon=True).start()
    starting = asyncio.ensure_future(_start(order, spill))
    ended = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        _end_by_force(END)
        return
    try:
        parts = starting.result()
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    print(json.dumps({"address": parts[0].address, "host": socket.gethostname(), "parts": len(parts)}), flush=True)
    finished = asyncio.ensure_future(asyncio.wait([asyncio.ensure_future(part.finished()) for part in parts]))
    await asyncio.wait({finished, ended}, return_when=asyncio.FIRST_COMPLETED)
    _end_by_force(END)
    await asyncio.gather(*(part.close() for part in parts), return_exceptions=True)


async def _start(order: Order, spill: str) -> list[Any]:
    """The scheduler, or the nannies of the workers."""
    import dask
    from distributed import Nanny, Scheduler

    from daskim.compute.tls import Certificates

    dask.config.set(order.config)
    security = Certificates(**order.certificates).security() if order.certificates else None
    common: dict[str, Any] = {"host": own_address(), "protocol": f"{order.protocol}://", "security": security}
    if not order.scheduler:
        return [await Scheduler(port=0, dashboard_address="127.0.0.1:0", dashboard=False, **common)]
    count = order.workers or cores()
    nannies = [
        Nanny(
            order.scheduler,
            nthreads=1,
            memory_limit=(order.memory or memory_limit()) // count,
            local_directory=spill,
            dashboard_address="127.0.0.1:0",
            dashboard=False,
            death_timeout=60,
            env=order.environment,
            **common,
        )
        for _ in range(count)
    ]
    return list(await asyncio.gather(*nannies))


def _watch(stop: Callable[[], object]) -> None:
    """Read the driver's signs of life until there are no more."""
    while select.select([0], [], [], SILENCE)[0] and os.read(0, 4096):
        pass
    stop()


def _end_by_force(seconds: float) -> None:
    """After so many seconds end this process and all below it, whatever still hangs."""

    def end() -> None:
        import psutil

        for child in psutil.Process().children(recursive=True):
            try:
                child.kill()
            except psutil.Error:
                continue
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    _main()
