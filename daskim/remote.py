"""What every user of fsspec here shares: options by their usual names, packages that are missing, and credentials.

Credentials are given with `--storage-option` or lie in the environment. They stay in memory: `Options` does not show
its values, and `blot` takes them out of whatever a store says before it becomes a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from daskim.errors import SettingsError

__all__ = [
    "Options",
    "blot",
    "has_folders",
    "missing_package",
    "open_options",
    "protocol_of",
    "refuse_credentials",
    "secrets_of",
]

# Protocol: the extra of daskim that brings its package, and the package.
_EXTRAS = {
    "s3": ("s3", "s3fs"),
    "s3a": ("s3", "s3fs"),
    "gs": ("gcs", "gcsfs"),
    "gcs": ("gcs", "gcsfs"),
    "az": ("azure", "adlfs"),
    "abfs": ("azure", "adlfs"),
    "abfss": ("azure", "adlfs"),
    "http": ("http", "aiohttp"),
    "https": ("http", "aiohttp"),
}
_FRIENDLY = ("anon", "endpoint_url", "requester_pays", "region")
# Options whose values tell no secret and whose words a message needs.
_OPEN = frozenset(
    [
        "endpoint_url",
        "region",
        "region_name",
        "profile",
        "project",
        "account_name",
        "account_host",
        "requester_pays",
        "anon",
        "mode",
        "signature_version",
        "addressing_style",
    ]
)
_ENVIRONMENT = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "FSSPEC_S3_KEY",
    "FSSPEC_S3_SECRET",
    "FSSPEC_S3_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
]
_PASSWORD = re.compile(r"://[^/@:?#]*:[^/@?#]*@")
_SIGNED = re.compile(
    r"(?i)[?&](x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|signature|sig|"
    r"awsaccesskeyid|access_token|token)="
)


class Options(dict[str, Any]):
    """Options for fsspec. Its `repr` names them and shows none of their values: Dask writes arguments into its logs."""

    def __repr__(self) -> str:
        return "Options(" + ", ".join(f"{name}=***" for name in self) + ")"

    __str__ = __repr__


def protocol_of(url: str) -> str:
    """What stands before "://" or "::" in a URL; "file" for a path."""
    head = url.partition("::")[0]
    return head.partition("://")[0] if "://" in head else head if "::" in url else "file"


def has_folders(protocols: str | Sequence[str]) -> bool:
    """Whether a store knows folders that must be made; object stores know only names with slashes."""
    names = {protocols} if isinstance(protocols, str) else set(protocols)
    return not names & {name for name, (extra, _) in _EXTRAS.items() if extra != "http"}


def open_options(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What fsspec is given to open `url`.

    Besides the file system's own options, `anon`, `endpoint_url`, `requester_pays` and `region` are understood for
    every store that has the thing; credentials of digits only are text. Listings are not cached: another process may
    be writing.

    Raises
    ------
    SettingsError
        An option that says nothing to this kind of store.
    """
    given = {
        name: open_options(f"{name}://", value) if isinstance(value, Mapping) and name in _EXTRAS else value
        for name, value in options.items()
    }
    extra = _EXTRAS.get(protocol_of(url), ("", ""))[0]
    if not extra:
        return given
    for name in ("key", "secret", "token", "account_name", "account_key"):
        if isinstance(given.get(name), int) and not isinstance(given[name], bool):
            given[name] = str(given[name])
    for name, value in list(given.items()):
        if name in _FRIENDLY:
            del given[name]
            given.update(_FOR[extra](name, value, given))
    if extra == "s3":
        # Tries are counted in one place, `daskim.retry`: botocore's own would multiply them.
        config = dict(given.get("config_kwargs") or {})
        config.setdefault("retries", {"total_max_attempts": 1, "mode": "standard"})
        given["config_kwargs"] = config
        # One request an object: s3fs would ask for the size of each first, and read large ones in parts.
        given.setdefault("max_concurrency", 1)
    given.setdefault("use_listings_cache", False)
    return given


def _s3(name: str, value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if name == "region":
        return {"client_kwargs": {**(given.get("client_kwargs") or {}), "region_name": value}}
    return {name: value}


def _gcs(name: str, value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if name == "anon":
        return {"token": "anon"} if value else {}
    if name == "region":
        raise _says_nothing(name, "gs://")
    return {name: value}


def _azure(name: str, value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    if name == "anon":
        return {"anon": value}
    hint = "Give account_host=..., or connection_string=... with its BlobEndpoint." if name == "endpoint_url" else ""
    raise _says_nothing(name, "az://", hint)


def _http(name: str, value: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    raise _says_nothing(name, "https://", "Headers go with client_kwargs={headers={...}}.")


def _says_nothing(name: str, kind: str, hint: str = "") -> SettingsError:
    return SettingsError(f"--storage-option {name} says nothing to {kind}", hint or "Leave it out.")


_FOR = {"s3": _s3, "gcs": _gcs, "azure": _azure, "http": _http}


def missing_package(url: str, error: BaseException) -> str | None:
    """What to do when the package for `url` is not there; None where it is another error."""
    if not isinstance(error, ImportError):
        return None
    for protocol in (part.partition("://")[0] for part in url.split("::")):
        if protocol in _EXTRAS:
            extra, package = _EXTRAS[protocol]
            return f"{protocol}:// needs the package {package}: pip install 'daskim[{extra}]'."
    return None


def refuse_credentials(url: str) -> None:
    """Refuse a URL that holds a credential: it would end in tables, in settings and in logs.

    Raises
    ------
    SettingsError
    """
    if _PASSWORD.search(url):
        raise SettingsError(
            f"a password inside a URL ({re.sub(r'://[^@]*@', '://...@', url)}) would end in tables and logs",
            "Give credentials with --storage-option key=value.",
        )
    if _SIGNED.search(url):
        raise SettingsError(
            f"a signed URL ({url.partition('?')[0]}?...) would end in tables and logs",
            "Give credentials with --storage-option key=value and the URL without its query.",
        )


def secrets_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Texts in the options that must not be shown, those in inner options included."""
    found: list[str] = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            found += secrets_of(value)
        elif name not in _OPEN and isinstance(value, str | int) and not isinstance(value, bool):
            found += [str(value)] if len(str(value)) >= 4 else []
    return tuple(found)


def blot(text: str, secrets: Sequence[str] = ()) -> str:
    """`text` without the given secrets, those of the environment, signatures of URLs and passwords in them."""
    known = {*secrets, *(os.environ[name] for name in _ENVIRONMENT if len(os.environ.get(name, "")) >= 4)}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?)[^'\"\n]+", r"\1***", text)
    return _PASSWORD.sub("://***@", re.sub(r"\?\S+", "?***", text))
