"""Whether driver, scheduler and workers run the same software; what differs is told by machine.

Refused is what could change results or break messages between the parts; a run's recipe holds the same libraries,
so that the run would be stale if the driver had them. Anything else that differs is a note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from daskim.errors import SourceError

__all__ = ["check_versions", "compare_versions"]

# Package: how many parts of its version must be equal, 0 for all.
SAME: dict[str, int] = {
    "python": 2,
    "daskim": 0,
    "dask": 0,
    "distributed": 0,
    "cloudpickle": 1,
    "msgpack": 1,
    "numpy": 1,
    "pillow": 0,
    "simplejpeg": 0,
    "PyWavelets": 0,
    "scipy": 2,
    "scikit-image": 2,
    "scikit-learn": 2,
    "dask-ml": 0,
    "datasketch": 0,
    "zarr": 1,
    "pyarrow": 1,
    "pandas": 1,
}
# A scheduler unpickles tasks and passes messages on; it decodes and computes nothing.
SCHEDULER = ("python", "daskim", "dask", "distributed", "cloudpickle", "msgpack", "numpy")
PACKAGES = tuple(name for name in SAME if name != "python")


def check_versions(client: Any, place: str) -> list[str]:
    """Compare the software of all parts; returns a note for each package that differs and may.

    Only Dask's own messages are used: they work where daskim is not installed, or Python is another one.

    Parameters
    ----------
    client : distributed.Client
    place : str
        The value of `--cluster`.

    Raises
    ------
    SourceError
        A part whose software could give other results, or with which no task could be exchanged.
    """
    found = client.get_versions(check=False, packages=list(PACKAGES))
    machines = {"scheduler": _packages(found["scheduler"])}
    machines |= {f"worker {address}": _packages(value) for address, value in found["workers"].items()}
    breaks, notes = compare_versions(_packages(found["client"]) or {}, machines)
    if breaks:
        raise SourceError(
            f"--cluster {place}: other software than here: {'; '.join(breaks)}",
            "Install the same versions everywhere (one image, or one lock file): with these, results could differ or "
            "tasks not be exchanged.",
        )
    return notes


def compare_versions(
    driver: Mapping[str, str], machines: Mapping[str, Mapping[str, str] | None]
) -> tuple[list[str], list[str]]:
    """(what must be equal and is not, what may differ and does), a sentence each.

    Parameters
    ----------
    driver : mapping of package to version
        "python" as 3.11.2, "machine" as x86_64; "" where a package is not installed.
    machines : mapping of name to such a mapping
        "scheduler" or "worker ADDRESS"; None where one gave no answer.
    """
    breaks: dict[str, list[str]] = defaultdict(list)
    notes: dict[str, list[str]] = defaultdict(list)
    silent = []
    for machine, theirs in machines.items():
        if theirs is None:
            silent.append(machine)
            continue
        for name, mine in driver.items():
            other = theirs.get(name, "")
            if other == mine or (machine == "scheduler" and name not in SCHEDULER):
                continue
            words = f"{name} is {other or 'not installed'} where here it is {mine or 'not installed'}"
            (notes if _alike(name, mine, other) else breaks)[words].append(machine)
    told = [f"{words} ({_listed(names)})" for words, names in breaks.items()]
    if silent:
        told.append(f"no answer from {_listed(silent)}")
    return told, [f"versions: {words} ({_listed(names)})" for words, names in notes.items()]


def _alike(name: str, mine: str, other: str) -> bool:
    """Whether two versions may differ as they do."""
    if name not in SAME:
        return True
    if not mine or not other:
        return False
    parts = SAME[name] or None
    return mine.split(".")[:parts] == other.split(".")[:parts]


def _packages(answer: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Package to version, of Dask's answer."""
    if not answer or "packages" not in answer:
        return None
    found = {name: str(version or "") for name, version in answer["packages"].items() if name in SAME}
    found["python"] = ".".join(str(answer["host"]["python"]).split(".")[:3])
    found["machine"] = str(answer["host"]["machine"])
    return found


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
