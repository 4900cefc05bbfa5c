"""Hosts for tests: network namespaces with addresses of their own, joined by a bridge in one more. Disks are shared.

Root and iproute2 are needed. Nothing outside the namespaces is changed, and no address in them leads out.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NET = "10.213.77"


@dataclass(frozen=True)
class Host:
    """A namespace: its name, its address, and its end of the wire."""

    name: str
    address: str
    wire: str

    def command(self, *words: object) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def cut(self) -> None:
        """Take the wire out."""
        _do(*self.command("ip", "link", "set", self.wire, "down"))


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """`count` hosts that reach one another; they are gone afterwards, with all that still runs in them."""
    mark = secrets.token_hex(2)
    switch = f"dk{mark}-switch"
    with ExitStack() as last:
        _namespace(switch, last)
        inside = ["ip", "netns", "exec", switch, "ip"]
        _do(*inside, "link", "add", "bridge", "type", "bridge")
        _do(*inside, "link", "set", "bridge", "up")
        made = []
        for index in range(count):
            host = Host(f"dk{mark}-{index}", f"{NET}.{index + 1}", "wire")
            _namespace(host.name, last)
            ip = host.command("ip")
            _do(*ip, "link", "add", host.wire, "type", "veth", "peer", "name", f"port{index}", "netns", switch)
            _do(*inside, "link", "set", f"port{index}", "master", "bridge", "up")
            _do(*ip, "addr", "add", f"{host.address}/24", "dev", host.wire)
            _do(*ip, "link", "set", host.wire, "up")
            _do(*ip, "link", "set", "lo", "up")
            made.append(host)
        yield made


def _namespace(name: str, last: ExitStack) -> None:
    _do("ip", "netns", "add", name)

    def remove() -> None:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)

    last.callback(remove)
    last.callback(end_all_in, name)


def processes_in(name: str) -> list[int]:
    """Processes that run in a namespace."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, timeout=20)
    return [int(word) for word in found.stdout.split()]


def end_all_in(name: str) -> None:
    for pid in processes_in(name):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


def refuse_without_network() -> None:
    """Skip the test where no namespaces can be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need iproute2")
    name = f"dk{secrets.token_hex(2)}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, timeout=20)
    if tried.returncode:
        pytest.skip(f"network namespaces cannot be made here: {tried.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", name], check=True, timeout=20)


@dataclass(frozen=True)
class Loop:
    """A host that is an address of this machine's loopback."""

    name: str
    address: str

    def command(self, *words: object) -> list[str]:
        return [*map(str, words)]


@contextmanager
def ssh_servers(made: Sequence[Host | Loop], folder: Path, port: int = 22) -> Iterator[Path]:
    """An sshd in each host, with keys of its own; the configuration that ssh needs to reach them."""
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(sshd).exists() or shutil.which("ssh") is None:
        pytest.skip("no sshd (openssh-server)")
    user = getpass.getuser()
    for name in ("host", "user"):
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    shutil.copy(folder / "user.pub", folder / "authorized")
    known = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"* {known}")
    config = folder / "ssh_config"
    config.write_text(
        f"Host *\n IdentityFile {folder}/user\n IdentitiesOnly yes\n UserKnownHostsFile {folder}/known\n"
        f" StrictHostKeyChecking yes\n User {user}\n Port {port}\n"
    )
    separation = Path("/run/sshd")  # sshd of root wants it
    made_separation = os.geteuid() == 0 and not separation.exists()
    if made_separation:
        separation.mkdir()
    servers = []
    try:
        for host in made:
            text = (
                f"ListenAddress {host.address}\nPort {port}\nHostKey {folder}/host\n"
                f"AuthorizedKeysFile {folder}/authorized\n"
                f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n"
                "PasswordAuthentication no\nPrintMotd no\n"
            )
            file = folder / f"sshd-{host.name}"
            file.write_text(text)
            log = (folder / f"log-{host.name}").open("wb")
            words = host.command(sshd, "-D", "-e", "-f", file)
            servers.append(subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
            log.close()
        for host in made:
            _until_answers(host, config)
        yield config
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(10)
        if made_separation:
            separation.rmdir()


def _until_answers(host: Host | Loop, config: Path) -> None:
    words = ["ssh", "-F", config, "-o", "BatchMode=yes", host.address, "true"]
    for _ in range(40):
        done = subprocess.run(host.command(*words), capture_output=True, text=True, timeout=20)
        if done.returncode == 0:
            return
        time.sleep(0.25)
    pytest.skip(f"sshd does not let this user in: {done.stderr.strip()}")
