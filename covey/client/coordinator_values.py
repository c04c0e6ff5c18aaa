"""What a coordinator is asked for about itself, as plain frozen values; `covey.client.values` has these names too.

Times are Unix seconds. Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Status:
    """What a coordinator does now."""

    version: str
    federation: str
    state: str
    """`running`, `paused` or `draining`."""
    nodes_connected: int = 0
    current_run: str = ""
    """The oldest of the active runs."""
    store: str = ""
    active_runs: tuple[str, ...] = ()
    """The runs that are taken care of now, in the order in which they were submitted."""
    waits_for: tuple[str, ...] = ()
    """While it drains: the open rounds that it waits for, in words."""


@dataclass(frozen=True)
class Admin:
    """Who may operate a coordinator."""

    name: str
    role: str
    """`admin`, `auditor`, who may look at everything and change nothing, or `member`, with rights in studies only."""
    state: str
    """`active` or `evicted`."""
    enrolled_at: float = 0.0
    certificate_expires_at: float = 0.0


@dataclass(frozen=True)
class Study:
    """A group of runs with nodes and people of its own."""

    name: str
    nodes: tuple[str, ...] = ()
    """That work for its runs; `("*",)`: all."""
    admins: tuple[str, ...] = ()
    """Names of certificates, as in the other two."""
    members: tuple[str, ...] = ()
    auditors: tuple[str, ...] = ()
    max_runs: int = 0
    """How many of its runs work at once; 0: as many as the coordinator takes."""
    evicted: tuple[str, ...] = ()
    """Nodes that were shut out of it for good."""


@dataclass(frozen=True)
class Token:
    """A join token: a secret."""

    token: str = field(repr=False)
    node: str = ""
    """The name that it is for; with several uses, what the names begin with."""
    expires_at: float = 0.0
    uses: int = 1
    """How many nodes can be enrolled with it."""


@dataclass(frozen=True)
class TokenInfo:
    """A join token, without its secret."""

    id: str
    node: str = ""
    """The name that it is for; with several uses, what the names begin with."""
    role: str = "node"
    state: str = ""
    """`unused`, `in use` (some of its uses are left), `used`, `expired` or `revoked`."""
    created_at: float = 0.0
    expires_at: float = 0.0
    uses: int = 1
    uses_left: int = 0


@dataclass(frozen=True)
class Backup:
    """A backup that was written on the coordinator's machine."""

    folder: str
    bytes: int = 0
    machine: str = ""
    """The coordinator's: where the folder is."""
