"""A measured topology on real nodes: a slow link is measured, and from then on nobody goes by it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from covey.testing.gossip import GossipNodes
from covey.testing.relay import Relay, RelayThread

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
SPEC = """
name = "gossip"
mode = "gossip"
[task]
name = "synthetic"
options = { parameters = 300000 }
[training]
local_steps = 1
[gossip]
steps = 26
min_nodes = 4
topology = { name = "measured" }
"""
NODES, SLOW_BYTES_PER_S = 4, 500_000
KILLED, LAST = 8, 22
"""The first node is killed at about this step. From the other one on all go by what it says since it is back: it
measures its ways anew, in three steps, and says the order four steps ahead."""


def throttle(relay: Relay) -> None:
    relay.throttle("up", SLOW_BYTES_PER_S)
    relay.throttle("down", SLOW_BYTES_PER_S)


@contextmanager
def slow_link(nodes: GossipNodes) -> Iterator[None]:
    """n0 and n1 call each other through relays that pass few bytes a second; of the others each calls all directly."""
    with ExitStack() as exits:
        for caller, called in ((0, 1), (1, 0)):
            relay = exits.enter_context(RelayThread(nodes.address(called)))
            relay.do(throttle)
            own = nodes.root / f"peers-{caller}.toml"
            own.write_text(nodes.peers.read_text().replace(nodes.address(called), relay.address))
        yield


def sent(nodes: GossipNodes, index: int) -> dict[int, str]:
    """To whom a node sent in each step."""
    record = nodes.folder(index) / "gossip" / "gossip" / "1" / "record.db"
    with closing(sqlite3.connect(f"file:{record}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT step, peer FROM exchanges WHERE way = 'out'"))


def test_the_ring_avoids_a_link_that_was_measured_to_be_slow_also_once_its_first_node_was_killed(
    tmp_path: Path,
) -> None:
    with GossipNodes(tmp_path, SPEC, NODES, pause_s=60) as nodes, slow_link(nodes):
        for index in range(NODES):
            nodes.start(index, peers=tmp_path / f"peers-{index}.toml" if index < 2 else None)
        nodes.until_step(0, KILLED, 200)
        nodes.kill(0)
        nodes.start(0, peers=tmp_path / "peers-0.toml")
        nodes.wait(350)
        mass = nodes.audit()
        assert (mass["exact"], mass["in_flight"], mass["lost"], mass["findings"]) == (True, 0, 0, [])
        to = [sent(nodes, index) for index in range(NODES)]
    assert {to[0][step] for step in range(3)} == {"n1", "n2", "n3"}  # first each to every other one
    rings = [tuple(int(peers[step][1:]) for peers in to) for step in range(LAST, 26)]
    (ring,) = set(rings)
    place, visited = 0, []
    for _ in range(NODES):
        visited.append(place)
        place = ring[place]
    assert (place, sorted(visited)) == (0, [0, 1, 2, 3])
    assert ring[0] != 1
    assert ring[1] != 0
