"""How mass comes to a node that joins without any: it asks one peer, which gives it half of its own, once."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import part_of
from covey.gossip.push_sum.events import Share
from covey.gossip.push_sum.exchange import Exchange


def asked_for_half(exchange: Exchange) -> Incarnation | None:
    """Whom a node asks that began without mass and had nothing since; None: nobody.

    The same one, through its silences, until that is gone, claims what it does not prove, or is through and gave
    nothing: whoever else were asked would give half of its own too.
    """
    if exchange.ledger.minted or exchange.ledger.into:
        return None
    asked = exchange.peers.get(exchange.asked) if exchange.asked is not None else None
    if asked is None or exchange.asked in exchange.contradictions or (asked.is_finished and not asked.sequence):
        able = sorted(name for name, peer in exchange.peers.items() if peer.is_trusted and not peer.is_finished)
        exchange.asked = able[exchange.me.number % len(able)] if able else None
    return exchange.asked


def split(exchange: Exchange, shares: Iterable[Share]) -> dict[Incarnation, int]:
    """The units of each share; half of all goes before to a peer that asked for it."""
    asker, kept = exchange.asker(), exchange.kept
    parts = {asker: kept // 2} if asker is not None else {}
    rest = kept - sum(parts.values())
    usable = [share for share in shares if exchange.is_usable(share.peer) and share.peer != asker]
    return parts | {share.peer: part_of(rest, Fraction(share.numerator, share.denominator)) for share in usable}
