"""Options that several commands share: their types and help, and how their values are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from daskim.errors import SettingsError
from daskim.settings import parse_assignment

__all__ = [
    "Assignments",
    "Format",
    "Json",
    "MaxBad",
    "Mode",
    "PlaceOptions",
    "Preview",
    "Quiet",
    "Report",
    "Restart",
    "RunPlace",
    "SimilaritySize",
    "SourceOptions",
    "StandardSize",
    "bytes_of",
    "number_of",
    "run_options_of",
    "size_text",
    "storage_options",
]

Restart = Annotated[str | None, Parameter(help="Do this stage and the later ones again.")]
Format = Annotated[str | None, Parameter(help="[auto] folder, manifest, webdataset, parquet, array or idx.")]
StandardSize = Annotated[str | None, Parameter(help="[32x32] Standard size HxW, or native.")]
Mode = Annotated[Literal["RGB", "L"] | None, Parameter(help="[RGB] Colour or luma.")]
MaxBad = Annotated[float | None, Parameter(help="[1] Share of broken images above which the run ends.")]
Report = Annotated[bool, Parameter(help="Make RUN/report.html, a page to look at.")]
Quiet = Annotated[bool, Parameter(help="No progress, no notes.", negative="")]
Json = Annotated[bool, Parameter(help="JSON lines on standard output.", negative="")]
RunPlace = Annotated[str, Parameter(help="Directory or URL that holds the results.")]
Preview = Annotated[bool, Parameter(help="Say what would be done and what it needs; compute nothing.", negative="")]
Assignments = Annotated[
    list[str] | None, Parameter(name="--set", help="stage.key=value, any setting; repeat for more.", negative="")
]
SourceOptions = Annotated[
    list[str] | None,
    Parameter(help="key=value for fsspec, for INPUT and a RUN of the same kind; repeat.", negative=""),
]
SimilaritySize = Annotated[
    str | None, Parameter(help="[standard] HxW that the similarity sees, native, or standard (that of --size).")
]


@Parameter(name="*")
@dataclass(frozen=True)
class PlaceOptions:
    """Where the work is done; `--cluster` and what the places of `daskim.compute` take."""

    cluster: Annotated[str, Parameter(help="threads, local, or address:tcp://host:port.")] = "threads"
    workers: Annotated[int | None, Parameter(help="Threads or processes; default one a core.")] = None
    memory: Annotated[str | None, Parameter(help="Memory for all workers of this machine, such as 4GB.")] = None

    def arguments(self) -> dict[str, Any]:
        """What `daskim.api.reduce` is given of them."""
        own = {field.name: getattr(self, field.name) for field in fields(self)[3:]}
        options = {name.replace("_", "-"): value for name, value in own.items() if value not in (None, False, ())}
        return {
            "cluster": self.cluster,
            "workers": self.workers,
            "memory": bytes_of(self.memory),
            "place_options": options,
        }


def number_of(text: str | None) -> int | float | str | None:
    """A number where the text is one; else the text, which the settings judge."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return text
    return int(value) if value is not None and value >= 1 and value.is_integer() else value


def run_options_of(run: str, inputs: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """The fsspec options for RUN: those of the INPUT where both are of one kind."""
    return options if _kind(run) in {_kind(item) for item in inputs} else {}


def _kind(url: str) -> str:
    return url.partition("://")[0] if "://" in url else "file"


def storage_options(items: Sequence[str]) -> dict[str, Any]:
    """--storage-option key=value, for fsspec."""
    options = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise SettingsError(
                "--storage-option is not key=value", "Write --storage-option key=value, such as anon=true."
            )
        options[key] = parse_assignment(f"{key}={value}")[1]
    return options


def bytes_of(text: str | None) -> int | None:
    """An amount of memory such as 4GB."""
    if text is None:
        return None
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    number = text.strip().rstrip("BbKkMmGgIi ")
    try:
        value = float(number) * units[text.strip()[len(number) :].strip().upper()]
    except (KeyError, ValueError):
        value = 0
    if not 1 <= value < float("inf"):
        raise SettingsError(f"--memory {text}: no amount of memory", "Write a number with KB, MB or GB, such as 4GB.")
    return int(value)


def size_text(value: float) -> str:
    """An amount of memory in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""
