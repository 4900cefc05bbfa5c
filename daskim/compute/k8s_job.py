"""`--cluster k8s-job`: inside an Indexed Job, where pod 0 drives and the others work. No operator, no rights.

All pods are given the same command. Kubernetes tells each its index (JOB_COMPLETION_INDEX): pod 0 runs the command with
a scheduler in its own process; the others wait for that scheduler, work for it, and end with it. They find it under
the name of pod 0 in the headless service of the Job (`subdomain` of the pods).

What the pods do when one of them is lost: a worker that starts again joins again. When pod 0 starts again, by the Job's
back-off, the run goes on where it was, and the workers, which have waited for it, join it. Only a driver that has
finished sends the workers home: its last act is to mark them done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daskim.compute import Described, Place
from daskim.compute.client import Behind
from daskim.compute.machine import memory_limit
from daskim.compute.pods import ENV, seconds_of, worker_memory
from daskim.compute.workers import configured
from daskim.errors import SettingsError, SourceError

__all__ = ["OPTIONS", "describe", "serve", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = ("k8s-scheduler", "k8s-timeout", "tls-ca", "tls-cert", "tls-key")
PORT = 8786
# Where a worker process finds the path of the file that says that all is done.
DONE = "DASKIM_DONE_FILE"


def describe(rest: str, *, workers: int | None, memory: int | None, **options: Any) -> Described:
    """The place that `start` would make of pods like this one."""
    if rest:
        raise SettingsError(f"--cluster k8s-job:{rest}: k8s-job takes nothing after it", "Use --k8s-scheduler.")
    seconds_of(options)
    count = workers or 1
    return Described("k8s-job", count * _threads(), count, _memory(memory))


def serve(rest: str, *, workers: int | None, memory: int | None, **options: Any) -> bool:
    """Work for pod 0 until it is done, if this is another pod.

    Returns
    -------
    bool
        Whether this pod was one that works, and is done.

    Raises
    ------
    SettingsError
        This process is in no Indexed Job.
    SourceError
        Pod 0 does not come, or does not come back, in time.
    """
    describe(rest, workers=workers, memory=memory, **options)
    if _index() == 0:
        return False
    host, port = _address(options)
    with tempfile.TemporaryDirectory(prefix="daskim-scratch-", ignore_cleanup_errors=True) as scratch:
        done = Path(scratch) / "done"
        while not done.exists():
            _await_scheduler(host, port, seconds_of(options))
            _work(host, port, memory, options, scratch, done)
    return True


def start(rest: str, *, workers: int | None, memory: int | None, **options: Any) -> Place:
    """In pod 0: a scheduler in this process, joined by the workers of the other pods.

    Parameters
    ----------
    rest : str
        What stands after `--cluster k8s-job:`; nothing may.
    workers : int, optional
        Other pods, for which is waited: completions - 1. By default one is waited for; later ones work too.
    memory : int, optional
        Bytes of one pod; by default those of its control group.
    **options
        `OPTIONS`, with _ for -.

    Raises
    ------
    SettingsError
        This process is in no Indexed Job, or an option cannot be carried out.
    SourceError
        The workers do not come in time.
    SystemExit
        With code 0, in the other pods, when the work is done.
    """
    if serve(rest, workers=workers, memory=memory, **options):
        raise SystemExit(0)
    from distributed import Client, LocalCluster

    security, wanted, seconds = _security(options), workers or 1, seconds_of(options)
    port = _address(options)[1]
    try:
        with configured():
            cluster = LocalCluster(
                n_workers=0,
                host="0.0.0.0",
                scheduler_port=port,
                protocol="tls://" if security else "tcp://",
                security=security,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
            )
    except (OSError, RuntimeError) as error:
        raise SourceError(f"--cluster k8s-job: no scheduler on port {port} ({error})", "Is the port taken?") from error
    try:
        client = Client(cluster, security=security, set_as_default=False)
        client.wait_for_workers(wanted, timeout=seconds)
    except TimeoutError:
        there = len(cluster.scheduler_info["workers"])
        client.close()
        cluster.close()
        raise SourceError(
            f"--cluster k8s-job: {there} of {wanted} workers after {seconds:.0f} s",
            "Are completions and parallelism of the Job --workers + 1, and do its pods reach pod 0 by its name? Give "
            "it longer with --k8s-timeout.",
        ) from None
    except BaseException:
        cluster.close()
        raise
    return _Job(client, (cluster,))


class _Job(Behind):
    """The place of pod 0; its end is the workers' end, if the work is done."""

    def __init__(self, client: Any, owned: tuple[Any, ...]) -> None:
        super().__init__("k8s-job", client, owned)

    def close(self) -> None:
        if sys.exc_info()[0] is None:  # after a failure the workers stay for a driver that starts again
            with contextlib.suppress(Exception):  # a worker that is lost starts again, and waits
                self.client.run(_mark_done)
        super().close()


