"""The certificate that is shown at an address is looked at as gRPC would come there: through a proxy, too."""

import asyncio
import base64
import contextlib

import grpc.aio
import pytest
from cryptography import x509

from covey.errors import IdentityError, TransferError
from covey.testing.relay import RelayThread
from covey.wire.channels import key_sha256, listen, renewing_credentials
from covey.wire.pinning import pinned_certificate
from covey.wire.splicing import splice

NAME = "alpha.node.covey"


def fingerprint_of(identity):
    return key_sha256(x509.load_pem_x509_certificate(identity.certificate_pem).public_key())


@contextlib.asynccontextmanager
async def server_of(identity):
    """A server of alpha's; its port."""
    server = grpc.aio.server()
    port = listen(server, "127.0.0.1:0", renewing_credentials(lambda: identity("alpha"), mutual=True), "--listen")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def test_a_proxy_is_gone_through_as_grpc_does_it(identity, authority, monkeypatch):
    async with server_of(identity) as port:
        asked = []

        async def connect(reader, writer):
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if "alpha.example.org:7410 " not in asked[-1]:
                writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await splice(reader, writer, *await asyncio.open_connection("127.0.0.1", port))

        proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
        where = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("https_proxy", f"http://ada:p%40ss@{where}")
        right = fingerprint_of(identity("alpha"))
        shown = await pinned_certificate("alpha.example.org:7410", NAME, right, authority.pem)
        assert shown.startswith(b"-----BEGIN CERTIFICATE-----")
        assert base64.b64encode(b"ada:p@ss").decode() in asked[0]
        with pytest.raises(TransferError, match="403 Forbidden"):
            await pinned_certificate("elsewhere.example.org:7410", NAME, right, authority.pem)
        proxy.close()


async def test_who_is_somebody_else_is_refused_and_who_is_not_there_too(identity, authority, tmp_path):
    async with server_of(identity) as port:
        here, right = f"127.0.0.1:{port}", fingerprint_of(identity("alpha"))
        assert await pinned_certificate(here, NAME, right, authority.pem)
        for name, fingerprint, words in (
            ("beta.node.covey", right, "is not beta.node.covey"),
            (NAME, "0" * 64, "another key than the one that is pinned"),
        ):
            with pytest.raises(IdentityError, match=words):
                await pinned_certificate(here, name, fingerprint, authority.pem)
        foreign = authority.open(tmp_path / "foreign")
        with pytest.raises(IdentityError, match="is not alpha"):
            await pinned_certificate(here, NAME, right, foreign.pem)
    with pytest.raises(TransferError, match="nobody shows a certificate"):
        await pinned_certificate(here, NAME, right, authority.pem)


async def test_a_handshake_that_breaks_off_is_said_at_once_and_not_when_the_time_is_over(authority):
    with RelayThread("127.0.0.1:9") as relay:  # resets each connection, sooner or later: nobody is behind it
        async with asyncio.timeout(10):  # each look may take longer
            for _ in range(50):
                with pytest.raises(TransferError, match="nobody shows a certificate") as raised:
                    await pinned_certificate(relay.address, NAME, "", authority.pem)
                assert not str(raised.value).endswith((": ", "TimeoutError"))
