"""One mutually authenticated connection to a coordinator's admin service, and why there is none."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import grpc

from covey.errors import CoveyError, IdentityError
from covey.protos import admin_pb2 as pb
from covey.protos.admin_pb2_grpc import AdminStub
from covey.wire.authority import COORDINATOR_NAME
from covey.wire.errors import CODE_KEY, from_rpc_error
from covey.wire.identity import Identity

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from covey.cli.framework.options import Target

DEADLINE_S = 10.0
AUDIT_DEADLINE_S = 300.0
PROBE_S = 2.0
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""Statuses that no handler gave: there is no connection, or the coordinator stops."""
MAX_RECONNECT_MS = 1000


class Unreachable(CoveyError):
    """The coordinator does not answer now; trying again later may succeed."""

    code = "unreachable"


def announced_address(data_dir: Path) -> str | None:
    """Where the coordinator of a data directory listens, as seen from this machine; None if none runs."""
    try:
        listen = str(json.loads((data_dir / "coordinator.json").read_text())["listen"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    host, _, port = listen.rpartition(":")
    address = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host), int(port)
    try:
        # The file outlives a coordinator that was killed; its port does not.
        socket.create_connection((address[0].strip("[]"), address[1]), PROBE_S).close()
    except OSError:
        return None
    return f"{address[0]}:{address[1]}"


def connect(target: Target) -> Admin:
    """Connect as the target says.

    Raises:
        Unreachable: No coordinator runs on the data directory; the message says how to start it.
        IdentityError: The identity's folder is incomplete, or its certificate is not valid (any more).
    """
    if target.data_dir is None:
        return Admin(str(target.server), cast(Path, target.identity))
    address = announced_address(target.data_dir)
    if address is None:
        raise Unreachable(
            f"no coordinator is running on {target.data_dir}; "
            f"start it with: covey coordinator start --data-dir {target.data_dir}"
        )
    return Admin(address, target.data_dir / "admin")


class Admin:
    """The admin service of one coordinator. Calls raise the `CoveyError` that the coordinator names."""

    def __init__(self, address: str, folder: Path) -> None:
        """Open a channel.

        Args:
            address: The coordinator's main listener, `host:port`.
            folder: The caller's identity (`tls.key`, `tls.crt`, `authority.crt`, `federation.json`).
        """
        self.address, self.folder = address, folder
        self._channel = grpc.secure_channel(
            address,
            _credentials(folder),
            [("grpc.ssl_target_name_override", COORDINATOR_NAME), ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS)],
        )
        self._stub = AdminStub(self._channel)

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    @property
    def identity(self) -> Identity:
        """Who the caller is, and the federation and coordinator that enrolled it."""
        return Identity.load(self.folder)

    def call(self, method: str, request: Message, *, deadline_s: float = DEADLINE_S) -> Any:
        """Call one unary method of `covey.v1.Admin` by name; its reply.

        Raises:
            Unreachable: No answer within the deadline; where the own certificate explains it, IdentityError.
            CoveyError: What the coordinator said, as the class of its code.
        """
        with self._translated():
            return getattr(self._stub, method)(request, timeout=deadline_s)

    def stream(self, method: str, request: Message) -> Iterator[Any]:
        """Call one streaming method; its messages. No deadline: a run may last for days.

        Raises:
            CoveyError: As `call`.
        """
        call = getattr(self._stub, method)(request)
        try:
            with self._translated():
                yield from call
        finally:
            call.cancel()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._explained(error) from error

    def _explained(self, error: grpc.RpcError) -> CoveyError:
        status = error.code()
        said_by_covey = CODE_KEY in dict(cast(Any, error.trailing_metadata()) or ())
        if said_by_covey or status not in AWAY:
            return from_rpc_error(error)
        reason = self.identity.explain()
        if reason:
            return IdentityError(reason)
        return Unreachable(f"the coordinator at {self.address} does not answer: {error.details()}")

    # -- what the reading commands ask

    def runs(self, limit: int) -> list[pb.Run]:
        """The newest runs."""
        return list(self.call("ListRuns", pb.ListRunsRequest(limit=limit)).runs)

    def run(self, run: str) -> pb.Run:
        """A run by its id, or by its name."""
        return cast(pb.Run, self.call("ShowRun", pb.RunRequest(run=run)))

    def rounds(self, run: str) -> list[pb.Round]:
        """A run's rounds in order."""
        return list(self.call("ListRounds", pb.RunRequest(run=run)).rounds)

    def round(self, run: str, number: int) -> pb.RoundDetail:
        """One round, its updates and its version."""
        return cast(pb.RoundDetail, self.call("ShowRound", pb.RoundRequest(run=run, round=number)))

    def version(self, run: str, number: int) -> pb.Version:
        """A version by its number; -1: the newest, -2: the best."""
        return cast(pb.Version, self.call("LocateVersion", pb.LocateVersionRequest(run=run, version=number)))

    def chunks(self, run: str, version: pb.Version) -> Iterator[bytes]:
        """The version's file, chunk by chunk."""
        request = pb.LocateVersionRequest(run=run, version=version.version)
        return (chunk.data for chunk in self.stream("DownloadVersion", request))

    def signed(self, run: str) -> pb.AuditReply:
        """Every signed statement of a run."""
        return cast(pb.AuditReply, self.call("AuditRun", pb.RunRequest(run=run), deadline_s=AUDIT_DEADLINE_S))

    def nodes(self) -> list[pb.Node]:
        """All nodes by name."""
        return list(self.call("ListNodes", pb.ListNodesRequest()).nodes)

    def node(self, node: str) -> pb.NodeDetail:
        """One node and its events."""
        return cast(pb.NodeDetail, self.call("ShowNode", pb.NodeRequest(node=node)))


def _credentials(folder: Path) -> grpc.ChannelCredentials:
    try:
        key, certificate, authority = ((folder / name).read_bytes() for name in ("tls.key", "tls.crt", "authority.crt"))
    except OSError as error:
        raise IdentityError(
            f"{folder} is not an identity: {error.strerror} ({error.filename}); "
            "get one with: covey coordinator admin issue NAME --to DIR"
        ) from error
    return grpc.ssl_channel_credentials(authority, key, certificate)
