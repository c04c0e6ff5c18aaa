"""Who gave a batch that cannot be is named by all, over real connections, by its own signatures and by nothing else."""

import asyncio
from dataclasses import replace

import pytest

from covey.errors import IdentityError, LimitExceeded
from covey.gossip.ledger import Batch, Incarnation
from covey.gossip.mass import ONE
from covey.gossip.receipts import Proof, Receipt
from covey.node.gossip.receipts import Receipts
from covey.node.gossip.record.proofs import FOLDER, read_proofs
from covey.node.peers.translation import proof_message
from covey.wire.mass_receipts import Notary
from tests.unit.node.peers.hostile import Hostile, answer, offer_of
from tests.unit.node.peers.swarm import WAIT_S, body_of

ADA = Incarnation("ada")


def known(node):
    return read_proofs(node.folder / FOLDER)


async def comes_to(node, proofs):
    async with asyncio.timeout(WAIT_S):
        while known(node) != proofs:  # noqa: ASYNC110 -- it happens in threads
            await asyncio.sleep(0.01)


async def test_a_refusal_is_passed_on_and_kept_also_by_who_comes_later(small, identity):
    cyd = await small.start("cyd")
    cyd.inbox.refusing = "more than there is"
    bob = await small.start("bob", knows=["cyd"])
    await asyncio.gather(bob.meets(cyd), cyd.meets(bob))
    async with Hostile(small.member("cyd"), identity("ada")) as ada:
        link = await ada.linked()
        await link.write(offer_of(body_of(small.size_bytes), units=3 * ONE, inline=True))
        await answer(link, "refused")  # for something that cyd alone knows: all units of three nodes can be
        await link.write(offer_of(body_of(small.size_bytes), units=3 * ONE + 1, inline=True))
        await answer(link, "refused")
        signed = ada.receipts.given(Batch(cyd.me, 1, 3 * ONE + 1, 3 * ONE + 1))
    async with asyncio.timeout(WAIT_S):
        while not known(cyd):  # noqa: ASYNC110 -- it happens in threads
            await asyncio.sleep(0.01)
    assert [(each.before, each.refused.statement) for each in known(cyd)] == [(None, signed.statement)]
    await comes_to(bob, known(cyd))
    await cyd.network.stop()
    small.reach("bob", small.member("bob").address)
    again = await small.start("cyd", knows=["bob"])  # in another folder, where nothing is known
    await comes_to(again, known(bob))


async def test_only_what_a_node_signed_itself_counts_against_it(small, identity):
    cyd = await small.start("cyd")
    bob = await small.start("bob", knows=["cyd"])
    await asyncio.gather(bob.meets(cyd), cyd.meets(bob))
    mallory = Receipts(Incarnation("bob"), Notary(identity("ada"), "digits"))  # signs as bob with the key of ada
    elsewhere = Receipts(bob.me, Notary(identity("bob"), "letters"))

    def gave(receipts, sequence, total, receiver=cyd.me):
        return receipts.given(Batch(receiver, sequence, 1, total))

    first, other = gave(bob.receipts, 1, ONE), gave(bob.receipts, 1, 5 * ONE, ADA)
    tenth, after = gave(bob.receipts, 10, 9 * ONE), gave(bob.receipts, 2, 4 * ONE)
    wrong = {
        "a batch that can be": Proof(None, first),
        "two that can be": Proof(first, after),
        "all up to a late one": Proof(None, tenth),
        "two with others between them": Proof(first, tenth),
        "of two edges": Proof(other, gave(bob.receipts, 2, 6 * ONE)),
        "in the wrong order": Proof(after, first),
        "signed by another node": Proof(None, gave(mallory, 1, 9 * ONE)),
        "a statement that was changed": Proof(None, replace(first, statement=gave(bob.receipts, 1, 9 * ONE).statement)),
        "of another run": Proof(None, gave(elsewhere, 1, 9 * ONE)),
        "what was had": Proof(None, bob.receipts._notary.sign_had(gave(bob.receipts, 1, 9 * ONE).statement)),
        "of a later life": Proof(
            None, bob.receipts._notary.sign_given(Receipt(Incarnation("bob", 2), cyd.me, 1, 9 * ONE))
        ),
        "longer than any": Proof(None, replace(first, certificate=bytes(10_000))),
    }
    for proof in wrong.values():
        with pytest.raises((IdentityError, LimitExceeded)):
            cyd.network._proofs.take(proof)
    right = Proof(first, gave(bob.receipts, 2, 4 * ONE + 1))
    async with Hostile(small.member("cyd"), identity("ada")) as ada:
        link = await ada.linked()
        for proof in (*wrong.values(), right):
            await link.write(proof_message(proof))
        await comes_to(cyd, [right])  # each is looked at in a thread of its own
        assert cyd.network._proofs.take(Proof(None, gave(bob.receipts, 1, 9 * ONE))) is None  # one proof is enough
        await link.write(offer_of(body_of(small.size_bytes), inline=True))
        await answer(link, "acknowledged")
    assert known(cyd) == [right]
