import asyncio
import hashlib
import time

import grpc
import grpc.aio
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.keys.keys import open_keys
from covey.coordinator.nodes.enrolment import (
    BUSY,
    TAKEN,
    UNACCEPTABLE,
    UNPROVEN,
    USED,
    Addresses,
    EnrolmentService,
    EnrolmentServices,
    create_token,
    renew,
)
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.rate_limits import MAX_ADDRESSES, RateLimits, site_of
from covey.coordinator.store_thread import StoreThread
from covey.errors import Conflict, IdentityError, LimitExceeded, NotFound, SpecError, StoreUnavailable
from covey.protos import admin_pb2
from covey.protos import coordinator_pb2 as pb
from covey.protos.coordinator_pb2_grpc import EnrolmentStub, add_EnrolmentServicer_to_server
from covey.storage.sql.store import open_store
from covey.wire.channels import channel_options, renewing_credentials, server_options
from covey.wire.errors import from_rpc_error
from covey.wire.identity import signing_request
from covey.wire.signing import key_id
from covey.wire.tokens import JoinToken

GENEROUS = {"each": (10_000, 1.0), "total": (10_000, 1.0)}


class Clock:
    """Stands still unless told otherwise."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class ShiftedClock:
    """Unix time, and so many seconds more."""

    def __init__(self):
        self.ahead_s = 0.0

    def __call__(self):
        return time.time() + self.ahead_s


@pytest.fixture
async def env(tmp_path):
    keys = open_keys(tmp_path, time.time())
    store = StoreThread(open_store(CoordinatorConfig(tmp_path).database_url))
    yield EnrolmentServices(
        federation=keys.authority.federation,
        store=store,
        authority=keys.authority,
        signing_key=keys.signing_key,
        members=Members(store),
        addresses=Addresses("127.0.0.1:7400", "127.0.0.1:7401"),
        clock=ShiftedClock(),
    )
    await store.close()


@pytest.fixture
async def listen(env, tmp_path):
    """Starts the enrolment listener: `ask = await listen(...)`, then `await ask(request)`."""
    opened = []

    async def start(**limits):
        server = grpc.aio.server(options=server_options())
        service = EnrolmentService(env, RateLimits(**(limits or GENEROUS)))
        add_EnrolmentServicer_to_server(service, server)
        identity = open_keys(tmp_path, env.clock()).server
        port = server.add_secure_port("127.0.0.1:0", renewing_credentials(lambda: identity, mutual=False))
        await server.start()
        trusted = grpc.ssl_channel_credentials(env.authority.pem)
        options = channel_options("coordinator.covey", "")
        channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", trusted, options)
        opened.append((channel, server))
        stub = EnrolmentStub(channel)

        async def ask(request):
            try:
                return await stub.Enrol(request, timeout=20)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error

        return ask

    yield start
    for channel, server in opened:
        await channel.close()
        await server.stop(None)


@pytest.fixture
def request_of(tmp_path):
    """A request with the keys of a folder, which are made at first."""

    def make(token, folder="alpha", **changes):
        secret = JoinToken.decode(token).secret if isinstance(token, str) else token
        csr, signing_key, proof = signing_request(tmp_path / f"keys-of-{folder}", "whoever")
        fields = {"token_secret": secret, "csr": csr, "signing_key": signing_key, "signing_proof": proof}
        return pb.EnrolRequest(**{**fields, **changes})

    return make


async def token_for(env, node="alpha", **fields):
    return (await create_token(env, admin_pb2.CreateTokenRequest(node=node, **fields))).token


async def events(env, kind="enrolment-refused"):
    found = await env.store.call(env.store.store.events)
    return [event for event in found if event.kind == kind]


# -- tokens


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


# -- redeeming them


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


# -- how often


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


def test_tries_come_back_with_time():
    clock = Clock()
    limits = RateLimits(each=(2, 0.5), total=(100, 100.0), clock=clock)
    for _ in range(2):
        limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")
    limits.admit("b")
    clock.now += 2
    limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")
    clock.now += 1000
    for _ in range(2):
        limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")


def test_all_together_are_bounded_too():
    clock = Clock()
    limits = RateLimits(each=(2, 1.0), total=(3, 1.0), clock=clock)
    for address in "abc":
        limits.admit(address)
    with pytest.raises(LimitExceeded):
        limits.admit("d")
    clock.now += 1
    limits.admit("d")


def test_a_good_try_is_given_back_but_no_more():
    limits = RateLimits(each=(1, 0.0), total=(1, 0.0), clock=Clock())
    for _ in range(5):
        limits.admit("a")
        limits.forgive("a")
    limits.forgive("a")
    limits.admit("a")
    with pytest.raises(LimitExceeded):
        limits.admit("a")


def test_many_addresses_take_no_endless_memory():
    limits = RateLimits(each=(1, 0.0), total=(10 * MAX_ADDRESSES, 0.0), clock=Clock())
    for number in range(2 * MAX_ADDRESSES):
        limits.admit(str(number))
    assert len(limits._buckets) == MAX_ADDRESSES
    with pytest.raises(LimitExceeded):
        limits.admit(str(2 * MAX_ADDRESSES - 1))


@pytest.mark.parametrize(
    ("peer", "site"),
    [
        ("ipv4:10.1.2.3:50000", "10.1.2.3"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:50000", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:10.1.2.3%5D:50000", "10.1.2.3"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::/64"),
        ("unix:/run/covey.sock", "unix:/run/covey.sock"),
        ("ipv4:what", "ipv4:what"),
    ],
)
def test_what_counts_as_one_address(peer, site):
    assert site_of(peer) == site


# -- renewal


@pytest.fixture
def renewal_of(request_of):
    def make(folder):
        asked = request_of(bytes(32), folder)
        return pb.RenewRequest(csr=asked.csr, signing_key=asked.signing_key, signing_proof=asked.signing_proof)

    return make


async def test_a_certificate_is_renewed_for_the_same_name(env, listen, request_of, renewal_of):
    ask = await listen()
    first = await ask(request_of(await token_for(env), "old"))
    old, new = renewal_of("old"), renewal_of("new")
    for asked in (old, new, new):
        reply = await renew(env, "alpha", asked)
        certificate = x509.load_pem_x509_certificate(reply.certificate)
        assert certificate.public_key() == x509.load_der_x509_csr(asked.csr).public_key()
        assert (reply.name, reply.role) == ("alpha", "node")
        assert reply.certificate != first.certificate
        record = await env.store.call(env.store.store.node, "alpha")
        assert record.signing_key == asked.signing_key
        assert int(record.certificate_serial, 16) == certificate.serial_number
    for asked in (old, new):
        kept = await env.store.call(env.store.store.signing_key, key_id(asked.signing_key))
        assert kept == asked.signing_key


async def test_nobody_renews_who_is_out_or_proves_nothing(env, listen, request_of, renewal_of):
    ask = await listen()
    await ask(request_of(await token_for(env), "mine"))
    mine, other = renewal_of("mine"), renewal_of("other")
    forged = pb.RenewRequest(csr=mine.csr, signing_key=other.signing_key, signing_proof=mine.signing_proof)
    with pytest.raises(IdentityError, match=UNPROVEN):
        await renew(env, "alpha", forged)
    with pytest.raises(NotFound):
        await renew(env, "beta", mine)
    await env.store.call(env.store.store.set_node_state, "alpha", "evicted")
    with pytest.raises(IdentityError, match="not enrolled any more"):
        await renew(env, "alpha", mine)


async def test_another_ones_signing_key_is_not_taken_at_renewal(env, listen, request_of, renewal_of):
    ask = await listen()
    await ask(request_of(await token_for(env, "alpha"), "alpha"))
    await ask(request_of(await token_for(env, "beta"), "beta"))
    with pytest.raises(Conflict, match="another identity"):
        await renew(env, "beta", renewal_of("alpha"))
