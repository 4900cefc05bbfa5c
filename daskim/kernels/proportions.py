"""Shares of a whole, with their uncertainty."""

from __future__ import annotations

from scipy.stats import beta

__all__ = ["share_interval"]

CONFIDENCE = 0.95


def share_interval(found: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Clopper and Pearson (1934): at least 95 % whatever the true share is.

    Parameters
    ----------
    found, total : int
        0 <= found <= total.

    Returns
    -------
    (low, high) : float
        (0, 1) where total is 0.
    """
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, found, total - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, total - found)) if found < total else 1.0
    return low, high
