"""What leavers sign: who may, and what of it is checked."""

import dataclasses

import pytest

from covey.errors import CoveyError, IdentityError
from covey.gossip.ledger import Incarnation, InEdge, Ledger, OutEdge
from covey.wire.identities.leaver_statement import LeaverStatement
from covey.wire.leavers import opened_leaver
from covey.wire.mass_receipts import Notary

ADA, BOB = Incarnation("ada", 2), Incarnation("bob")


@pytest.fixture
def ledger():
    return Ledger(out={BOB: OutEdge(9, 4, 1, 2)}, into={BOB: InEdge(4, 5), Incarnation("cyd"): InEdge(1, 1)})


@pytest.fixture
def signed(identity, ledger):
    def make(name="ada", run="digits", who=ADA):
        return Notary(identity(name), run).sign_left(who, ledger)

    return make


def test_it_says_run_life_and_the_last_batches_of_each_edge(signed, authority):
    statement = opened_leaver(signed(), "digits", authority.pem)
    assert (statement.who, statement.run, statement.units) == (ADA, "digits", "7")
    assert statement.edges == (("bob", 1, 3, 5), ("cyd", 1, 0, 1))
    assert statement.with_peer(BOB) == (3, 5)
    assert statement.with_peer(Incarnation("bob", 2)) == (0, 0)


def test_nobody_says_it_for_somebody_else_or_of_another_run(signed, authority, identity):
    with pytest.raises(IdentityError, match="of another run"):
        opened_leaver(signed(run="letters"), "digits", authority.pem)
    with pytest.raises(IdentityError, match="farewell of 'ada' is signed by 'bob'"):
        opened_leaver(signed("bob"), "digits", authority.pem)
    had = Notary(identity("ada"), "digits").sign_had(signed().statement)
    with pytest.raises(IdentityError):  # what is signed for something else
        opened_leaver(had, "digits", authority.pem)


@pytest.mark.parametrize("field", ["statement", "signature", "certificate"])
def test_every_byte_counts(signed, authority, field):
    whole = signed()
    raw = getattr(whole, field)
    for place in range(0, len(raw), max(1, len(raw) // 20)):
        broken = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        with pytest.raises(CoveyError):
            opened_leaver(dataclasses.replace(whole, **{field: broken}), "digits", authority.pem)
    with pytest.raises(CoveyError):
        opened_leaver(dataclasses.replace(whole, **{field: b"[" * 300_000}), "digits", authority.pem)


def test_what_cannot_be_is_none(authority, identity, ledger):
    fine = LeaverStatement.of("f", "digits", ADA, ledger)
    for changes in ({"units": "-1"}, {"units": "01"}, {"incarnation": 0}, {"edges": (("bob", 1, -1, 0),)}):
        with pytest.raises(IdentityError):
            LeaverStatement.from_bytes(dataclasses.replace(fine, **changes).to_bytes())
