"""A node that dies between a finished update and its receipt delivers it after its restart, without training again."""

from __future__ import annotations

import re

import pytest

from covey.testing.federation import Federation
from tests.integration.specs import BIG, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
ROUNDS = 3
POINTS = [
    "journaled:2",  # round 2's update is finished, and not offered yet
    "node-upload-chunk:15",  # two of its twelve chunks were read for sending
]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("journal"), nodes=2) as made:
        yield made.start()


@pytest.fixture(scope="module")
def undisturbed(federation):
    return federation.wait(federation.submit(spec("undisturbed", rounds=ROUNDS, **BIG)))["model_sha256"]


@pytest.mark.parametrize("point", POINTS)
def test_a_finished_update_is_not_trained_again(federation, undisturbed, point):
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": point})
    federation.wait_connected(2)
    run = federation.submit(spec(point.replace(":", "-"), rounds=ROUNDS, **BIG))
    assert federation.node(1).wait(60) == -9
    assert rounds_trained(federation, run) == [1, 2]
    assert federation.show(run)["rounds_committed"] == 1
    federation.start_node(1)
    assert federation.wait(run)["model_sha256"] == undisturbed
    assert rounds_trained(federation, run) == [1, 2, 3]
    assert [(r["state"], r["attempt"], r["accepted"]) for r in federation.rounds(run)] == [("committed", 1, 2)] * ROUNDS


def rounds_trained(federation, run):
    """The rounds of this run that n1 trained for, each as often as it did, from its log."""
    lines = [line for line in federation.node(1).log.read_text().splitlines() if run in line and " training " in line]
    return [int(re.findall(r"round=(\d+)", line)[0]) for line in lines]
