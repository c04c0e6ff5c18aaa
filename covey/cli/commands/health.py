"""`covey health`: ask the daemon of a data directory how it is. Run every few seconds, so it imports little."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from covey.cli.framework.command import Command, Failure, print_json
from covey.cli.framework.options import FOLDER, Duration, json_option

FIELDS = ("daemon", "service", "status", "address", "reason")
ANNOUNCEMENTS = {"coordinator": "coordinator.json", "node": "node.json"}
IDENTITIES = {"coordinator": "admin", "node": "identity"}
COORDINATOR_NAME = "coordinator.covey"
"""The same as in `covey.wire.identities.authority`; importing that would double the time that this takes."""

_REFUSALS = {"NOT_FOUND": "SERVICE_UNKNOWN", "PERMISSION_DENIED": "REFUSED"}


@dataclass(frozen=True)
class _Daemon:
    """Which daemon to ask, as it announced itself."""

    kind: str
    address: str
    identity: Path
    command: str
    """What starts it: `covey COMMAND start`."""


@click.command(
    cls=Command,
    examples=(
        "covey health --data-dir /srv/covey",
        "covey health --data-dir /srv/covey --service store",
        "covey health --data-dir /srv/node --service session --timeout 2s --json",
    ),
    json_fields=FIELDS,
)
@click.option("--data-dir", type=FOLDER, envvar="COVEY_HOME", required=True, help="A coordinator's or a node's.")
@click.option("--service", default="", help="store, session (node), peers (gossip) [default: any].")
@click.option("--timeout", type=Duration(), default="5s", show_default=True, help="How long it may take to answer.")
@json_option
def health(data_dir: Path, service: str, timeout: float, as_json: bool) -> None:
    """Ask the daemon of a data directory how it is: exit code 0 if it is serving, else 1 and the reason."""
    daemon = _announced(data_dir)
    status, reason = _ask(daemon, service, timeout)
    if as_json:
        print_json(dict(zip(FIELDS, (daemon.kind, service, status, daemon.address, reason), strict=True)))
    elif not reason:
        click.echo(status)
    if reason:
        raise Failure(reason)


def _announced(data_dir: Path) -> _Daemon:
    for kind, name in ANNOUNCEMENTS.items():
        try:
            announced = json.loads((data_dir / name).read_text())
            listen, command = str(announced["listen"]), str(announced.get("command", kind))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failure(f"{data_dir / name} cannot be read: {error}") from error
        host, _, port = listen.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        return _Daemon(kind, f"{host}:{port}", data_dir / IDENTITIES[kind], command)
    raise Failure(f"no daemon is running on {data_dir}: it has neither coordinator.json nor node.json")


def _ask(daemon: _Daemon, service: str, timeout_s: float) -> tuple[str, str]:
    """The status, and why it is not SERVING; empty if it is."""
    import grpc
    from grpc_health.v1 import health_pb2

    # A proxy of the environment is for other machines.
    options = [("grpc.ssl_target_name_override", _server_name(daemon)), ("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(daemon.address, _credentials(daemon), options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            return _REFUSALS.get(error.code().name, "UNREACHABLE"), _why(daemon, service, error)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return status, "" if status == "SERVING" else f"the {daemon.kind}'s {service or 'daemon'} is {status}"


def _server_name(daemon: _Daemon) -> str:
    if daemon.kind == "coordinator":
        return COORDINATOR_NAME
    try:
        return f"{json.loads((daemon.identity / 'federation.json').read_text())['name']}.node.covey"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"the identity in {daemon.identity} cannot be read: {error}") from error


def _credentials(daemon: _Daemon) -> Any:
    import grpc

    names = ("authority.crt", "tls.key", "tls.crt")
    try:
        return grpc.ssl_channel_credentials(*((daemon.identity / name).read_bytes() for name in names))
    except OSError as error:
        raise Failure(f"the identity in {daemon.identity} cannot be read: {error}") from error


def _why(daemon: _Daemon, service: str, error: Any) -> str:
    import grpc

    status = error.code()
    if status == grpc.StatusCode.NOT_FOUND:
        return f"the {daemon.kind} has no service {service!r}; see covey health --help"
    if status == grpc.StatusCode.PERMISSION_DENIED:
        return f"the {daemon.kind} refused: {error.details()}"
    if status == grpc.StatusCode.UNAVAILABLE:
        reason = _expired(daemon)
        if reason:
            return reason
    return (
        f"the {daemon.kind} does not answer at {daemon.address} ({status.name}); if it was killed, "
        f"start it again: covey {daemon.command} start"
    )


def _expired(daemon: _Daemon) -> str:
    """What is wrong with the certificate, if that is why; read only where there is a failure to explain."""
    from covey.errors import CoveyError
    from covey.wire.identities.identity import Identity

    try:
        return Identity.load(daemon.identity).explain()
    except CoveyError as problem:
        return str(problem)
