"""What readers of the record have to know of a mode: the one place where they look it up by its name.

To be replaced by the facts of the specification's own modes, which have the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["rounds", "updates"]


@dataclass(frozen=True)
class Mode:
    """A mode.

    Attributes:
        section: The specification's section with its policy.
        unit: What a run has so many of, and progress is counted in.
        count_key: The key of `section` that says how many.
        synchronous: Whether there are rounds of several nodes, each of which makes the next version.
        whole_shares: Whether the shares of a version's accepted updates sum to one (a policy may dampen them).
    """

    section: str
    unit: Unit
    count_key: str
    synchronous: bool
    whole_shares: bool


_MODES = {
    "rounds": Mode("rounds", "rounds", "count", synchronous=True, whole_shares=True),
    "async": Mode("async", "updates", "updates", synchronous=False, whole_shares=False),
}


def mode_named(name: str) -> Mode:
    """The facts of the mode of a run on record, or on the wire; one that is not known is taken for rounds."""
    return _MODES.get(name, _MODES["rounds"])
