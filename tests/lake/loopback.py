"""Servers on this machine for the tests and benchmarks of stores: S3 (moto), and a door before it that can fail."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import s3fs

KEY, SECRET = "AKIACANARYKEY0000001", "canary/Secret+Access+Key/000000000000001"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class S3:
    """An S3 server and its credentials."""

    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.endpoint}

    @property
    def words(self) -> list[str]:
        """For a command line."""
        return [word for name, value in self.options.items() for word in ("--storage-option", f"{name}={value}")]

    def fs(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True, **self.options)


@contextmanager
def s3_server() -> Iterator[S3]:
    """moto's server in a process of its own, ended by its process id."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError(f"moto's server ended with code {process.returncode}")
            try:
                urllib.request.urlopen(endpoint + "/moto-api/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield S3(endpoint)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@dataclass
class Door:
    """A server that hands requests on, and does what a test asks of it first.

    Attributes
    ----------
    endpoint : str
    seen : list of (method, path, headers)
    rule : callable
        (method, path) to None (hand on), "503", "403", "reset", "slow" or a callable that is run before handing on.
    """

    endpoint: str
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    rule: Callable[[str, str], Any] = lambda method, path: None
    most: int = 0
    now: int = 0


@contextmanager
def door(target: str) -> Iterator[Door]:
    """A door before the server at `target`."""
    host = target.rpartition("/")[2]
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None: ...

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            with lock:
                made.seen.append((self.command, self.path, dict(self.headers)))
                made.now += 1
                made.most = max(made.most, made.now)
                what = made.rule(self.command, self.path)
            try:
                self._answer(what, body)
            finally:
                with lock:
                    made.now -= 1

        def _answer(self, what: Any, body: bytes | None) -> None:
            if what == "reset":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if what in ("503", "403", "500"):
                code = {"503": "SlowDown", "403": "AccessDenied", "500": "InternalError"}[what]
                text = f"<Error><Code>{code}</Code><Message>Please reduce your request rate {SECRET}</Message></Error>"
                self._send(int(what), {"Content-Type": "application/xml"}, text.encode())
                return
            if what == "slow":
                time.sleep(0.05)
            elif callable(what):
                what()
            inner = HTTPConnection(host, timeout=60)
            inner.request(self.command, self.path, body, dict(self.headers))
            got = inner.getresponse()
            data = got.read()
            self._send(got.status, dict(got.getheaders()), data)
            inner.close()

        def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            size = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any

    with serving(Handler) as endpoint:
        made = Door(endpoint)
        yield made


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server in a thread; its address."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *words: Any) -> None: ...  # a client that goes away is no news

    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
