"""What a gossip run's specification means for the machine and for its planner."""

from __future__ import annotations

from collections.abc import Mapping

from covey.gossip.averaging import Averaging, rounds_for
from covey.gossip.mixing import MIXINGS
from covey.gossip.planning import Planner
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.contract import TOPOLOGIES, LinkQuality
from covey.spec import GossipSection, GossipSpec


def policy_of(section: GossipSection, nodes: int) -> PushSumPolicy:
    """The machine's numbers, from a run's [gossip] and the number of nodes with which it begins."""
    if section.protocol == "agp":
        correction = section.rate_correction or "elapsed"
        return PushSumPolicy(section.steps, None, section.max_in_flight, correction=correction)
    averaging = Averaging(section.global_every, rounds_for(nodes, section.global_spread))
    steps = averaging.steps(section.steps)
    return PushSumPolicy(steps, section.overlap, section.max_in_flight, averaging=averaging)


def planner_of(
    spec: GossipSpec,
    sites: Mapping[str, str] | None = None,
    links: Mapping[tuple[str, str], LinkQuality] | None = None,
    *,
    allow_path: bool = False,
) -> Planner:
    """The run's topology and mixing weights.

    Args:
        spec: The run.
        sites: The site of a node, where one is known.
        links: What is measured of (from, to).
        allow_path: Whether they may be named by import path.

    Raises:
        PluginError: There is no such topology or mixing, or not with these options.
    """
    section = spec.gossip
    topology = TOPOLOGIES.make(section.topology.name, section.topology.options, allow_path=allow_path)
    mixing = MIXINGS.make(section.mixing.name, section.mixing.options, allow_path=allow_path)
    return Planner(topology, mixing, spec.seed, sites, links)
