"""Headers of .npy files, parsed one at a time.

Where two threads are at it, some releases of Python 3.11 and 3.12 may fail (SystemError: AST constructor recursion
depth mismatch; cpython issue 106905).
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

__all__ = ["PARSING", "header_of"]

# Held by whoever has NumPy read a header.
PARSING = Lock()


def header_of(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and type of the array of an open file, which is then at its values."""
    with PARSING:
        version = npy_format.read_magic(file)
        read = npy_format.read_array_header_1_0 if version[0] == 1 else npy_format.read_array_header_2_0
        return read(file)
