"""The computer's clock is set by hours, forward and back, on the coordinator and on a node, while a round is open."""

from __future__ import annotations

import pytest

from covey.node.membership.enrolment import join
from covey.testing.federation import Federation
from tests.faults.moved_clocks import COMPILER, Clock, compiled
from tests.integration.specs import spec

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not COMPILER, reason="no C compiler for the library that moves a daemon's clock"),
]
QUICK = {"task": "synthetic", "policy": "deadline_s = 60.0"}
SLOW = {**QUICK, "options": "train_seconds = 0.5"}
"""The same training, with time in it for clocks to be set."""
HOURS_6 = 6 * 3600
HOURS_3 = 3 * 3600


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """Coordinator and node n1 have clocks of their own; they are executed, for nothing can be preloaded in a fork."""
    folder = tmp_path_factory.mktemp("clocks")
    library = compiled(folder)
    clocks = Clock(folder / "of-coordinator", library), Clock(folder / "of-node", library)
    with Federation(folder / "federation", nodes=3, fork=False) as federation:
        federation.start_coordinator(env=clocks[0].env)
        federation.join((0, 1))
        federation.start_node(0)
        federation.start_node(1, env=clocks[1].env)
        federation.wait_connected(2)
        yield federation, *clocks


def test_clocks_that_are_set_change_nothing_in_a_run(setup):
    federation, of_coordinator, of_node = setup
    undisturbed = federation.wait(federation.submit(spec("clocks", rounds=4, **QUICK)))["model_sha256"]
    token = federation.admin.create_token(federation.names[2])
    run = federation.submit(spec("clocks", rounds=4, **SLOW))
    for clock, seconds in ((of_coordinator, HOURS_6), (of_coordinator, -HOURS_3), (of_node, HOURS_6)):
        before = federation.show(run)["rounds_committed"]
        clock.set(seconds)
        federation.wait_round(run, before + 1)
    of_coordinator.set(0)
    of_node.set(-HOURS_3)
    assert federation.wait(run)["model_sha256"] == undisturbed
    assert [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 1, 2)] * 4
    of_node.set(0)
    assert federation.admin.status()["nodes_connected"] == 2
    join(token, federation.node_dir(2))  # which was over while the clock was ahead
    for daemon in (federation.coordinator, federation.node(1)):
        federation.until(lambda d=daemon: d.printed.count("clock was set") >= 2, 20, "nobody said it")
