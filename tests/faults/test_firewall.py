"""A link that a firewall cuts in an open round, silently and both ways (iptables, between two network namespaces)."""

from __future__ import annotations

import pytest

from covey.testing.federation import Federation
from tests.faults.namespaces import HERE, cable
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
NO_EVALUATION = "[evaluation]\nevery = 0"
LARGE = {"task": "synthetic", "options": "parameters = 3000000", "rounds": 2, "extra": NO_EVALUATION}
MANY = {"task": "synthetic", "options": "train_seconds = 0.1", "rounds": 1000, "extra": NO_EVALUATION}
SOME_PACKETS = 3


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """Node n1 is on a machine of its own; its coordinator, and node n0, are here."""
    with cable() as link, Federation(tmp_path_factory.mktemp("firewall"), nodes=2) as federation:
        federation.coordinator_address = f"{HERE}:0"
        federation.start_coordinator()
        federation.join()
        federation.start_node(0)
        federation.start_node(1, under=link.under)
        federation.wait_connected(2)
        yield federation, link


def phase_of(federation, run, number, node):
    """How far a node is with an open round."""
    return {one["node"]: one["phase"] for one in federation.admin.round(run, number)["nodes"]}.get(node)


def test_a_link_that_is_cut_for_a_while_in_an_open_round_changes_nothing(setup):
    """The other node's update is in by then, so that all that the round waits for is behind the firewall."""
    federation, link = setup
    text = spec("cut", **LARGE)
    run = federation.submit(text)
    federation.wait_round(run, 1)
    link.cut()
    federation.until(lambda: phase_of(federation, run, 2, "n0") == "received", 30, "n0 is cut off as well")
    federation.until(lambda: link.stopped_packets > SOME_PACKETS, 30, "nothing was cut")
    assert phase_of(federation, run, 2, "n1") != "received"
    assert federation.show(run)["rounds_committed"] == 1
    link.mend()
    ended = federation.wait(run)
    assert [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 1, 2)] * 2
    assert federation.wait(federation.submit(text))["model_sha256"] == ended["model_sha256"]


def test_a_link_that_is_cut_for_longer_than_the_deadline_costs_the_node_its_rounds_and_no_more(setup):
    federation, link = setup
    policy = "quorum = 0.5\ndeadline_s = 1.5"
    run = federation.submit(spec("cut-long", min_nodes=1, policy=policy, **MANY))
    federation.wait_round(run, 1)
    link.cut()
    federation.until(lambda: any(r["late"] for r in federation.rounds(run)), 30, "no round ended without it")
    link.mend()
    without = len(federation.rounds(run))
    federation.until(lambda: any(r["accepted"] == 2 for r in federation.rounds(run)[without:]), 60, "it stayed away")
    federation.admin.stop_run(run)
    federation.wait(run, ("stopped",))
