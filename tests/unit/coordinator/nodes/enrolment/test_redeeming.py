"""A token is redeemed once, by whoever proves to have the keys, and strangers learn nothing."""

import asyncio

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.nodes.enrolment import BUSY, TAKEN, UNACCEPTABLE, UNPROVEN, USED
from covey.errors import Conflict, IdentityError, LimitExceeded, NotFound, StoreUnavailable
from covey.protos import coordinator_pb2 as pb
from tests.unit.coordinator.nodes.enrolment.tokens import events, token_for


async def test_a_token_is_exchanged_for_a_certificate(env, listen, request_of):
    ask, token = await listen(), await token_for(env, role="admin")
    request = request_of(token)
    reply = await ask(request)
    certificate = x509.load_pem_x509_certificate(reply.certificate)
    certificate.verify_directly_issued_by(env.authority.certificate)
    assert certificate.public_key() == x509.load_der_x509_csr(request.csr).public_key()
    subject = [attribute.value for attribute in certificate.subject]
    assert sorted(subject) == ["admin", "alpha"]
    assert (reply.name, reply.role, reply.federation) == ("alpha", "admin", env.federation)
    assert (reply.authority, reply.coordinator_key) == (env.authority.pem, env.signing_key.public_bytes)
    record = await env.store.call(env.store.store.node, "alpha")
    assert (record.role, record.state, record.signing_key) == ("admin", "active", request.signing_key)
    assert int(record.certificate_serial, 16) == certificate.serial_number
    assert record.certificate_expires_at == certificate.not_valid_after_utc.timestamp()
    assert [event.node for event in await events(env, "enrolled")] == ["alpha"]
    assert await events(env) == []


async def test_the_same_keys_get_the_same_certificate_again_even_after_the_token_ended(env, listen, request_of):
    ask, token = await listen(), await token_for(env, expires_s=0.5)
    request = request_of(token)
    first = await ask(request)
    env.clock.ahead_s = 3600.0
    assert await ask(request) == first
    assert await ask(request_of(token)) == first  # a new signing request for the same keys
    assert len(await events(env, "enrolled")) == 1


async def test_the_same_request_many_times_at_once(env, listen, request_of):
    ask, request = await listen(), request_of(await token_for(env))
    replies = await asyncio.gather(*(ask(request) for _ in range(8)))
    assert all(reply == replies[0] for reply in replies)


async def test_of_two_who_use_a_token_at_once_one_gets_it(env, listen, request_of):
    ask, token = await listen(), await token_for(env)
    asked = (ask(request_of(token, folder)) for folder in ("mine", "theirs"))
    replies = await asyncio.gather(*asked, return_exceptions=True)
    (refusal,) = [reply for reply in replies if isinstance(reply, Exception)]
    assert (type(refusal), str(refusal)) == (Conflict, USED)


async def test_other_keys_are_refused_and_remembered(env, listen, request_of):
    ask, token = await listen(), await token_for(env)
    reply = await ask(request_of(token, "mine"))
    with pytest.raises(Conflict, match="used with other keys"):
        await ask(request_of(token, "theirs"))
    mine, theirs = request_of(token, "mine"), request_of(token, "theirs")
    assert await ask(mine) == reply
    (event,) = await events(env)
    assert (event.node, event.detail["reason"], event.detail["peer"]) == ("alpha", USED, "127.0.0.1")
    assert (await env.store.call(env.store.store.node, "alpha")).signing_key != theirs.signing_key


async def test_a_token_is_bound_to_the_signing_key_too(env, listen, request_of, tmp_path):
    ask, token = await listen(), await token_for(env)
    first = request_of(token)
    await ask(first)
    (tmp_path / "keys-of-alpha" / "signing.key").unlink()
    second = request_of(token)
    assert second.signing_key != first.signing_key
    with pytest.raises(Conflict, match="used with other keys"):
        await ask(second)


async def test_an_expired_token_is_refused(env, listen, request_of):
    ask, token = await listen(), await token_for(env, expires_s=60)
    env.clock.ahead_s = 61.0
    with pytest.raises(IdentityError, match=UNACCEPTABLE):
        await ask(request_of(token))
    with pytest.raises(NotFound):
        await env.store.call(env.store.store.node, "alpha")
    assert [event.node for event in await events(env)] == ["alpha"]


