import asyncio
import threading
import time

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from covey.coordinator.admin import health
from covey.coordinator.admin.health import CoordinatorHealth
from covey.coordinator.nodes.members import Members
from covey.coordinator.store_thread import StoreThread
from covey.errors import StoreUnavailable
from covey.storage.record.contract import NodeRecord
from covey.wire.channels import certified_peer, secure_channel, server_credentials


class Store:
    """Counts its questions, and answers them or not."""

    def __init__(self):
        self.asked, self.away, self.free = 0, False, threading.Event()
        self.free.set()

    def setting(self, key):
        self.asked += 1
        self.free.wait()
        if self.away:
            raise StoreUnavailable("no connection")

    def close(self):
        self.free.set()


@pytest.fixture
async def store():
    answers = Store()
    thread = StoreThread(answers)  # type: ignore[arg-type]  # health needs no more of a store
    yield thread
    answers.free.set()
    await thread.close()


@pytest.fixture
def members(store):
    return Members(store)


@pytest.fixture
def evicted(members):
    return members.evicted


@pytest.fixture
async def channel_of(store, identity, members):
    """Opens channels to a server: `channel_of(name, role)`."""
    server, open_ones = grpc.aio.server(), []
    server.add_generic_rpc_handlers((CoordinatorHealth(store, members).handler(),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(identity("coordinator", "coordinator")))
    await server.start()

    def make(name="boss", role="admin"):
        caller = identity(name, role)
        serial = certified_peer(caller.certificate_pem).serial
        members.register(NodeRecord(name, role, "active", 1.0, certificate_serial=serial))
        open_ones.append(secure_channel(f"127.0.0.1:{port}", caller))
        return open_ones[-1]

    yield make
    for one in open_ones:
        await one.close()
    await server.stop(None)


async def check(channel, service=""):
    reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


async def refused(channel, service=""):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(channel, service)
    return caught.value.code()


async def test_the_store_is_looked_at_when_somebody_asks(channel_of, store):
    boss = channel_of()
    assert [await check(boss), await check(boss, "store")] == ["SERVING", "SERVING"]
    store.store.away = True
    assert [await check(boss), await check(boss, "store")] == ["SERVING", "NOT_SERVING"]
    assert not store.up
    store.store.away = False
    assert await check(boss, "store") == "SERVING"
    assert store.up


async def test_many_callers_make_one_question(store, members):
    service = CoordinatorHealth(store, members)
    store.store.free.clear()
    answers = [asyncio.create_task(service.store_serves()) for _ in range(20)]
    await asyncio.sleep(0)  # now all of them wait
    store.store.free.set()
    assert await asyncio.gather(*answers) == [True] * 20
    assert store.store.asked == 1


async def test_a_busy_store_is_what_it_was_when_it_last_answered(channel_of, store, monkeypatch):
    monkeypatch.setattr(health, "PROBE_S", 0.05)
    store.store.free.clear()
    boss = channel_of()
    assert await check(boss, "store") == "SERVING"
    store.up = False
    assert await check(boss, "store") == "NOT_SERVING"
    assert store.store.asked == 1


async def test_an_unknown_service_is_not_found(channel_of):
    assert await refused(channel_of(), "weather") == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("role", ["node", "admin", "auditor"])
async def test_whoever_is_enrolled_may_ask_until_evicted_or_expired(channel_of, evicted, monkeypatch, store, role):
    somebody = channel_of("somebody", role)
    assert await check(somebody, "store") == "SERVING"
    evicted.add("somebody")
    denied, asked = grpc.StatusCode.PERMISSION_DENIED, store.store.asked
    assert [await refused(somebody), await refused(somebody, "store")] == [denied, denied]
    evicted.clear()
    in_two_years = time.time() + 2 * 366 * 86400
    monkeypatch.setattr(time, "time", lambda: in_two_years)  # the connection stays
    assert await refused(somebody, "store") == denied
    assert store.store.asked == asked


async def test_nobody_can_watch(channel_of, evicted):
    """Neither those who read nothing, nor those who were evicted, can hold on to anything."""
    evicted.add("gone")
    for name in ("boss", "gone"):
        watch = health_pb2_grpc.HealthStub(channel_of(name, "node")).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
