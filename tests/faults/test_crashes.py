"""kill -9 at every named point, one after the other: the run goes on by itself, and ends with the undisturbed model."""

from __future__ import annotations

import json

import pytest

from covey.testing.federation import Federation
from tests.faults.chain import PATIENT, run_along
from tests.integration.specs import BIG, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ROUNDS = 14
COORDINATOR_POINTS = [
    "invite:2",  # one of a round's two invitations is out
    "update-recorded:1",  # one of its two updates is in
    "upload-chunk:6",  # in the middle of an upload
    "download-chunk:6",  # in the middle of a download
    "aggregate:1",
    "before-commit:1",
    "after-commit:1",
]
NODE_POINTS = ["assigned:1", "node-download-chunk:6", "downloaded:1", "trained:1"]
"""Where nothing is finished that would not have to be done again; see test_journal.py for the others."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Its models last at an address: `before-commit` is between their sending and the record of it."""
    root = tmp_path_factory.mktemp("crashes")
    with Federation(root, nodes=2, env={"COVEY_ARTIFACTS": f"file://{root}/models"}) as made:
        yield made.start()


@pytest.fixture(scope="module")
def undisturbed(federation):
    return federation.wait(federation.submit(text_of("undisturbed")), timeout_s=180)["model_sha256"]


def text_of(name):
    return spec(name, rounds=ROUNDS, policy=PATIENT, extra="[evaluation]\nevery = 10", **BIG)


def finish(federation, run, undisturbed):
    shown = federation.wait(run, timeout_s=180)
    assert shown["model_sha256"] == undisturbed
    committed = [(r["round"], r["state"], r["accepted"]) for r in federation.rounds(run)]
    assert committed == [(n, "committed", 2) for n in range(1, ROUNDS + 1)]
    checked = json.loads(federation.cli("store", "check", "--data-dir", federation.coordinator_dir, "--json"))
    assert (checked["ok"], checked["problems"]) == (True, [])


def count_deliveries(federation, run):
    """How often each node trained for this run, and how often it had an update acknowledged, from its own log."""
    logs = [daemon.log.read_text() for daemon in federation.nodes]
    return [
        [sum(run in line and what in line for line in text.splitlines()) for what in (" training", "update delivered")]
        for text in logs
    ]


def test_a_coordinator_and_a_node_that_are_killed_at_every_point(federation, undisturbed):
    run = run_along(federation, text_of("killed"), coordinator=COORDINATOR_POINTS, node=NODE_POINTS)["run"]
    finish(federation, run, undisturbed)
    trained, delivered = count_deliveries(federation, run)[0]  # of the node that lived on
    assert trained == ROUNDS  # nothing received was asked for again
    assert delivered <= ROUNDS  # a receipt may have been overtaken by the next round


def test_workers_that_are_killed_at_any_time(federation, undisturbed):
    run = federation.submit(text_of("workers"))
    for number, name in enumerate(["n0", "coordinator", "n1", "coordinator"], start=1):
        federation.wait_round(run, 3 * number)
        federation.kill_worker(name)
    finish(federation, run, undisturbed)


def test_workers_in_the_middle_of_training_and_of_aggregating(federation, undisturbed):
    federation.stop_coordinator()
    federation.stop_node(1)
    federation.start_coordinator(env={"COVEY_FAULTS": "aggregate-block:100"})  # a round has 12 blocks
    federation.start_node(1, env={"COVEY_FAULTS": "training-step:8"})  # and one step
    federation.wait_connected(2)
    finish(federation, federation.submit(text_of("killed-within")), undisturbed)
    for daemon in (federation.coordinator, federation.node(1)):
        assert "the worker died" in daemon.printed  # its earlier starts have said so, too
