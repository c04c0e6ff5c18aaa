"""The coordinator's admin service as plain dictionaries, for tests and benchmarks that ask often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from covey.cli.framework.fields import NODE_FIELDS, ROUND_FIELDS, RUN_DETAIL_FIELDS, RUN_FIELDS, plain
from covey.client.reading.translation import value_of
from covey.client.values import Node, Round, Run
from covey.errors import CoveyError, by_code
from covey.protos import admin_pb2 as pb
from covey.protos.admin_pb2_grpc import AdminStub

COORDINATOR_NAME = "coordinator.covey"
DEADLINE_S = 10.0
SUBMIT_DEADLINE_S = 300.0
"""The model is made for it, which takes as long as it is large."""
JSON_FIELDS = frozenset({"metrics", "numbers", "detail", "spec"})


class AdminClient:
    """One mutually authenticated channel with an admin's identity. Every call has a deadline.

    Calls raise the `CoveyError` that the coordinator names, or `ConnectionError` while it cannot be reached.
    """

    def __init__(self, address: str, identity: Path) -> None:
        """Open a channel.

        Args:
            address: The coordinator's main listener, `host:port`.
            identity: Folder with `tls.key`, `tls.crt` and `authority.crt`.
        """
        authority, key, certificate = (
            (identity / name).read_bytes() for name in ("authority.crt", "tls.key", "tls.crt")
        )
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        # A channel that was refused once waits up to this long before it tries again.
        options = [
            ("grpc.ssl_target_name_override", COORDINATOR_NAME),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.secure_channel(address, credentials, options)
        self._stub = AdminStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def call(self, method: str, request: Message, deadline_s: float = DEADLINE_S) -> Any:
        """Call a method of `covey.v1.Admin`; its reply."""
        try:
            return getattr(self._stub, method)(request, timeout=deadline_s)
        except grpc.RpcError as error:
            raise _translated(method, error) from error

    def status(self) -> dict[str, Any]:
        """What the coordinator says of itself: `version`, `federation`, `state`, `nodes_connected`, ..."""
        return fields_of(self.call("Status", pb.StatusRequest()))

    def create_token(self, name: str, *, role: str = "node", expires_s: float = 3600.0) -> str:
        """A one-time join token."""
        request = pb.CreateTokenRequest(node=name, expires_s=expires_s, role=role)
        return str(self.call("CreateToken", request).token)

    def submit(self, spec_toml: str) -> str:
        """Submit a run; its id."""
        return str(self.call("SubmitRun", pb.SubmitRunRequest(spec_toml=spec_toml), SUBMIT_DEADLINE_S).run)

    def run(self, run: str) -> dict[str, Any]:
        """One run, with the fields of `covey run show --json`."""
        return plain(value_of(Run, self.call("ShowRun", pb.RunRequest(run=run))), RUN_DETAIL_FIELDS)

    def runs(self) -> list[dict[str, Any]]:
        """The newest runs, the newest first."""
        return [plain(value_of(Run, run), RUN_FIELDS) for run in self.call("ListRuns", pb.ListRunsRequest()).runs]

    def stop_run(self, run: str) -> dict[str, Any]:
        """Stop a run."""
        return plain(value_of(Run, self.call("StopRun", pb.RunRequest(run=run))), RUN_DETAIL_FIELDS)

    def rounds(self, run: str) -> list[dict[str, Any]]:
        """Every round, with the fields of `covey round list --json`."""
        rounds: list[dict[str, Any]] = []
        after = 0
        while True:
            reply = self.call("ListRounds", pb.ListRoundsRequest(run=run, after=after))
            rounds += [plain(value_of(Round, item), ROUND_FIELDS) for item in reply.rounds]
            if not reply.next:
                return rounds
            after = reply.next

    def round(self, run: str, number: int) -> dict[str, Any]:
        """One round: `round`, `updates` (a page of them, which holds hundreds) and `version`."""
        return fields_of(self.call("ShowRound", pb.RoundRequest(run=run, round=number)))

    def nodes(self) -> list[dict[str, Any]]:
        """Nodes by name (a page of them, which holds hundreds), with the fields of `covey node list --json`."""
        return [
            plain(value_of(Node, node), NODE_FIELDS) for node in self.call("ListNodes", pb.ListNodesRequest()).nodes
        ]

    def evict(self, node: str) -> dict[str, Any]:
        """Evict a node."""
        return plain(value_of(Node, self.call("EvictNode", pb.NodeRequest(node=node))), NODE_FIELDS)

    def pause(self, paused: bool) -> dict[str, Any]:
        """Open no new round, or go on."""
        return fields_of(self.call("Pause", pb.PauseRequest(paused=paused)))

    def drain(self) -> dict[str, Any]:
        """Stop the coordinator once the round in progress is committed."""
        return fields_of(self.call("Drain", pb.DrainRequest()))


def _translated(method: str, error: grpc.RpcError) -> Exception:
    status, text = error.code(), error.details()
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return ConnectionError(f"{method}: {status.name}: {text}")
    metadata: Any = error.trailing_metadata() or ()
    trailing: dict[str, Any] = dict(metadata)
    kind = by_code().get(str(trailing.get("covey-code", "")), CoveyError)
    return kind(f"{method}: {status.name}: {text}")


def fields_of(message: Message) -> dict[str, Any]:
    """A message as plain values: every field present, lists as lists, JSON text parsed, bytes as they are."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            fields[field.name] = [_plain(field.name, item) for item in value]
        else:
            fields[field.name] = _plain(field.name, value)
    return fields


def _plain(name: str, value: object) -> object:
    if isinstance(value, Message):
        return fields_of(value)
    if name in JSON_FIELDS and isinstance(value, str):
        return json.loads(value or "{}")
    return value
