"""Enrolment at the main port: a token's certificate leads past its handshake, to this one service and no other."""

import asyncio
import time
from dataclasses import replace

import grpc
import grpc.aio
import pytest
from cryptography.x509 import load_pem_x509_certificate
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from covey.coordinator.keys.keys import open_keys
from covey.coordinator.nodes.door import OneDoor, enrolment_guard, main_guard
from covey.coordinator.nodes.enrolment import Addresses, EnrolmentService
from covey.coordinator.nodes.rate_limits import RateLimits
from covey.errors import IdentityError
from covey.node.membership.enrolment import EnrolmentUnreachable, join
from covey.protos.coordinator_pb2_grpc import add_EnrolmentServicer_to_server
from covey.wire.channels import certified_peer, channel_options, renewing_credentials, secure_channel, server_options
from covey.wire.identities.authority import private_pem
from covey.wire.identities.tokens import JoinToken
from covey.wire.listeners.connections import Connections
from tests.unit.coordinator.nodes.enrolment.conftest import GENEROUS
from tests.unit.coordinator.nodes.enrolment.tokens import token_for


@pytest.fixture
async def one_port(env, tmp_path):
    """A coordinator's one listener, with enrolment and a service that is for members; its services."""
    connections = Connections()
    door = OneDoor(main_guard(env.members, time.time, connections), enrolment_guard(connections))
    server = grpc.aio.server(options=server_options(), interceptors=[door])
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    identity = open_keys(tmp_path, env.clock()).server
    port = server.add_secure_port("127.0.0.1:0", renewing_credentials(lambda: identity, mutual=True))
    here = f"127.0.0.1:{port}"
    env = replace(env, addresses=Addresses(here, here))
    add_EnrolmentServicer_to_server(
        EnrolmentService(env, RateLimits(each=GENEROUS["each"], total=GENEROUS["total"])), server
    )
    await server.start()
    yield env
    await server.stop(None)


async def asks_for_members_service(channel):
    async with channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)


async def test_a_machine_joins_at_the_port_where_it_then_works(one_port, tmp_path):
    token = await token_for(one_port, "site", uses=2)
    decoded = JoinToken.decode(token)
    assert decoded.server == decoded.enrol == one_port.addresses.listen
    for number in (1, 2):
        identity = await asyncio.to_thread(join, token, tmp_path / f"node-{number}")
        assert identity.name == f"site-{number}"
        await asks_for_members_service(secure_channel(identity.server, identity))
    again = JoinToken.decode(await token_for(one_port))
    assert again.entry_key.private_numbers() != decoded.entry_key.private_numbers()


async def test_a_tokens_certificate_is_nobodys(one_port):
    token = JoinToken.decode(await token_for(one_port))
    with pytest.raises(IdentityError, match="no role of Covey's: 'entrant'"):
        certified_peer(token.entry_pem)
    shown = grpc.ssl_channel_credentials(token.authority_pem, private_pem(token.entry_key), token.entry_pem)
    channel = grpc.aio.secure_channel(token.server, shown, channel_options("coordinator.covey", ""))
    with pytest.raises(grpc.aio.AioRpcError, match="no role of Covey's") as caught:
        await asks_for_members_service(channel)
    assert caught.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
    ends = load_pem_x509_certificate(token.entry_pem).not_valid_after_utc.timestamp()
    assert token.expires_at < ends


async def test_without_it_nobody_gets_in(one_port, tmp_path):
    token = JoinToken.decode(await token_for(one_port))
    bare = replace(token, entry_pem=b"").encode()
    with pytest.raises(EnrolmentUnreachable, match="this is a coordinator's main port"):
        await asyncio.to_thread(join, bare, tmp_path / "node")


async def test_where_enrolment_has_a_port_tokens_stay_as_they_were(env):
    assert JoinToken.decode(await token_for(env)).entry_pem == b""
