"""`--cluster address:tls://host:port` or `tcp://host:port`: a Dask scheduler that is already running.

A scheduler that was started with TLS is reached with the authority's certificate and a client's own certificate and
key, of files (--tls-ca, --tls-cert, --tls-key) or of Dask's own configuration (`distributed.comm.tls`).
"""

from __future__ import annotations

import ssl

import dask
from distributed.security import Security

from daskim.compute.client import Behind, connect
from daskim.compute.tls import given_security
from daskim.errors import SettingsError, SourceError

__all__ = ["OPTIONS", "start"]

# Options of the command line that this place takes.
OPTIONS: tuple[str, ...] = ("tls-ca", "tls-cert", "tls-key")


def start(
    rest: str,
    *,
    workers: int | None,
    memory: int | None,
    tls_ca: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
) -> Behind:
    if not rest:
        raise SettingsError("--cluster address: names no scheduler", "Write --cluster address:tcp://host:8786.")
    if memory is not None:
        raise SettingsError(
            "--memory does not reach the workers of --cluster address", "Give it where the workers are started."
        )
    security = _security(rest, tls_ca, tls_cert, tls_key)
    try:
        client = connect(rest, security)
    except (OSError, TimeoutError, ValueError) as error:
        raise SourceError(
            f"--cluster address:{rest}: no scheduler answers ({_words(error)})",
            "Start `dask scheduler` and `dask worker`, and check the address: tls:// if it was started with TLS, else "
            "tcp://.",
        ) from error
    try:
        client.wait_for_workers(workers or 1, timeout=60)
    except TimeoutError as error:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        client.close()
        raise SourceError(
            f"--cluster address:{rest}: {there} workers after a minute, and {workers or 1} are needed",
            "Start `dask worker` with the scheduler's address, or lower --workers.",
        ) from error
    except BaseException:
        client.close()
        raise
    return Behind(f"address:{rest}", client)


def _security(rest: str, ca: str | None, cert: str | None, key: str | None) -> Security | None:
    """From the options or Dask's configuration; None for a scheduler without TLS."""
    given = {"--tls-ca": ca, "--tls-cert": cert, "--tls-key": key}
    missing = [option for option, value in given.items() if not value]
    if not rest.startswith("tls://"):
        if len(missing) < 3:
            raise SettingsError(
                f"--cluster address:{rest}: certificates say nothing to a scheduler without TLS",
                "Write address:tls://host:port, or leave --tls-ca, --tls-cert and --tls-key out.",
            )
        return None
    if ca and cert and key:
        return given_security(ca, cert, key)
    if len(missing) == 3 and dask.config.get("distributed.comm.tls.ca-file", None):
        return Security()
    raise SettingsError(
        f"--cluster address:{rest}: a tls:// scheduler needs {', '.join(missing)}",
        "Give the authority's certificate, the client's certificate and its private key, as PEM files.",
    )


def _words(error: BaseException) -> str:
    """The reason at the bottom of a chain of errors where TLS is it; else the error's own words."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, ssl.SSLError):
            return f"TLS: {at.reason or at}"
        at = at.__cause__ or at.__context__
    return str(error)
