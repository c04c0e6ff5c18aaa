"""Which choices of a gossip run go with which protocol: every one is asked for, as `covey gossip start` would ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from covey.errors import SpecError
from covey.gossip.protocols.runs import require_possible
from covey.spec import GossipSpec, parse_data
from covey.testing.catalogue.cases import NUMBERS, names

NODES = tuple("abcdefgh")
RING = [[node, after] for node, after in zip(NODES, (*NODES[1:], NODES[0]), strict=True)]
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    **NUMBERS,
    "qsgd": {"bits": 8},
    "file": {"edges": RING + [edge[::-1] for edge in RING]},
}
KINDS = ("topology", "mixing", "codec")
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "overlap": {"overlap": 2},
    'momentum = "local"': {"momentum": "local"},
    'momentum = "quasi-global"': {"momentum": "quasi-global"},
    'outer = "slow-momentum"': {"outer": "slow-momentum"},
    "global_every": {"global_every": 5},
    'join = "mint"': {"join": "mint"},
}
"""What `[gossip]` may say besides, as the page has it."""


def goes_with(protocol: str) -> Mapping[str, tuple[str, ...]]:
    """Kind, or `settings`, to the names of it that a protocol goes with, whatever else the run chooses."""
    by_kind = {kind: tuple(name for name in names(kind) if _possible(protocol, {kind: name}, {})) for kind in KINDS}
    return by_kind | {"settings": tuple(word for word, keys in SETTINGS.items() if _possible(protocol, {}, keys))}


def _possible(protocol: str, chosen: Mapping[str, str], keys: Mapping[str, Any]) -> bool:
    return any(_is_accepted(spec) for spec in _runs(protocol, chosen, keys))


def _is_accepted(given: dict[str, Any]) -> bool:
    try:
        spec = parse_data(given)
        assert isinstance(spec, GossipSpec)
        require_possible(spec, NODES)
    except SpecError:
        return False
    return True


def _runs(protocol: str, chosen: Mapping[str, str], keys: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Runs of a protocol with a choice, over the topologies and mixing weights where these are not what is chosen."""
    topologies = [chosen["topology"]] if "topology" in chosen else ["exponential", "complete", "random", "matching"]
    mixings = [chosen["mixing"]] if "mixing" in chosen else names("mixing")
    codec = chosen.get("codec", "none")
    for topology, mixing in product(topologies, mixings):
        yield {
            "name": "case",
            "mode": "gossip",
            "task": {"name": "digits"},
            "exchange": {"codec": codec, "options": dict(OPTIONS.get(codec, {}))},
            "gossip": {
                "protocol": protocol,
                "topology": {"name": topology, "options": dict(OPTIONS.get(topology, {}))},
                "mixing": {"name": mixing},
                **keys,
            },
        }
