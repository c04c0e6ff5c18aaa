"""What nodes sign about their mass: it counts only as its side signed it, in its run, whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.errors import CoveyError, IdentityError
from covey.gossip.ledger import Incarnation
from covey.gossip.receipts import Receipt
from covey.wire.identities.authority import Authority
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
    with pytest.raises(IdentityError, match="signed by 'ada', and 'bob' has to"):
        ada.open_had(given)
    for forged in (bob.sign_given(RECEIPT), bob.sign_had(given.statement), ada.sign_had(given.statement)):
        with pytest.raises(IdentityError):
            bob.open_given(forged)


def test_every_byte_counts(ada, bob):
    given = ada.sign_given(RECEIPT)
    for part in ("statement", "signature", "certificate"):
        whole = getattr(given, part)
        for place in range(0, len(whole), 7):
            changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
            with pytest.raises(CoveyError):
                bob.open_given(replace(given, **{part: changed}))
    with pytest.raises(IdentityError, match="longer"):
        bob.open_given(replace(given, certificate=given.certificate + bytes(9000)))


def test_another_run_federation_or_role_does_not_count(ada, identity, tmp_path):
    given = ada.sign_given(RECEIPT)
    with pytest.raises(IdentityError, match="another run"):
        Notary(identity("bob"), "mnist").open_given(given)
    strangers = Authority.open(tmp_path / "strangers")
    with pytest.raises(IdentityError, match="another run or federation"):
        Notary(identity("bob", by=strangers), "digits").open_given(given)
    as_admin = Notary(identity("ada", "admin"), "digits").sign_given(RECEIPT)
    with pytest.raises(IdentityError):
        ada.open_given(as_admin)


@pytest.mark.parametrize(
    "change", [{"sequence": 0}, {"units": "0"}, {"units": "-5"}, {"units": "1" * 40}, {"sender": "\n"}]
)
def test_numbers_and_names_that_cannot_be_are_refused(change):
    statement = MassStatement("f", "digits", "ada", 1, "bob", 2, 7, "5")
    assert MassStatement.from_bytes(statement.to_bytes()) == statement
    with pytest.raises(IdentityError):
        MassStatement.from_bytes(replace(statement, **change).to_bytes())
