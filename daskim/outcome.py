"""How a command ended, told to those who watch a schedule: a text file for Prometheus, and a POST to a webhook.

Both are about the end, whatever it was; a failure of theirs is told and changes no exit code. The URL of a webhook
often is its own secret: of it only the host is ever shown.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from daskim.errors import DaskimError, SettingsError

__all__ = ["Outcome", "check_metrics", "check_notify", "metrics_text", "notify", "write_metrics"]

# Seconds that a webhook has to answer, and waits before the second and third attempt.
TIMEOUT = 10.0
WAITS = (1.0, 4.0)
# Exit codes of a command that finished its work: 6 is a condition of --fail-on that is met.
FINISHED = (0, 6)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes
    ----------
    command : str
        reduce or compare.
    run : str
    exit_code : int
    seconds : float
        From its begin to its end.
    ended : float
        Seconds since the epoch.
    error : BaseException, optional
    summary : mapping, optional
        Of the run, where it was finished.
    """

    command: str
    run: str
    exit_code: int
    seconds: float
    ended: float
    error: BaseException | None = None
    summary: Mapping[str, Any] | None = field(default=None, repr=False)

    def record(self) -> dict[str, Any]:
        """What a webhook is sent."""
        error = None
        if self.error is not None:
            told = self.error
            what, hint = (told.what, told.hint) if isinstance(told, DaskimError) else (str(told), "")
            error = {"kind": type(told).__name__, "what": what, "hint": hint}
        return {
            "command": self.command,
            "run": self.run,
            "host": socket.gethostname(),
            "exit_code": self.exit_code,
            "finished": self.exit_code in FINISHED,
            "seconds": round(self.seconds, 3),
            "ended": round(self.ended, 3),
            "error": error,
            "summary": self.summary,
        }


def check_metrics(path: str) -> None:
    """Refuse, before the work, a file that could not be written.

    Raises
    ------
    SettingsError
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not path or os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise SettingsError(
            f"--metrics {path}: no file can be written there",
            "Name a file in a directory that is there, such as /var/lib/node_exporter/daskim.prom.",
        )


def check_notify(url: str) -> None:
    """Refuse, before the work, what is no URL of a webhook.

    Raises
    ------
    SettingsError
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or re.search(r"[\x00-\x20\x7f]", url):
        raise SettingsError("--notify: no URL that can be posted to", "Write https://host/path, or http://host/path.")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            f"--notify {parts.scheme}://...@{parts.hostname}: a user or password in a URL ends in logs",
            "Use a URL whose path is the secret, given by the environment variable DASKIM_NOTIFY.",
        )


def write_metrics(outcome: Outcome, path: str) -> None:
    """Write the text file, whole or not at all, readable for everybody.

    Raises
    ------
    OSError
    """
    target = Path(os.path.abspath(path))
    try:
        before = target.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        before = ""
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(metrics_text(outcome, before))
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def metrics_text(outcome: Outcome, before: str = "") -> str:
    """The outcome in Prometheus' text format.

    Parameters
    ----------
    before : str
        The file as it was: the time of the last success outlives a failure.
    """
    common = {"command": outcome.command, "run": outcome.run}
    lines: list[str] = []
    for name, meaning, samples in _families(outcome, before):
        rows = [(labels, value) for labels, value in samples if value is not None]
        if rows:
            lines += [f"# HELP daskim_{name} {meaning}", f"# TYPE daskim_{name} gauge"]
            lines += [f"daskim_{name}{_labels({**common, **labels})} {_number(value)}" for labels, value in rows]
    return "\n".join(lines) + "\n"


Samples = Iterable[tuple[dict[str, str], Any]]


