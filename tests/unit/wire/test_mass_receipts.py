"""What nodes sign about their mass: it counts only as its side signed it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.errors import IdentityError
from covey.gossip.ledger import Incarnation
from covey.gossip.receipts import Receipt
from covey.wire.mass_receipts import MassStatement, Notary

ADA, BOB = Incarnation("ada"), Incarnation("bob", 2)
RECEIPT = Receipt(ADA, BOB, 7, 1 << 80)


@pytest.fixture
def ada(identity):
    return Notary(identity("ada"), "digits")


@pytest.fixture
def bob(identity):
    return Notary(identity("bob"), "digits")


def test_both_sides_sign_one_statement(ada, bob):
    given = ada.sign_given(RECEIPT)
    assert bob.open_given(given) == RECEIPT
    had = bob.sign_had(given.statement)
    assert ada.open_had(had) == RECEIPT
    assert had.statement == given.statement


def test_no_signature_stands_for_the_other_sides(ada, bob):
    given = ada.sign_given(RECEIPT)
    with pytest.raises(IdentityError, match="signed by node 'ada', and node 'bob' has to"):
        ada.open_had(given)
    for forged in (bob.sign_given(RECEIPT), bob.sign_had(given.statement), ada.sign_had(given.statement)):
        with pytest.raises(IdentityError):
            bob.open_given(forged)


@pytest.mark.parametrize(
    "change", [{"sequence": 0}, {"units": "0"}, {"units": "-5"}, {"units": "1" * 40}, {"sender": "\n"}]
)
def test_numbers_and_names_that_cannot_be_are_refused(change):
    statement = MassStatement("f", "digits", "ada", 1, "bob", 2, 7, "5")
    assert MassStatement.from_bytes(statement.to_bytes()) == statement
    with pytest.raises(IdentityError):
        MassStatement.from_bytes(replace(statement, **change).to_bytes())
