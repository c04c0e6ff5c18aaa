"""What a gossip run's specification means: its protocol, the machine's numbers, the planner; and whether they agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from covey.errors import SpecError
from covey.gossip.agreement import Agreement
from covey.gossip.mixing import MIXINGS
from covey.gossip.planning import Planner
from covey.gossip.protocols.contract import PROTOCOLS, Combination, Protocol
from covey.gossip.push_sum.machine import PushSumPolicy
from covey.gossip.topologies.contract import TOPOLOGIES, LinkQuality
from covey.spec import GossipSection, GossipSpec


def protocol_of(section: GossipSection, *, allow_path: bool = False) -> Protocol:
    """A run's protocol.

    Raises:
        PluginError: There is no such protocol here.
        SpecError: Its options are wrong.
    """
    return PROTOCOLS.make(section.protocol.name, section.protocol.options, allow_path=allow_path)


def policy_of(section: GossipSection, nodes: int, *, allow_path: bool = False) -> PushSumPolicy:
    """The machine's numbers, where a run begins with so many nodes. Raises as `protocol_of`."""
    return protocol_of(section, allow_path=allow_path).policy(section, nodes)


def combination_of(
    spec: GossipSpec, nodes: Sequence[str] = (), *, begins_with: int = 0, allow_path: bool = False
) -> Combination:
    """What a run names, made; `nodes` and `begins_with` as in `Combination`.

    Raises:
        PluginError: A topology, or mixing weights, that there are not here.
        SpecError: Their options are wrong.
    """
    section = spec.gossip
    topology = TOPOLOGIES.make(section.topology.name, section.topology.options, allow_path=allow_path)
    mixing = MIXINGS.make(section.mixing.name, section.mixing.options, allow_path=allow_path)
    return Combination(spec, topology, mixing, tuple(nodes), begins_with)


def body_of(spec: GossipSpec, *, allow_path: bool = False) -> Mapping[str, int]:
    """What a run's bodies consist of, as `Protocol.body`. Raises as `protocol_of`."""
    return protocol_of(spec.gossip, allow_path=allow_path).body(spec)


def require_possible(spec: GossipSpec, nodes: Sequence[str] = (), *, allow_path: bool = False) -> None:
    """Refuse a run whose protocol cannot work with the rest of it.

    Args:
        spec: The run.
        nodes: Who takes part at first, in the order of the roster; empty: not known yet.
        allow_path: Whether plug-ins may be named by import path.

    Raises:
        PluginError: Something that is named is not installed here.
        SpecError: All that is wrong, each with its key and a way out.
    """
    if wrong := impossible_in(spec, nodes, allow_path=allow_path):
        raise SpecError("; ".join(f"{key}: {text}" for key, text in wrong))


def impossible_in(
    spec: GossipSpec, nodes: Sequence[str] = (), *, begins_with: int = 0, allow_path: bool = False
) -> Sequence[tuple[str, str]]:
    """What `require_possible` refuses: each key, and the reason with a way out. Raises as `combination_of`.

    Where it is not known who takes part, but that the run `begins_with` so many, those have to be enough.
    """
    run = combination_of(spec, nodes, begins_with=begins_with, allow_path=allow_path)
    return list(protocol_of(spec.gossip, allow_path=allow_path).refusals(run))


def notes_of(spec: GossipSpec, *, allow_path: bool = False) -> tuple[str, ...]:
    """What one should know who starts a run. Raises as `protocol_of`."""
    return tuple(protocol_of(spec.gossip, allow_path=allow_path).notes(spec))


def planner_of(
    spec: GossipSpec,
    sites: Mapping[str, str] | None = None,
    links: Mapping[tuple[str, str], LinkQuality] | None = None,
    *,
    agreeing: Collection[str] = (),
    allow_path: bool = False,
) -> Planner:
    """The run's topology and mixing weights.

    Args:
        spec: The run.
        sites: The site of a node, where one is known.
        links: What is measured of (from, to).
        agreeing: The names of nodes that measure, and agree on an order where the topology goes by one; empty: none do.
        allow_path: Whether they may be named by import path.

    Raises:
        PluginError: There is no such topology or mixing.
        SpecError: Their options are wrong.
    """
    run = combination_of(spec, allow_path=allow_path)
    protocol = protocol_of(spec.gossip, allow_path=allow_path)
    agreement = Agreement(run.topology, agreeing) if run.topology.agrees and agreeing else None
    return Planner(run.topology, run.mixing, spec.seed, sites, links, agreement=agreement, weighs=protocol.weighs)


def exchanges_in_words(spec: GossipSpec, nodes: Sequence[str], model_bytes: int, *, allow_path: bool = False) -> str:
    """What a step moves where nodes keep models of their own; empty: they do not. Raises as `combination_of`.

    Args:
        spec: The run.
        nodes: Who takes part.
        model_bytes: Size of a model's file.
        allow_path: Whether plug-ins may be named by import path.
    """
    protocol = protocol_of(spec.gossip, allow_path=allow_path)
    if not protocol.own_models or len(nodes) < 2:
        return ""
    body = protocol.body(spec)
    size, what = sum(body.values()) or model_bytes, f"predictions ({', '.join(body)})" if body else "model"
    graphs = combination_of(spec, nodes, allow_path=allow_path).graphs
    sent = max(sum(map(len, graph)) for graph in graphs)
    text = f"each node sends its neighbours its {what}: of {len(nodes)} nodes, a step takes at most {sent} x {size} = "
    return f"{text}{sent * size} bytes"
