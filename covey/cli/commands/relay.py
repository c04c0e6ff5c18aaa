"""`covey relay`: a meeting point for nodes that can only call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.framework.command import Group
from covey.cli.framework.options import EXISTING_FILE, FILE, Address, log_options

if TYPE_CHECKING:
    from covey.telemetry import LogFormat


@click.group(cls=Group, examples=("covey relay start --listen 0.0.0.0:443 --authority authority.crt",))
def relay() -> None:
    """Let nodes without an open port be called."""


@relay.command(
    examples=(
        "covey relay start --listen 0.0.0.0:443 --authority authority.crt",
        "covey gossip start run.toml --data-dir /srv/node --peers peers.toml --relay relay.example.org:443",
    )
)
@click.option("--listen", type=Address(), required=True, help="The one port, for nodes and callers alike.")
@click.option("--authority", type=EXISTING_FILE, required=True, help="authority.crt of the federation, or of any node.")
@click.option("--announce", type=FILE, help="A file to write the address to, for programs.")
@log_options
@click.pass_context
def start(
    ctx: click.Context, listen: str, authority: Path, announce: Path | None, log_format: LogFormat, log_level: str
) -> None:
    """Pass on what others want to say to nodes that wait here, until SIGTERM or Ctrl-C.

    The relay has no keys and sees ciphertext only: each caller does TLS with the node itself. In the peers file such a
    node's address is the relay's. Nodes must be of the authority's federation to wait here.
    """
    from covey.relay.daemon import RelayConfig, run_relay

    ctx.exit(run_relay(RelayConfig(listen, authority, announce, log_format, log_level)))
