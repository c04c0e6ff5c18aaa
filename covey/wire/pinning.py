"""A channel to somebody whose key is pinned trusts one certificate only: the one with that key.

gRPC checks authority and name, and cannot be told of a key. So the certificate that is shown is looked at first, its
key compared, and then the channel is given that certificate in the authority's place (`secure_channel(trusted=...)`):
who answers it, now or after any cut, has the private key. After a renewal there is another one, to be looked at again.
"""

from __future__ import annotations

import asyncio
import ssl

import grpc.aio
from cryptography import x509

from covey.errors import IdentityError, TransferError
from covey.wire.addresses import host_and_port
from covey.wire.channels import key_sha256, secure_channel
from covey.wire.identities.identity import Identity
from covey.wire.proxies import MAX_REPLY_BYTES, proxy_of, refusal

LOOK_S = 15.0


async def pinned_certificate(address: str, server_name: str, fingerprint: str, authority_pem: bytes) -> bytes:
    """The certificate (PEM) that is shown at an address, if it is of the authority, for that name, and has that key.

    Args:
        address: `HOST:PORT`; a proxy of the environment is used as gRPC does it.
        server_name: Whose it must be, as in the certificate.
        fingerprint: SHA-256 (hex) of the key, as `key_sha256`.
        authority_pem: The authority's certificate.

    Raises:
        IdentityError: It is somebody else's, or has another key.
        TransferError: Nobody answers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority_pem.decode())
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(LOOK_S):
            shown = await _shown(address, context, server_name)
    except ssl.SSLCertVerificationError as error:
        raise IdentityError(f"who answers at {address} is not {server_name}: {error.verify_message}") from error
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:  # TLS that breaks off, and time that is over, too
        raise TransferError(f"nobody shows a certificate at {address}: {str(error) or type(error).__name__}") from error
    certificate = x509.load_der_x509_certificate(shown)
    if (key := key_sha256(certificate.public_key())) != fingerprint:
        raise IdentityError(
            f"who answers at {address} has a certificate for {server_name}, but another key than the one that is "
            f"pinned ({key[:12]}..., not {fingerprint[:12]}...)"
        )
    return ssl.DER_cert_to_PEM_cert(shown).encode()


async def pinned_channel(
    address: str, identity: Identity, *, server_name: str, fingerprint: str, dummy: str
) -> grpc.aio.Channel:
    """A channel for a few calls; who renews its certificate meanwhile breaks it.

    Args:
        address: As for `pinned_certificate`, as `server_name` and `fingerprint`.
        identity: Of the caller.
        server_name: Whose certificate it must be.
        fingerprint: Of its key; empty: any of the authority's certificates for that name counts.
        dummy: As for `secure_channel`.

    Raises:
        IdentityError, TransferError: As `pinned_certificate`; nothing was said to whoever answers there.
    """
    trusted = b""
    if fingerprint:
        trusted = await pinned_certificate(address, server_name, fingerprint, identity.authority_pem)
    return secure_channel(address, identity, server_name=server_name, dummy=dummy, trusted=trusted)


async def _shown(address: str, context: ssl.SSLContext, server_name: str) -> bytes:
    """The certificate, DER; the connection is ended."""
    proxy = proxy_of(address)
    place = (proxy.host, proxy.port) if proxy else host_and_port(address)
    reader, writer = await asyncio.open_connection(*place, limit=MAX_REPLY_BYTES)
    try:
        if proxy:
            writer.write(proxy.request(address))
            status = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0]
            if refused := refusal(status, proxy, address):
                raise ConnectionError(refused)
        await writer.start_tls(context, server_hostname=server_name)
        secured = writer.get_extra_info("ssl_object")
        shown: bytes | None = secured.getpeercert(binary_form=True)
        if shown is None:
            raise ConnectionError("it shows none")
        return shown
    finally:
        writer.transport.abort()  # nothing waits for its end: after a handshake that failed nobody would say so