def _families(outcome: Outcome, before: str) -> Iterator[tuple[str, str, Samples]]:
    """(name, meaning, samples) of each metric; values of None are left out."""

    def single(value: Any) -> Samples:
        return [({}, value)]

    def by(label: str, values: Mapping[str, Any] | None) -> Samples:
        return [({label: name}, value) for name, value in (values or {}).items()]

    good = outcome.exit_code in FINISHED
    success = outcome.ended if good else _last_success(outcome, before)
    yield "exit_code", "Exit code of the last command: 0 finished, 6 a condition is met.", single(outcome.exit_code)
    yield "last_run_timestamp_seconds", "When the last command ended.", single(outcome.ended)
    yield "last_success_timestamp_seconds", "When a command last finished its work.", single(success)
    yield "run_seconds", "Seconds that the last command took.", single(outcome.seconds)
    told = outcome.summary or {}
    size, delivery, leakage = told.get("size") or {}, told.get("delivery") or {}, told.get("leakage") or {}
    decisions = {name: told.get(f"n_{name}") for name in ("keep", "drop", "review")}
    changes = {name: value for name, value in delivery.items() if name in CHANGES}
    yield "stage_seconds", "Seconds of each stage when it was done.", by("stage", told.get("seconds"))
    yield "images", "Images of the run.", single(told.get("n_images"))
    yield "images_by_status", "Images by what became of them when they were read.", by("status", told.get("status"))
    yield "images_by_decision", "Images by the decision of the plan.", by("decision", decisions)
    yield "exact_duplicates", "Exact duplicates of an earlier image.", single(told.get("n_exact"))
    yield "influential", "Images that are alike to one of another label.", single(told.get("n_influential"))
    yield "leaked", "Evaluated images with a twin in another split.", single(leakage.get("images"))
    yield "source_bytes", "Bytes of the source, as listed.", single(size.get("bytes"))
    yield "peak_memory_bytes", "Peak memory on the driver's machine.", single(told.get("peak_rss_bytes"))
    yield "delivery_images", "Images of the last delivery by what changed.", by("change", changes)
    yield "delivery_source_bytes", "Bytes of the delivery's new images.", single(delivery.get("source_bytes"))
    yield "delivery_run_bytes", "Bytes of the run that it read, by array.", by("array", delivery.get("run_bytes"))


CHANGES = ("new", "changed", "back", "deleted", "relabelled", "unchanged")


def _last_success(outcome: Outcome, before: str) -> float | None:
    head = "daskim_last_success_timestamp_seconds" + _labels({"command": outcome.command, "run": outcome.run})
    for line in before.splitlines():
        name, _, value = line.rpartition(" ")
        if name == head:
            try:
                return float(value)
            except ValueError:
                return None
    return None


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(text: str) -> str:
        clean = str(text).encode("utf-8", "replace").decode()
        return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{float(value):.3f}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent on elsewhere would arrive as a GET without its content."""

    def redirect_request(self, *_: Any) -> None:
        return None


def notify(
    outcome: Outcome,
    url: str,
    *,
    timeout: float = TIMEOUT,
    waits: Iterable[float] = WAITS,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """POST the outcome as JSON; empty when it arrived, else why not. Time-outs and answers 429 and 5xx are tried again.

    Parameters
    ----------
    timeout : float
        Seconds for each attempt.
    waits : iterable of float
        Seconds before each further attempt.
    """
    body = json.dumps(outcome.record()).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "daskim"}
    opener = urllib.request.build_opener(_NoRedirect)
    where = f"{urlsplit(url).scheme}://{urlsplit(url).hostname}"
    said = ""
    for wait in (0.0, *waits):
        if wait:
            sleep(wait)
        try:
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            with opener.open(request, timeout=timeout):
                return ""
        except urllib.error.HTTPError as error:
            said = f"{where} answers {error.code}"
            error.close()
            if error.code != 429 and error.code < 500:
                break
        except Exception as error:  # of sockets, TLS and HTTP alike: the run is over, and no worse for it
            reason = getattr(error, "reason", error)
            said = f"{where}: {type(reason).__name__}"
            said += f": {reason}" if str(reason) and url not in str(reason) else ""
    return said
