"""MinHash of the signs of the largest wavelet coefficients, and the pairs that share a band of it.

An image is the set of its largest Haar coefficients, each with its sign, the average left out (Jacobs, Finkelstein,
Salesin 1995): neither brightness nor contrast changes it. Min-wise hashing (Broder 1997) makes K numbers of a set, any
of which two sets share with probability J, their Jaccard similarity. b bands of r numbers each are looked up as a
whole, so that two images meet in one with probability 1 - (1 - J^r)^b. The hash family is datasketch's "affine32";
signatures and pairs are those of its MinHash and MinHashLSH, made for whole blocks at once.
"""

from daskim.kernels.lsh.bands import Pairs, band_keys, band_pairs, band_pairs_between
from daskim.kernels.lsh.choice import Bands, choose_bands, hit_probability
from daskim.kernels.lsh.index import Index
from daskim.kernels.lsh.minhash import EMPTY, SCHEME, permutations, signature_table, signatures
from daskim.kernels.lsh.sketch import agreement, kept_recall, least_agreement, sketches
from daskim.kernels.lsh.tokens import mirrored_tokens, signed_top_coefficients

__all__ = [
    "EMPTY",
    "SCHEME",
    "Bands",
    "Index",
    "Pairs",
    "agreement",
    "band_keys",
    "band_pairs",
    "band_pairs_between",
    "choose_bands",
    "hit_probability",
    "kept_recall",
    "least_agreement",
    "mirrored_tokens",
    "permutations",
    "signature_table",
    "signatures",
    "signed_top_coefficients",
    "sketches",
]
