"""Enrolment on a real record, behind a real listener."""

import time

import grpc
import grpc.aio
import pytest

from covey.coordinator.config import CoordinatorConfig
from covey.coordinator.keys.keys import open_keys
from covey.coordinator.nodes.enrolment import Addresses, EnrolmentService, EnrolmentServices
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.rate_limits import RateLimits
from covey.coordinator.store_thread import StoreThread
from covey.protos import coordinator_pb2 as pb
from covey.protos.coordinator_pb2_grpc import EnrolmentStub, add_EnrolmentServicer_to_server
from covey.storage.sql.store import open_store
from covey.wire.channels import channel_options, renewing_credentials, server_options
from covey.wire.errors import from_rpc_error
from covey.wire.identities.identity import signing_request
from covey.wire.identities.tokens import JoinToken

GENEROUS = {"each": (10_000, 1.0), "total": (10_000, 1.0)}


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
