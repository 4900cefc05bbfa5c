"""datasketch's MinHashLSH on our signatures, to look up one image at a time.

All pairs of a set are found band by band (`band_pairs`). An index is for what comes later: one more image against
those known. It lives in memory, or in a store that several processes share (Redis), as datasketch offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from daskim.kernels.lsh.minhash import EMPTY, SCHEME, permutations, signature_table, signatures

if TYPE_CHECKING:
    from datasketch import MinHash

__all__ = ["Index"]


class Index:
    """Rows by their signatures; can be pickled (with a store elsewhere, the connection is made again).

    Parameters
    ----------
    b, r, count : int
        Bands, numbers in a band, permutations: as `choose_bands` has them, b at least 2.
    seed : int
        Of the permutations.
    universe : int
        Number of possible tokens, for `query_tokens`.
    storage : mapping, optional
        `storage_config` of datasketch, such as {"type": "redis", "basename": b"name", "redis": {"host": ...}}; with a
        basename used before, the rows inserted then are found again.

    References
    ----------
    https://ekzhu.com/datasketch/lsh.html
    """

    def __init__(
        self,
        b: int,
        r: int,
        count: int,
        *,
        seed: int,
        universe: int = 2048,
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        from datasketch import MinHashLSH

        self.count, self.seed, self.universe = count, seed, universe
        self._parameters = permutations(count, seed)
        self._lsh = MinHashLSH(num_perm=count, params=(b, r), storage_config=None if storage is None else dict(storage))

    def insert(self, rows: Iterable[int], signatures: np.ndarray) -> None:
        """Add images.

        Parameters
        ----------
        rows : iterable of int
            Their names in answers.
        signatures : ndarray, shape (n, K), uint32
            Empty sets are left out: they are like nothing.

        Raises
        ------
        ValueError
            For a row that is in the index already.
        """
        with self._lsh.insertion_session() as session:
            for row, signature in zip(rows, signatures, strict=True):
                if not _is_empty(signature):
                    session.insert(int(row), self._minhash(signature))

    def query(self, signature: np.ndarray) -> np.ndarray:
        """Rows that share a band with a signature, shape (K,) uint32; ascending, int64."""
        if _is_empty(signature):
            return np.zeros(0, dtype=np.int64)
        return np.sort(np.array(self._lsh.query(self._minhash(signature)), dtype=np.int64))

    def query_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """`query` for one image's tokens, shape (t,)."""
        return self.query(signatures(tokens[None], signature_table(self.universe, self.count, self.seed))[0])

    def _minhash(self, signature: np.ndarray) -> MinHash:
        from datasketch import MinHash

        return MinHash(hashvalues=signature, permutations=self._parameters, seed=self.seed, scheme=SCHEME)


def _is_empty(signature: np.ndarray) -> bool:
    return bool((signature == EMPTY).all())
