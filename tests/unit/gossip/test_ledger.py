"""The account of mass: exactly once, in whole units, and what a liar cannot hide."""

from fractions import Fraction

import pytest

from covey.errors import LedgerError
from covey.gossip.audit import audit
from covey.gossip.ledger import Incarnation, Ledger
from covey.gossip.mass import ONE, part_of, weight

A, B, C = Incarnation("a"), Incarnation("b"), Incarnation("c")


def account(units: int = ONE) -> Ledger:
    ledger = Ledger()
    ledger.mint(units)
    return ledger


def test_a_batch_is_given_once_and_had_once() -> None:
    a, b = account(), account()
    (batch,) = a.commit({B: part_of(a.live, Fraction(1, 3))})
    assert batch.units == ONE // 3
    assert a.live == ONE - ONE // 3  # what does not divide stays
    assert b.apply(A, batch.sequence, batch.units, 2 * ONE) == "applied"
    assert b.apply(A, batch.sequence, batch.units, 2 * ONE) == "double"
    assert not a.is_free(B)
    assert a.acknowledged(B, 1)
    assert not a.acknowledged(B, 1)
    assert (a.live + b.live, a.in_flight) == (2 * ONE, 0)
    assert weight(b.live) == pytest.approx(4 / 3)


def test_nothing_piles_up_for_a_peer_that_is_away() -> None:
    a = account()
    a.commit({B: ONE // 2})
    with pytest.raises(LedgerError, match="still on its way"):
        a.commit({B: 1})


@pytest.mark.parametrize(
    ("sequence", "units", "words"),
    [(2, 1, "does not follow 0"), (1, 0, "0 units"), (1, -5, "-5 units"), (1, 2 * ONE + 1, "in all")],
)
def test_a_batch_that_cannot_be_is_refused(sequence: int, units: int, words: str) -> None:
    b = account()
    with pytest.raises(LedgerError, match=words):
        b.apply(A, sequence, units, 2 * ONE)
    assert b.live == ONE
    assert b.balance == ONE


def test_nobody_gives_more_than_there_is() -> None:
    a = account()
    for parts in ({B: ONE + 1}, {B: -1}, {B: ONE, C: 1}):
        with pytest.raises(LedgerError):
            a.commit(parts)
    assert a.balance == a.live == ONE


def test_an_acknowledgement_of_what_was_never_sent_says_that_the_record_is_old() -> None:
    with pytest.raises(LedgerError, match="newest that is on record here is 0"):
        account().acknowledged(B, 1)


def test_what_was_on_its_way_to_an_evicted_peer_comes_back_and_is_called_uncertain() -> None:
    a, b, c = account(), account(), account()
    (batch,) = a.commit({B: ONE // 4})
    b.apply(A, batch.sequence, batch.units, 3 * ONE)  # it has it, and its acknowledgement is lost
    (onward,) = b.commit({C: b.live // 2})
    c.apply(B, onward.sequence, onward.units, 3 * ONE)
    assert a.evict(B) == ONE // 4
    c.evict(B)
    with pytest.raises(LedgerError, match="evicted"):
        c.apply(B, 2, 1, 3 * ONE)
    result = audit({A: a, C: c}, gone={B: ONE})
    assert result.is_exact
    assert result.uncertain == ONE // 4
    assert result.lost == ONE - onward.units  # by what is known: what came back does not count as had


def test_the_audit_names_an_edge_whose_ends_disagree() -> None:
    a, b = account(), account()
    a.commit({B: ONE // 2})
    assert audit({A: a, B: b}).is_exact
    assert audit({A: a, B: b}).in_flight == ONE // 2
    b.apply(A, 1, ONE // 2 + 1, 2 * ONE)  # a lying weight on the wire
    result = audit({A: a, B: b})
    assert not result.is_exact
    assert "a gave b" in result.findings[0]


def test_the_audit_names_a_node_that_has_more_than_it_can_have() -> None:
    a = account()
    a.live += 5
    assert "a has" in audit({A: a}).findings[0]


def test_the_audit_names_somebody_gone_who_gave_away_more_than_it_had() -> None:
    a = account()
    a.apply(B, 1, ONE, 2 * ONE)
    a.apply(B, 2, ONE, 2 * ONE)
    result = audit({A: a}, gone={B: ONE})
    assert result.lost == -ONE
    assert result.findings == (f"b gave away {ONE} units more than they had, and 0 were taken back",)
