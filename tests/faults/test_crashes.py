"""kill -9 at every named point: the run goes on by itself, and ends with the model of the undisturbed run."""

from __future__ import annotations

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import BIG, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
ROUNDS = 4

COORDINATOR_POINTS = [
    "invite:4",  # one of round 2's two invitations is out
    "update-recorded:3",  # one of round 2's two updates is in
    "upload-chunk:30",  # in the middle of an upload of round 2
    "aggregate:2",
    "before-commit:2",
    "after-commit:2",
]
NODE_POINTS = ["assigned:2", "downloaded:2", "trained:2"]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("crashes"), nodes=2) as made:
        yield made.start()


@pytest.fixture(scope="module")
def undisturbed(federation):
    return federation.wait(federation.submit(spec("undisturbed", rounds=ROUNDS, **BIG)))["model_sha256"]


def finish(federation, run, undisturbed):
    shown = federation.wait(run)
    assert shown["model_sha256"] == undisturbed
    rounds = federation.rounds(run)
    assert [(r["round"], r["state"], r["accepted"]) for r in rounds] == [
        (n, "committed", 2) for n in range(1, ROUNDS + 1)
    ]


def count_deliveries(federation, run):
    """How often each node trained for this run, and how often it had an update acknowledged, from its own log."""
    logs = [daemon.log.read_text() for daemon in federation.nodes]
    return [
        [sum(run in line and what in line for line in text.splitlines()) for what in (" training", "update delivered")]
        for text in logs
    ]


@pytest.mark.parametrize("point", COORDINATOR_POINTS)
def test_coordinator(federation, undisturbed, point):
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": point})
    federation.wait_connected(2)
    run = federation.submit(spec(point.replace(":", "-"), rounds=ROUNDS, **BIG))
    assert federation.coordinator.wait(60) == -9
    federation.start_coordinator()
    finish(federation, run, undisturbed)
    for trained, delivered in count_deliveries(federation, run):  # nothing received was asked for again
        assert trained == ROUNDS
        assert delivered <= ROUNDS  # one receipt may have been overtaken by the next round


@pytest.mark.parametrize("point", NODE_POINTS)
def test_node(federation, undisturbed, point):
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": point})
    federation.wait_connected(2)
    run = federation.submit(spec(point.replace(":", "-"), rounds=ROUNDS, **BIG))
    assert federation.node(1).wait(60) == -9
    federation.start_node(1)
    finish(federation, run, undisturbed)


def test_worker_of_a_node(federation, undisturbed):
    run = federation.submit(spec("worker-of-node", rounds=ROUNDS, **BIG))
    federation.wait_round(run, 1)
    federation.kill_worker("n0")
    finish(federation, run, undisturbed)


def test_worker_of_the_coordinator(federation, undisturbed):
    run = federation.submit(spec("worker-of-coordinator", rounds=ROUNDS, **BIG))
    federation.wait_round(run, 1)
    federation.kill_worker("coordinator")
    finish(federation, run, undisturbed)


def test_worker_in_the_middle_of_training(federation):
    undisturbed = federation.wait(federation.submit(spec("trained", rounds=ROUNDS)))["model_sha256"]
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": "training-step:30"})  # a round has 23 steps
    federation.wait_connected(2)
    finish(federation, federation.submit(spec("killed-in-training", rounds=ROUNDS)), undisturbed)
    assert "the worker died" in federation.node(1).log.read_text()


def test_worker_in_the_middle_of_aggregating(federation, undisturbed):
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": "aggregate-block:20"})  # a round has 12 blocks
    federation.wait_connected(2)
    finish(federation, federation.submit(spec("killed-in-aggregation", rounds=ROUNDS, **BIG)), undisturbed)
    assert "the worker died" in federation.coordinator.log.read_text()
