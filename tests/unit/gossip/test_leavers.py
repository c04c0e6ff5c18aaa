"""What comes back of a peer that left: what it did not have, by its word and against its signature."""

import pytest

from covey.gossip.ledger import Incarnation
from covey.gossip.mass import ONE
from covey.gossip.push_sum.exchange import Exchange

ME, BOB, CYD = Incarnation("ada"), Incarnation("bob"), Incarnation("cyd")


@pytest.mark.parametrize(
    ("applied", "signed", "back"),
    [(2, 0, 0), (2, 1, 0), (2, 2, 0), (1, 0, ONE // 8), (1, 1, ONE // 8), (1, 2, 0), (0, 2, 0)],
)
def test_who_left_keeps_what_it_signed_to_have_had(applied: int, signed: int, back: int) -> None:
    exchange = Exchange(ME, (BOB, CYD), ONE, 3 * ONE, is_met=True)
    exchange.give({BOB: ONE // 4}, 0)
    exchange.delivered(BOB, 1)
    exchange.give({BOB: ONE // 8}, 1)
    exchange.left(BOB, applied, signed)
    assert BOB not in exchange.peers
    assert exchange.ledger.live == exchange.ledger.balance == ONE - ONE // 4 - ONE // 8 + back
    assert (exchange.ledger.in_flight, exchange.uncertain) == (0, back)
    assert [portion.units for portion in exchange.pending] == [back] * bool(back)
    claims = exchange.contradictions.get(BOB, "")
    assert ("it signed to have had batch 2" in claims) is (applied < signed)
