"""`--cluster ssh:HOST,HOST,...` or `ssh:@FILE`: workers on hosts that are reached by ssh, the scheduler on the first.

The hosts need sshd, a key that opens it without a question, and the same software as here; they must reach one another
on any port. This machine needs nothing but ssh: the scheduler is reached through a forwarded port, so that a laptop
behind a firewall will do. The system's `ssh` is used, with its configuration, agent and known hosts.

Not `distributed.SSHCluster`: it hands Dask's whole configuration over on the command line, stops reading what remote
processes print, which then block (dask/distributed#9033), and can leave them behind (#3420).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from queue import Empty, Queue

from distributed import Client

from daskim.compute import Described
from daskim.compute.client import Behind, connect
from daskim.compute.node import END, SILENCE, Order
from daskim.compute.tls import make_certificates
from daskim.compute.workers import CONFIG, ENVIRONMENT
from daskim.errors import SettingsError, SourceError

__all__ = ["OPTIONS", "describe", "hosts_of", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = ("tls", "ssh-config", "ssh-python")

# Seconds until a host must have answered, with all its workers joined.
DEADLINE = 90.0
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9:][A-Za-z0-9._:-]*")


def start(
    rest: str,
    *,
    workers: int | None,
    memory: int | None,
    tls: bool = False,
    ssh_config: str | None = None,
    ssh_python: str | None = None,
) -> Behind:
    """Workers on all hosts.

    Parameters
    ----------
    workers : int, optional
        Worker processes in all, spread evenly; by default one a core of each host.
    memory : int, optional
        Bytes for the workers of one host together; by default what the host has.
    """
    hosts = hosts_of(rest)
    shares = _shares(workers, hosts)
    ssh = _ssh(ssh_config)
    node = f"exec {shlex.quote(ssh_python or sys.executable)} -P -m daskim.compute.node"
    certificates = make_certificates() if tls else None
    protocol = "tls" if tls else "tcp"
    order = Order(
        memory=memory,
        protocol=protocol,
        certificates=asdict(certificates) if certificates else None,
        config=CONFIG,
        environment=ENVIRONMENT,
        folder=os.getcwd(),
    )
    remote = _Remote()
    try:
        first = remote.run(hosts[0], [*ssh, hosts[0], node], order.line())
        address = first.answer(time.monotonic() + DEADLINE)["address"]
        until = time.monotonic() + DEADLINE
        joined = [
            remote.run(host, [*ssh, host, node], replace(order, scheduler=address, workers=share).line())
            for host, share in zip(hosts, shares)
        ]
        local = _free_port()
        # `cat` ends when this process does, however it ends; `ssh -N` would stay.
        forward = ["-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:{address.partition('://')[2]}"]
        tunnel = remote.run(hosts[0], [*ssh, *forward, hosts[0], "echo '{}'; exec cat"], b"")
        tunnel.answer(until)
        count = sum(int(process.answer(until)["parts"]) for process in joined)
        client = _client(f"{protocol}://127.0.0.1:{local}", certificates, hosts[0], tunnel)
    except BaseException:
        remote.close()
        raise
    return _joined(f"ssh:{','.join(hosts)}", client, remote, count, until)


def describe(
    rest: str,
    *,
    workers: int | None,
    memory: int | None,
    tls: bool = False,
    ssh_config: str | None = None,
    ssh_python: str | None = None,
) -> Described:
    """For --plan; without --workers one worker a host is reckoned with, as its cores are not known."""
    hosts = hosts_of(rest)
    shares = _shares(workers, hosts)
    count = workers or len(hosts)
    share = memory // max(-(-count // len(hosts)), *(share or 1 for share in shares)) if memory else 0
    return Described(f"ssh:{','.join(hosts)}", count, count, share, [])


def hosts_of(rest: str) -> list[str]:
    """The hosts of HOST,HOST or of @FILE: one a line, with # comments.

    Raises
    ------
    SettingsError
        None, one twice, or one that ssh could take for an option.
    """
    words = rest.split(",")
    if rest.startswith("@"):
        try:
            lines = Path(rest[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"--cluster ssh:{rest}: cannot read the list of hosts ({error})", "Name a text file, one host a line."
            ) from None
        words = [line.partition("#")[0] for line in lines]
    hosts = [word.strip() for word in words if word.strip()]
    if not hosts:
        raise SettingsError(f"--cluster ssh:{rest} names no host", "Write --cluster ssh:host1,host2 or ssh:@FILE.")
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise SettingsError(
                f"--cluster ssh: {host!r} is no host",
                "Write host or user@host; a port belongs into the ssh configuration (--ssh-config).",
            )
    twice = sorted({host for host in hosts if hosts.count(host) > 1})
    if twice:
        raise SettingsError(f"--cluster ssh names {', '.join(twice)} twice", "More workers a host: --workers.")
    return hosts


def _shares(workers: int | None, hosts: Sequence[str]) -> list[int | None]:
    """Worker processes of each host."""
    if workers is None:
        return [None] * len(hosts)
    if workers < len(hosts):
        raise SettingsError(f"--workers {workers} for {len(hosts)} hosts", "Give at least one a host, or fewer hosts.")
    return [workers // len(hosts) + (index < workers % len(hosts)) for index in range(len(hosts))]


def _ssh(config: str | None) -> list[str]:
    """The command up to the host: no questions, no terminal, and an end when the other side falls silent."""
    program = shutil.which("ssh")
    if program is None:
        raise SettingsError("--cluster ssh needs the program ssh", "Install OpenSSH's client.")
    if config is not None and not os.path.isfile(config):
        raise SettingsError(f"--ssh-config {config}: there is no such file")
    options = ("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=10", "ServerAliveCountMax=3")
    alone = ("ControlMaster=no", "ControlPath=none", "ForwardAgent=no", "ForwardX11=no", "LogLevel=ERROR")
    words = [program, "-T", *(["-F", config] if config else [])]
    return words + [word for option in (*options, *alone) for word in ("-o", option)]


class _Process:
    """One ssh and the program at its other end. What it prints is read all the time, and its end is kept."""

    def __init__(self, host: str, command: Sequence[str], first: bytes) -> None:
        self.host = host
        self._said: deque[str] = deque(maxlen=20)
        self._answers: Queue[str | None] = Queue()
        # In a session of its own: Ctrl-C is for this process, which then closes the others in order.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, keep), daemon=True)
            for stream, keep in ((self._process.stdout, True), (self._process.stderr, False))
        ]
        for reader in self._readers:
            reader.start()
        self.send(first)

    def _read(self, stream: Iterable[bytes], answers: bool) -> None:
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            if answers and text.startswith("{"):
                self._answers.put(text)
            elif text:
                self._said.append(text)
        if answers:
            self._answers.put(None)

    def send(self, data: bytes) -> None:
        """Write to the program; nothing where it has ended."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (OSError, ValueError):
            return

    def answer(self, until: float) -> dict[str, str]:
        """The program's answer; SourceError with its last words where it has none by then."""
        try:
            line = self._answers.get(timeout=max(0.1, until - time.monotonic()))
        except Empty:
            raise self.failed(f"no answer after {DEADLINE:.0f} s") from None
        if line is None:
            self._process.wait(5)
            self._readers[1].join(2)
            raise self.failed(f"ssh ended with {self._process.returncode}")
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise self.failed(answer["error"])
        return answer

    def failed(self, what: str) -> SourceError:
        said = " / ".join(list(self._said)[-3:])
        words = f"{what}: {said}" if said else what
        if "No module named" in said or "not found" in said or "No such file" in said:
            hint = "Install the same Python and daskim on every host, at the same path, or name it with --ssh-python."
        else:
            hint = "`ssh HOST true` must work from here without a question, and the hosts must reach one another."
        return SourceError(f"--cluster ssh: host {self.host}: {words}", hint)

    def hang_up(self) -> None:
        """End the program's input, which ends the program."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
        except OSError:
            return

    def wait(self, until: float) -> None:
        """Wait for the end, and end ssh where that takes too long; then its host ends the program by its silence."""
        for end in (lambda: None, self._process.terminate, self._process.kill):
            end()
            try:
                self._process.wait(max(0.1, until - time.monotonic()))
                break
            except subprocess.TimeoutExpired:
                until = time.monotonic() + 2
        for reader in self._readers:
            reader.join(1)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class _Remote:
    """All programs on hosts, and the signs of life for them."""

    def __init__(self) -> None:
        self._processes: list[_Process] = []
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def run(self, host: str, command: Sequence[str], first: bytes) -> _Process:
        process = _Process(host, command, first)
        self._processes.append(process)
        return process

    def _beat(self) -> None:
        while not self._closed.wait(SILENCE / 12):
            for process in list(self._processes):
                process.send(b"\n")

    def close(self) -> None:
        self._closed.set()
        for process in reversed(self._processes):
            process.hang_up()
        until = time.monotonic() + END + 5
        for process in self._processes:
            process.wait(until)
        self._processes.clear()


def _client(address: str, certificates: object, host: str, tunnel: _Process) -> Client:
    security = certificates.security() if certificates is not None else None  # type: ignore[attr-defined]
    try:
        return connect(address, security)
    except (OSError, TimeoutError) as error:
        raise tunnel.failed(
            f"the scheduler is not reached through ssh (AllowTcpForwarding of sshd?; {error})"
        ) from None


def _joined(name: str, client: Client, remote: _Remote, count: int, until: float) -> Behind:
    """The place, when all its workers have joined."""
    try:
        client.wait_for_workers(count, timeout=max(1.0, until - time.monotonic()))
    except BaseException as error:
        client.close()
        remote.close()
        if isinstance(error, TimeoutError):
            raise SourceError(
                f"--cluster {name}: not all of {count} workers joined the scheduler within {DEADLINE:.0f} s",
                "The hosts must reach one another on any port, by the addresses that ssh reaches them by.",
            ) from None
        raise
    return Behind(name, client, (remote,))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
