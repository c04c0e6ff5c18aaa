"""Gossip on the testbed: a node is cut off the network of its peers and comes back; the audit has all mass."""

from __future__ import annotations

import json
from typing import Any

from tests.testbed.containers import NODES, Testbed, docker

ONE = 1 << 52
SPEC = f"""
name = "gossip-cut"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 100
learning_rate = 0.05
[gossip]
steps = 200
min_nodes = {NODES}
"""


def shown(testbed: Testbed, run: str) -> dict[str, Any]:
    """The run as `covey run show --json` has it."""
    values: dict[str, Any] = json.loads(testbed.covey("run", "show", run, "--json"))
    return values


def say(container: str, word: str) -> int:
    """How many lines of a container's log have a word."""
    return docker("logs", container, check=False).count(word)


def test_a_node_that_is_cut_off_its_peers_comes_back_and_no_mass_is_lost(testbed: Testbed) -> None:
    cut, other = testbed.containers("node")[:2]
    name, network = testbed.name_of(cut), f"{testbed.project}_peers"
    run = testbed.admin.submit(SPEC)
    testbed.until(lambda: shown(testbed, run)["steps_done"] >= 3, 120, "three steps of every node", poll_s=1.0)
    assert all(part["address"].endswith(":7410") for part in shown(testbed, run)["gossip"])
    suspected = say(other, '"suspected"')
    docker("network", "disconnect", network, cut)
    testbed.until(lambda: say(other, '"suspected"') > suspected, 60, f"somebody who suspects {name}", poll_s=1.0)
    trusted = say(other, '"trusted"')
    docker("network", "connect", network, cut)
    testbed.until(lambda: say(other, '"trusted"') > trusted, 120, f"{name} is trusted again", poll_s=1.0)
    assert shown(testbed, run)["state"] == "running", "the run was over before the network was whole"
    ended = testbed.wait(run, 300)
    assert ended["reason"] == ""
    view = shown(testbed, run)
    assert [part["state"] for part in view["gossip"]] == ["completed"] * NODES
    assert view["mass"] == {
        "weighs": "mass",
        "exact": True,
        "live": NODES * ONE,
        "in_flight": 0,
        "minted": NODES * ONE,
        "lost": 0,
        "uncertain": 0,
        "findings": [],
    }
    audit = json.loads(testbed.covey("run", "audit", run, "--json"))
    assert (audit["ok"], audit["notes"]) == (True, [])
