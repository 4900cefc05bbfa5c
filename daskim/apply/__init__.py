"""From a plan to a data set: the reduced set written elsewhere, images moved to a quarantine and back, a review.

    found = daskim.open_run("daskim-run")
    proposal = propose(found, Request("copies", "reduced"))   # looks at everything, writes nothing
    outcome = carry_out(proposal)

Nothing is ever overwritten, and no source is altered but by a quarantine, which notes each move before it is made.
"""

from daskim.apply.journal import Journal
from daskim.apply.moves import Moves, UndoFile, inspect, undo
from daskim.apply.proposal import Proposal, carry_out, propose, refuse_changed
from daskim.apply.review import Review, propose_review, write_review
from daskim.apply.selection import FORMS, Request
from daskim.apply.sources import Outcome

__all__ = [
    "FORMS",
    "Journal",
    "Moves",
    "Outcome",
    "Proposal",
    "Request",
    "Review",
    "UndoFile",
    "carry_out",
    "inspect",
    "propose",
    "propose_review",
    "refuse_changed",
    "undo",
    "write_review",
]
