"""One file, one image transform: a block of images to a block of coefficients. The file exports it as `PLUGIN`.

A transform is a class made with the settings of the stage and the shape of an image, which has

    columns : int                   number of coefficients of one image
    dtype : numpy dtype             of the block it returns
    scale : float                   what stored values are to be multiplied with
    exact : bool                    whole numbers whose products may be summed in any order
    bound : float                   largest absolute stored value
    notes : list of str             what a user should know (padding, bands left out)
    versions : dict                 what its output depends on; part of the fingerprint
    table() -> dict of lists        band, level and channel of every column
    __call__(block) -> ndarray      (b, h, w, c) uint8 -> (b, columns)

and, where it is `exact`, may have

    linear(block) -> ndarray        the same map of whole numbers of any size: (b, h, w, c) float64 -> (b, columns)
                                    float64, exact up to 2^53; with it sums over images are worked out on their pixels
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

__all__ = ["Transform"]


class Transform(Protocol):
    columns: int
    dtype: np.dtype
    scale: float
    exact: bool
    bound: float
    notes: list[str]
    versions: dict[str, str]

    def table(self) -> dict[str, list[Any]]: ...

    def __call__(self, block: np.ndarray) -> np.ndarray: ...
