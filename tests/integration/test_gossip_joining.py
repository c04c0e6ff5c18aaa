"""A real node that lost its disk joins again: with a peer's model and mass of its own, or with half of a peer's."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from covey.client import authority
from covey.client.gossip_nodes import read_node
from covey.errors import NotFound
from covey.gossip.ledger import Incarnation
from covey.node.gossip.record.database import open_record
from covey.node.gossip.record.reader import rows_of
from covey.node.gossip.record.schema import ExchangeRow
from covey.testing.gossip import GossipNodes
from covey.testing.launch.processes import standing_still, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ONE = 1 << 52
STEPS = 100
"""Enough that the others still make them when it asks for mass."""
SPEC = """
name = "joining"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 10
learning_rate = 0.1
[gossip]
steps = {steps}
min_nodes = 2
topology = {{ name = "complete" }}
join = "{join}"
"""


def knows(nodes: GossipNodes, index: int) -> bool:
    """Whether a node has heard of the new incarnation."""
    return "a new incarnation takes part" in nodes.daemon(index).printed


def loses_its_disk_and_joins(nodes: GossipNodes, faults: str = "") -> None:
    """The first node is killed, its disk is gone, it is evicted, and it comes back while the others stand still.

    With `faults` it is killed there when it comes back, and is started once more.
    """
    nodes.kill(0)
    shutil.rmtree(nodes.folder(0) / "gossip")
    with standing_still(nodes.workers([1, 2])):
        alice = nodes.root / "alice"
        authority.issue(nodes.root / "ca", "alice", alice, role="admin")
        evict = ("ca", "evict", "n0", "--run", "joining", "--peers", nodes.peers, "--identity", alice)
        nodes.cli(*evict, "--reason", "its disk is gone")
        assert nodes.start(0).wait(120) == 1  # it hears that it is out
        assert read_node(nodes.folder(0)).facts.ended == "evicted"
        if faults:
            assert nodes.start(0, options=["--rejoin"], env={"COVEY_FAULTS": faults}).wait(120) == -9
        nodes.start(0, options=["--rejoin"])
        for index in (1, 2):
            assert wait_until(partial(knows, nodes, index), 120)


@pytest.mark.parametrize("join", ["mint", "split"])
def test_a_node_that_lost_its_disk(tmp_path: Path, join: str) -> None:
    with GossipNodes(tmp_path, SPEC.format(steps=STEPS, join=join), 3) as nodes:
        nodes.start_all()
        nodes.until_step(0, 3, 120)
        loses_its_disk_and_joins(nodes, "model-chunk" if join == "mint" else "")
        nodes.wait()
        states = [read_node(nodes.folder(index)) for index in range(3)]
        assert states[0].facts.me == Incarnation("n0", 2)
        assert states[0].facts.minted == (ONE if join == "mint" else 0)
        assert states[0].ledger.live > 0
        assert [state.machine.step for state in states] == [STEPS] * 3
        mass = nodes.audit()
        assert (mass["exact"], mass["in_flight"], mass["findings"]) == (True, 0, [])
        assert mass["minted"] == ONE * (4 if join == "mint" else 3)
        assert ("joining with a peer's model" in nodes.daemon(0).tail(10_000)) is (join == "mint")


CHOCO = """
protocol = "choco"
topology = { name = "ring" }
mixing = { name = "metropolis-hastings" }
[exchange]
codec = "top-k"
options = { fraction = 0.1 }
"""


def suspects(nodes: GossipNodes, index: int, peer: int) -> bool:
    return re.search(rf"suspected +peer=n{peer}", nodes.daemon(index).printed) is not None


def is_there(nodes: GossipNodes, index: int, *peers: int) -> bool:
    """Whether a node takes its peers as there, by what it says of itself."""
    try:
        now = read_node(nodes.folder(index)).now
    except NotFound:  # it has not begun yet
        return False
    states = {row["peer"]: row["state"] for row in now.peers} if now is not None else {}
    return all(states.get(f"n{peer}") == "there" for peer in peers)


def bodies(nodes: GossipNodes, index: int, peer: int) -> list[int]:
    """The sizes of the bodies that a node gave to a peer, in order."""
    engine = open_record(nodes.folder(index) / "gossip" / "joining" / "1")
    rows = [row for row in rows_of(engine, ExchangeRow) if (row["way"], row["peer"]) == ("out", f"n{peer}")]
    engine.dispose()
    return [row["size_bytes"] for row in sorted(rows, key=lambda row: (row["incarnation"], row["sequence"]))]


@pytest.mark.timeout(450)
def test_differences_go_on_from_a_whole_model_after_a_node_was_cut_off_and_when_one_joins(tmp_path: Path) -> None:
    # Slow enough that a node is cut off before they are through.
    slow = 'name = "synthetic"\noptions = {{ parameters = 5_000, train_seconds = 0.15 }}\n'
    spec = SPEC.replace('topology = {{ name = "complete" }}\njoin = "{join}"\n', "")
    spec = spec.replace('name = "digits"\n[data]\npartition = "shards"\n', slow).format(steps=STEPS) + CHOCO
    with GossipNodes(tmp_path, spec, 3, links=True) as nodes:
        nodes.start_all()
        for index, peers in enumerate([(1, 2), (0, 2), (0, 1)]):  # who never was there is not suspected
            assert wait_until(partial(is_there, nodes, index, *peers), 120)
        nodes.until_step(0, 3, 120)
        with standing_still(nodes.workers([2])):  # else it goes on alone, and may be through
            for link in nodes.links([2], [0, 1]):
                link.partition()
            for index in (0, 1):
                assert wait_until(partial(suspects, nodes, index, 2), 120)
            step = nodes.steps(0)
            nodes.until_step(0, step + 3, 120)
            with standing_still(nodes.workers([0, 1])):
                for link in nodes.links([2], [0, 1]):
                    link.heal()
                for index, peers in enumerate([(1, 2), (0, 2), (0, 1)]):
                    assert wait_until(partial(is_there, nodes, index, *peers), 120)
        came_back = len(bodies(nodes, 1, 2))
        assert wait_until(lambda: len(bodies(nodes, 1, 2)) > came_back + 1, 120)
        loses_its_disk_and_joins(nodes)
        nodes.wait()
        assert [read_node(nodes.folder(index)).machine.step for index in range(3)] == [STEPS] * 3
        whole = max(bodies(nodes, 1, 2))
        given = [size == whole for size in bodies(nodes, 1, 2)]
        assert given[0]  # at first, when it is back, and with the joiner, who has nothing to go on from
        assert sum(given) >= 3
        assert sum(given) < len(given) / 2
        assert bodies(nodes, 1, 0)[-1] < whole / 3  # the joiner goes on with differences too
        for index in range(3):
            assert "no finite model" not in nodes.daemon(index).printed  # all fitted
        assert nodes.audit()["exact"]
