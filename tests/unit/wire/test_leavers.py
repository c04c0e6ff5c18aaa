"""What leavers sign."""

import dataclasses

import pytest

from covey.errors import IdentityError
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.wire.identities.leaver_statement import LeaverStatement
from covey.wire.mass_receipts import Notary

ADA, BOB = Incarnation("ada", 2), Incarnation("bob")


@pytest.fixture
def ledger():
    return Ledger(out={BOB: OutEdge(9, 4, 1, 2)}, into={BOB: InEdge(4, 5), Incarnation("cyd"): InEdge(1, 1)})


def test_it_says_run_life_and_the_last_batches_of_each_edge(identity, ledger):
    notary = Notary(identity("ada"), "digits")
    statement = notary.open_left(notary.sign_left(ADA, ledger))
    assert (statement.who, statement.run, statement.units) == (ADA, "digits", "7")
    assert statement.edges == (("bob", 1, 3, 5), ("cyd", 1, 0, 1))
    assert statement.with_peer(BOB) == (3, 5)
    assert statement.with_peer(Incarnation("bob", 2)) == (0, 0)


def test_what_cannot_be_is_none(ledger):
    fine = LeaverStatement.of("f", "digits", ADA, ledger)
    for changes in ({"units": "-1"}, {"units": "01"}, {"incarnation": 0}, {"edges": (("bob", 1, -1, 0),)}):
        with pytest.raises(IdentityError):
            LeaverStatement.from_bytes(dataclasses.replace(fine, **changes).to_bytes())
