"""The Gram matrix of whole numbers in single precision: to the last bit that of int64, whatever the rows and cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels import blas, gram
from daskim.kernels.blas import add_products, upper_inverse
from daskim.kernels.gram import SAFE, SINGLE, exact_gram, joined, packed, unpacked


def truth(w: np.ndarray) -> np.ndarray:
    """W'W in whole numbers."""
    wide = w.astype(np.int64)
    return np.asarray(wide.T @ wide)


KINDS = ("random", "white", "black", "black and white", "alternating", "constant", "steps", "grey", "bright", "rare")


def pixels(kind: str, rows: int, d: int, seed: int) -> np.ndarray:
    """Blocks of pixels where sums of squares are as large as they can be, or the offset as wrong as it can be."""
    rng = np.random.default_rng(seed)
    w = rng.integers(0, 256, (rows, d), dtype=np.uint8)
    row = np.arange(rows)[:, None]
    if kind in ("white", "black"):
        w[:] = 255 * (kind == "white")
    elif kind == "black and white":
        w[:] = 255 * (w > 127)
    elif kind == "alternating":
        w[:] = 255 * (row % 2)
    elif kind == "constant":
        w[:, ::2] = rng.integers(0, 256, d, dtype=np.uint8)[::2]
    elif kind == "steps":  # the first rows, of which the offset is taken, say nothing of the others
        w[:] = 255 * (row > rows // 2)
    elif kind == "grey":
        w[:] = w[:, :1]
    elif kind == "bright":
        w[:] = 250 + w % 6
    elif kind == "rare":
        w[:] = 255 * (w == 0)
    return w


@settings(deadline=None, max_examples=120)
@given(
    data=st.data(),
    kind=st.sampled_from(KINDS),
    rows=st.integers(0, 1500),
    d=st.integers(1, 21),
    piece=st.sampled_from([1, 64, 1 << 12, 1 << 22]),
    seed=st.integers(0, 2**32 - 1),
)
def test_pixels_in_single_precision_are_exact_however_they_are_cut(data, kind, rows, d, piece, seed):
    w = pixels(kind, rows, d, seed)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=5)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram, "PIECE", piece)
        found = exact_gram(iter(np.split(w, cuts)), d)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.tril(truth(w)))


