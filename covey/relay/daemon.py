"""The relay as a process: it keeps nothing, and has no keys."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509

from covey.errors import CoveyError, IdentityError
from covey.relay.server import RelayServer
from covey.signals import told_by_signals
from covey.telemetry import LogFormat, cannot_run, configure_logging
from covey.texts import read_pem
from covey.wire.addresses import host_and_port
from covey.wire.announcement import announce, withdraw
from covey.wire.listeners.connections import allow_many_files

log = structlog.get_logger(room="relay")


@dataclass(frozen=True)
class RelayConfig:
    """What a relay is told.

    Attributes:
        listen: Its one port, `HOST:PORT`.
        authority: The certificate of the authority whose nodes may wait there (PEM).
        announce: A file that says where it listens; None: none is written.
    """

    listen: str
    authority: Path
    announce: Path | None = None
    log_format: LogFormat = "console"
    log_level: str = "info"


def run_relay(config: RelayConfig) -> int:
    """Relay until SIGTERM or SIGINT; the exit code."""
    configure_logging(config.log_format, config.log_level)
    try:
        return asyncio.run(_serve(config))
    except CoveyError as error:
        return cannot_run(log, "the relay", error)


async def _serve(config: RelayConfig) -> int:
    try:
        authority = read_pem(config.authority)
        x509.load_pem_x509_certificate(authority)
    except (OSError, ValueError) as error:
        raise IdentityError(f"{config.authority} is not an authority's certificate (PEM): {error}") from error
    allow_many_files()
    server, stop = RelayServer(authority), asyncio.Event()
    with told_by_signals(stop.set):
        try:
            port = await server.start(*host_and_port(config.listen))
        except OSError as error:
            raise CoveyError(f"--listen {config.listen} cannot be listened on: {error.strerror or error}") from error
        where = f"{config.listen.rpartition(':')[0]}:{port}"
        log.info("ready", listen=where)
        if config.announce is not None:
            announce(config.announce, listen=where)
        await stop.wait()
        log.info("stopping", callers=server.spliced)
        await server.stop()
    if config.announce is not None:
        withdraw(config.announce)
    return 0
