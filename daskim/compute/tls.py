"""TLS between driver, scheduler and workers: certificates made for one run, or files that are there already.

Dask lets whoever reaches a scheduler's port run code on its workers. With TLS both ends of every connection show a
certificate of one authority; whoever has none is refused.

A run's authority signs one certificate, for all parts, and its key is forgotten at once: nothing else can ever be
signed by it. Where both ends can be given it in memory it is never written; where files are needed, they are in a
private directory, never in the run, and go when the place is closed.
"""

from __future__ import annotations

import datetime
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed.security import Security

from daskim.errors import SettingsError

__all__ = ["Certificates", "certificate_files", "given_security", "make_certificates"]

# Valid for as long as the longest run may take, and from a day ago on: clocks of hosts differ.
_DAYS = 30


@dataclass(frozen=True)
class Certificates:
    """What all parts of one run show one another, as PEM texts.

    Attributes
    ----------
    ca : str
        Certificate of the run's authority.
    cert, key : str
        The certificate that it signed, for clients and servers, and its private key.
    """

    ca: str = field(repr=False)
    cert: str = field(repr=False)
    key: str = field(repr=False)

    def security(self) -> Security:
        """For the parts of Dask in this process; nothing is written."""
        return _security(self.ca, self.cert, self.key)


def make_certificates() -> Certificates:
    """Certificates for one run.

    Raises
    ------
    SettingsError
        The package cryptography is not there.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise SettingsError(
            "--tls needs the package cryptography", "pip install 'daskim[tls]', or leave --tls out."
        ) from None
    now = datetime.datetime.now(datetime.UTC)
    authority_key, own_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "daskim run authority")])

    def signed(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> str:
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .add_extension(_key_usage(authority), critical=True)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            # Dask checks that the certificate is of the authority, not what name it bears.
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("daskim-run")]), critical=False)
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "daskim-run")])
    private = own_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    ca, cert = signed(authority_name, authority_key, authority=True), signed(own_name, own_key, authority=False)
    return Certificates(ca, cert, private)


@contextmanager
def certificate_files(certificates: Certificates, parent: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A private directory (0700) with ca.crt, tls.crt and tls.key (0600), there as long as the context is open.

    Parameters
    ----------
    parent : path, optional
        Where it is made; by default the system's temporary directory. Never the run.
    """
    folder = Path(tempfile.mkdtemp(prefix=".daskim-tls-", dir=parent))  # mkdtemp: 0700
    try:
        texts = {"ca.crt": certificates.ca, "tls.crt": certificates.cert, "tls.key": certificates.key}
        for name, text in texts.items():
            with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def given_security(ca: str, cert: str, key: str) -> Security:
    """For a scheduler that is there already: from the files of --tls-ca, --tls-cert and --tls-key.

    Raises
    ------
    SettingsError
        A file that is not there, or that is no certificate or key, or a key of another certificate.
    """
    for option, path in (("--tls-ca", ca), ("--tls-cert", cert), ("--tls-key", key)):
        if not os.path.isfile(path):
            raise SettingsError(f"{option} {path}: there is no such file", "Name a PEM file.")
    security = _security(*map(os.path.abspath, (ca, cert, key)))
    try:
        security.get_connection_args("client")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(
            f"--tls-ca {ca}, --tls-cert {cert}, --tls-key {key}: no authority, certificate and key of it ({error})",
            "Give PEM files: the authority's certificate, the client's certificate, and the client's private key.",
        ) from None
    return security


def _security(ca: str, cert: str, key: str) -> Security:
    """PEM texts or paths of files, for all roles."""
    roles = {
        f"tls_{role}_{part}": text
        for role in ("client", "scheduler", "worker")
        for part, text in (("cert", cert), ("key", key))
    }
    return Security(require_encryption=True, tls_ca_file=ca, **roles)


def _key_usage(authority: bool) -> Any:
    from cryptography.x509 import KeyUsage

    return KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
