"""Nodes of a gossip run that are killed at every point where their records and their peers could come to differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covey.testing.gossip import GossipNodes
from covey.testing.launch.processes import wait_until

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
        left = {index: list(points) for index, points in POINTS.items()}
        codes: dict[int, list[int]] = {index: [] for index in POINTS}
        for index in POINTS:
            nodes.start(index, env={"COVEY_FAULTS": left[index][0]})
        while any(left.values()):  # each goes on at once: the other's next point may need it
            dead = [index for index in POINTS if left[index] and not nodes.daemon(index).alive]
            for index in dead:
                codes[index].append(nodes.daemon(index).wait(1))
                left[index].pop(0)
                nodes.start(index, env={"COVEY_FAULTS": left[index][0]} if left[index] else {})
            assert dead or wait_until(lambda: any(not nodes.daemon(index).alive for index in POINTS), 120)
        assert codes == {index: [-9] * len(points) for index, points in POINTS.items()}
        nodes.wait(200)
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["in_flight"], mass["lost"]) == (True, [], 0, 0)
        assert mass["live"] == mass["minted"] == 2 << 52
        out = tmp_path / "mean.safetensors"
        made = json.loads(nodes.cli("gossip", "export", nodes.folder(0), nodes.folder(1), "--out", out, "--json"))
        assert out.stat().st_size > 10_000
        assert made["weight"] == 2.0
        assert made["spread"] == max(node["distance"] for node in made["nodes"])
