"""Images with planted truth: the embedded demo set, its score, families for tests, and lakes of any number.

The demo (`write_demo`) cuts photographs that scikit-image and scikit-learn carry inside their wheels into
tiles, and plants edits of known kind among them. `planted_families` needs no photograph: it draws images
whose spectrum falls by a power law as that of natural scenes does (D. J. Field, J. Opt. Soc. Am. A 4, 2379,
1987), row by row. `write_lake` and `lake_rows` make lakes of millions of images whose neighbour distances are
those of small photographs.
"""

from __future__ import annotations

from daskim.synthetic.demo import EDITS, KINDS, write_demo
from daskim.synthetic.families import Families, planted_families
from daskim.synthetic.lake import Lake, write_lake
from daskim.synthetic.photographs import photographs
from daskim.synthetic.planted import LAKE_KINDS, Rows, lake_rows, lake_truth
from daskim.synthetic.score import score_demo

__all__ = [
    "EDITS",
    "KINDS",
    "LAKE_KINDS",
    "Families",
    "Lake",
    "Rows",
    "lake_rows",
    "lake_truth",
    "photographs",
    "planted_families",
    "score_demo",
    "write_demo",
    "write_lake",
]
