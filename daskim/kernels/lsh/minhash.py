"""MinHash signatures of whole blocks of sets over few tokens, bit for bit those of datasketch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["EMPTY", "SCHEME", "permutations", "signature_table", "signatures"]

SCHEME = "affine32"
# What MinHash holds before its first token: no token of a table of ours hashes to it.
EMPTY = np.uint32(2**32 - 1)
# Rows at a time: their running minima and what is gathered for one token each (2 x 128 kB) stay in the cache.
ROWS = 256


def permutations(count: int, seed: int) -> np.ndarray:
    """Parameters a and b of datasketch's permutations; shape (2, count), uint32."""
    from datasketch import MinHash

    return np.asarray(MinHash(num_perm=count, seed=seed, scheme=SCHEME).permutations)


@lru_cache(maxsize=4)
def signature_table(universe: int, count: int, seed: int) -> np.ndarray:
    """The hash of every token under every permutation, as datasketch's MinHash works it out.

    Parameters
    ----------
    universe : int
        Tokens are 0 to universe - 1; 2 * side^2 for `signed_top_coefficients`.
    count : int
        Permutations K.
    seed : int

    Returns
    -------
    ndarray, shape (universe + 1, count), uint32, read-only
        The last row, which the index -1 leads to, is `EMPTY`.

    Raises
    ------
    ValueError
        For a seed with which some token hashes to `EMPTY`, so that a set could pass for an empty one (about 1 seed in
        16,000 at 2,048 tokens and 128 permutations).
    """
    from datasketch import MinHash

    each = MinHash.generator(
        ([token] for token in range(universe)), num_perm=count, seed=seed, scheme=SCHEME, hashfunc=int
    )
    table = np.full((universe + 1, count), EMPTY, dtype=np.uint32)
    for row, minhash in zip(table, each):
        row[:] = minhash.hashvalues
    if (table[:-1] == EMPTY).any():
        raise ValueError(f"seed {seed}: a token has the largest hash value, as an empty set has; take another seed")
    table.flags.writeable = False
    return table


def signatures(tokens: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The MinHash of each row of tokens.

    Parameters
    ----------
    tokens : ndarray, shape (b, t), int
        -1 is no token; repeated ones count once.
    table : ndarray, shape (universe + 1, K), uint32
        By `signature_table`.

    Returns
    -------
    ndarray, shape (b, K), uint32
        Bit for bit `datasketch.MinHash(num_perm=K, seed=seed, scheme="affine32", hashfunc=int)` updated with the row's
        tokens; all `EMPTY` for a row without one.
    """
    out = np.full((tokens.shape[0], table.shape[1]), EMPTY, dtype=np.uint32)
    rows = np.where(tokens < 0, table.shape[0] - 1, tokens)
    for start in range(0, len(rows), ROWS):
        least = out[start : start + ROWS]
        for column in rows[start : start + ROWS].T:
            np.minimum(least, table[column], out=least)
    return out
