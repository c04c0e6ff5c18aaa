"""Gossip between many nodes in one process, for experiments."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from covey.client.experiments.simulated import new_folder, played
from covey.client.models.initial import by_digest
from covey.client.specification import Specification, folder_of, gossip_spec
from covey.errors import CoveyError
from covey.simulation.adversaries import Attack
from covey.simulation.gossip.faults import Network, Partition
from covey.simulation.gossip.plan import GossipOutcome, GossipPlan, PeerOutcome
from covey.simulation.gossip.simulation import MEAN, simulate_gossip
from covey.simulation.plan import Watch

__all__ = ["MEAN", "GossipOutcome", "GossipPlan", "Network", "Partition", "PeerOutcome", "gossip_plan", "simulate"]


def unread_options(*, staleness: object = None, events: object = None, engine: str = "processes") -> dict[str, str]:
    """Options of simulations that are given, and that nothing reads in a gossip run: why."""
    unread = {"--staleness": "only of mode async: nobody decides on updates"} if staleness else {}
    unread |= {f"--engine {engine}": "it trains for runs with a coordinator"} if engine != "processes" else {}
    return unread | ({"--events": "there is no coordinator whose events could be logged"} if events else {})


def gossip_plan(
    spec: Specification,
    nodes: int,
    *,
    network: Network | None = None,
    data_dir: str | Path | None = None,
    processes: int | None = None,
    paths: Mapping[str, str] | None = None,
    device: str = "cpu",
    attacks: Sequence[Attack] = (),
) -> GossipPlan:
    """What to simulate.

    Args:
        spec: As `Connection.submit`, of mode gossip.
        nodes: How many nodes.
        network: What happens to messages and machines; default: nothing.
        data_dir: The folder for the consensus model; default: a new temporary one.
        processes: How many train at a time; default: one for each core.
        paths: Where the task finds the nodes' data.
        device: What to train on: cpu, cuda or cuda:N.
        attacks: What the last nodes do in place of what they should, in order.

    Raises:
        SpecError: It is not of mode gossip, or is wrong.
    """
    known, model = by_digest(gossip_spec(spec), folder_of(spec))
    folder = Path(data_dir) if data_dir is not None else new_folder()
    return GossipPlan(
        known,
        nodes,
        folder.absolute(),
        network or Network(),
        processes,
        paths or {},
        device,
        attacks=attacks,
        model=model,
    )


def simulate(plan: GossipPlan, on_progress: Watch = lambda progress: None) -> GossipOutcome:
    """Run a simulation to its end; in a notebook beside the thread of its event loop.

    Raises:
        SpecError: It cannot work; the message says why.
        PluginError: Something that is named is not installed.
        TaskError: The task's code failed, or training diverged.
    """
    existed = plan.folder.exists()
    try:
        return played(simulate_gossip(plan, on_progress))
    except CoveyError:
        if not existed:
            shutil.rmtree(plan.folder, ignore_errors=True)
        raise
