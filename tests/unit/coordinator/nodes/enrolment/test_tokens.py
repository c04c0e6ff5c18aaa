"""Join tokens: who may get one, and what they say."""

import hashlib

import pytest

from covey.coordinator.nodes.enrolment import create_token
from covey.errors import IdentityError, SpecError
from covey.protos import admin_pb2
from covey.wire.identities.tokens import JoinToken
from tests.unit.coordinator.nodes.enrolment.tokens import token_for


async def test_a_token_is_recorded_without_its_secret(env, tmp_path):
    reply = await create_token(env, admin_pb2.CreateTokenRequest(node="alpha", expires_s=60))
    token = JoinToken.decode(reply.token)
    assert (token.name, token.role, reply.node) == ("alpha", "node", "alpha")
    assert (token.server, token.enrol) == ("127.0.0.1:7400", "127.0.0.1:7401")
    assert token.authority_pem == env.authority.pem
    assert token.expires_at == reply.expires_at <= env.clock() + 60
    digest = hashlib.sha256(token.secret).hexdigest()
    assert (await env.store.call(env.store.store.token, digest)).name == "alpha"
    for path in tmp_path.glob("covey.db*"):
        assert token.secret not in path.read_bytes()


async def test_tokens_without_a_name_get_different_ones(env):
    replies = [await create_token(env, admin_pb2.CreateTokenRequest(role="auditor")) for _ in range(2)]
    first, second = (JoinToken.decode(reply.token) for reply in replies)
    assert first.role == "auditor"
    assert first.name != second.name
    assert first.secret != second.secret


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"role": "root"}, SpecError),
        ({"role": "coordinator"}, SpecError),
        ({"node": "Alpha"}, IdentityError),
        ({"node": "a\n"}, IdentityError),
        ({"expires_s": -1.0}, SpecError),
        ({"expires_s": 1e9}, SpecError),
        ({"expires_s": float("nan")}, SpecError),
        ({"expires_s": float("inf")}, SpecError),
    ],
)
async def test_tokens_that_cannot_be(env, fields, error):
    with pytest.raises(error):
        await create_token(env, admin_pb2.CreateTokenRequest(**fields))


async def test_a_token_says_how_others_reach_us(env):
    env.addresses.listen, env.addresses.enrol_listen = "0.0.0.0:7400", "[::]:7401"
    token = JoinToken.decode(await token_for(env))
    assert token.server.endswith(":7400")
    assert token.enrol.endswith(":7401")
    assert not token.server.startswith("0.0.0.0")
    assert not token.enrol.startswith("[::]")
    env.addresses.advertise, env.addresses.advertise_enrol = "covey.example.org:1", "covey.example.org:2"
    token = JoinToken.decode(await token_for(env))
    assert (token.server, token.enrol) == ("covey.example.org:1", "covey.example.org:2")
