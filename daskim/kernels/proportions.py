"""Shares of a whole, with their uncertainty."""

from __future__ import annotations

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
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(found, total - found + 1, tail)) if found else 0.0
    high = float(betaincinv(found + 1, total - found, 1 - tail)) if found < total else 1.0
    return low, high
