"""Amounts as Kubernetes writes them: 500m, 2, 4Gi, 1.5G."""

from __future__ import annotations

import re
from decimal import Decimal

from daskim.errors import SettingsError

__all__ = ["quantity"]

_UNITS = {"": Decimal(1), "m": Decimal("0.001")}
_UNITS |= {letter: Decimal(1000) ** power for power, letter in enumerate("kMGT", 1)}
_UNITS |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGT", 1)}


def quantity(text: object, name: str) -> float:
    """The number that a Kubernetes quantity stands for.

    Parameters
    ----------
    text : object
        Such as "500m", 2 or "4Gi"; a spec may hold a plain number.
    name : str
        Where it was written, for the error.

    Raises
    ------
    SettingsError
        Not a quantity, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)(m|[kMGT]|[KMGT]i)?", str(text).strip())
    value = Decimal(found[1]) * _UNITS[found[2] or ""] if found else Decimal(0)
    if value <= 0:
        raise SettingsError(f"{name} {text}: no amount", "Write it as Kubernetes does, such as 500m, 2 or 4Gi.")
    return float(value)
