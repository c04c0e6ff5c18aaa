import json

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from covey.node.operator.health import ANNOUNCEMENT, MAX_REQUEST_BYTES, listening
from covey.wire.channels import secure_channel
from covey.wire.identities.authority import Authority


async def ask(address, identity, service="", name="n0"):
    async with secure_channel(address, identity, server_name=f"{name}.node.covey") as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        reply = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=20)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


async def refused(address, identity, service="", name="n0"):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(address, identity, service, name)
    return caught.value.code()


async def test_a_node_asks_for_its_own_health(identity, tmp_path):
    own, up = identity("n0"), True
    async with listening(lambda: own, tmp_path, {"session": lambda: up}) as address:
        assert address.startswith("127.0.0.1:")
        assert json.loads((tmp_path / ANNOUNCEMENT).read_text())["listen"] == address
        assert [await ask(address, own), await ask(address, own, "session")] == ["SERVING", "SERVING"]
        up = False
        assert [await ask(address, own), await ask(address, own, "session")] == ["SERVING", "NOT_SERVING"]
        assert await refused(address, own, "store") == grpc.StatusCode.NOT_FOUND
        assert await refused(address, own, "x" * MAX_REQUEST_BYTES) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not (tmp_path / ANNOUNCEMENT).exists()
    assert await refused(address, own) == grpc.StatusCode.UNAVAILABLE


async def test_nobody_else_is_answered(identity, tmp_path):
    own = identity("n0")
    async with listening(lambda: own, tmp_path, {"session": lambda: True}) as address:
        denied = grpc.StatusCode.PERMISSION_DENIED
        assert await refused(address, identity("n1")) == denied
        assert await refused(address, identity("alice", "admin")) == denied
        assert await refused(address, identity("n0", "admin")) == denied
        assert (
            await refused(address, identity("n0", by=Authority.open(tmp_path / "theirs")))
            == grpc.StatusCode.UNAVAILABLE
        )
        certified = grpc.ssl_channel_credentials(identity("n0").authority_pem)  # shows no certificate
        options = [("grpc.ssl_target_name_override", "n0.node.covey")]
        async with grpc.aio.secure_channel(address, certified, options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_what_another_process_announced_stays(identity, tmp_path):
    own = identity("n0")
    async with listening(lambda: own, tmp_path, {"session": lambda: True}):
        (tmp_path / ANNOUNCEMENT).write_text(json.dumps({"listen": "127.0.0.1:1", "pid": 1}))
    assert (tmp_path / ANNOUNCEMENT).exists()
