"""A short piece of chaos; `make chaos` is longer, and has synchronous runs too."""

from __future__ import annotations

import pytest

from covey.testing.chaos.chase import Chase, Plan

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


def test_asynchronous_runs_end_and_count_every_update_once_whatever_fails(tmp_path):
    plan = Plan(tmp_path, seed=5, minutes=0.1, rounds=15, works=("kardam", "buffered"), mean_pause_s=0.5)
    outcome = Chase(plan, print).run()
    assert outcome.problems == []
    assert sum(outcome.struck.values()) >= 3
    decided = [run["updates_decided"] for lap in outcome.laps for run in lap.runs.values()]
    assert decided == [90] * 2 * (len(outcome.laps) - 1)
