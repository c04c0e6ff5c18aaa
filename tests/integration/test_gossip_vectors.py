"""Protocols with vectors beside the model, on real nodes that are killed: the models of the simulation, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covey.testing.gossip import GossipNodes, simulated
from covey.testing.launch.processes import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 1
learning_rate = 0.1
[gossip]
steps = {steps}
min_nodes = 3
"""
RUNS = {
    "momenta": 'momentum = "quasi-global"\nmomentum_nesterov = true\nouter = "slow-momentum"\nouter_every = 2\n',
    "gradient-tracking": 'protocol = "gradient-tracking"\n',
    "noloco": 'protocol = "noloco"\ntopology = { name = "matching" }\n',
    "choco": 'protocol = "choco"\ntopology = { name = "ring" }\nmixing = { name = "metropolis-hastings" }\n'
    '[exchange]\ncodec = "top-k"\noptions = { fraction = 0.1 }\n',
}
POINTS = {
    "momenta": ["gossip-made:3", "gossip-publish-unrecorded:2"],
    "gradient-tracking": ["gossip-publish-recorded:2", "gossip-note-recorded"],
    "noloco": ["gossip-sent", "gossip-note-unrecorded"],
    "choco": ["gossip-made:6", "gossip-publish-recorded:2", "gossip-note-unrecorded:3"],
}
"""Fault points at which the second node is killed, one after the other."""
STEPS = {"choco": 12}
"""More than 6 where the last point might not be reached before the end."""


@pytest.mark.parametrize("run", list(RUNS))
def test_killed_nodes_come_to_the_models_of_the_simulation(tmp_path: Path, run: str) -> None:
    spec = SPEC.format(steps=STEPS.get(run, 6)) + RUNS[run]
    outcome = simulated(tmp_path, spec, 3)
    with GossipNodes(tmp_path / "real", spec, 3, pause_s=60) as nodes:
        for index in (0, 2):
            nodes.start(index)
        for point in POINTS[run]:
            daemon = nodes.start(1, env={"COVEY_FAULTS": point})
            assert wait_until(lambda: not nodes.daemon(1).alive, 150)
            assert daemon.wait(1) == -9
        nodes.start(1)
        nodes.wait()
        assert nodes.models() == [peer["model_sha256"] for peer in outcome["peers"]]
        mass = nodes.audit()
        assert (mass["exact"], mass["in_flight"], mass["lost"], mass["findings"]) == (True, 0, 0, [])
        out = tmp_path / "mean.safetensors"
        folders = [nodes.folder(index) for index in range(3)]
        mean = json.loads(nodes.cli("gossip", "export", *folders, "--out", out, "--json"))
        assert mean["model_sha256"] == outcome["model_sha256"]
        for folder in folders:  # what is superseded is gone: the model, its body of the last step, what stays
            assert len(list(folder.glob("gossip/gossip/1/files/artifacts/*"))) in (2, 3)
