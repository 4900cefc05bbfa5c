"""MinHash signatures and the pairs that share a band, against datasketch's MinHash and MinHashLSH."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from datasketch import MinHash, MinHashLSH

from daskim.kernels import lsh
from tests.bench import Options
from tests.bench.context import speed_up, timed
from tests.bench.inputs import images, source
from tests.bench.table import Table

COUNT, SEED, TOKENS = 128, 1, 40
LUMA = np.float32([0.299, 0.587, 0.114])


def run(options: Options) -> Iterator[Table]:
    pixels = images(500 if options.small else 10_000)
    tokens = lsh.signed_top_coefficients(pixels.astype(np.float32) @ LUMA, TOKENS)
    yield compare_signatures(tokens, options)
    yield compare_pairs(lsh.signatures(tokens, lsh.signature_table(2048, COUNT, SEED)), options)


def one_by_one(tokens: np.ndarray) -> np.ndarray:
    empty = MinHash(num_perm=COUNT, seed=SEED, scheme=lsh.SCHEME, hashfunc=int)
    out = np.empty((len(tokens), COUNT), dtype=np.uint32)
    for row, each in enumerate(tokens):
        minhash = empty.copy()
        minhash.update_batch(each[each >= 0])
        out[row] = minhash.hashvalues
    return out


def bulk(tokens: np.ndarray) -> np.ndarray:
    sets = (each[each >= 0] for each in tokens)
    made = MinHash.bulk(sets, num_perm=COUNT, seed=SEED, scheme=lsh.SCHEME, hashfunc=int)
    return np.stack([minhash.hashvalues for minhash in made])


def sha1(tokens: np.ndarray) -> np.ndarray:
    sets = ([token.tobytes() for token in each] for each in tokens)
    made = MinHash.bulk(sets, num_perm=COUNT, seed=SEED, scheme=lsh.SCHEME)
    return np.stack([minhash.hashvalues for minhash in made])


def with_table(tokens: np.ndarray) -> np.ndarray:
    lsh.signature_table.cache_clear()
    return lsh.signatures(tokens, lsh.signature_table(2048, COUNT, SEED))


def compare_signatures(tokens: np.ndarray, options: Options) -> Table:
    table = lsh.signature_table(2048, COUNT, SEED)
    naive = "datasketch MinHash.update_batch, identity hash"
    other = "datasketch MinHash.bulk, sha1 (its default)"
    contenders = {
        naive: lambda: one_by_one(tokens),
        "datasketch MinHash.bulk, identity hash": lambda: bulk(tokens),
        other: lambda: sha1(tokens),
        "daskim signatures": lambda: lsh.signatures(tokens, table),
        "daskim signature_table, signatures": lambda: with_table(tokens),
    }
    found = timed(contenders, options.repeat)
    shown = Table(
        "lsh: signatures",
        {"data": source(), "n": len(tokens), "tokens": TOKENS, "permutations": COUNT},
        ["contender", "us per image", "against update_batch"],
    )
    for name, timing in found.items():
        each = 1e6 * timing.seconds / len(tokens)
        shown.rows.append([name, each, speed_up(found[naive].seconds, timing.seconds)])
        if name not in (naive, other):
            shown.checks.append((f"{name}: bit for bit", np.array_equal(timing.result, found[naive].result)))
    return shown


def by_index(signature: np.ndarray, b: int, r: int) -> np.ndarray:
    index = MinHashLSH(num_perm=COUNT, params=(b, r))
    sketches = [MinHash(hashvalues=values, scheme=lsh.SCHEME) for values in signature]
    for row, minhash in enumerate(sketches):
        index.insert(row, minhash)
    codes = [row * len(signature) + other for row, minhash in enumerate(sketches) for other in index.query(minhash)]
    pairs = np.array(codes, dtype=np.int64)
    return np.sort(pairs[pairs // len(signature) < pairs % len(signature)])


def by_bands(signature: np.ndarray, b: int, r: int) -> np.ndarray:
    codes = []
    for band in range(b):
        found = lsh.band_pairs(signature[:, band * r : (band + 1) * r], cap=len(signature))
        codes.append(found.a * len(signature) + found.b)
    return np.unique(np.concatenate(codes))


def compare_pairs(signature: np.ndarray, options: Options) -> Table:
    chosen = lsh.choose_bands(0.65, 0.95, len(signature))
    naive = "datasketch MinHashLSH, insert and query"
    contenders = {
        naive: lambda: by_index(signature, chosen.b, chosen.r),
        "daskim band_pairs, without a cap": lambda: by_bands(signature, chosen.b, chosen.r),
    }
    found = timed(contenders, options.repeat)
    shown = Table(
        "lsh: pairs that share a band",
        {
            "data": source(),
            "n": len(signature),
            "b": chosen.b,
            "r": chosen.r,
            "pairs per image predicted": chosen.candidates / 2,
        },
        ["contender", "us per image", "against MinHashLSH", "pairs per image"],
    )
    for name, timing in found.items():
        each = 1e6 * timing.seconds / len(signature)
        pairs = len(timing.result) / len(signature)
        shown.rows.append([name, each, speed_up(found[naive].seconds, timing.seconds), pairs])
    same = [np.array_equal(timing.result, found[naive].result) for timing in found.values()]
    shown.checks.append(("the same pairs", all(same)))
    shown.checks.append(("there are pairs to be found", len(found[naive].result) > 0))
    return shown
