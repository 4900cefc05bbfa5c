"""TLS between the parts: who has no certificate of the run is refused."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from daskim.compute import open_place
from daskim.compute.tls import certificate_files, given_security, make_certificates
from daskim.errors import SettingsError, SourceError

NAMES = ("ca.crt", "tls.crt", "tls.key")


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with certificate_files(make_certificates()) as folder:
        yield folder


@pytest.fixture(scope="module")
def secure(files: Path) -> Iterator[str]:
    """The address of a scheduler with TLS and one worker."""
    security = given_security(*(str(files / name) for name in NAMES))
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        host="127.0.0.1",
        protocol="tls://",
        security=security,
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:
        yield cluster.scheduler_address


def options(files: Path) -> dict[str, str]:
    return dict(zip(("tls-ca", "tls-cert", "tls-key"), (str(files / name) for name in NAMES)))


def test_the_files_are_private_and_go() -> None:
    made = make_certificates()
    assert "PRIVATE" not in repr(made)
    with certificate_files(made) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sorted(os.listdir(folder)) == sorted(NAMES)
        assert {stat.S_IMODE((folder / name).stat().st_mode) for name in NAMES} == {0o600}
    assert not folder.exists()


def test_a_scheduler_is_reached_with_its_certificates(secure: str, files: Path) -> None:
    assert secure.startswith("tls://")
    with closing(open_place(f"address:{secure}", options=options(files))) as place:
        assert list(place.everywhere(os.getpid).values()) == [os.getpid()]


def test_without_them_nobody_comes_in(secure: str, files: Path) -> None:
    with certificate_files(make_certificates()) as others, pytest.raises(SourceError, match="no scheduler answers"):
        open_place(f"address:{secure}", options=options(others))
    with pytest.raises(SourceError, match="no scheduler answers") as caught:
        open_place(f"address:{secure.replace('tls', 'tcp')}")
    assert "tls:// if it was started with TLS" in caught.value.hint
    host, _, port = secure.removeprefix("tls://").partition(":")
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    context.check_hostname = False
    with (  # it speaks TLS, and ends it for want of a certificate of the client
        socket.create_connection((host, int(port)), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        context.wrap_socket(plain) as wrapped,
    ):
        wrapped.recv(1)


def test_a_run_of_local_workers_has_certificates_of_its_own() -> None:
    with closing(open_place("local", workers=1, options={"tls": True})) as place:
        address = place.client.scheduler.address  # type: ignore[attr-defined]
        workers = place.everywhere(os.getpid)
        assert address.startswith("tls://")
        assert all(worker.startswith("tls://") for worker in workers)
        with pytest.raises(OSError, match="TLS certificate does not match"):
            Client(address, security=make_certificates().security(), timeout="10s", set_as_default=False)


@pytest.mark.parametrize(
    ("address", "given", "words"),
    [
        ("tls://127.0.0.1:1", (), "needs --tls-ca, --tls-cert, --tls-key"),
        ("tls://127.0.0.1:1", ("tls-ca",), "needs --tls-cert, --tls-key"),
        ("tcp://127.0.0.1:1", ("tls-ca", "tls-cert", "tls-key"), "say nothing to a scheduler without TLS"),
    ],
)
def test_half_of_it_is_refused(address: str, given: tuple[str, ...], words: str, files: Path) -> None:
    with pytest.raises(SettingsError, match=words):
        open_place(f"address:{address}", options={name: options(files)[name] for name in given})


def test_files_that_are_no_certificates_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--tls-key .*there is no such file"):
        open_place("address:tls://127.0.0.1:1", options={**options(files), "tls-key": str(tmp_path / "none")})
    with (
        certificate_files(make_certificates()) as others,
        pytest.raises(SettingsError, match="no authority, certificate and key of it"),
    ):
        open_place("address:tls://127.0.0.1:1", options={**options(files), "tls-key": str(others / "tls.key")})


def test_places_that_start_nothing_take_no_tls() -> None:
    with pytest.raises(SettingsError, match="--tls says nothing to --cluster threads"):
        open_place("threads", options={"tls": True})
