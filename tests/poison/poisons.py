"""Poisonous images for the tests: see `sitecustomize.py` beside this file."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def poison(data: bytes, how: str) -> bytes:
    """A PNG that crashes, kills, hangs or eats the memory of the process that decodes it; `how` says which."""
    return data + b"daskim-poison:" + how.encode()
