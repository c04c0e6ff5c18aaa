"""Two who leave at the same moment, each of whom would give the other all that it has, again and again."""

from __future__ import annotations

from covey.gossip.ledger import Incarnation

MOST_PAUSE_S = 60.0
"""For so long, at most, the first of them by name keeps what it has: the other one has left by then."""


def is_to_pause(me: Incarnation, heir: Incarnation, given: int, peers: int, since_s: float) -> bool:
    """Whether a leaver keeps for a moment what it has.

    A peer that stays, and did not know, gives something back as well, so a few times are nothing; then pauses get
    longer, until one is longer than an exchange takes.

    Args:
        me: The leaver.
        heir: Who would have it.
        given: How often it gave all away.
        peers: How many it knows.
        since_s: Seconds since it did; negative: by another clock, before a restart.
    """
    return given > peers and me < heir and 0.0 <= since_s < min(2.0 ** (given - peers), MOST_PAUSE_S)