@settings(deadline=None, max_examples=80)
@given(
    level=st.integers(0, 9),
    dtype=st.sampled_from([np.int16, np.int32, np.int64]),
    rows=st.integers(1, 600),
    d=st.integers(1, 9),
    extreme=st.booleans(),
    least=st.sampled_from([1, 7, 96]),
    seed=st.integers(0, 2**32 - 1),
)
def test_coefficients_of_any_size_are_exact(level, dtype, rows, d, extreme, least, seed):
    bound = min(255 * 4**level, np.iinfo(dtype).max)
    if 4 * rows * bound**2 >= SAFE:
        rows = max(1, int(SAFE / (4 * bound**2)) - 1)
    rng = np.random.default_rng(seed)
    w = rng.integers(-bound, bound, (rows, d), dtype=dtype, endpoint=True)
    w[:, ::2] //= 1 + bound // 20  # small columns beside large ones
    if extreme:
        w[:, -1] = np.where(rng.random(rows) < 0.5, -bound, bound)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram, "LEAST", least)
        found = exact_gram([w[: rows // 3], w[rows // 3 :]], d)
    np.testing.assert_array_equal(found, np.tril(truth(w)))


def test_single_precision_is_used_up_to_its_bound_and_no_further(monkeypatch):
    """Sums of squares reach 2^24, never more, between two additions to the float64 sums; most pixels never leave it."""
    reached = []
    plain = gram.add_products

    def watched(total, part, *, sign=1.0):
        plain(total, part, sign=sign)
        if total.dtype == np.float32:
            reached.append(total.diagonal().max())
        else:
            pytest.fail("pixels in double precision")

    monkeypatch.setattr(gram, "add_products", watched)
    monkeypatch.setattr(gram, "PIECE", 64 * 40)
    for kind in KINDS:
        exact_gram([pixels(kind, 5000, 40, 1)], 40)
    assert SINGLE * 0.9 < max(reached) <= 2**24


def test_wide_blocks_and_odd_shapes():
    for rows, d in ((700, 301), (129, 257), (2, 400), (3000, 128)):
        w = pixels("random", rows, d, rows)
        np.testing.assert_array_equal(exact_gram([w], d), np.tril(truth(w)))
        np.testing.assert_array_equal(exact_gram([np.asfortranarray(w)[::-1]], d), np.tril(truth(w)))


def test_no_rows_and_no_columns():
    np.testing.assert_array_equal(exact_gram([], 3), np.zeros((3, 3)))
    np.testing.assert_array_equal(exact_gram([np.zeros((0, 3), dtype=np.uint8)], 3), np.zeros((3, 3)))
    assert exact_gram([np.zeros((5, 0), dtype=np.uint8)], 0).shape == (0, 0)


@pytest.mark.parametrize("d", [0, 1, 2, 127, 128, 129, 300])
@pytest.mark.parametrize("scale", [1, 2**40])
def test_triangles_are_packed_and_unpacked_without_loss(d, scale):
    w = np.random.default_rng(d).integers(-9, 9, (50, d))
    whole = (truth(w) * scale).astype(np.float64)
    triangle = packed(np.tril(whole))
    assert triangle.shape == (d * (d + 1) // 2,)
    assert triangle.dtype == (np.int32 if scale == 1 or d == 0 else np.float64)
    np.testing.assert_array_equal(unpacked(triangle, d), whole)


def test_triangles_that_just_fit_their_integers_are_joined_without_overflow():
    largest = np.array([[2.0**31 - 1, 0], [-(2.0**31) + 1, 2.0**31 - 1]])
    assert packed(largest).dtype == np.int32
    assert packed(largest + np.eye(2)).dtype == np.float64
    total = joined(iter([packed(largest)] * 3 + [packed(largest + np.eye(2))]))
    np.testing.assert_array_equal(total, [4 * (2.0**31 - 1) + 1, -4 * (2.0**31 - 1), 4 * (2.0**31 - 1) + 1])


# --- the routines below -----------------------------------------------------------------------------------------


@pytest.fixture(params=["by pointer", "by scipy's wrappers"])
def routine(request, monkeypatch):
    if request.param != "by pointer":
        monkeypatch.setattr(blas, "_routine", lambda *_: None)


@pytest.mark.usefixtures("routine")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("k", "d"), [(0, 3), (3, 0), (1, 1), (1, 7), (7, 1), (40, 33), (33, 40)])
def test_products_are_added_to_one_triangle_of_a_part_of_a_matrix(dtype, k, d):
    rng = np.random.default_rng(k + d)
    whole = rng.integers(-5, 6, (d + 3, d + 5)).astype(dtype)
    wide = rng.integers(-5, 6, (k, d + 4)).astype(dtype)
    before, part = whole.copy(), wide[:, 2 : d + 2]
    add_products(whole[1 : d + 1, 2 : d + 2], part, sign=-1.0)
    expected = before.copy()
    expected[1 : d + 1, 2 : d + 2] -= np.tril(part.T @ part)
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.usefixtures("routine")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("d", [0, 1, 2, 63, 65, 200])
def test_inverse_of_a_triangle(order, d):
    r = np.triu(np.random.default_rng(d).standard_normal((d, d))) + 4 * np.eye(d)
    kept = r.copy()
    inverse = upper_inverse(np.array(r, order=order))
    assert inverse is not None
    assert inverse.flags.c_contiguous
    np.testing.assert_allclose(inverse @ r, np.eye(d), atol=1e-10)
    np.testing.assert_array_equal(inverse, np.triu(inverse))
    np.testing.assert_array_equal(r, kept)


@pytest.mark.usefixtures("routine")
def test_a_singular_triangle_has_no_inverse():
    assert upper_inverse(np.diag([1.0, 0.0, 2.0])) is None


def test_the_pointers_are_those_of_this_scipy():
    """Without them all is right but slower: threads would wait for one another."""
    for name in ("ssyrk", "dsyrk"):
        assert blas._routine("blas", name, "void (char *, char *, int *, int *, ") is not None
    assert blas._routine("lapack", "dtrtri", "void (char *, char *, int *, ") is not None
    assert blas._routine("blas", "ssyrk", "void (char *, char *, long *, ") is None
    assert blas._routine("blas", "none", "void ") is None
