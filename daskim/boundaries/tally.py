"""What many paths have in common: counts, and shares with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskim.kernels.proportions import share_interval

__all__ = ["BINS", "Tally"]

# Equal parts of alpha in which flips are counted.
BINS = 20


class Tally:
    """Counts over rows of the table `boundaries`."""

    def __init__(self) -> None:
        self.pairs = self.none = self.flips = self.one_class = self.returns = 0
        self.histogram = [0] * BINS

    def take(self, row: Mapping[str, Any]) -> None:
        self.pairs += 1
        self.none += row["boundaries"] == 0
        self.flips += row["boundaries"]
        self.one_class += row["class_a"] == row["class_b"]
        self.returns += row["returns"]
        for alpha in row["alphas"]:
            self.histogram[min(BINS - 1, int(alpha * BINS))] += 1

    def record(self) -> dict[str, Any]:
        """For the summary.

        - no_boundary: pairs whose line crosses no boundary.
        - one_class: pairs whose ends have one class; no_boundary_in_class: of those, the ones without a boundary.
        - returns: pairs whose path leaves a class and meets it again.
        - mean_boundaries: flips a pair.
        - flips: how many flips lie in each of `BINS` equal parts of alpha.

        A share is {"count", "of", "share", "low", "high"}: the exact binomial 95 % interval; share is null of none.
        """
        return {
            "pairs": self.pairs,
            "no_boundary": _share(self.none, self.pairs),
            "one_class": _share(self.one_class, self.pairs),
            "no_boundary_in_class": _share(self.none, self.one_class),
            "returns": _share(self.returns, self.pairs),
            "mean_boundaries": self.flips / self.pairs if self.pairs else None,
            "flips": self.histogram,
        }


def _share(count: int, of: int) -> dict[str, Any]:
    low, high = share_interval(count, of)
    return {"count": count, "of": of, "share": count / of if of else None, "low": low, "high": high}
