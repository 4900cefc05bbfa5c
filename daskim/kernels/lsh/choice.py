"""How many bands of how many numbers: the recall of pairs alike, and the candidates that are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Bands", "choose_bands", "hit_probability"]

# Permutations are doubled above this many images: random candidates grow with n, so r must grow with log n.
MANY = 1_000_000
# Jaccard similarity of two unrelated images: a Beta distribution. Fitted to mean and variance of 10^7 pairs of CIFAR-10
# (40 tokens each, mean 0.095): it gives the measured mean of J^r within 10 % for r = 1 to 7, and 0.6 of it at r = 10.
BACKGROUND = (3.2, 30.4)


def hit_probability(similarity: np.ndarray | float, b: np.ndarray | int, r: int) -> np.ndarray:
    """Probability that sets of Jaccard similarity J share one of b bands of r numbers: 1 - (1 - J^r)^b."""
    with np.errstate(divide="ignore"):
        return -np.expm1(b * np.log1p(-(np.asarray(similarity, dtype=np.float64) ** r)))


@dataclass(frozen=True)
class Bands:
    """How signatures are looked up.

    Attributes
    ----------
    b, r : int
        Bands, and numbers in each; b * r <= permutations.
    permutations : int
        K, the length of a signature.
    recall : float
        Share of the pairs at the stated similarity that meet in some band.
    candidates : float
        Unrelated images that an image is expected to meet; half as many pairs an image.
    """

    b: int
    r: int
    permutations: int
    recall: float
    candidates: float


def choose_bands(
    similarity: float, recall: float, n: int, *, allowed: int | None = None, background: np.ndarray | None = None
) -> Bands:
    """The b and r that reach a recall at a Jaccard similarity with the fewest unrelated candidates.

    Parameters
    ----------
    similarity : float, 0 to 1, not 0
    recall : float, 0 to 1, neither
    n : int
        Images.
    allowed : int, optional
        Permutations; by default 128, and 256 above 1,000,000 images.
    background : ndarray, optional
        Jaccard similarities of a sample of unrelated pairs; by default a Beta(3.2, 30.4) distribution, measured on 40
        tokens of photographs.

    Raises
    ------
    ValueError
        Where not even bands of one number reach the recall; an argument out of range.

    Notes
    -----
    For each r the fewest bands that suffice are best: one more can only add candidates. At least 2, as MinHashLSH asks.
    """
    if not 0 < similarity <= 1 or not 0 < recall < 1:
        raise ValueError(f"a recall of {recall:g} at similarity {similarity:g}; both lie between 0 and 1")
    total = allowed if allowed is not None else 256 if n > MANY else 128
    values, weights = _background(background)
    best: Bands | None = None
    for r in range(1, total // 2 + 1):
        b = _fewest_bands(similarity, recall, r, total // r)
        if b is None:
            break
        met = float(weights @ hit_probability(values, b, r)) * max(n - 1, 0)
        if best is None or met < best.candidates:
            best = Bands(b, r, total, float(hit_probability(similarity, b, r)), met)
    if best is None:
        most = float(hit_probability(similarity, total, 1))
        raise ValueError(
            f"{total} permutations cannot find a share of {recall:g} of the pairs at Jaccard similarity "
            f"{similarity:g} (at most {most:.4f}, with bands of one): ask for less, or allow more permutations"
        )
    return best


def _background(sample: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights whose weighted means are those of the distribution."""
    if sample is not None:
        return sample, np.full(len(sample), 1.0 / len(sample))
    from scipy.special import roots_jacobi

    alpha, beta = BACKGROUND
    nodes, weights = roots_jacobi(256, beta - 1.0, alpha - 1.0)  # Gauss: exact for J^r up to r = 511
    return (nodes + 1.0) / 2.0, weights / weights.sum()


def _fewest_bands(similarity: float, recall: float, r: int, most: int) -> int | None:
    enough = np.flatnonzero(hit_probability(similarity, np.arange(1, most + 1), r) >= recall)
    return max(2, int(enough[0]) + 1) if len(enough) and most >= 2 else None
