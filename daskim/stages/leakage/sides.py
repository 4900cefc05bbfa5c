"""Which splits are evaluated, and which they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daskim.errors import SettingsError, nearest
from daskim.settings import Settings

__all__ = ["in_order", "pairs_of_splits"]

# Splits by what is done with them, first those that are learnt from: an image of a later one must not be in an earlier.
TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "dev", "eval")
TEST = ("test", "testing")


def in_order(names: Sequence[str], given: Sequence[str] = ()) -> list[str]:
    """Names of splits: training, others, validation, test; among these as `given` by the source, then by name."""
    given = list(dict.fromkeys(given))

    def place(name: str) -> tuple[int, int, str]:
        word = name.lower()
        kind = 0 if word in TRAINING else 2 if word in VALIDATION else 3 if word in TEST else 1
        return kind, given.index(name) if name in given else len(given), name

    return sorted(names, key=place)


def _training(order: Sequence[str], given: Sequence[str], counts: Mapping[str, int]) -> str:
    """The split that all others are compared with."""
    if order[0].lower() in TRAINING:
        return order[0]
    return given[0] if given else max(order, key=lambda name: (counts[name], name))


def pairs_of_splits(settings: Settings, counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """(evaluated split, split it is compared with), in order.

    Parameters
    ----------
    counts : mapping
        Images of each split; "" are those without.

    Raises
    ------
    SettingsError
        There are not two splits, or none of a name that is asked for, or nothing to compare.
    """
    asked, given = settings.compare, settings.source.splits
    order = in_order([name for name in counts if name], given)
    if len(order) < 2:
        what = f"only the split {order[0]!r}" if order else "no split"
        raise SettingsError(
            f"compare needs two splits, and the images have {what}",
            "Give TRAIN and TEST as two INPUTs, or name a split for each INPUT with --splits.",
        )
    for key in ("evaluate", "against"):
        for name in getattr(asked, key):
            if name not in order:
                raise SettingsError(f"compare.{key}: there is no split {name!r}", nearest(name, order))
    base = _training(order, given, counts)
    order = [base, *(name for name in order if name != base)]
    evaluated = [name for name in order if (name in asked.evaluate if asked.evaluate else name != base)]

    def wanted(name: str, other: str) -> bool:
        later = order.index(other) < order.index(name)
        if not asked.against:
            return later
        return other in asked.against and (later or not (other in evaluated and name in asked.against))

    found = [(name, other) for name in evaluated for other in order if other != name and wanted(name, other)]
    if not found:
        raise SettingsError(
            f"nothing to compare: {', '.join(evaluated)} comes first of {', '.join(order)}"
            if not asked.against
            else f"nothing to compare: evaluated {', '.join(evaluated)}, against {', '.join(asked.against)}",
            "Name other splits in compare.evaluate, or in compare.against those they are looked up in.",
        )
    return found
