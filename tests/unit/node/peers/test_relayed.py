"""Two nodes that both can only call meet at a relay; what passes there is TLS between the two."""

import asyncio

from covey.relay.server import RelayServer
from covey.testing.relay import Relay
from tests.unit.node.peers.swarm import body_of


async def test_two_nodes_that_can_only_call_exchange_batches_through_a_relay(large, authority):
    server = RelayServer(authority.pem)
    address = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
    try:
        async with Relay(address) as tapped:
            bob = await large.start("bob", listens=False, relay=tapped.address)
            large.reach("bob", tapped.address)
            ada = await large.start("ada", knows=["bob"], listens=False, relay=tapped.address)
            await asyncio.gather(ada.meets(bob), bob.meets(ada))
            ours, theirs = ada.put(body_of(large.size_bytes, 1)), bob.put(body_of(large.size_bytes, 2))
            await asyncio.gather(ada.send(bob, 1, ours), bob.send(ada, 1, theirs))
            assert (bob.inbox.batches[0][4], ada.inbox.batches[0][4]) == (ours.digest, theirs.digest)
            tapped.cut_each("up", after_bytes=1)
            await asyncio.gather(ada.suspects(bob), bob.suspects(ada))
            tapped.cut_each("up", None)
            ada.inbox.events.clear()
            bob.inbox.events.clear()
            await asyncio.gather(ada.meets(bob), bob.meets(ada))
            await ada.send_until_there(bob, 2, ada.put(body_of(large.size_bytes, 3)))
            assert server.spliced > 2
            await asyncio.gather(ada.network.stop(), bob.network.stop())
    finally:
        await server.stop()
