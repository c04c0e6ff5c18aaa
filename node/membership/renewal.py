"""A node's certificate is renewed in time: over the connection it has, for the keys it has."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from covey.errors import CoveyError
from covey.protos import coordinator_pb2 as pb
from covey.protos.coordinator_pb2_grpc import CoordinatorStub
from covey.wire.channels import secure_channel
from covey.wire.errors import from_rpc_error
from covey.wire.identities.identity import Identity, signing_request

if TYPE_CHECKING:
    from covey.protos.coordinator_pb2_grpc import CoordinatorAsyncStub

log = structlog.get_logger(room="node")
RENEW_BEFORE_S = 120 * 86400.0
LOOK_AGAIN_S = 3600.0
WORTH_S = 86400.0
"""A new certificate is worth a restart if it lasts at least so much longer."""
DEADLINE_S = 20.0


async def renew_when_due(identity: Identity, folder: Path, server: str) -> None:
    """Return once a new certificate is in the identity's folder; looks every hour whether it is time."""
    while True:
        if identity.expires_at - time.time() < RENEW_BEFORE_S:
            try:
                await renew(identity, folder, server)
                if Identity.load(folder).expires_at > identity.expires_at + WORTH_S:
                    return
                log.warning("the authority itself ends soon: a new certificate lasts no longer than the old one")
            except (grpc.aio.AioRpcError, CoveyError, OSError) as error:
                reason = str(from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else error)
                log.warning("the certificate could not be renewed yet", reason=reason)
        await asyncio.sleep(LOOK_AGAIN_S)


async def renew(identity: Identity, folder: Path, server: str) -> None:
    """Ask for a new certificate and put it into place."""
    csr, signing_key, proof = signing_request(folder, identity.name)
    request = pb.RenewRequest(csr=csr, signing_key=signing_key, signing_proof=proof)
    channel = secure_channel(server, identity, dummy="renewal")
    try:
        stub: CoordinatorAsyncStub = CoordinatorStub(channel)
        reply = await stub.Renew(request, timeout=DEADLINE_S)
    finally:
        await channel.close()
    Identity.write(
        folder,
        name=identity.name,
        role=identity.role,
        federation=identity.federation,
        server=identity.server,
        coordinator_key=identity.coordinator_key,
        certificate=reply.certificate,
        authority=identity.authority_pem,
    )
    log.info("certificate renewed")
