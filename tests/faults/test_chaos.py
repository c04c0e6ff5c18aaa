"""A short piece of chaos; `make chaos` is longer, and has synchronous runs too."""

from __future__ import annotations

import pytest

from covey.testing.chaos.chase import Chase, Plan

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
KINDS = ("kill-coordinator", "kill-node", "kill-worker", "suspend", "cut-link", "cut-transfer", "terminate-twice")


def test_asynchronous_runs_end_and_count_every_update_once_whatever_fails(tmp_path):
    works = ("kardam", "buffered")
    plan = Plan(tmp_path, 5, minutes=0.15, laps=1, rounds=15, works=works, kinds=KINDS, mean_pause_s=0.4)
    outcome = Chase(plan, print).run()
    assert outcome.problems == []
    assert sum(outcome.struck.values()) >= 3
    decided = [run["updates_decided"] for lap in outcome.laps for run in lap.runs.values()]
    assert decided == [90, 90]
