"""The run that the drills disturb, and what counts as undisturbed."""

from __future__ import annotations

import time

from tests.testbed.containers import NODES

ROUNDS, STRUCK = 6, 3
"""Rounds of a drill's run, and the one in whose middle something happens."""


def spec(name, *, rounds=ROUNDS, nodes=NODES, extra=""):
    """Digits with rounds of a second or two, so that there is a middle."""
    return f"""
name = "{name}"
seed = 11
[task]
name = "digits"
[training]
learning_rate = 0.05
batch_size = 32
local_epochs = 200
[rounds]
count = {rounds}
min_nodes = {nodes}
{extra}
"""


class Struck:
    """A run of the same specification, and what happens to it in the middle of a round."""

    def __init__(self, testbed, name, blow):
        self.testbed = testbed
        self.run = testbed.admin.submit(spec(name))
        testbed.wait_round(self.run, STRUCK)
        blow()
        self.at = time.time()

    def completes(self, undisturbed):
        """It ends with the same bytes, and what happened did happen in the middle of that round."""
        ended = self.testbed.wait(self.run)
        assert ended["model_sha256"] == undisturbed["model_sha256"]
        rounds = {r["round"]: r for r in self.testbed.admin.rounds(self.run)}
        assert len(rounds) == ROUNDS
        assert rounds[STRUCK]["started_at"] < self.at < rounds[STRUCK]["committed_at"]
        assert all(r["accepted"] == NODES for r in rounds.values())
