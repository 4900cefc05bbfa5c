"""File digests: the same by the piece and at once, and different for whatever differs."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from daskim.lake import Digest, digest_of, digest_of_file, locate


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_by_the_piece_as_at_once(pieces: list[bytes]) -> None:
    found = Digest()
    for piece in pieces:
        found.update(piece)
    whole = b"".join(pieces)
    assert found.digest() == digest_of(whole) == blake3(whole).digest()[:16]
    assert found.hexdigest() == digest_of(whole).hex()


def test_a_file_longer_than_a_piece(tmp_path: object) -> None:
    data = np.random.default_rng(0).bytes(9_000_001)
    path = f"{tmp_path}/long.bin"
    with open(path, "wb") as file:
        file.write(data)
    assert digest_of_file(locate(path)) == digest_of(data)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "?"])
def test_arrays_by_their_values_not_by_how_they_lie(dtype: str) -> None:
    values = (np.arange(24).reshape(4, 6) % 2).astype(dtype)
    same = [
        np.asfortranarray(values),
        values.astype(values.dtype.newbyteorder(">")),
        np.repeat(values, 2, axis=1)[:, ::2],
    ]
    assert {digest_of(other) for other in same} == {digest_of(values)}


def test_arrays_that_differ() -> None:
    values = np.zeros((4, 6), dtype="i2")
    changed = values.copy()
    changed[0, 0] = 1
    others = [values.T, values.reshape(24), values.view("u2"), values.view("u1"), changed]
    digests = {digest_of(other) for other in (values, *others)} | {digest_of(values.tobytes())}
    assert len(digests) == 7
