"""Whom one calls: a node that answers at another one's address, or with another key, is told nothing."""

import asyncio
import shutil

import pytest
from cryptography import x509

from covey.errors import IdentityError
from covey.gossip.ledger import Incarnation
from covey.relay.server import RelayServer
from covey.wire.channels import key_sha256
from covey.wire.identities.identity import Identity
from tests.unit.node.peers.swarm import body_of


def fingerprint_of(identity: Identity) -> str:
    return key_sha256(x509.load_pem_x509_certificate(identity.certificate_pem).public_key())


@pytest.fixture
def false_bob(identity, tmp_path, authority):
    """The key of bob; from then on bob's certificate is for another one."""
    right = fingerprint_of(identity("bob"))
    shutil.rmtree(tmp_path / f"node-bob-{authority.federation[:8]}")
    assert fingerprint_of(identity("bob")) != right
    return right


async def test_another_node_at_a_peers_address_gets_nothing(small, identity):
    bob = await small.start("bob")
    small.reach("cyd", small.member("bob").address)
    ada = await small.start("ada", knows=["cyd"], pins={"cyd": fingerprint_of(identity("cyd"))})
    assert "is not cyd.node.covey" in await small.refusal(ada, "cyd", fingerprint_of(identity("cyd")))
    assert await small.refusal(ada, "cyd")  # nor where no key is pinned
    assert (bob.inbox.events, bob.network.connected, ada.network.connected) == ([], [], [])


async def test_another_key_for_a_peers_name_gets_nothing(small, false_bob):
    bob = await small.start("bob")
    ada = await small.start("ada", knows=["bob"], pins={"bob": false_bob})
    assert "another key than the one that is pinned" in await small.refusal(ada, "bob", false_bob)
    assert (bob.inbox.events, bob.network.connected, ada.network.connected) == ([], [], [])


async def test_a_notice_of_eviction_is_brought_to_nobody_else(small, identity, false_bob):
    bob, admin = await small.start("bob"), identity("root", "admin")
    small.reach("bob", small.member("bob").address, false_bob)
    with pytest.raises(IdentityError, match="another key than the one that is pinned"):
        await small.evict(Incarnation("cyd"), admin, at="bob")
    small.reach("cyd", small.member("bob").address, false_bob)
    with pytest.raises(IdentityError, match=r"is not cyd\.node\.covey"):
        await small.evict(Incarnation("ada"), admin, at="cyd")
    assert bob.inbox.events == []
    small.reach("bob", small.member("bob").address, fingerprint_of(identity("bob")))
    assert await small.evict(Incarnation("cyd"), admin, at="bob")


async def test_another_key_that_waits_at_a_relay_gets_nothing(small, false_bob, authority):
    server = RelayServer(authority.pem)
    address = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
    try:
        bob = await small.start("bob", listens=False, relay=address)
        small.reach("bob", address)
        ada = await small.start("ada", knows=["bob"], pins={"bob": false_bob}, listens=False)
        async with asyncio.timeout(60):
            # Until it waits there.
            while "another key" not in await small.refusal(ada, "bob", false_bob):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (bob.inbox.events, bob.network.connected, ada.network.connected) == ([], [], [])
        await asyncio.gather(ada.network.stop(), bob.network.stop())
    finally:
        await server.stop()


async def test_a_renewed_certificate_for_the_pinned_key_counts(large, identity):
    bob = await large.start("bob")
    address, pins = large.member("bob").address, {"bob": fingerprint_of(identity("bob"))}
    ada = await large.start("ada", knows=["bob"], pins=pins, listens=False)
    for number in (1, 2):
        await ada.send_until_there(bob, number, ada.put(body_of(large.size_bytes, number)))
        if number == 1:
            await bob.network.stop()
            bob = await large.start("bob", listen=address)  # each start has a new certificate for the same key
    assert [batch[1] for batch in bob.inbox.batches] == [2]
