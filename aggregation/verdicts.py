"""What became of an update: the one type in which rules, policies, the worker and the runs say it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Word = Literal["accepted", "rejected", "held"]
"""`held` is not final: a later step will accept or reject the update."""


@dataclass(frozen=True)
class Verdict:
    """What became of one update in a step, for the record.

    Attributes:
        node: The node's id.
        verdict: `accepted`: the update has a part in the step's direction.
        reason: Why it was rejected, or what was special about its acceptance, for people.
        share: Its effective share of the direction, 0 if it has none; where a rule has no shares (median), the row's
            own weight.
        numbers: What was measured of it (distance, score, clipping factor), by name; finite.
        number: Its assignment's number, where updates are decided on one at a time; 0: it is one of a round.
    """

    node: str
    verdict: Word
    reason: str = ""
    share: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)
    number: int = 0

    @property
    def accepted(self) -> bool:
        """Whether it has a part in the direction."""
        return self.verdict == "accepted"


def word_for(accepted: bool) -> Word:
    """The verdict of a rule, which holds nothing."""
    return "accepted" if accepted else "rejected"
