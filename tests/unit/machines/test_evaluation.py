from __future__ import annotations

from dataclasses import dataclass

import pytest

from covey.machines.evaluation import Evaluations, is_due
from covey.machines.protocol import AssignEvaluation, EvaluateCentrally


@dataclass(frozen=True)
class Policy:
    evaluate_every: int = 2
    evaluate_centrally: bool = True
    evaluate_on_nodes: bool = True
    deadline_s: float = 10.0
    hard_deadline_s: float = 25.0


@pytest.mark.parametrize(
    ("version", "every", "last", "due"),
    [
        (0, 1, False, False),
        (0, 1, True, False),
        (1, 1, False, True),
        (3, 2, False, False),
        (4, 2, False, True),
        (3, 2, True, True),
        (4, 0, True, False),
    ],
)
def test_each_so_many_versions_and_the_last_are_due(version, every, last, due):
    assert is_due(version, every, last=last) is due


def test_what_is_due_is_waited_for():
    evaluations = Evaluations([2])
    assert evaluations.start() == [EvaluateCentrally(2)]
    assert evaluations.committed(Policy(), 3) == []
    assert evaluations.committed(Policy(), 4) == [EvaluateCentrally(4)]
    assert evaluations.unevaluated == (2, 4)
    evaluations.evaluated(2)
    assert not evaluations.all_done(0.0)
    evaluations.evaluated(4)
    evaluations.evaluated(4)
    assert evaluations.all_done(0.0)


def test_without_central_data_nothing_is_asked_of_the_coordinator():
    evaluations = Evaluations()
    assert evaluations.committed(Policy(evaluate_centrally=False), 2, last=True) == []
    assert evaluations.all_done(0.0)


def test_nodes_that_are_asked_have_a_deadline():
    evaluations = Evaluations()
    assert evaluations.wake_times() == []
    asked = evaluations.ask_nodes(Policy(), 3, ["b", "a", "c"], 100.0)
    assert asked == [AssignEvaluation(node, 3) for node in "abc"]
    assert evaluations.wake_times() == [110.0]
    evaluations.answered("a")
    assert not evaluations.all_done(109.0)
    assert evaluations.all_done(110.0)


def test_a_node_that_works_for_another_run_first_has_its_time_when_it_is_done_there():
    evaluations = Evaluations()
    evaluations.ask_nodes(Policy(), 3, ["a", "b"], 100.0)
    evaluations.queued("b", 108.0)
    evaluations.queued("c", 108.0)  # was not asked
    assert not evaluations.all_done(110.0)  # a's time is up
    assert evaluations.wake_times() == [118.0]
    evaluations.queued("b", 117.0)
    assert evaluations.wake_times() == [125.0]  # the hard deadline
    assert evaluations.all_done(125.0)


@pytest.mark.parametrize(
    ("policy", "version"), [(Policy(evaluate_on_nodes=False), 2), (Policy(evaluate_every=0), 2), (Policy(), 0)]
)
def test_nodes_are_not_asked_for_nothing(policy, version):
    evaluations = Evaluations()
    assert evaluations.ask_nodes(policy, version, ["a"], 0.0) == []
    assert evaluations.all_done(0.0)
