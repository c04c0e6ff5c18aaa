"""Nodes of a gossip run that are killed at every point where their records and their peers could come to differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from covey.testing.gossip import GossipNodes, simulated
from covey.testing.launch.processes import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(500)]
STEPS = 16
SPEC = f"""
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "synthetic"
options = {{ parameters = 400_000 }}
[gossip]
steps = {STEPS}
min_nodes = 2
"""
"""Models of two chunks."""
POINTS = {
    0: [
        "gossip-note-unrecorded",
        "gossip-publish-recorded:2",
        "gossip-sending",
        "batch-chunk",
        "batch-durable",
        "gossip-trained",
    ],
    1: [
        "gossip-note-recorded",
        "gossip-publish-unrecorded:2",
        "gossip-sent",
        "batch-here",
        "batch-acknowledged",
        "gossip-made",
        "gossip-end-unrecorded",
        "gossip-end-recorded",
    ],
}
"""Node to the fault points at which it is killed, one after the other; those of the end apart, in half of all steps."""
OPTIONS = {0: ["--stay"], 1: []}
"""The first one is there until the other has ended for good."""


def test_two_nodes_that_are_killed_again_and_again_come_to_the_undisturbed_models(tmp_path: Path) -> None:
    undisturbed = simulated(tmp_path, SPEC, 2)
    with GossipNodes(tmp_path / "real", SPEC, 2, pause_s=60) as nodes:
        left = {index: list(points) for index, points in POINTS.items()}
        codes: dict[int, list[int]] = {index: [] for index in POINTS}
        for index in POINTS:
            nodes.start(index, env={"COVEY_FAULTS": left[index][0]}, options=OPTIONS[index])
        while any(left.values()):  # each goes on at once: the other's next point may need it
            dead = [index for index in POINTS if left[index] and not nodes.daemon(index).alive]
            for index in dead:
                codes[index].append(nodes.daemon(index).wait(1))
                left[index].pop(0)
                env = {"COVEY_FAULTS": left[index][0]} if left[index] else {}
                nodes.start(index, env=env, options=OPTIONS[index])
            assert dead or wait_until(lambda: any(not nodes.daemon(index).alive for index in POINTS), 120), left
        assert codes == {index: [-9] * len(points) for index, points in POINTS.items()}
        assert nodes.daemon(1).wait(200) == 0
        nodes.daemon(0).terminate()
        nodes.wait(60)
        assert nodes.models() == [peer["model_sha256"] for peer in undisturbed["peers"]]
        mass = nodes.audit()
        assert (mass["exact"], mass["findings"], mass["in_flight"], mass["lost"]) == (True, [], 0, 0)
        assert mass["live"] == mass["minted"] == 2 << 52
