"""Gossip through a coordinator: it hands out who takes part and observes; no model passes through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from covey.client.gossip_nodes import read_account
from covey.testing.federation import Federation
from covey.testing.launch.ports import free_addresses

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
ONE = 1 << 52
SPEC = """
name = "gossip"
mode = "gossip"
seed = 3
[task]
name = "digits"
[data]
partition = "shards"
[training]
local_steps = 2
learning_rate = 0.1
[gossip]
steps = {steps}
min_nodes = {nodes}
"""


def started(federation: Federation, callers: int = 0) -> list[str]:
    """Start a federation whose nodes listen for peers, but for the last `callers`; the addresses."""
    names = federation.names
    addresses = free_addresses(len(names))
    federation.start_coordinator()
    federation.join()
    for index, address in enumerate(addresses):
        options = ["--peer-listen", address] if index < len(names) - callers else []
        federation.start_node(index, options=options)
    federation.wait_connected(len(names))
    return addresses


def audited(federation: Federation, run: str) -> dict[str, Any]:
    """`covey gossip audit` of all nodes' data directories."""
    folders = [federation.node_dir(index) for index in range(len(federation.names))]
    report: dict[str, Any] = json.loads(federation.cli("gossip", "audit", *folders, "--run", run, "--json"))
    return report


def test_three_nodes_one_of_which_only_calls(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=3) as federation:
        started(federation, callers=1)
        run = federation.submit(SPEC.format(steps=6, nodes=3))
        ended = federation.wait(run, timeout_s=300)
        assert (ended["state"], ended["reason"]) == ("completed", "")
        mass = audited(federation, run)
        assert (mass["exact"], mass["live"], mass["findings"]) == (True, 3 * ONE, [])
        accounts = [read_account(federation.node_dir(index), run) for index in range(3)]
        assert all(account["edges"] for account in accounts)
