"""What kustomize makes of deploy/."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
WAYS = ("base", "overlays/operator", "overlays/indexed-job")
Build = Callable[[str], list[dict[str, Any]]]


@cache
def kustomize() -> str:
    """Why kustomizations cannot be built here; empty when they can."""
    program = shutil.which("kubectl")
    if program is None:
        return "kubectl, which builds kustomizations, is not installed"
    said = subprocess.run([program, "version", "--client"], capture_output=True, text=True, timeout=60)
    version = re.search(r"Kustomize Version: v(\d+)", said.stdout)
    if version is None or int(version[1]) < 5:
        return f"kubectl builds with Kustomize {version[1] if version else 'of no known version'}, and 5 is needed"
    return ""


@cache
def built(way: str) -> list[dict[str, Any]]:
    words = ["kubectl", "kustomize", str(ROOT / "deploy" / way)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # deprecated fields are warned of
    return list(yaml.safe_load_all(done.stdout))
