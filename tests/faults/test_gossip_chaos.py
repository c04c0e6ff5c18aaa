"""A short piece of chaos among gossip nodes; `python -m covey.testing.chaos --works gossip` is longer."""

from __future__ import annotations

import pytest

from covey.testing.chaos.gossip.report import GossipReport
from covey.testing.chaos.gossip.trial import GossipPlan, Trial

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
KINDS = ("kill-node", "kill-worker", "suspend", "cut-link", "cut-in-halves", "full-disk")


def test_three_nodes_of_whose_messages_a_fifth_is_lost_end_with_all_mass_whatever_fails(tmp_path):
    plan = GossipPlan(tmp_path, 4, minutes=0.3, nodes=3, pace_s=0.3, loss=0.2, kinds=KINDS, mean_pause_s=1.5)
    outcome = Trial(plan, print).run()
    assert outcome.problems == []
    assert outcome.struck
    assert outcome.steps > 0
    assert outcome.mass["live"] == 3 << 52
    said = GossipReport(plan, outcome).as_json(None)
    assert said["goodput"] == outcome.steps / outcome.undisturbed_steps > 0.1
    assert said["distance"] < 5.0
    assert min(outcome.accuracies) > 0.2  # above chance: how far they come in so short a time is the machine's affair
