"""A real node that lost its disk joins again: with a peer's model and mass of its own, or with half of a peer's."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from covey.client import authority
from covey.client.gossip_nodes import read_node
from covey.gossip.ledger import Incarnation
from covey.testing.gossip import GossipNodes
from covey.testing.launch.processes import children_of, wait_until

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


@contextmanager
def trainings_stand_still(nodes: GossipNodes, *which: int) -> Iterator[None]:
    """Meanwhile these nodes' workers do nothing: so their run is not over when another node is back."""
    workers = [children_of(pid)[pid][-1] for pid in (nodes.daemon(index).pid for index in which)]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


def knows(nodes: GossipNodes, index: int) -> bool:
    """Whether a node has heard of the new incarnation."""
    return "a new incarnation takes part" in nodes.daemon(index).printed


@pytest.mark.parametrize("join", ["mint", "split"])
def test_a_node_that_lost_its_disk(tmp_path: Path, join: str) -> None:
    with GossipNodes(tmp_path, SPEC.format(steps=STEPS, join=join), 3) as nodes:
        nodes.start_all()
        nodes.until_step(0, 3, 120)
        nodes.kill(0)
        shutil.rmtree(nodes.folder(0) / "gossip")
        late = Incarnation("n0", 2)
        with trainings_stand_still(nodes, 1, 2):
            authority.issue(tmp_path / "ca", "alice", tmp_path / "alice", role="admin")
            nodes.cli(
                *("ca", "evict", "n0", "--run", "joining", "--peers", nodes.peers, "--identity", tmp_path / "alice"),
                *("--reason", "its disk is gone"),
            )
            assert nodes.start(0).wait(120) == 1  # it hears that it is out
            assert read_node(nodes.folder(0)).facts.ended == "evicted"
            nodes.start(0, options=["--rejoin"])
            for index in (1, 2):
                assert wait_until(partial(knows, nodes, index), 120)
        nodes.wait()
        states = [read_node(nodes.folder(index)) for index in range(3)]
        assert states[0].facts.me == late
        assert states[0].facts.minted == (ONE if join == "mint" else 0)
        assert states[0].ledger.live > 0
        assert [state.machine.step for state in states] == [STEPS] * 3
        mass = nodes.audit()
        assert (mass["exact"], mass["in_flight"], mass["findings"]) == (True, 0, [])
        assert mass["minted"] == ONE * (4 if join == "mint" else 3)
        assert ("joining with a peer's model" in nodes.daemon(0).tail(10_000)) is (join == "mint")
