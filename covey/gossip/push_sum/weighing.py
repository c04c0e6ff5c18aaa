"""What a step gives and mixes in: by mass, which its sender split, or by the weights of whoever receives it.

Where the receiver weighs, mass means nothing. A batch carries one unit, so that the accounts show that each came once.
A model counts in the step in which it was sent, and no later; the weight of one that did not come is the node's own.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import TOKEN
from covey.gossip.push_sum.actions import Mix, Portion
from covey.gossip.push_sum.events import Share
from covey.gossip.push_sum.exchange import Exchange

Weighs = Literal["mass", "receiver"]
"""Who says what a model counts for: whoever sends it, by giving mass away, or whoever receives it."""


def tokens(exchange: Exchange, shares: Iterable[Share]) -> dict[Incarnation, int]:
    """The units for each peer that can have any now, where the receiver weighs."""
    return {share.peer: TOKEN for share in shares if exchange.is_usable(share.peer)}


def mix_by_mass(step: int, kept: int, due: Sequence[Portion]) -> Mix:
    """Every portion counts for its units."""
    return Mix(step, kept, _ordered(due))


def mix_by_weights(
    step: int, weights: Iterable[Share], due: Iterable[Portion], heard: Container[Incarnation] = ()
) -> tuple[tuple[Portion, ...], Mix]:
    """What counts of the portions, and how: the units in the mixture are weights over a common denominator.

    Args:
        step: Whose portions count.
        weights: Of their senders.
        due: What came.
        heard: Of whom late portions are mixed in as well, with no weight.
    """
    of = {share.peer: Fraction(share.numerator, share.denominator) for share in weights}
    counted = _ordered(p for p in due if (p.step == step and p.source in of) or p.source in heard)
    parts = [of.get(portion.source, Fraction(0)) if portion.step == step else Fraction(0) for portion in counted]
    whole = math.lcm(*(part.denominator for part in parts))
    weighed = tuple(replace(p, units=int(part * whole)) for p, part in zip(counted, parts, strict=True))
    return counted, Mix(step, whole - sum(portion.units for portion in weighed), weighed)


def _ordered(portions: Iterable[Portion]) -> tuple[Portion, ...]:
    """In an order that all runs share."""
    return tuple(sorted(portions, key=lambda portion: (portion.source, portion.number)))
