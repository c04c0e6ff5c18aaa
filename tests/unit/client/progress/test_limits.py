"""What privacy is spent, and how near the rules of [stop] are, as the run's own machine counts it."""

from __future__ import annotations

import math

import pytest

from covey.client.progress.history import History
from covey.client.progress.limits import PrivacySpent, distances_of, privacy_of
from covey.client.values import Round, Run
from covey.machines.stopping import Distance

EVALUATION = {"metric": "accuracy", "goal": "max"}


def run(metrics=None, **spec):
    return Run("id", "name", "rounds", "running", started_at=100.0, spec=spec, metrics=metrics or {})


def test_privacy_is_what_was_spent_of_the_budget():
    spec = {"privacy": {"unit": "example"}, "stop": {"epsilon": 8.0}}
    spent = {"privacy/epsilon": 2.5, "privacy/delta": 1e-5}
    assert privacy_of(run(**spec)) == PrivacySpent(None, None, 8.0, False)
    assert privacy_of(run(spent, **spec)) == PrivacySpent(2.5, 1e-5, 8.0, False)
    assert privacy_of(run({"privacy/simulated-epsilon": math.inf}, **spec)) == PrivacySpent(None, None, 8.0, True)
    assert privacy_of(run()) is None


def rounds(*values, name="accuracy"):
    history = History()
    history.add(
        Round(number, "committed", committed_at=1.0, bytes_received=10, bytes_sent=90, metrics={name: value})
        for number, value in enumerate(values, start=1)
    )
    return history


def test_each_rule_says_how_near_it_is():
    stop = {"target": 0.9, "patience": 5, "min_delta": 0.01, "time_s": 600, "bytes": 100, "epsilon": 8.0}
    known = distances_of(run(stop=stop, evaluation=EVALUATION), rounds(0.5, 0.7, 0.705, 0.6), 160.0)
    assert known == [
        Distance("target", 0.7, 0.9),
        Distance("patience", 2.0, 5.0),
        Distance("bytes", 40.0, 100.0),
        Distance("time_s", 60.0, 600.0),
    ]


@pytest.mark.parametrize(("goal", "best"), [("min", 0.5), ("max", 0.7)])
def test_what_nodes_measured_counts_where_nobody_else_does(goal, best):
    shown = run(stop={"target": 0.1 if goal == "min" else 0.9}, evaluation={"metric": "loss", "goal": goal})
    assert distances_of(shown, rounds(0.5, 0.7, name="nodes/loss"), 0.0)[0].at == best


def test_of_a_record_in_part_only_time_is_known():
    history = rounds(0.5)
    history.add([Round(9, "committed", metrics={"accuracy": 0.6})])
    stop = {"target": 0.9, "patience": 3, "bytes": 100, "time_s": 10}
    assert distances_of(run(stop=stop, evaluation=EVALUATION), history, 105.0) == [Distance("time_s", 5.0, 10.0)]


@pytest.mark.parametrize("stop", [None, {}, "soon", {"target": "high", "patience": True, "time_s": math.nan}])
def test_without_rules_that_are_known_there_is_no_distance(stop):
    assert distances_of(run(stop=stop), rounds(0.5), 0.0) == []
