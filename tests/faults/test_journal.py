"""A node that dies between a finished update and its receipt delivers it after its restart, without training again."""

from __future__ import annotations

import re

import pytest

from covey.testing.federation import Federation
from tests.faults.chain import PATIENT, run_along
from tests.integration.specs import BIG, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
ROUNDS = 5
POINTS = [
    "journaled:2",  # a round's update is finished, and not offered yet
    "node-upload-chunk:15",  # two of the next one's twelve chunks were read for sending
    "journaled:1",
]


def text_of(name):
    return spec(name, rounds=ROUNDS, policy=PATIENT, **BIG)


def test_a_finished_update_is_not_trained_again(tmp_path):
    with Federation(tmp_path, nodes=2) as federation:
        federation.start()
        undisturbed = federation.wait(federation.submit(text_of("undisturbed")), timeout_s=180)
        run = run_along(federation, text_of("killed"), node=POINTS)
        assert run["model_sha256"] == undisturbed["model_sha256"]
        assert rounds_trained(federation, run["run"]) == list(range(1, ROUNDS + 1))
        rounds = federation.rounds(run["run"])
        assert [(r["state"], r["attempt"], r["accepted"]) for r in rounds] == [("committed", 1, 2)] * ROUNDS


def rounds_trained(federation, run):
    """The rounds of this run that n1 trained for, each as often as it did, from its log."""
    lines = [line for line in federation.node(1).log.read_text().splitlines() if run in line and " training " in line]
    return [int(re.findall(r"round=(\d+)", line)[0]) for line in lines]
