"""The digest of a file: what tells whether two hold the same bytes, and whether one still holds what a run has seen."""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from daskim.lake.place import Place

__all__ = ["FILE_DIGEST", "Digest", "digest_of", "digest_of_file"]

# Kept among the facts of a run: digests of another kind are not comparable.
FILE_DIGEST = "blake3-128"
_BYTES = 16
_PIECE = 4_000_000


class Digest:
    """BLAKE3, its first 16 bytes, of what is added piece by piece: 26 us for 100 kB where BLAKE2b takes 122."""

    def __init__(self, data: bytes = b"") -> None:
        self._state = blake3(data)

    def update(self, data: bytes | memoryview) -> None:
        self._state.update(data)

    def digest(self) -> bytes:
        """16 bytes."""
        return bytes(self._state.digest(length=_BYTES))

    def hexdigest(self) -> str:
        return self.digest().hex()


def digest_of(raw: bytes | np.ndarray) -> bytes:
    """Digest (16 bytes) of a file's bytes, or of a numeric array's dtype, shape and data: `file_digest` of a run."""
    if not isinstance(raw, np.ndarray):
        return bytes(blake3(raw).digest(length=_BYTES))
    order = raw.dtype.newbyteorder("<")
    # An array is no file, though its bytes may be one's: the head says that, and of what shape it is.
    found = Digest(f"array {order.str}{raw.shape}\0".encode())
    found.update(np.ascontiguousarray(raw.astype(order, copy=False)).reshape(-1).view(np.uint8).data)
    return found.digest()


def digest_of_file(place: Place) -> bytes:
    """Digest (16 bytes) of a file, read piece by piece. Raises what the store raises."""
    found = Digest()
    with place.open(ahead=_PIECE) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.digest()
