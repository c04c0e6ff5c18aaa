"""What a coordinator is asked for about itself and its nodes, as plain values; `covey.client.values` has them too.

Times are Unix seconds. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


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


@dataclass(frozen=True)
class NodeWork:
    """What a node works on now, for one run."""

    run: str
    name: str
    """Of the run, with its study (STUDY/NAME)."""
    round: int
    phase: str
    """As in `NodeProgress`."""
    step: int = 0
    steps: int = 0
    since: float | None = None
    bytes_received: int = 0
    bytes_sent: int = 0


@dataclass(frozen=True)
class Node:
    """An enrolled node."""

    node: str
    state: str
    """`connected`, `away`, `evicted` or `left`."""
    enrolled_at: float = 0.0
    last_seen_at: float | None = None
    certificate_expires_at: float = 0.0
    version: str = ""
    device: str = ""
    tasks: tuple[str, ...] = ()
    accepted: int = 0
    """Updates, over all runs."""
    rejected: int = 0
    drill: str = ""
    """The attack that it said to be a drill for; empty: none."""
    declined: int = 0
    """Rounds, over all runs, without an update of it: it said so."""
    lost: int = 0
    """It had no connection."""
    late: int = 0
    """It had one, and did not answer in time."""
    last_reason: str = ""
    """Of its newest answer that was no update that counts: run, round, verdict and why."""
    work: tuple[NodeWork, ...] = ()
    """Of a connected node: what it does now, run by run."""
    max_runs: int = 0
    """And how many runs it takes at once; 0: it does not say, as in the next two."""
    memory_bytes: int = 0
    """For runs, free when it connected."""
    gpu_memory_bytes: int = 0
    """Free on its GPU then; 0 also: it has none."""


@dataclass(frozen=True)
class Event:
    """Something worth remembering: an eviction, a refusal, a restart."""

    at: float
    kind: str
    run: str = ""
    node: str = ""
    detail: Json = field(default_factory=dict)


@dataclass(frozen=True)
class NodeDetail:
    """A node, and its newest events."""

    node: Node
    events: tuple[Event, ...] = ()
