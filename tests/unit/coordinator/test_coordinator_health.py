import asyncio
import threading

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator import health
from coordinator.environment import StoreThread
from coordinator.health import CoordinatorHealth
from covey.errors import StoreUnavailable


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
    made = StoreThread(Store())
    yield made
    made.store.free.set()
    await made.close()


@pytest.fixture
async def ask(store):
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(CoordinatorHealth(store), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def check(service=""):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)

        yield check
    await server.stop(None)


async def test_the_store_is_looked_at_when_somebody_asks(ask, store):
    assert [await ask(), await ask("store")] == ["SERVING", "SERVING"]
    store.store.away = True
    assert [await ask(), await ask("store")] == ["SERVING", "NOT_SERVING"]
    assert not store.up
    store.store.away = False
    assert await ask("store") == "SERVING"
    assert store.up


async def test_many_callers_make_one_question(store):
    service, request = CoordinatorHealth(store), health_pb2.HealthCheckRequest(service="store")
    store.store.free.clear()
    answers = [asyncio.create_task(service.Check(request, None)) for _ in range(20)]
    await asyncio.sleep(0)  # now all of them wait
    store.store.free.set()
    replies = await asyncio.gather(*answers)
    assert {reply.status for reply in replies} == {health_pb2.HealthCheckResponse.SERVING}
    assert store.store.asked == 1


async def test_a_busy_store_is_what_it_was_when_it_last_answered(ask, store, monkeypatch):
    monkeypatch.setattr(health, "PROBE_S", 0.05)
    store.store.free.clear()
    assert await ask("store") == "SERVING"
    store.up = False
    assert await ask("store") == "NOT_SERVING"
    assert store.store.asked == 1


async def test_an_unknown_service_is_not_found(ask):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask("weather")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
