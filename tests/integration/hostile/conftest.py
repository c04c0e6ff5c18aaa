"""An honest node, and one whose identity the tests use themselves."""

from __future__ import annotations

import pytest

from covey.testing.federation import Federation
from tests.integration.hostile.node import Hostile


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """An honest node n0, and n1, whose identity the tests use themselves; each test leaves them as they were."""
    with Federation(tmp_path_factory.mktemp("federation"), nodes=2) as made:
        made.start_coordinator()
        made.join()
        made.start_node(0)
        made.wait_connected(1)
        yield made


@pytest.fixture
def hostile(federation):
    """n1, connected. Whatever it did, the coordinator is up afterwards and had no error of its own."""
    log, pid = federation.coordinator.log, federation.coordinator.pid
    before = len(log.read_text(errors="replace"))
    with Hostile(federation.node_dir(1) / "identity", federation.coordinator_address) as made:
        federation.wait_connected(2)
        yield made
    for left in federation.admin.runs():  # of a test that failed; else the next ones would wait for it
        if left["state"] in ("queued", "running"):
            federation.admin.stop_run(left["run"])
    federation.wait_connected(1)
    assert federation.coordinator.pid == pid
    assert federation.coordinator.alive
    assert "Traceback" not in log.read_text(errors="replace")[before:]
