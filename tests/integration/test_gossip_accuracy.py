"""Nodes that have two of ten classes each come, by exchanging, to what all of them together would learn."""

from __future__ import annotations

from pathlib import Path

import pytest

from covey.testing.gossip import simulated

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


def test_push_sum_also_overlapped_learns_what_averaging_everybody_does_and_who_is_alone_does_not(
    tmp_path: Path,
) -> None:
    everybody = simulated(tmp_path, SPEC + 'topology = { name = "complete" }\n', 8)
    assert everybody["metrics"]["accuracy"] > 0.85
    assert max(peer["distance"] for peer in everybody["peers"]) < 1e-4
    for more in ("", "overlap = 3\n"):
        swarm = simulated(tmp_path, SPEC + more, 8)
        assert swarm["mass"]["exact"]
        assert swarm["metrics"]["accuracy"] > everybody["metrics"]["accuracy"] - 0.1  # it comes a little later
    alone = simulated(tmp_path, SPEC, 1)
    assert alone["metrics"]["accuracy"] < 0.4
