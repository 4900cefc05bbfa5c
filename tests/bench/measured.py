"""A number that knows the rounds it is the median of, so that a comparison can tell a change from the spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["Measured"]


class Measured(float):
    """Median of several rounds; it stays one when scaled by a plain number (seconds to microseconds per image).

    Attributes
    ----------
    rounds : tuple of float
        What each round gave.
    """

    rounds: tuple[float, ...]

    def __new__(cls, rounds: Sequence[float]) -> Measured:
        made = super().__new__(cls, statistics.median(rounds))
        made.rounds = tuple(float(value) for value in rounds)
        return made

    @property
    def least(self) -> float:
        return min(self.rounds)

    @property
    def most(self) -> float:
        return max(self.rounds)

    def __mul__(self, other: float) -> float:  # type: ignore[override]
        if isinstance(other, Measured):
            return float(self) * float(other)
        return Measured([value * other for value in self.rounds])

    __rmul__ = __mul__  # type: ignore[assignment]

    def __truediv__(self, other: float) -> float:  # type: ignore[override]
        if isinstance(other, Measured):
            return float(self) / float(other)
        return Measured([value / other for value in self.rounds])

    def __round__(self, digits: int | None = None) -> float:  # type: ignore[override]
        return Measured([round(value, digits or 0) for value in self.rounds])

    def __reduce__(self) -> tuple[type[Measured], tuple[tuple[float, ...]]]:
        return Measured, (self.rounds,)
