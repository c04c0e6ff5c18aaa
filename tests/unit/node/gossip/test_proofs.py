"""What proves that a node gave a batch that cannot be, on disk and in an audit."""

import json

import pytest

from covey.client.gossip_nodes import audit_accounts
from covey.errors import IdentityError, LedgerError
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.mass import ONE
from covey.gossip.receipts import Excess, Proof, Receipt, excess_of
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.proofs import Proofs, proof_from_json, proof_to_json, read_proofs
from covey.wire.mass_receipts import Notary

ADA, BOB = Incarnation("ada"), Incarnation("bob")


@pytest.fixture
def liar(identity):
    return Receipts(BOB, Notary(identity("bob"), "unit"))


@pytest.fixture
def proof(liar):
    """Of a second batch with one unit more than there is."""
    return Proof(liar.given(Batch(ADA, 1, 7, 7)), liar.given(Batch(ADA, 2, 2 * ONE + 1, 2 * ONE + 8)))


def account(**changes):
    fields = {"live": ONE, "minted": ONE, "lost": 0, "evicted": [], "edges": [], "run": "unit", "nodes": ["ada", "bob"]}
    return {**fields, "node": "ada", "incarnation": 1, **changes}


@pytest.mark.parametrize(
    ("before", "after", "units"),
    [
        (None, (1, 10), None),
        (None, (1, 11), 11),
        (None, (2, 11), None),  # the first one is not there
        ((1, 10), (2, 20), None),
        ((1, 10), (2, 21), 11),
        ((1, 10), (2, 10), 0),
        ((1, 10), (2, 9), -1),
        ((1, 10), (3, 40), None),
        ((2, 10), (1, 30), None),
    ],
)
def test_two_that_follow_each_other_say_what_the_batch_between_them_had(before, after, units) -> None:
    first = Receipt(BOB, ADA, *before) if before else None
    found = excess_of(first, Receipt(BOB, ADA, *after), 10)
    assert found == (None if units is None else Excess(BOB, ADA, after[0], units, 10))


def test_a_proof_is_on_disk_once_for_each_node_and_what_is_none_is_passed_over(tmp_path, identity, liar, proof) -> None:
    ours = Receipts(ADA, Notary(identity("ada"), "unit"))

    def opened(known, most=2 * ONE):
        made = Proofs(tmp_path, ours.open_given, lambda who: who in known, lambda: most)
        made.load()
        return made

    with pytest.raises(IdentityError, match="takes no part in this run"):
        opened([ADA]).take(proof)
    found = opened([ADA, BOB]).take(proof)
    assert found is not None
    assert (found.who, found.sequence, found.units) == (BOB, 2, 2 * ONE + 1)
    another = Proof(None, liar.given(Batch(ADA, 1, 9 * ONE, 9 * ONE)))
    assert opened([ADA, BOB]).take(another) is None
    (tmp_path / "bob-2.json").write_text("{}")
    (tmp_path / "cyd-1.json").write_text(json.dumps({**proof_to_json(proof), "before": None}))  # somebody changed it
    (tmp_path / "dan-1.json").write_text("[")
    assert opened([ADA, BOB]).all() == [proof]
    assert opened([ADA, BOB], 3 * ONE).all() == []  # there is more mass than when it came
    assert proof in read_proofs(tmp_path)


def test_an_audit_names_by_proofs_whose_accounts_nobody_has(authority, proof) -> None:
    pem = authority.pem
    mass = audit_accounts([account(proofs=[proof_to_json(proof)])], pem)
    assert mass.named == (Excess(BOB, ADA, 2, 2 * ONE + 1, 2 * ONE),)
    assert not mass.is_exact
    assert "bob gave ada batch 2 with" in mass.findings[0]
    forged = {**proof_to_json(proof), "before": None}
    mass = audit_accounts([account(proofs=[forged, {}, 7])], pem)
    assert mass.named == ()
    assert ["has a proof that does not count" in text for text in mass.findings] == [True] * 3
    assert proof_from_json(proof_to_json(proof)) == proof


def test_an_evicted_incarnation_that_joined_with_mass_is_not_said_to_have_given_what_it_had_not() -> None:
    nothing = {"peer": "bob", "sent": 0, "sent_batches": 0, "waiting": 0, "reclaimed": 0, "applied_batches": 1}
    edges = [{**nothing, "incarnation": 1, "applied": ONE}, {**nothing, "incarnation": 2, "applied": ONE // 2}]
    fields = {"live": 5 * ONE // 2, "evicted": [["bob", 1], ["bob", 2]], "edges": edges}
    mass = audit_accounts([account(**fields, joins=ONE)])
    assert mass.is_exact
    assert (mass.minted, mass.lost) == (3 * ONE, ONE // 2)
    split = audit_accounts([account(**fields, joins=0)])  # it began without mass, and nobody gave it any
    assert f"gave away {ONE // 2} units more than they had" in split.findings[0]
    with pytest.raises(LedgerError, match="no number of units"):
        audit_accounts([account(joins="all")])
