"""What peers signed is on record with what it is about, both ways, and an audit goes by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covey.client.gossip_nodes import account_of, audit_accounts, read_node
from covey.client.gossip_receipts import authority_of
from covey.errors import IdentityError, LedgerError
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.receipts import Receipt, SignedMass
from covey.node.gossip.receipts import Kept, Receipts, Shown
from covey.wire.mass_receipts import Notary
from tests.unit.node.gossip.nodes import Unit, has_come_to, spec_of

pytestmark = pytest.mark.timeout(60)
ADA, BOB = Incarnation("ada"), Incarnation("bob")


@pytest.fixture
def ada(identity):
    return Receipts(ADA, Notary(identity("ada"), "unit"))


@pytest.fixture
def bob(identity):
    return Receipts(BOB, Notary(identity("bob"), "unit"))


async def test_after_a_run_each_edge_has_the_newest_signature_of_both_sides(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(3, 8), "abc")
    for name in unit.names:
        unit.start(name)
    await unit.until("b", lambda node: has_come_to(4, node))
    assert await unit.stop("b") == "stopped"
    unit.start("b")
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 3
    for state in (read_node(tmp_path / name) for name in unit.names):
        ledger = state.ledger
        ins = {kept.peer: kept.receipt for kept in state.receipts if kept.way == "in"}
        outs = {kept.peer: kept.receipt for kept in state.receipts if kept.way == "out"}
        assert {peer: (r.sequence, r.units) for peer, r in ins.items()} == {
            peer: (edge.sequence, edge.applied) for peer, edge in ledger.into.items()
        }
        assert {peer: (r.sequence, r.units) for peer, r in outs.items()} == {
            peer: (edge.sequence, edge.sent) for peer, edge in ledger.out.items()
        }
    audit = unit.audit()
    assert (audit.is_exact, audit.named, audit.findings) == (True, (), ())


async def test_an_audit_takes_nothing_that_is_not_signed(tmp_path: Path) -> None:
    unit = Unit(tmp_path, spec_of(2, 4), "ab")
    for name in unit.names:
        unit.start(name)
    assert [await unit.tasks[name] for name in unit.names] == ["completed"] * 2
    folders = [tmp_path / name for name in unit.names]
    accounts = [json.loads(json.dumps(account_of(read_node(folder)))) for folder in folders]
    authority = authority_of(folders)
    assert audit_accounts(accounts, authority).is_exact
    forged = next(receipt for receipt in accounts[1]["receipts"] if receipt["way"] == "out")
    forged["statement"] = forged["statement"].replace('"units":"', '"units":"9')
    audit = audit_accounts(accounts, authority)
    assert audit.named == ()
    assert audit.findings == (
        "the account of b has a receipt that does not count: it is not signed by the key of its certificate",
    )
    (tmp_path / "other" / "identity").mkdir(parents=True)
    (tmp_path / "other" / "identity" / "authority.crt").write_bytes(authority + b"\n")
    with pytest.raises(IdentityError, match="do not have the same authority"):
        authority_of([*folders, tmp_path / "other"])


def test_a_batch_comes_with_a_statement_about_itself(ada: Receipts, bob: Receipts) -> None:
    said = ada.given(Batch(BOB, 2, 5, 12))
    with pytest.raises(IdentityError, match="without what its sender signs"):
        bob.offered(ADA, 2, SignedMass(b"", b"", b""))
    for peer, sequence in ((ADA, 3), (Incarnation("ada", 2), 2)):
        with pytest.raises(LedgerError, match="about another batch or edge"):
            bob.offered(peer, sequence, said)
    bob.offered(ADA, 2, said)
    assert bob.of(ADA, 1) is None
    assert bob.of(ADA, 2) == Kept("in", Receipt(ADA, BOB, 2, 12), said)


def test_only_what_is_on_record_is_countersigned(ada: Receipts, bob: Receipts) -> None:
    batch = Batch(BOB, 1, 5, 5)
    bob.offered(ADA, 1, ada.given(batch))
    assert bob.countersigned(ADA, 1) is None
    kept = bob.of(ADA, 1)
    assert kept is not None
    bob.took(kept)
    bob.offered(ADA, 1, ada.given(Batch(BOB, 1, 5, 50)))  # now it says otherwise
    assert bob.countersigned(ADA, 1) is None
    bob.offered(ADA, 1, ada.given(batch))
    signed = bob.countersigned(ADA, 1)
    assert signed is not None
    ada.had(Batch(BOB, 1, 6, 6), signed)  # that is not what it gave
    ada.had(batch, SignedMass(signed.statement, b"x", signed.certificate))
    assert ada.take_unwritten() == []
    ada.had(batch, signed)
    assert ada.take_unwritten() == [Kept("out", Receipt(ADA, BOB, 1, 5), signed)]
    assert ada.take_unwritten() == []


def test_a_new_link_shows_a_node_what_it_signed_and_brings_a_receipt_that_was_lost(
    ada: Receipts, bob: Receipts
) -> None:
    assert ada.shown_to(BOB) == Shown()
    assert bob.shown_by(ADA, Shown()) == (0, 0)
    batch = Batch(BOB, 3, 5, 12)
    bob.offered(ADA, 3, ada.given(batch))
    kept = bob.of(ADA, 3)
    assert kept is not None
    assert bob.shown_to(ADA) == Shown()  # it is not on record
    bob.took(kept)
    assert ada.shown_by(BOB, bob.shown_to(ADA)) == (3, 0)
    [receipt] = ada.take_unwritten()  # of the batch whose acknowledgement did not come
    assert receipt == Kept("out", Receipt(ADA, BOB, 3, 12), receipt.signed)
    assert ada.shown_by(BOB, bob.shown_to(ADA)) == (3, 0)
    assert ada.take_unwritten() == []
    assert bob.shown_by(ADA, ada.shown_to(BOB)) == (0, 3)


def test_nobody_but_a_node_itself_can_prove_that_its_record_is_older(ada: Receipts, bob: Receipts, identity) -> None:
    eve = Receipts(Incarnation("eve"), Notary(identity("eve"), "unit"))
    forger, other_run = Notary(identity("eve"), "unit"), Notary(identity("ada"), "other")
    claim = Receipt(ADA, eve.me, 99, 12)
    mine, bobs = ada.given(Batch(eve.me, 2, 5, 12)), ada.given(Batch(BOB, 9, 5, 12))
    had = forger.sign_had(mine.statement)
    for shown, words in (
        (Shown(gave=forger.sign_given(claim)), "signed by node 'eve', and node 'ada' has to"),
        (Shown(gave=SignedMass(forger.sign_given(claim).statement, mine.signature, mine.certificate)), "not signed"),
        (Shown(gave=other_run.sign_given(claim)), "another run"),
        (Shown(gave=bobs), "is about the edge from ada to bob"),
        (Shown(took=had), "about the edge from ada to eve"),
        (Shown(took=forger.sign_had(forger.sign_given(Receipt(eve.me, ADA, 7, 7)).statement)), "and node 'ada' has to"),
        (Shown(gave=mine, had=mine), "and node 'eve' has to"),
        (Shown(gave=SignedMass(b"x" * 9000, b"", b"")), "longer"),
    ):
        with pytest.raises((IdentityError, LedgerError), match=words):
            ada.shown_by(eve.me, shown)
    assert ada.take_unwritten() == []
    assert ada.shown_by(eve.me, Shown(gave=mine, had=had)) == (2, 0)
