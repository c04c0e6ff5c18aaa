"""Two levels: machines of a site exchange with each other in every step, sites with each other now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator
from typing_extensions import override

from covey.gossip.graph import Graph, graph_of
from covey.gossip.topologies.contract import Swarm, Topology
from covey.options import PluginOptions


class TwoLevel(Topology):
    """Dense inside a site, sparse between sites.

    Every node sends to all others of its site. In each `between_every`th step one node of each site, taking turns,
    sends to one node of another site besides, at distances 1, 2, 4, ... in the order of the sites' names. The site of a
    node is what `sites` says; of one that it does not name, what the peers file says; else it is a site of its own.
    """

    class Options(PluginOptions):
        """Options of `two-level`."""

        between_every: int = Field(default=1, ge=1)
        """Steps from one exchange between sites to the next."""
        sites: dict[str, tuple[str, ...]] = Field(default={})
        """The nodes of each site, by the site's name."""

        @field_validator("sites", mode="before")
        @classmethod
        def _lists(cls, sites: Any) -> Any:
            if not isinstance(sites, Mapping):
                return sites
            return {site: tuple(nodes) if isinstance(nodes, list) else nodes for site, nodes in sites.items()}

        @field_validator("sites")
        @classmethod
        def _one_site_each(cls, sites: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
            counts = Counter(node for nodes in sites.values() for node in nodes)
            if twice := sorted(node for node, count in counts.items() if count > 1):
                raise ValueError(f"a node is in one site, and once: {', '.join(twice)}")
            return sites

    options: Options

    @override
    def graph(self, step: int, swarm: Swarm) -> Graph:
        sites = self._sites(swarm)
        targets: list[list[int]] = [[] for _ in swarm.nodes]
        for members in sites:
            for node in members:
                targets[node] += members
        turn, is_between = divmod(step, self.options.between_every)[0], step % self.options.between_every == 0
        if is_between and len(sites) > 1:
            stride = 1 << turn % _turns(len(sites))
            for place, members in enumerate(sites):
                others = sites[(place + stride) % len(sites)]
                targets[members[turn % len(members)]].append(others[turn % len(others)])
        return graph_of(targets)

    @override
    def period(self, swarm: Swarm) -> int:
        return self.options.between_every * _turns(len(self._sites(swarm)))

    def _sites(self, swarm: Swarm) -> list[list[int]]:
        """The positions of each site's nodes; sites in the order of their names."""
        named = {node: site for site, nodes in self.options.sites.items() for node in nodes}
        members: dict[tuple[int, str], list[int]] = {}
        for position, name in enumerate(swarm.nodes):
            site = named.get(name, swarm.sites.get(name))
            members.setdefault((0, site) if site is not None else (1, name), []).append(position)
        return [members[key] for key in sorted(members)]


def _turns(sites: int) -> int:
    return max((sites - 1).bit_length(), 1)
