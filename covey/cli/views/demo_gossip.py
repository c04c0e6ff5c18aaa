"""What `covey demo --gossip` does: nodes without a coordinator train one model; what that came to."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covey.cli.views.gossip_tables import mass_line
from covey.cli.views.tables import metrics_line
from covey.client.experiments.local_gossip import local_gossip
from covey.client.gossip_consensus import Consensus, export_consensus
from covey.client.gossip_nodes import account_of, audit_accounts, read_node

if TYPE_CHECKING:
    from covey.gossip.audit import MassAudit

MASS_FIELDS = ("live", "in_flight", "minted", "lost", "uncertain", "findings")
SHOWN_EVERY = 5
"""Steps between two lines of progress."""
SPEC = """\
name = "digits"
mode = "gossip"
seed = 7

[task]
name = "digits"
[task.options]
hidden = 64

[data]
partition = "shards"

[training]
optimizer = "sgd"
learning_rate = 0.3
batch_size = 32
local_epochs = 1

[gossip]
steps = {steps}
min_nodes = {nodes}
"""


@dataclass(frozen=True)
class GossipDemo:
    """What a demonstration came to."""

    folder: Path
    nodes: tuple[str, ...]
    data_dirs: tuple[Path, ...]
    steps: int
    mass: MassAudit
    model: Path
    """The consensus model's file."""
    consensus: Consensus
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """What `covey demo --gossip --json` prints."""
        mass = {"exact": self.mass.is_exact, **{name: getattr(self.mass, name) for name in MASS_FIELDS}}
        return {
            "folder": str(self.folder),
            "nodes": list(self.nodes),
            "data_dirs": [str(data_dir) for data_dir in self.data_dirs],
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "mass": mass,
            "model": str(self.model),
            "model_sha256": self.consensus.model_sha256,
            "spread": self.consensus.spread,
            "metrics": dict(self.consensus.metrics),
        }


def demonstrate(folder: Path, nodes: int, steps: int, started: float, *, quiet: bool) -> GossipDemo:
    """Train by gossip between processes on this machine.

    Args:
        folder: For everything; it is there, and empty.
        nodes: How many.
        steps: Of each.
        started: When the command began (`time.monotonic`).
        quiet: Show nothing.

    Raises:
        DaemonFailed: A node ended by itself.
    """
    with local_gossip(SPEC.format(nodes=nodes, steps=steps), nodes, folder) as federation:
        federation.wait(_Progress(steps, quiet=quiet))
        data_dirs, names = federation.data_dirs, tuple(federation.names)
    mass = audit_accounts([account_of(read_node(data_dir)) for data_dir in data_dirs])
    model = folder / "mean.safetensors"
    consensus = export_consensus(data_dirs, model, evaluated=True)
    return GossipDemo(folder, names, tuple(data_dirs), steps, mass, model, consensus, time.monotonic() - started)


class _Progress:
    """A line now and then."""

    def __init__(self, steps: int, *, quiet: bool) -> None:
        self._steps, self._quiet, self._next = steps, quiet, SHOWN_EVERY

    def __call__(self, step: int) -> None:
        if not self._quiet and step >= self._next:
            click.echo(f"all nodes have done {step} of {self._steps} steps", err=True)
            self._next = step - step % SHOWN_EVERY + SHOWN_EVERY


def show(outcome: GossipDemo, covey: str) -> None:
    """Print it, with what can be looked at.

    Args:
        outcome: What it came to.
        covey: How a shell finds this program.
    """
    folders = " ".join(shlex.quote(str(data_dir)) for data_dir in outcome.data_dirs)
    a_node, consensus = shlex.quote(str(outcome.data_dirs[0])), outcome.consensus
    click.echo(
        f"""\
{outcome.steps} steps of {len(outcome.nodes)} nodes in {outcome.seconds:.1f} s, without a coordinator.

Mass:      {mass_line(outcome.mass)}
Consensus: {metrics_line(consensus.metrics)}; its nodes are at most {consensus.spread:.4f} from it
Model:     {outcome.model}

The nodes have ended; their records can be read:
  {covey} gossip status --data-dir {a_node}
  {covey} gossip peers --data-dir {a_node}
  {covey} gossip audit {folders}
  {covey} gossip trace {folders} --out trace.json

To delete all of it: rm -r {shlex.quote(str(outcome.folder))}"""
    )