async def test_a_wrong_secret_is_refused(env, listen, request_of):
    ask = await listen()
    await token_for(env)
    for secret in (b"", bytes(32), bytes(1000)):
        with pytest.raises(IdentityError, match=UNACCEPTABLE):
            await ask(request_of(secret))
    assert len(await events(env)) == 3


async def test_what_is_not_proven_is_refused(env, listen, request_of):
    ask, token = await listen(), await token_for(env)
    mine, theirs = request_of(token, "mine"), request_of(token, "theirs")
    for changes in [
        {"signing_key": theirs.signing_key},
        {"signing_proof": theirs.signing_proof},
        {"signing_key": theirs.signing_key, "signing_proof": theirs.signing_proof},
        {"csr": theirs.csr},
        {"signing_proof": b""},
        {"csr": b""},
        {"csr": bytes(1 << 20)},
    ]:
        with pytest.raises(IdentityError, match=UNPROVEN):
            await ask(request_of(token, "mine", **changes))
    assert (await ask(mine)).name == "alpha"


async def test_any_bytes_are_refused_and_nothing_of_ours_is_told(env, listen):
    ask = await listen()
    binary = st.binary(max_size=100)
    loop = asyncio.get_running_loop()

    @settings(max_examples=50, deadline=None)
    @given(binary, binary, binary, binary)
    def check(secret, csr, signing_key, proof):
        request = pb.EnrolRequest(token_secret=secret, csr=csr, signing_key=signing_key, signing_proof=proof)
        future = asyncio.run_coroutine_threadsafe(ask(request), loop)
        with pytest.raises(IdentityError, match=f"^({UNPROVEN}|{UNACCEPTABLE})$"):
            future.result(20)

    await asyncio.to_thread(check)


async def test_a_name_that_is_enrolled_gets_no_second_identity(env, listen, request_of):
    ask, first, second = await listen(), await token_for(env), await token_for(env)
    await ask(request_of(first, "mine"))
    with pytest.raises(Conflict, match=TAKEN):
        await ask(request_of(second, "theirs"))
    with pytest.raises(Conflict, match="'alpha' is enrolled already"):
        await token_for(env)


async def test_an_evicted_name_never_comes_back(env, listen, request_of):
    """Else the certificate that was shut out would be let in again."""
    ask, first, kept = await listen(), await token_for(env), await token_for(env)
    await ask(request_of(first, "mine"))
    await env.store.call(env.store.store.set_node_state, "alpha", "evicted")
    env.members.evicted.add("alpha")
    with pytest.raises(Conflict, match=TAKEN):
        await ask(request_of(kept, "theirs"))
    with pytest.raises(Conflict, match="was evicted, which is for good"):
        await token_for(env)
    assert env.members.evicted == {"alpha"}


async def test_a_name_that_left_can_come_back(env, listen, request_of):
    ask = await listen()
    await ask(request_of(await token_for(env), "before"))
    await env.store.call(env.store.store.set_node_state, "alpha", "left")
    env.members.evicted.add("alpha")
    assert (await ask(request_of(await token_for(env), "after"))).name == "alpha"
    assert env.members.evicted == set()


async def test_a_signing_key_belongs_to_one_name(env, listen, request_of):
    ask = await listen()
    await ask(request_of(await token_for(env, "alpha"), "mine"))
    with pytest.raises(Conflict, match=TAKEN):
        await ask(request_of(await token_for(env, "beta"), "mine"))


async def test_while_the_database_is_away_the_token_is_not_lost(env, listen, request_of, monkeypatch):
    ask, request = await listen(), request_of(await token_for(env))

    def away(*args):
        raise StoreUnavailable("connection to db.internal refused")

    with monkeypatch.context() as patched:
        patched.setattr(env.store.store, "redeem_token", away)
        with pytest.raises(StoreUnavailable) as caught:
            await ask(request)
    assert "db.internal" not in str(caught.value)
    assert (await ask(request)).name == "alpha"


async def test_failures_are_bounded_and_successes_are_free(env, listen, request_of):
    ask = await listen(each=(3, 0.0), total=(100, 0.0))
    for number in range(5):
        assert (await ask(request_of(await token_for(env, f"n{number}"), f"n{number}"))).name == f"n{number}"
    for _ in range(3):
        with pytest.raises(IdentityError, match=UNACCEPTABLE):
            await ask(request_of(bytes(32)))
    for _ in range(3):
        with pytest.raises(LimitExceeded, match=BUSY):
            await ask(request_of(bytes(32)))
    assert len(await events(env)) == 3
