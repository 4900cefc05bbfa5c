"""Which images are searched: one for each set of equal ones, flat and broken images apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from daskim.kernels.ward import components
from daskim.statuses import READABLE

__all__ = ["NAME", "first_of_equals", "searched_rows"]

NAME = "candidates"


def first_of_equals(images: pd.DataFrame, exact: pd.DataFrame, n: int, *, standard: bool) -> np.ndarray:
    """The image that stands for each image in the search; shape (n,), int64, -1 for broken ones.

    Parameters
    ----------
    images : DataFrame
        row, status, digest.
    exact : DataFrame
        row, group: exact duplicates.
    standard : bool
        The similarity sees the standard images, so that equal standard pixels are enough.
    """
    good = images[images["status"].isin(READABLE)]
    rows = good["row"].to_numpy()
    links = [exact["group"].to_numpy(dtype=np.int64)] if len(exact) else []
    ends = [exact["row"].to_numpy(dtype=np.int64)] if len(exact) else []
    if standard:
        ends.append(rows)
        links.append(good.groupby("digest", sort=False)["row"].transform("min").to_numpy(dtype=np.int64))
    out = np.full(n, -1, dtype=np.int64)
    if links:
        label = components(n, np.concatenate(ends), np.concatenate(links))
    else:
        label = np.arange(n)
    first = np.full(n, n, dtype=np.int64)
    np.minimum.at(first, label[rows], rows)
    out[rows] = first[label[rows]]
    return out


def searched_rows(first: np.ndarray, images: pd.DataFrame, *, flat: bool) -> np.ndarray:
    """Rows that stand for themselves, ascending; flat ones only if asked for: they are alike by every measure."""
    status = images.sort_values("row")["status"].to_numpy()
    alone = (first == np.arange(len(first))) & ((status == "ok") | flat)
    return np.flatnonzero(alone)
