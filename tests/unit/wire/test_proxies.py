"""Proxies of the environment: gRPC itself goes through a real one, and what it does not get is said in words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from covey.testing.launch.processes import wait_until
from covey.testing.links.http_proxy import HttpProxy
from covey.wire import channels, reach
from covey.wire.channels import listen, secure_channel, server_credentials, server_options
from covey.wire.identities import authority
from covey.wire.identities.authority import Authority
from covey.wire.identities.identity import Identity
from covey.wire.proxies import proxy_of, unused_proxy

TRAIN = "train.covey.invalid:443"
"""It has no address anywhere: only a proxy leads there."""


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxies of this machine's own."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.asynccontextmanager
async def served(identity: Identity) -> AsyncIterator[str]:
    """The address of a coordinator that answers how it is."""
    server = grpc.aio.server(options=server_options())
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = listen(server, "127.0.0.1:0", server_credentials(identity), "--listen")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def ask(channel: grpc.aio.Channel) -> int:
    reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    return int(reply.status)


async def why() -> str:
    return await reach.why_unreachable(TRAIN)


async def test_grpc_goes_through_it_with_name_and_password(identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(identity("coordinator", "coordinator")) as address:
        with HttpProxy({TRAIN: address}, user="ada:p@ss") as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            async with secure_channel(TRAIN, identity()) as channel:
                assert await ask(channel) == health_pb2.HealthCheckResponse.SERVING
            assert set(proxy.asked) == {(TRAIN, 200)}
            told = await why()
            assert "it is there and shakes hands" in told
            assert "p%40ss" in proxy.url
            assert "ada" not in told


BEARS_S = 60.0
"""So long many proxies let a tunnel be quiet, as docs/deploy.md says."""


def test_a_quiet_connection_is_pinged_in_time() -> None:
    assert 3 * channels.KEEPALIVE_MS <= 1000 * BEARS_S


@pytest.mark.parametrize("keeps_alive", [True, False])
async def test_pings_go_through_a_quiet_tunnel_which_is_cut_without_them(
    keeps_alive: bool, identity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No clock of this machine's decides: with pings the proxy bears what the product counts on, 60 times a ping's."""
    monkeypatch.setattr(channels, "KEEPALIVE_MS", 1000 if keeps_alive else 3_600_000)
    async with served(identity("coordinator", "coordinator")) as address:
        with HttpProxy({TRAIN: address}, idle_s=BEARS_S if keeps_alive else 3.0) as proxy:
            monkeypatch.setenv("grpc_proxy", proxy.url)
            async with secure_channel(TRAIN, identity()) as channel:
                if keeps_alive:
                    await ask(channel)
                    pieces = proxy.pieces
                    assert await asyncio.to_thread(wait_until, lambda: proxy.pieces >= pieces + 12, 60)
                    await ask(channel)
                    assert (proxy.tunnels, proxy.cut) == (1, 0)
                else:
                    with contextlib.suppress(grpc.aio.AioRpcError):  # on a slow machine it is cut even before
                        await ask(channel)
                    assert await asyncio.to_thread(wait_until, lambda: proxy.cut > 0, 60)


async def test_what_a_proxy_answers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with HttpProxy({TRAIN: "127.0.0.1:9"}, user="ada:secret") as proxy:
        where = proxy.url.rpartition("@")[2]
        for url, route, words in (
            (
                f"http://{where}",
                TRAIN,
                "wants a name and a password (407 Proxy Authentication Required); write them into",
            ),
            (f"http://ada:wrong@{where}", TRAIN, "refuses this name and password (407"),
            (
                proxy.url,
                "elsewhere.covey.invalid:7400",
                "have its operator allow CONNECT to elsewhere.covey.invalid:7400",
            ),
            (proxy.url, TRAIN, f"cannot reach {TRAIN} itself (502 Bad Gateway)"),
        ):
            monkeypatch.setenv("https_proxy", url)
            told = await reach.why_unreachable(route)
            assert words in told
            assert f"the proxy http://{where} (https_proxy)" in told
            assert "ada:" not in told
        proxy.stop()
        told = await why()
        assert "does not answer: Connection refused" in told
        assert "add train.covey.invalid to no_proxy" in told


async def test_what_is_no_proxy_is_said(identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-elsewhere\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert "is no HTTP proxy" in await why()
    server.close()


async def test_a_proxy_that_opens_tls_is_refused_and_named(
    identity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows what its own authority has issued: for the coordinator's name, or for another."""
    with monkeypatch.context() as patch:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Inspection of Example Ltd")])
        patch.setattr(authority, "OWN_NAME", name)
        inspector = Authority.open(tmp_path / "inspector")
    for role, words in (("coordinator", "is not of this federation"), ("node", "is not a coordinator of Covey")):
        async with served(identity("coordinator", role, by=inspector)) as address:
            with HttpProxy({TRAIN: address}) as proxy:
                monkeypatch.setenv("https_proxy", proxy.url)
                own = identity()
                async with secure_channel(TRAIN, own) as channel:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await ask(channel)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                told = await reach.why_unreachable(TRAIN, own.authority_pem)
                assert words in told
                assert "issued by 'CN=Inspection of Example Ltd'" in told
                assert "if that is a firewall's or a proxy's own authority, TLS is intercepted on the way" in told
                assert "ask those who run it to except this destination from inspection" in told
                assert str(proxy_of(TRAIN)) in told


@pytest.mark.parametrize(
    ("env", "goes", "unused"),
    [
        ({"grpc_proxy": "", "https_proxy": "http://p:1"}, "None", ""),
        ({"http_proxy": "http://p:1", "no_grpc_proxy": "", "no_proxy": "invalid"}, "http://p:1 (http_proxy)", ""),
        ({"https_proxy": "http://p:1", "no_proxy": "a, covey.invalid"}, "None", ""),
        ({"https_proxy": "http://p"}, "http://p:443 (https_proxy)", ""),
        ({"https_proxy": "https://p:1"}, "None", "https_proxy names a proxy that is not used"),
        ({"https_proxy": "p:3128"}, "None", "its address has to be http://HOST:PORT"),
        ({"HTTPS_PROXY": "http://p:1"}, "None", "HTTPS_PROXY is not read"),
    ],
)
def test_variables_are_read_as_grpc_does(
    env: dict[str, str], goes: str, unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert str(proxy_of(TRAIN)) == goes
    assert unused in unused_proxy(TRAIN)
    assert bool(unused) is bool(unused_proxy(TRAIN))


def test_a_network_may_be_excepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    assert proxy_of("10.1.2.3:7400") is None
    assert proxy_of("11.1.2.3:7400") is not None
