"""Joining a federation, from the new member's side: keys are made here, only public halves leave."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, cast

import grpc
import stamina
from cryptography import x509

from covey import faults
from covey.errors import Conflict, CoveyError, IdentityError, LimitExceeded
from covey.node.operator.config import IDENTITY_FOLDER, SETTINGS_FILE
from covey.node.operator.default_settings import DEFAULT_SETTINGS
from covey.protos import coordinator_pb2 as pb
from covey.protos.coordinator_pb2_grpc import EnrolmentStub
from covey.storage.files.data_lock import held
from covey.wire.errors import CODE_KEY, from_rpc_error
from covey.wire.identities.authority import COORDINATOR_NAME, private_pem
from covey.wire.identities.identity import Identity, signing_key_in, signing_request, tls_key_in
from covey.wire.identities.tokens import JoinToken
from covey.wire.proxies import proxy_options
from covey.wire.reach import why

DEADLINE_S = 20.0
BUSY_S = 90.0
"""How long a listener that admits no more for now is asked again."""


class EnrolmentUnreachable(CoveyError):
    """The enrolment listener does not answer; the same token can be used again later."""

    code = "unreachable"


def join(token: str, data_dir: Path) -> Identity:
    """Make this machine a node: an identity and a `node.toml` in its data directory.

    If the answer is lost, calling it again with the same token completes it: the keys are kept.

    Args:
        token: A join token, as `covey coordinator token` prints it.
        data_dir: The node's own folder; made if missing.

    Raises:
        IdentityError: The token is damaged, expired, used with other keys, or not for a node.
        Conflict: The folder holds an identity already.
        EnrolmentUnreachable: The coordinator cannot be reached.
    """
    role = JoinToken.decode(token).role
    if role != "node":
        raise IdentityError(f"this token is for role {role!r}; a node needs one from: covey coordinator token")
    identity = enrol(token, data_dir / IDENTITY_FOLDER)
    settings = data_dir / SETTINGS_FILE
    if not settings.exists():
        settings.write_text(DEFAULT_SETTINGS)
    return identity


def check_keys(folder: Path) -> None:
    """See that keys that are there already, of an earlier try, can be used.

    Raises:
        IdentityError: A key file is damaged or cannot be read.
    """
    for name, read in (("tls.key", tls_key_in), ("signing.key", signing_key_in)):
        if (folder / name).exists():
            read(folder / name)


def enrol(token: str, folder: Path) -> Identity:
    """Redeem a join token of any role into an identity's folder.

    Raises:
        CoveyError: As `join`.
    """
    decoded = JoinToken.decode(token)
    if (folder / "federation.json").exists():
        name = Identity.load(folder).name
        raise Conflict(f"{folder} holds the identity of {name!r} already; name a new folder")
    if decoded.expires_at <= time.time() and not (folder / "tls.key").exists():
        now, ended = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(t)) for t in (time.time(), decoded.expires_at))
        raise IdentityError(
            f"the join token has expired, at {ended} UTC (this machine's clock says {now} UTC; is it right?); "
            "ask the coordinator's operator for a new one"
        )
    try:
        csr, signing_key, proof = signing_request(folder, decoded.name)
    except OSError as error:
        raise CoveyError(
            f"keys cannot be written into {folder} ({error.strerror}: {error.filename}); "
            "name a folder that this user may write"
        ) from error
    request = pb.EnrolRequest(token_secret=decoded.secret, csr=csr, signing_key=signing_key, signing_proof=proof)
    reply = _ask(decoded, request)
    faults.reach("token-redeemed")
    _complete(folder, decoded, reply)
    return Identity.load(folder)


@stamina.retry(on=LimitExceeded, attempts=None, timeout=BUSY_S, wait_initial=0.2, wait_max=5.0)
def _ask(token: JoinToken, request: pb.EnrolRequest) -> pb.EnrolReply:
    shown = (private_pem(token.entry_key), token.entry_pem) if token.entry_pem else (None, None)
    credentials = grpc.ssl_channel_credentials(token.authority_pem, *shown)
    options = [("grpc.ssl_target_name_override", COORDINATOR_NAME), *proxy_options(token.enrol)]
    with grpc.secure_channel(token.enrol, credentials, options) as channel:
        try:
            reply: pb.EnrolReply = EnrolmentStub(channel).Enrol(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            raise _explained(token, error) from error
    return reply


def _explained(token: JoinToken, error: grpc.RpcError) -> CoveyError:
    if CODE_KEY in dict(cast(Any, error.trailing_metadata()) or ()):
        return from_rpc_error(error)
    reason = why(token.enrol, token.authority_pem, enrolling=not token.entry_pem)
    return EnrolmentUnreachable(
        f"the coordinator cannot be reached at {token.enrol} to enrol: {reason}; "
        "if it is reached at another address, its operator starts it with --advertise and --advertise-enrol"
    )


def _complete(folder: Path, token: JoinToken, reply: pb.EnrolReply) -> None:
    """Write what was certified, if it is what was asked for."""
    certificate = x509.load_pem_x509_certificate(reply.certificate)
    own = tls_key_in(folder / "tls.key").public_key()
    if not token.allows(reply.name) or reply.role != token.role or certificate.public_key() != own:
        raise IdentityError("the coordinator certified something else than was asked; do not use this federation")
    Identity.write(
        folder,
        name=reply.name,
        role=reply.role,
        federation=reply.federation,
        server=token.server,
        coordinator_key=reply.coordinator_key,
        certificate=reply.certificate,
        authority=token.authority_pem,
    )


def leave(data_dir: Path) -> Identity:
    """Delete a node's keys and certificate; its data and settings stay. Returns what it was.

    Raises:
        IdentityError: It has not joined.
        Conflict: Its daemon runs: it has the keys in memory, and would stay.
    """
    identity = Identity.load(data_dir / IDENTITY_FOLDER)
    try:
        with held(data_dir, "node"):
            shutil.rmtree(data_dir / IDENTITY_FOLDER)
    except Conflict as error:
        raise Conflict(f"{identity.name} cannot leave while its daemon runs: {error}") from error
    return identity
