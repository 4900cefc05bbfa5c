"""What a gallery of the page holds, and how motions between two images are turned round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["MOTION", "Entry", "Gallery", "Motion", "turned"]

# What a similarity may report about a pair, in the order of `Motion`.
MOTION = ("mirrored", "scale_y", "scale_x", "shift_y", "shift_x", "overlap")
Motion = tuple[float, ...]


@dataclass(frozen=True)
class Entry:
    """Images that are shown together; all sequences are parallel.

    Attributes
    ----------
    rows : sequence of int
        In a family, the kept image first.
    partner : sequence of int
        Position of the image that each is compared with, -1 for none.
    similarity, rms : sequence of float
        With the partner; NaN where unknown. RMS in grey levels.
    rules : sequence of str
        Of the plan; "" for none.
    motion : sequence of Motion or None
        Of each image onto its partner.
    total : int
        Images in it, of which `rows` may be some.
    note : str
        What else is to be said.
    """

    rows: Sequence[int]
    partner: Sequence[int]
    similarity: Sequence[float]
    rms: Sequence[float] = ()
    rules: Sequence[str] = ()
    motion: Sequence[Motion | None] = ()
    total: int = 0
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Entries of one kind, the most telling first.

    Attributes
    ----------
    name, title : str
    kind : str
        How it is drawn: family, group, pair, single.
    about : str
        What it shows.
    chosen : str
        By what the entries were chosen, where there are more.
    total : int
        How many there are in the run.
    unit : (str, str)
        What one entry is called, and several.
    share : int
        Its share of the room for pictures, against the other galleries.
    """

    name: str
    title: str
    kind: str
    about: str
    chosen: str
    total: int
    unit: tuple[str, str]
    share: int
    entries: Sequence[Entry] = field(default_factory=tuple)


def turned(motion: Motion) -> Motion:
    """The motion of the left image onto the right one, from that of the right onto the left.

    Position x of the left image lies at scale * x + shift of the right one, mirrored first if so; both are measured
    from the centre, in sides. A mirror turns the sign of a shift along x.
    """
    mirrored, scale_y, scale_x, shift_y, shift_x, overlap = motion
    sign = 1.0 if mirrored == 1 else -1.0
    return (mirrored, 1 / scale_y, 1 / scale_x, -shift_y / scale_y, sign * shift_x / scale_x, overlap)
