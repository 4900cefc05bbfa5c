"""Symmetric rank-k updates and triangular inverses in place, with other threads running meanwhile.

scipy.linalg.blas holds Python's lock while it computes; numpy's `a.T @ a` does not, but copies one triangle into the
other at each call and cannot add to what is there. The same routines are reached here through the pointers that scipy
offers to Cython (scipy.linalg.cython_blas, of the reference "Low-level BLAS functions"), by ctypes, which lets the lock
go. Where the pointers have another signature (64-bit integers), scipy's own wrappers serve.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.linalg
import scipy.linalg.cython_blas
import scipy.linalg.cython_lapack

__all__ = ["add_products", "upper_inverse"]

# Side of the tiles by which a matrix is transposed.
TILE = 64


def add_products(total: np.ndarray, part: np.ndarray, *, sign: float = 1.0) -> None:
    """Add part' part, times `sign`, to the lower triangle of `total`, diagonal included; the rest stays.

    Parameters
    ----------
    total : ndarray, shape (d, d), float32 or float64
        Each row contiguous; rows may be further apart than d.
    part : ndarray, shape (k, d), dtype of `total`
        Likewise.

    Notes
    -----
    One syrk: k d^2 flops. An entry is a sum of the k products and what was there, in an order that BLAS chooses.
    """
    rows, d = part.shape
    if not rows or not d:
        return
    assert total.shape == (d, d)
    assert total.dtype == part.dtype
    assert _by_rows(total)
    assert _by_rows(part)
    prefix, real = ("s", ctypes.c_float) if total.dtype == np.float32 else ("d", ctypes.c_double)
    # LAPACK sees the transposed matrices, by columns: total's lower triangle is its upper one
    call = _routine("blas", f"{prefix}syrk", "void (char *, char *, int *, int *, ")
    if call is None:
        syrk = getattr(scipy.linalg.blas, f"{prefix}syrk")
        np.copyto(total, syrk(sign, part.T, beta=1.0, c=total.T, lower=0).T, where=np.tri(d, dtype=bool))
        return
    size = ctypes.c_int(d)
    steps = [ctypes.c_int(max(d, array.strides[0] // array.itemsize)) for array in (part, total)]
    call(
        *(b"U", b"N", ctypes.byref(size), ctypes.byref(ctypes.c_int(rows))),
        *(ctypes.byref(real(sign)), ctypes.c_void_p(part.ctypes.data), ctypes.byref(steps[0])),
        *(ctypes.byref(real(1.0)), ctypes.c_void_p(total.ctypes.data), ctypes.byref(steps[1])),
    )


def upper_inverse(r: np.ndarray) -> np.ndarray | None:
    """Inverse of an upper triangular matrix; None where a diagonal entry is zero.

    Parameters
    ----------
    r : ndarray, shape (d, d), float64
        Zero below the diagonal.

    Returns
    -------
    ndarray, shape (d, d), float64, C order
    """
    columns = _transposed(np.asarray(r, dtype=np.float64))  # its memory is r by columns, as LAPACK has it
    d = len(columns)
    if not d:
        return columns
    call = _routine("lapack", "dtrtri", "void (char *, char *, int *, ")
    if call is None:
        found, info = scipy.linalg.lapack.dtrtri(columns.T, lower=0, overwrite_c=1)
        return np.ascontiguousarray(found) if info == 0 else None
    size, failed = ctypes.c_int(d), ctypes.c_int(0)
    call(b"U", b"N", ctypes.byref(size), ctypes.c_void_p(columns.ctypes.data), ctypes.byref(size), ctypes.byref(failed))
    return _transposed(columns) if failed.value == 0 else None


def _transposed(a: np.ndarray) -> np.ndarray:
    """A copy of a', in C order, by tiles: whole columns would fall on few lines of the cache."""
    out = np.empty(a.shape[::-1], dtype=a.dtype)
    for top in range(0, a.shape[0], TILE):
        for left in range(0, a.shape[1], TILE):
            out[left : left + TILE, top : top + TILE] = a[top : top + TILE, left : left + TILE].T
    return out


def _by_rows(array: np.ndarray) -> bool:
    """Whether rows are contiguous and at least their length apart, as BLAS takes them."""
    rows, d = array.shape
    across, down = array.strides[1] // array.itemsize, array.strides[0] // array.itemsize
    return (d < 2 or across == 1) and (rows < 2 or down >= d)


@lru_cache
def _routine(library: str, name: str, signature: str) -> Callable[..., Any] | None:
    """A routine of scipy's BLAS or LAPACK; None where it is not the one that is meant."""
    module = scipy.linalg.cython_blas if library == "blas" else scipy.linalg.cython_lapack
    capsule = getattr(module, "__pyx_capi__", {}).get(name)
    if capsule is None:
        return None
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    told = get_name(capsule)
    if not told or not told.decode().startswith(signature):
        return None
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None)(get_pointer(capsule, told))
