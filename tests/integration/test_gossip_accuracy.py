"""Nodes that have two of ten classes each come, by exchanging, to what all of them together would learn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.client.experiments.gossip import gossip_plan
from covey.simulation.gossip.plan import GossipOutcome
from covey.simulation.gossip.simulation import simulate_gossip

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

SPEC = """
name = "accuracy"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
parts = 8
[training]
local_steps = 5
learning_rate = 0.1
[gossip]
steps = 60
min_nodes = 1
"""


def outcome(tmp_path: Path, more: str, nodes: int = 8) -> GossipOutcome:
    (tmp_path / "run.toml").write_text(SPEC + more)
    return asyncio.run(
        simulate_gossip(gossip_plan(tmp_path / "run.toml", nodes, data_dir=tmp_path / "run", processes=1))
    )


def test_push_sum_also_overlapped_learns_what_averaging_everybody_does_and_who_is_alone_does_not(
    tmp_path: Path,
) -> None:
    everybody = outcome(tmp_path, 'topology = { name = "complete" }\n')
    assert everybody.metrics["accuracy"] > 0.85
    assert max(peer.distance or 0.0 for peer in everybody.peers) < 1e-4
    for more in ("", "overlap = 3\n"):
        swarm = outcome(tmp_path, more)
        assert swarm.mass.is_exact
        assert swarm.metrics["accuracy"] > everybody.metrics["accuracy"] - 0.1  # it comes a little later
    alone = outcome(tmp_path, "", nodes=1)
    assert alone.metrics["accuracy"] < 0.4
