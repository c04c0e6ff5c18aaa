"""One token for several machines: so many certificates and no more, whoever asks, and whatever breaks."""

import asyncio
from collections import Counter

import pytest
from cryptography import x509

from covey.coordinator.nodes.enrolment import BUSY, UNACCEPTABLE, USED_UP, create_token
from covey.errors import Conflict, CoveyError, IdentityError, LimitExceeded, SpecError, StoreUnavailable
from covey.protos import admin_pb2
from covey.wire.identities.tokens import MAX_USES, JoinToken
from tests.unit.coordinator.nodes.enrolment.tokens import token_for


async def nodes(env):
    return [node.node for node in await env.store.call(env.store.store.nodes)]


async def persistent(ask, request):
    """The answer, or the refusal's text; a broken connection is asked again, as a machine does it."""
    while True:
        try:
            return await ask(request)
        except Conflict as refusal:
            return str(refusal)
        except CoveyError as broken:
            if "connection broke" not in str(broken):
                raise


async def test_of_fifty_machines_at_once_three_get_a_certificate(env, listen, request_of):
    ask, token = await listen(), await token_for(env, "site", uses=3)
    requests = [request_of(token, f"machine-{number}") for number in range(50)]
    replies = await asyncio.gather(*(persistent(ask, request) for request in requests))
    refusals = [reply for reply in replies if isinstance(reply, str)]
    admitted = {
        reply.name: request for reply, request in zip(replies, requests, strict=True) if not isinstance(reply, str)
    }
    assert (len(refusals), set(refusals)) == (47, {USED_UP})
    assert sorted(admitted) == await nodes(env) == ["site-1", "site-2", "site-3"]
    for name, request in admitted.items():
        again = await ask(request)  # whoever was cut off asks again, and takes no further use
        assert again.name == name
        certificate = x509.load_pem_x509_certificate(again.certificate)
        assert certificate.public_key() == x509.load_der_x509_csr(request.csr).public_key()
    assert await nodes(env) == ["site-1", "site-2", "site-3"]
    assert Counter(event.kind for event in await env.store.call(env.store.store.events))["enrolled"] == 3


async def test_the_same_request_many_times_at_once_takes_one_use(env, listen, request_of):
    ask, token = await listen(), await token_for(env, "site", uses=3)
    replies = await asyncio.gather(*(ask(request_of(token)) for _ in range(8)))
    assert all(reply == replies[0] for reply in replies)
    (listed,) = await env.store.call(env.store.store.tokens)
    assert (listed.uses, listed.used) == (3, 1)


async def test_what_breaks_before_the_record_has_it_takes_no_use(env, listen, request_of, monkeypatch):
    """The certificate and the count are one transaction: a coordinator that is killed between has neither."""
    ask, token = await listen(), await token_for(env, "site", uses=2)
    redeem = env.store.store.redeem_token

    def away(*args):
        raise StoreUnavailable("gone")

    for attempt in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(env.store.store, "redeem_token", away)
            with pytest.raises(StoreUnavailable):
                await ask(request_of(token, f"machine-{attempt}"))
    assert env.store.store.redeem_token == redeem
    assert [(await ask(request_of(token, f"machine-{number}"))).name for number in (2, 1)] == ["site-1", "site-2"]
    with pytest.raises(Conflict, match=USED_UP):
        await ask(request_of(token, "machine-0"))


async def test_an_expired_or_revoked_one_gives_nothing_more(env, listen, request_of):
    ask, token = await listen(), await token_for(env, "site", uses=3, expires_s=60)
    first = await ask(request_of(token, "early"))
    await env.store.call(env.store.store.revoke_tokens, "site")
    with pytest.raises(IdentityError, match=UNACCEPTABLE):
        await ask(request_of(token, "late"))
    assert await ask(request_of(token, "early")) == first
    assert await nodes(env) == ["site-1"]


async def test_an_evicted_name_is_passed_over(env, listen, request_of):
    ask, token = await listen(), await token_for(env, "site", uses=3)
    await ask(request_of(token, "first"))
    await env.store.call(env.store.store.set_node_state, "site-1", "evicted")
    assert (await ask(request_of(token, "second"))).name == "site-2"


async def test_guesses_are_bounded_while_a_token_has_uses_left(env, listen, request_of):
    ask, token = await listen(each=(3, 0.0), total=(100, 0.0)), await token_for(env, "site", uses=50)
    for number in range(5):
        await ask(request_of(token, f"machine-{number}"))
    for _ in range(3):
        with pytest.raises(IdentityError, match=UNACCEPTABLE):
            await ask(request_of(bytes(32)))
    with pytest.raises(LimitExceeded, match=BUSY):
        await ask(request_of(token, "machine-9"))


async def test_what_a_token_of_several_uses_says(env):
    reply = await create_token(env, admin_pb2.CreateTokenRequest(uses=3))
    token = JoinToken.decode(reply.token)
    assert (token.name, token.uses, reply.node, reply.uses) == ("node", 3, "node", 3)
    assert token.allows("node-12")
    assert not any(token.allows(name) for name in ("node", "node-", "node-1-1", "other-1"))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"uses": MAX_USES + 1}, SpecError),
        ({"uses": 2, "role": "admin"}, SpecError),
        ({"uses": 2, "role": "auditor"}, SpecError),
        ({"uses": 2, "node": "a" * 60}, IdentityError),
    ],
)
async def test_tokens_that_cannot_be(env, fields, error):
    with pytest.raises(error):
        await create_token(env, admin_pb2.CreateTokenRequest(**fields))
