"""What the columns of a table are measured in, and whether less or more of it is better."""

from __future__ import annotations

import re

__all__ = ["better", "unit_of"]

# Word in a column's name: its unit. Those of time and memory are costs.
WORDS = {"seconds": "s", "s": "s", "ms": "ms", "us": "us", "ns": "ns", "minutes": "min", "min": "min", "hours": "h"}
WORDS |= {"bytes": "B", "kB": "kB", "MB": "MB", "GB": "GB"}
COSTS = frozenset(WORDS.values())
GOOD = ("recall", "precision", "F1", "CPU use")


def unit_of(column: str) -> str:
    """Unit told by a column's name: "us per image", "peak MB beyond W", "MB/s"; "" where it tells none.

    >>> [unit_of(name) for name in ("us per image", "new files, MB", "images/s", "CPU use, %", "clusters")]
    ['us', 'MB', '1/s', '%', '']
    """
    rate = re.search(r"(\S+)/s\b", column)
    if rate:
        return f"{rate[1]}/s" if rate[1] in ("B", "kB", "MB", "GB", "GF") else "1/s"
    if "%" in column:
        return "%"
    return next((WORDS[word] for word in re.findall(r"(?<!')\b[A-Za-z]+", column) if word in WORDS), "")


def better(column: str, unit: str) -> int:
    """-1 where less is better (time, memory), 1 where more is (rates, recall), 0 where it is no matter of that."""
    if unit in COSTS:
        return -1
    return 1 if unit.endswith("/s") or column.startswith(GOOD) else 0
