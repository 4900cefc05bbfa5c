"""Virtual environments for the peers, one each, made once in a folder that is kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Environment", "Unavailable", "python_of"]


class Unavailable(Exception):
    """A peer cannot be had here; the text says why."""


@dataclass(frozen=True)
class Environment:
    """What is installed: one requirement with all it asks for, or without, and then others."""

    requirement: str
    alone: bool = False
    others: tuple[str, ...] = ()
    note: str = ""


PEERS = {
    "cleanvision": Environment("cleanvision==0.3.7"),
    "fastdup": Environment("fastdup==2.54"),
    "imagededup": Environment(
        "imagededup==0.3.3.post2",
        alone=True,
        others=("Pillow", "tqdm", "scikit-learn", "PyWavelets", "matplotlib"),
        note="installed without torch and torchvision, which its network needs and its hashes do not",
    ),
}


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, which is made if need be.

    Raises
    ------
    Unavailable
        With the last words of pip.
    """
    asked = PEERS[name]
    home = folder.absolute() / asked.requirement.replace("==", "-")
    python, ready = home / "bin" / "python", home / "ready"
    if ready.is_file():
        return python
    shutil.rmtree(home, ignore_errors=True)  # of an attempt that failed
    steps = [[sys.executable, "-m", "venv", str(home)]]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps.append([*pip, *(["--no-deps"] if asked.alone else []), asked.requirement])
    if asked.others:
        steps.append([*pip, *asked.others])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise Unavailable(f"cannot be installed: {words[-1][-200:]}")
    ready.write_text(f"{asked.requirement}\n", encoding="utf-8")
    return python