def _mark_done() -> None:
    """On a worker: leave word for the process that started it."""
    path = os.environ.get(DONE)
    if path:
        Path(path).touch()


def _work(host: str, port: int, memory: int | None, options: Mapping[str, Any], scratch: str, done: Path) -> None:
    """One `dask worker`, until it ends: with its scheduler, or killed."""
    secure = _security(options) is not None
    words = [sys.executable, "-m", "dask", "worker", f"{'tls' if secure else 'tcp'}://{host}:{port}", "--no-dashboard"]
    words += ["--nthreads", str(_threads()), "--memory-limit", str(_memory(memory)), "--local-directory", scratch]
    if secure:
        words += [
            "--tls-ca-file",
            options["tls_ca"],
            "--tls-cert",
            options["tls_cert"],
            "--tls-key",
            options["tls_key"],
        ]
    process = subprocess.Popen(words, env=os.environ | ENV | {DONE: str(done)})
    try:
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_scheduler(host: str, port: int, seconds: float) -> None:
    """Until pod 0 listens. Its name is looked up each time: a pod that starts again has another address."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SourceError(
                    f"--cluster k8s-job: pod 0 does not listen at {host}:{port} after {seconds:.0f} s ({error})",
                    "Does it run, is there a headless service of the pods' subdomain (publishNotReadyAddresses), and "
                    "does no network policy forbid it? --k8s-scheduler names another address.",
                ) from None
        time.sleep(0.5)


def _index() -> int:
    """This pod's index in its Job."""
    text = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not text.isdecimal():
        raise SettingsError(
            "--cluster k8s-job is for the pods of an Indexed Job: JOB_COMPLETION_INDEX is not set",
            "See deploy/overlays/indexed-job, or use --cluster k8s or local.",
        )
    return int(text)


def _address(options: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port of pod 0: as given, or from this pod's full name, JOB-INDEX.SERVICE.NAMESPACE..."""
    given = options.get("k8s_scheduler") or os.environ.get("DASKIM_SCHEDULER")
    if given:
        host, _, port = str(given).removeprefix("tcp://").removeprefix("tls://").partition(":")
        if not host or (port and not 0 < int(port if port.isdecimal() else 0) < 65536):
            raise SettingsError(f"--k8s-scheduler {given}: not HOST:PORT", "Such as nightly-0.nightly:8786.")
        return host, int(port or PORT)
    index = _index()
    if index == 0:
        return "", PORT
    own = socket.getfqdn()
    first, _, rest = own.partition(".")
    if not re.fullmatch(rf".+-{index}", first) or not rest:
        raise SettingsError(
            f"--cluster k8s-job: the name of this pod, {own}, does not tell that of pod 0",
            "Set the pods' subdomain to a headless service, or name pod 0 by --k8s-scheduler or DASKIM_SCHEDULER.",
        )
    return f"{first.removesuffix(str(index))}0.{rest}", PORT


def _security(options: Mapping[str, Any]) -> Any:
    """TLS by files that all pods mount; None without."""
    files = [str(options.get(name) or "") for name in ("tls_ca", "tls_cert", "tls_key")]
    if not any(files):
        return None
    if not all(files):
        raise SettingsError("--tls-ca, --tls-cert and --tls-key belong together", "Give all three, or none.")
    from daskim.compute.tls import given_security

    return given_security(*files)


def _threads() -> int:
    """Processors of this pod: those of its control group."""
    from dask.system import CPU_COUNT

    return max(1, int(CPU_COUNT))


def _memory(given: int | None) -> int:
    return worker_memory(given or memory_limit())
