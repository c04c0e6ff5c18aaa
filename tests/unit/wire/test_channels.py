import contextlib
import json
from typing import cast

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization

from covey.errors import IdentityError
from covey.testing.relay import Relay
from covey.wire.channels import (
    Context,
    channel_options,
    peer_identity,
    renewing_credentials,
    secure_channel,
    server_credentials,
    server_options,
)
from covey.wire.errors import translated
from covey.wire.identities.authority import Authority

WHO, ECHO = "/covey.test/Who", "/covey.test/Echo"
DEADLINE_S = 20.0


class Called:
    """A server's side of the tests: says who calls, and counts those who got that far."""

    def __init__(self):
        self.count = 0

    async def who(self, request, context):
        self.count += 1
        peer = peer_identity(context)
        said = {"name": peer.name, "role": peer.role, "expires_at": peer.expires_at}
        return json.dumps({**said, "from": context.peer()}).encode()

    async def echo(self, request, context):
        return request


@pytest.fixture
def called():
    return Called()


@pytest.fixture
async def serve(called):
    """Starts servers on free ports: `await serve(credentials)` gives an address."""
    servers = []

    async def start(credentials):
        methods = {
            "Who": grpc.unary_unary_rpc_method_handler(translated(called.who)),
            "Echo": grpc.unary_unary_rpc_method_handler(called.echo),
        }
        server = grpc.aio.server(options=server_options())
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("covey.test", methods),))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        await server.stop(None)


async def ask(channel, method=WHO, request=b""):
    async with channel:
        return await channel.unary_unary(method)(request, timeout=DEADLINE_S)


async def refused(channel, called):
    """Nothing of the server's own runs, and the client learns nothing but that there is no connection."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert called.count == 0


@pytest.fixture
async def main(serve, identity):
    """The address of a coordinator's main listener."""
    return await serve(server_credentials(identity("coordinator", "coordinator")))


@pytest.mark.parametrize("role", ["node", "admin", "auditor"])
async def test_who_calls_is_what_the_certificate_says(main, identity, role):
    own = identity(role=role)
    reply = json.loads(await ask(secure_channel(main, own)))
    assert (reply["name"], reply["role"], reply["expires_at"]) == ("alpha", role, own.expires_at)


async def test_a_certificate_of_a_foreign_authority_is_refused(main, tmp_path, identity, authority, called):
    foreign = identity(by=Authority.open(tmp_path / "foreign"))
    await refused(secure_channel(main, foreign), called)
    trusting = grpc.ssl_channel_credentials(authority.pem, foreign.key_pem, foreign.certificate_pem)
    options = channel_options("coordinator.covey", "")
    await refused(grpc.aio.secure_channel(main, trusting, options), called)


async def test_nobody_without_a_certificate_reaches_the_main_listener(main, authority, called):
    bare = grpc.ssl_channel_credentials(authority.pem)
    await refused(grpc.aio.secure_channel(main, bare, channel_options("coordinator.covey", "")), called)
    await refused(grpc.aio.insecure_channel(main), called)


async def test_an_expired_certificate_is_refused_and_the_client_can_say_why(main, identity, called):
    expired = identity(days=0)
    await refused(secure_channel(main, expired), called)
    assert "expired at" in expired.explain()


async def test_a_nodes_certificate_cannot_pose_as_the_coordinators(serve, identity, called):
    address = await serve(server_credentials(identity("coordinator", "node")))
    await refused(secure_channel(address, identity("beta")), called)


@pytest.mark.parametrize("role", ["admin", "auditor"])
async def test_an_admins_certificate_cannot_serve_at_all(serve, identity, called, role):
    address = await serve(server_credentials(identity(role=role)))
    for name in ("coordinator.covey", f"alpha.{role}.covey", "alpha.node.covey"):
        await refused(secure_channel(address, identity("beta"), server_name=name), called)


async def test_one_node_cannot_pose_as_another(serve, identity, called):
    address = await serve(server_credentials(identity("alpha")))
    caller = identity("gamma")
    await refused(secure_channel(address, caller, server_name="beta.node.covey"), called)
    reply = await ask(secure_channel(address, caller, server_name="alpha.node.covey"))
    assert json.loads(reply)["name"] == "gamma"


async def test_the_enrolment_listener_takes_strangers_but_knows_none(serve, identity, authority):
    own = identity("coordinator", "coordinator")
    address = await serve(renewing_credentials(lambda: own, mutual=False))
    stranger = grpc.ssl_channel_credentials(authority.pem)
    options = channel_options("coordinator.covey", "")
    assert await ask(grpc.aio.secure_channel(address, stranger, options), ECHO, b"hello") == b"hello"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(grpc.aio.secure_channel(address, stranger, options))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, "no client certificate")


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ({"unit": None}, "does not name one identity and role"),
        ({"unit": "printer"}, "no role of Covey's"),
        ({"common_name": "Printer 5"}, "not a valid name"),
    ],
)
async def test_what_an_organisation_certified_for_other_ends_is_nobody(
    main, tmp_path, identity, certify, subject, reason
):
    key = serialization.load_pem_private_key(identity().key_pem, None).public_key()
    other = identity(certificate=certify(tmp_path / "authority", key, **subject))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(secure_channel(main, other))
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert reason in (caught.value.details() or "")


async def test_channels_for_different_ends_have_connections_of_their_own(main, identity):
    own, seen = identity(), set()
    async with contextlib.AsyncExitStack() as stack:
        for dummy in ("control", "downloads", "uploads"):
            channel = await stack.enter_async_context(secure_channel(main, own, dummy=dummy))
            who: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHO)
            seen.add(json.loads(await who(b"", timeout=DEADLINE_S))["from"])
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("dummies", "connections"), [(("control", "control", "control"), 1), (("control", "downloads", "uploads"), 3)]
)
async def test_it_is_the_dummy_that_keeps_connections_apart(dummies, connections):
    """Seen without TLS, where gRPC shares connections between channels with equal options."""
    server, seen = grpc.aio.server(options=server_options()), set()

    async def note(request, context):
        seen.add(context.peer())
        return b""

    methods = {"Who": grpc.unary_unary_rpc_method_handler(note)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("covey.test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, None)
        for dummy in dummies:
            options = channel_options("coordinator.covey", dummy)
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
            await stack.enter_async_context(channel)
            who: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHO)
            await who(b"", timeout=DEADLINE_S)
    assert len(seen) == connections


async def test_message_limits_are_grpcs_own(main, identity):
    own = identity()
    below = bytes((4 << 20) - 1000)
    assert await ask(secure_channel(main, own), ECHO, below) == below
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(secure_channel(main, own), ECHO, bytes((4 << 20) + 1))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_port_is_not_shared_with_another_daemon(main, identity):
    second = grpc.aio.server(options=server_options())
    with pytest.raises(RuntimeError, match=r"[Ff]ailed to bind"):
        second.add_secure_port(main, server_credentials(identity("coordinator", "coordinator")))


async def test_a_slow_link_gets_its_handshake_done_at_the_first_attempt(main, identity):
    """Half a second from end to end and back is a bad link, not a dead one."""
    async with Relay(main) as relay:
        relay.delay("up", 0.25)
        relay.delay("down", 0.25)
        reply = await ask(secure_channel(relay.address, identity()))
        assert json.loads(reply)["name"] == "alpha"
        assert relay.connections == 1


def test_a_peer_without_a_certificate_is_nobody():
    class NoCertificate:
        def auth_context(self):
            return {"transport_security_type": [b"ssl"]}

    with pytest.raises(IdentityError, match="no client certificate"):
        peer_identity(cast(Context, NoCertificate()))
