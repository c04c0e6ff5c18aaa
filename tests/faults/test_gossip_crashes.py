"""Nodes of a gossip run that are killed at every point where their records and their peers could come to differ."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from covey.testing.gossip import GossipNodes

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[training]
local_steps = 1
[gossip]
steps = 10
min_nodes = 2
"""
POINTS = {
    0: ["gossip-note-unrecorded", "gossip-publish-recorded:2", "gossip-sending"],
    1: ["gossip-note-recorded", "gossip-publish-unrecorded:2", "gossip-sent"],
}
"""Node to the fault points at which it is killed, one after the other."""


def test_two_nodes_that_are_killed_again_and_again_lose_no_mass(tmp_path: Path) -> None:
    with GossipNodes(tmp_path, SPEC, 2) as nodes:

        def be_killed(index: int) -> list[int]:
            codes = [nodes.start(index, env={"COVEY_FAULTS": point}).wait(120) for point in POINTS[index]]
            nodes.start(index)
            return codes

        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(be_killed, POINTS)) == [[-9] * 3] * 2
        nodes.wait(200)
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["in_flight"], mass["lost"]) == (True, [], 0, 0)
        assert mass["live"] == mass["minted"] == 2 << 52
        out = tmp_path / "mean.safetensors"
        made = json.loads(nodes.cli("gossip", "export", nodes.folder(0), nodes.folder(1), "--out", out, "--json"))
        assert out.stat().st_size > 10_000
        assert made["weight"] == 2.0
        assert made["spread"] == max(node["distance"] for node in made["nodes"])
