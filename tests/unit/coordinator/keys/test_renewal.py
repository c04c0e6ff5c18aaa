import asyncio
import socket
import ssl
import time

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from covey.coordinator.keys import renewal
from covey.coordinator.keys.keys import open_keys, write_admin_identity
from covey.coordinator.keys.renewal import OwnCertificate
from covey.errors import StoreError
from covey.wire.channels import renewing_credentials, secure_channel
from covey.wire.identities.identity import Identity

DAY_S = 86400.0
ADDRESS = "coordinator.example:7400"


@pytest.fixture
def own(tmp_path):
    keys = open_keys(tmp_path, time.time())
    write_admin_identity(tmp_path, keys, ADDRESS, time.time())
    return OwnCertificate(tmp_path, keys)


@pytest.fixture
async def listener(own):
    """The address of a server that shows the newest certificate."""
    server = grpc.aio.server()
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_secure_port("127.0.0.1:0", renewing_credentials(lambda: own.identity, mutual=True))
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def shown(address, folder):
    """The certificate that a new connection is shown (PEM)."""
    context = ssl.create_default_context(cafile=folder / "authority.crt")
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname="coordinator.covey") as secure,
    ):
        return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"").encode()


async def check(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status


def test_nothing_is_renewed_before_its_time(own, tmp_path):
    before = own.identity.certificate_pem
    assert not own.renew_when_due(ADDRESS, time.time())
    assert own.identity.certificate_pem == before == Identity.load(tmp_path / "keys").certificate_pem


def test_near_the_authoritys_end_a_new_certificate_is_no_better(monkeypatch, tmp_path):
    monkeypatch.setattr("covey.wire.identities.authority.AUTHORITY_DAYS", 60)
    own = OwnCertificate(tmp_path, open_keys(tmp_path, time.time()))
    assert own.identity.expires_at < time.time() + 61 * DAY_S
    assert not own.renew_when_due(ADDRESS, time.time())


async def test_new_connections_are_shown_the_renewed_certificate_and_old_ones_stay(own, listener, tmp_path):
    admin = Identity.load(tmp_path / "admin")
    async with secure_channel(listener, admin) as channel:
        assert await check(channel) == health_pb2.HealthCheckResponse.SERVING
        first = own.identity
        assert await asyncio.to_thread(shown, listener, tmp_path / "admin") == first.certificate_pem
        assert own.renew_when_due(ADDRESS, time.time() + 300 * DAY_S)
        assert own.identity.certificate_pem != first.certificate_pem
        assert own.identity.key_pem == first.key_pem
        assert await asyncio.to_thread(shown, listener, tmp_path / "admin") == own.identity.certificate_pem
        assert await check(channel) == health_pb2.HealthCheckResponse.SERVING
    assert Identity.load(tmp_path / "admin").certificate_pem != admin.certificate_pem


async def test_it_looks_again_and_again_also_after_a_failure(own, monkeypatch):
    asked = []

    def failing(address, now):
        asked.append(address)
        if len(asked) == 1:
            raise StoreError("the disk is full")
        raise asyncio.CancelledError

    monkeypatch.setattr(renewal, "CHECK_S", 0.0)
    monkeypatch.setattr(own, "renew_when_due", failing)
    with pytest.raises(asyncio.CancelledError):
        await own.keep(ADDRESS)
    assert asked == [ADDRESS, ADDRESS]
