"""`--cluster slurm`: worker processes in jobs of a Slurm cluster, by dask-jobqueue; the scheduler is in this process.

What dask-jobqueue finds in its configuration (`jobqueue.slurm`: interface, prologue of the job script, ...) holds; the
options of the command line stand above it. The number of workers is fixed. Work starts when all have joined: batch
systems start jobs when they like, so the wait has a bound, and what the queue says of the jobs is told when it ends.

Jobs are cancelled when the place is closed. If this process is killed, those that run end by themselves as soon as
they lose the scheduler, and those that wait end a minute after they have started.
"""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, cast

import dask
from distributed import Client, Status
from distributed.security import Security

from daskim.compute import Described
from daskim.compute.client import Behind, connect
from daskim.compute.tls import certificate_files, given_security, make_certificates
from daskim.compute.workers import configured, environment
from daskim.errors import SettingsError, SourceError

__all__ = ["OPTIONS", "describe", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = (
    "tls",
    "slurm-queue",
    "slurm-account",
    "slurm-walltime",
    "slurm-cores",
    "slurm-wait",
    "slurm-directive",
)
WAIT = 600.0
# Reasons in the queue for which a job waits for ever.
NEVER = {"PartitionTimeLimit", "PartitionNodeLimit", "AccountNotAllowed", "QOSNotAllowed", "BadConstraints"}
MEMORY = 4_000_000_000  # bytes of a worker, where nothing says how many


def start(
    rest: str,
    *,
    workers: int | None,
    memory: int | None,
    tls: bool = False,
    slurm_queue: str | None = None,
    slurm_account: str | None = None,
    slurm_walltime: str | None = None,
    slurm_cores: int | None = None,
    slurm_wait: float | None = None,
    slurm_directive: list[str] | None = None,
) -> Behind:
    """Submit the jobs and wait until all workers have joined.

    Parameters
    ----------
    workers : int
        Worker processes in all; one thread each.
    memory : int, optional
        Bytes of one job, for its workers together; by default Dask's `jobqueue.slurm.memory`, else 4 GB a worker.
    slurm_queue, slurm_account, slurm_walltime : str, optional
        As of sbatch's -p, -A and -t; by default what Dask's configuration or else Slurm's says.
    slurm_cores : int, optional
        Cores of a job, and worker processes in it.
    slurm_wait : float, optional
        Seconds until all jobs must run.
    slurm_directive : list of str, optional
        Further lines for #SBATCH.
    """
    described = describe(rest, workers=workers, memory=memory, slurm_cores=slurm_cores)
    cores = slurm_cores or 1
    wait = WAIT if slurm_wait is None else slurm_wait
    if shutil.which("sbatch") is None:
        raise SettingsError("--cluster slurm needs sbatch, which is not here", "Start daskim on a login node of Slurm.")
    with ExitStack() as opened:
        folder = Path(tempfile.mkdtemp(prefix=".daskim-slurm-", dir=_shared()))
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        security = None
        if tls:
            files = opened.enter_context(certificate_files(make_certificates(), folder))
            security = given_security(*(str(files / name) for name in ("ca.crt", "tls.crt", "tls.key")))
        job = {
            "queue": slurm_queue,
            "account": slurm_account,
            **_time_limit(slurm_walltime),
            "cores": cores,
            "processes": cores,
            "memory": f"{described.memory * cores} B",
            "job_extra_directives": [*_configured("job-extra-directives"), *_directives(slurm_directive)],
        }
        cluster, failures = _cluster(job, folder, security)
        opened.callback(_close, cluster)
        cluster.scale(jobs=described.workers // cores)
        client = connect(cluster, security)
        opened.callback(client.close)
        _wait(client, cluster, described.workers, failures, folder, wait)
        kept = opened.pop_all()
    return Behind("slurm", client, (kept,))


def describe(
    rest: str, *, workers: int | None, memory: int | None, slurm_cores: int | None = None, **_: Any
) -> Described:
    """What would be started; for --plan.

    Raises
    ------
    SettingsError
        dask-jobqueue is not there, or numbers that make no jobs.
    """
    if rest:
        raise SettingsError(
            f"--cluster slurm:{rest}: slurm takes nothing after it", "Use --slurm-queue for a partition."
        )
    _jobqueue()
    if workers is None:
        raise SettingsError("--cluster slurm needs --workers", "Give the number of worker processes in all.")
    cores = 1 if slurm_cores is None else slurm_cores
    if cores < 1 or workers % cores:
        raise SettingsError(
            f"--workers {workers} with --slurm-cores {cores}: no whole number of jobs",
            "Each job has --slurm-cores workers: make --workers a multiple of it.",
        )
    asked = _configured("memory")
    whole = memory or (dask.utils.parse_bytes(asked) if asked else MEMORY * cores)
    return Described("slurm", workers, workers, whole // cores, [])


def _jobqueue() -> None:
    """Import dask-jobqueue, which fills its configuration, and take back what that does to Ctrl-C.

    Its module `runner` (0.9.0) makes Ctrl-C a quiet `sys.exit()` with code 0 for the whole process.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue  # noqa: F401
    except ImportError:
        raise SettingsError("--cluster slurm needs the package dask-jobqueue", "pip install 'daskim[slurm]'.") from None
    if signal.getsignal(signal.SIGINT) is not before:
        signal.signal(signal.SIGINT, before)


def _configured(name: str) -> Any:
    """A value of dask-jobqueue's configuration."""
    _jobqueue()
    return dask.config.get(f"jobqueue.slurm.{name}")


def _shared() -> str:
    """A directory that jobs see too, for their logs and certificates."""
    named = _configured("shared-temp-directory")
    return str(Path(named).expanduser()) if named else str(Path.home())


def _time_limit(given: str | None) -> dict[str, Any]:
    """The time limit that was given or configured; without one no line for it, so that the partition's holds.

    The 30 minutes that dask-jobqueue writes otherwise would end most runs.
    """
    configured_limit = _configured("walltime")
    limit = given or (configured_limit if configured_limit != "00:30:00" else None)
    skipped = list(_configured("job-directives-skip"))
    return {"walltime": limit, "job_directives_skip": skipped if limit else [*skipped, "#SBATCH -t "]}


def _directives(given: list[str] | None) -> list[str]:
    for line in given or ():
        if not re.fullmatch(r"-[^\n\r]+", line):
            raise SettingsError(
                f"--slurm-directive {line!r}: no option of sbatch", "Write --slurm-directive=--qos=high, for one."
            )
    return list(given or ())


def _cluster(job: dict[str, Any], folder: Path, security: Security | None) -> tuple[Any, list[str]]:
    """A cluster without jobs, and a list that gets what sbatch says against them."""
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob

    failures: list[str] = []

    class Job(SLURMJob):
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                failures.append(str(error))  # raised here it would end in a log of Dask's event loop
                self.status = Status.running

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    prologue = [
        *_configured("job-script-prologue"),
        *(f"export {name}={shlex.quote(value)}" for name, value in environment().items()),
        'spill=$(mktemp -d "${TMPDIR:-/tmp}/daskim-spill-XXXXXX")',
        "trap 'rm -rf \"$spill\"' EXIT",
    ]
    with configured():
        cluster = SLURMCluster(
            job_cls=cast(Any, Job),
            **job,
            job_name=f"daskim-{secrets.token_hex(3)}",
            python=_configured("python") or shlex.quote(sys.executable),
            death_timeout=60,
            log_directory=str(folder),
            local_directory='"$spill"',
            job_script_prologue=prologue,
            worker_extra_args=[
                *_configured("worker-extra-args"),
                "--no-dashboard",
                "--dashboard-address",
                "127.0.0.1:0",
            ],
            scheduler_options={**_configured("scheduler-options"), "dashboard_address": "127.0.0.1:0"},
            security=security,
        )
    return cluster, failures


def _close(cluster: Any) -> None:
    """Cancel the jobs; also where Dask's way to do it fails or takes too long."""
    ids = [job.job_id for job in cluster.workers.values() if job.job_id]
    try:
        cluster.close(timeout=60)
    except Exception:
        if ids:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(["scancel", *ids], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)


def _wait(client: Client, cluster: Any, count: int, failures: list[str], folder: Path, seconds: float) -> None:
    """Return when all workers have joined.

    Raises
    ------
    SourceError
        sbatch refuses, a job ends before its workers joined, or the time is over.
    """
    until = time.monotonic() + seconds
    look = time.monotonic() + 5
    while (there := len(client.scheduler_info(n_workers=-1)["workers"])) < count:
        if failures:
            raise SourceError(f"--cluster slurm: sbatch refuses: {_stderr(failures[0])}", "See the --slurm options.")
        ids = sorted(job.job_id for job in cluster.workers.values() if job.job_id)
        over = time.monotonic() > until
        if ids and (over or time.monotonic() > look):
            look = time.monotonic() + 5
            _refuse_lost(_queue(ids), folder)
        if over:
            raise SourceError(
                f"--cluster slurm: {there} of {count} workers joined within {seconds:.0f} s; the queue says: "
                f"{_told(_queue(ids) or {})}",
                "Wait longer with --slurm-wait, or ask for less: --workers, --slurm-cores, --memory, --slurm-walltime.",
            )
        time.sleep(0.5)


def _refuse_lost(states: dict[str, tuple[str, str]] | None, folder: Path) -> None:
    """End the wait where no job is left, or where one will never start."""
    if states == {}:
        raise SourceError(
            f"--cluster slurm: the jobs ended before their workers joined: {_log(folder)}",
            "The nodes need the same Python and daskim as here, at the same path, must reach this machine, and see the "
            "home directory (or the one that jobqueue.slurm.shared-temp-directory names).",
        )
    if any(reason in NEVER for _, reason in (states or {}).values()):
        raise SourceError(
            f"--cluster slurm: the queue will not start this: {_told(states or {})}", "See the --slurm options."
        )


def _told(states: dict[str, tuple[str, str]]) -> str:
    return "; ".join(f"job {job}: {state} ({reason})" for job, (state, reason) in list(states.items())[:5]) or "nothing"


def _queue(ids: list[str]) -> dict[str, tuple[str, str]] | None:
    """State and reason of the jobs that the queue still has, by id; None where it does not answer."""
    words = ["squeue", "--noheader", "--format", "%i|%T|%r", "--jobs", ",".join(ids)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" not in done.stderr:  # so it says where the only job is gone
        return None
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    return {job: (state.lower(), reason) for job, state, reason in lines if state != "COMPLETING"}


def _stderr(words: str) -> str:
    """What the command itself said, of dask-jobqueue's report."""
    return words.partition("stderr:\n")[2].strip().replace("\n", " / ") or words.strip()


def _log(folder: Path) -> str:
    """Last lines of the log of a job."""
    for file in sorted(folder.glob("*.err")):
        lines = [line for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
        if lines:
            return " / ".join(lines[-3:])
    return "they left no log"
