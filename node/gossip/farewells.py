"""When a node that has made all its steps may end: no peer may be left waiting for a word of it that got lost. Pure.

Each node says, in every sign of where it is, how far two nodes know that both are through; a peer's level plus one is
the node's own:

    0  it goes on
    1  it is through
    2  ... and knows that the receiver is
    3  ... and knows that the receiver knows that it is

A node that heard 3 of a peer may end: that peer heard 2, so it wants to know nothing more, and ends when this node is
gone. Messages may be lost, doubled and late: levels only rise, and are said again until then.
"""

from __future__ import annotations

from dataclasses import dataclass

from covey.gossip.ledger import Incarnation
from covey.gossip.push_sum.events import Progressed
from covey.gossip.push_sum.exchange import Exchange

KNOWS_ALL = 3
"""The last level."""
KNOWS = 2
"""A peer knows that this node is through: where it is silent, it may have ended."""


@dataclass
class _Heard:
    level: int = 0
    at: float = 0.0
    """When the level rose; of a peer that goes on, when it was heard last."""
    acknowledged: int = 0
    """Number of its newest batch that it knows to be acknowledged."""


class Farewells:
    """Of one node, to each of its peers."""

    def __init__(self) -> None:
        self._heard: dict[Incarnation, _Heard] = {}

    def heard(self, event: Progressed) -> bool:
        """A peer says where it is; whether that is news which it should be answered."""
        heard = self._heard.setdefault(event.peer, _Heard())
        heard.acknowledged = max(heard.acknowledged, event.acknowledged)
        level = max(event.farewell, int(event.is_finished))  # a peer of an older version says no more than that
        is_news = level > heard.level
        if is_news or not heard.level:
            heard.level, heard.at = max(level, heard.level), event.now
        return is_news

    def level(self, peer: Incarnation) -> int:
        """What a node that is through says to a peer."""
        heard = self._heard.get(peer)
        return min(1 + (heard.level if heard else 0), KNOWS_ALL)

    def waited_for(self, exchange: Exchange, over_at: float, now: float, patience_s: float) -> list[Incarnation]:
        """The peers for which a node that is through since `over_at` stays.

        A peer that is there and goes on is waited for as long as it does; one that is away, or that is through and does
        not say that it knows of this node, for `patience_s` seconds since it said something new.

        Args:
            exchange: The node's peers, and its account.
            over_at: Since when the node is through, in seconds of the clock of events.
            now: The time.
            patience_s: As said.
        """
        waited_for, into = [], exchange.ledger.into
        for name, peer in exchange.peers.items():
            heard = self._heard.get(name, _Heard())
            is_answered = name not in into or heard.acknowledged >= into[name].sequence
            knows_all = heard.level >= KNOWS_ALL and is_answered
            is_content = knows_all if peer.is_trusted else heard.level >= KNOWS
            goes_on = peer.is_trusted and not heard.level
            if name in exchange.contradictions:  # it was named: nobody stays for what such a peer says
                continue
            if not is_content and (goes_on or now - max(over_at, heard.at) < patience_s):
                waited_for.append(name)
        return waited_for
