"""The machine of mode async, in scripted cases; `test_asynchronous_interleavings` has those that nobody thought of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.modes.asynchronous.events import (
    AsyncRestored,
    CloseAssignment,
    Decided,
    DecideNext,
    DecisionFailed,
    NothingToDecide,
    OpenAssignment,
    OpenWork,
    SendAssignment,
)
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.machines.protocol import (
    NO_PLACE,
    AssignEvaluation,
    Cancel,
    EvaluateCentrally,
    Evaluated,
    FinishRun,
    NodeAnswered,
    NodeEvaluated,
    NodeJoined,
    NodeLost,
    NodeQueued,
    NodeRemoved,
    PauseChanged,
    PlaceChanged,
    Report,
    Started,
    StopRequested,
    Tick,
    TransferProgressed,
    UpdateStored,
)
from tests.unit.coordinator.modes.asynchronous.async_machine import POLICY, kinds, opened, started


def test_a_node_gets_work_when_it_is_there_and_again_after_each_decision():
    made, actions = started()
    assert opened(actions) == [("a", 1, 0), ("b", 2, 0)]
    assert kinds(actions, OpenAssignment | SendAssignment)[:2] == [
        OpenAssignment("a", 1, 0, ("a", "b")),
        SendAssignment("a", 1),
    ]
    assert made.handle(UpdateStored("b", 2, 1)) == [DecideNext()]
    assert made.handle(UpdateStored("a", 1, 2)) == []  # one decision at a time
    actions = made.handle(Decided("b", 2, 1, True, 3))
    assert opened(actions) == [("b", 3, 1)]
    assert kinds(actions, DecideNext) == [DecideNext()]
    actions = made.handle(Decided("a", 1, 1, True, 4))
    assert opened(actions) == [("a", 4, 1)]
    assert made.state == "working"


def test_the_run_ends_after_its_updates_with_an_evaluation():
    made, _ = started(replace(POLICY, updates=2))
    made.handle(UpdateStored("a", 1, 1))
    made.handle(Decided("a", 1, 1, True, 1))
    made.handle(UpdateStored("b", 2, 2))
    actions = made.handle(Decided("b", 2, 1, True, 3))
    assert actions == [Cancel("a", 3, "the run has all its updates"), EvaluateCentrally(1)]
    assert made.state == "finishing"
    assert made.unevaluated == (1,)
    assert made.handle(UpdateStored("a", 3, 4)) == []
    assert made.handle(Evaluated(1, 5)) == [FinishRun("completed", "")]


def test_versions_are_evaluated_every_so_often():
    made, _ = started(replace(POLICY, updates=100))
    evaluated = []
    for number in range(1, 8):
        node = "a" if number % 2 else "b"
        made.handle(UpdateStored(node, number, number))
        evaluated += kinds(made.handle(Decided(node, number, number, True, number)), EvaluateCentrally)
    assert [action.version for action in evaluated] == [2, 4, 6]


def test_the_last_version_is_evaluated_on_the_nodes():
    made, _ = started(replace(POLICY, updates=1, evaluate_on_nodes=True, evaluate_centrally=False))
    made.handle(UpdateStored("a", 1, 1))
    actions = made.handle(Decided("a", 1, 1, True, 1))
    assert kinds(actions, AssignEvaluation) == [AssignEvaluation("a", 1), AssignEvaluation("b", 1)]
    made.handle(NodeEvaluated("a", 1, 2))
    assert made.handle(NodeLost("b", 3)) == [FinishRun("completed", "")]


def test_too_few_nodes_wait_and_go_on():
    made = AsyncMachine(POLICY, ())
    made.handle(Started(0))
    actions = made.handle(NodeJoined("a", 0))
    assert actions == [Report("2 nodes are needed; 1 connected")]
    actions = made.handle(NodeJoined("b", 5))
    assert opened(actions) == [("a", 1, 0), ("b", 2, 0)]
    assert actions[0] == Report("")
    made.handle(NodeLost("b", 10))
    made.handle(UpdateStored("a", 1, 11))
    assert opened(made.handle(Decided("a", 1, 1, True, 12))) == [("a", 3, 1)]  # b is expected back
    actions = made.handle(Tick(40))
    assert CloseAssignment("b", 2, "lost", "no connection for 30 s") in actions
    made.handle(UpdateStored("a", 3, 41))
    assert kinds(made.handle(Decided("a", 3, 2, True, 42)), OpenAssignment) == []


def test_a_node_that_returns_in_time_keeps_its_assignment():
    made, _ = started()
    made.handle(NodeLost("b", 2))
    assert made.wake_at == 32
    assert made.handle(NodeJoined("b", 31)) == [SendAssignment("b", 2)]
    made.handle(NodeLost("b", 40))
    assert CloseAssignment("b", 2, "lost", "no connection for 30 s") in made.handle(Tick(70))
    assert opened(made.handle(NodeJoined("b", 80))) == [("b", 3, 0)]


def test_an_assignment_without_progress_is_given_up():
    made, _ = started()
    made.handle(TransferProgressed("a", 60))
    assert made.wake_at == 100
    actions = made.handle(Tick(100))
    assert actions[:2] == [
        Cancel("b", 2, "the assignment took too long"),
        CloseAssignment("b", 2, "late", "no progress for 100 s"),
    ]
    assert made.expects("a", 1)
    assert not made.expects("b", 2)
    assert opened(made.handle(Tick(101))) == [("b", 3, 0)]


def test_a_node_that_declines_waits_longer_each_time():
    made, _ = started()
    now, waits = 0.0, []
    for _ in range(6):
        number = made.open["b"].number
        actions = made.handle(NodeAnswered("b", number, "declined", "no", now))
        assert actions == [CloseAssignment("b", number, "declined", "no")]
        before, now = now, made.wake_at
        waits.append(now - before)
        assert opened(made.handle(TransferProgressed("a", now)))[0][0] == "b"
    assert waits == [1, 2, 4, 8, 8, 8]
    number = made.open["b"].number
    made.handle(UpdateStored("b", number, now))
    assert opened(made.handle(Decided("b", number, 1, True, now))) == [("b", number + 1, 1)]  # all is forgiven


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_says_so_when_no_node_delivers_and_fails_if_it_is_to(fails):
    made, _ = started(replace(POLICY, max_retries=1, fail_when_short=fails))
    now, seen = 0.0, []
    for _ in range(2):
        for node in ("a", "b"):
            seen += made.handle(NodeAnswered(node, made.open[node].number, "declined", "diverged", now))
        now += 10
        seen += made.handle(Tick(now))
    reason = "no node delivers an update any more; the last one: b declined: diverged"
    assert (FinishRun("failed", reason) if fails else Report(reason)) in seen
    assert made.done == fails
    if not fails:
        assert made.handle(UpdateStored("a", made.open["a"].number, now)) == [DecideNext(), Report("")]


def test_double_and_late_messages_change_nothing():
    made, _ = started()
    assert made.handle(UpdateStored("a", 1, 1)) == [DecideNext()]
    assert made.handle(UpdateStored("a", 1, 1)) == []
    assert made.handle(NodeAnswered("a", 1, "declined", "no", 1)) == []
    assert made.collects("a", 1)
    assert not made.expects("a", 1)
    assert opened(made.handle(Decided("a", 1, 1, True, 2))) == [("a", 3, 1)]
    assert made.handle(UpdateStored("a", 1, 3)) == [DecideNext()]  # the record is asked
    assert made.handle(NothingToDecide(4)) == []
    assert made.open["a"].number == 3
    assert made.handle(NodeAnswered("a", 1, "declined", "no", 5)) == []


def test_what_comes_while_the_record_is_asked_is_not_forgotten():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    made.handle(Decided("a", 1, 1, True, 2))
    made.handle(UpdateStored("a", 1, 3))
    assert made.handle(UpdateStored("b", 2, 4)) == []
    assert made.handle(NothingToDecide(5)) == [DecideNext()]
    assert opened(made.handle(Decided("b", 2, 2, True, 6))) == [("b", 4, 2)]


def test_a_decision_may_come_before_the_word_of_the_update():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    actions = made.handle(Decided("b", 2, 1, True, 2))  # it was recorded before, says the record
    assert opened(actions) == [("b", 3, 1)]
    assert DecideNext() in actions
    assert made.decided == 1


def test_an_update_that_came_while_it_was_given_up_counts():
    made, _ = started()
    made.handle(TransferProgressed("a", 99))
    assert kinds(made.handle(Tick(100)), CloseAssignment)
    assert made.handle(UpdateStored("b", 2, 100)) == [DecideNext()]
    assert kinds(made.handle(Tick(150)), OpenAssignment) == []  # one thing at a time
    assert opened(made.handle(Decided("b", 2, 1, True, 151))) == [("b", 3, 1)]


def test_eviction_closes_the_open_assignment():
    made, _ = started(replace(POLICY, min_nodes=1))
    assert made.handle(NodeRemoved("b", 2)) == [CloseAssignment("b", 2, "rejected", "evicted")]
    made.handle(UpdateStored("a", 1, 3))
    assert made.handle(NodeRemoved("a", 3)) == [Report("1 nodes are needed; 0 connected")]
    assert made.handle(Decided("a", 1, 0, False, 4)) == []
    assert made.decided == 0


def test_pause_hands_out_nothing_but_decides():
    made, _ = started()
    assert made.handle(PauseChanged(True, 1)) == [Report("paused by the operator")]
    made.handle(UpdateStored("a", 1, 2))
    made.handle(UpdateStored("b", 2, 2))
    assert made.handle(Decided("a", 1, 1, True, 3)) == [DecideNext()]
    assert made.state == "working"
    made.handle(Decided("b", 2, 1, True, 4))
    assert made.state == "idle"
    assert opened(made.handle(PauseChanged(False, 5))) == [("a", 3, 1), ("b", 4, 1)]


def test_without_a_place_it_hands_out_nothing_and_says_so_once_it_could():
    made, _ = started()
    assert made.handle(PlaceChanged(False, 1)) == []
    assert made.handle(UpdateStored("a", 1, 2)) == [DecideNext()]
    made.handle(Decided("a", 1, 1, True, 3))
    assert (made._reason, sorted(made.open)) == (NO_PLACE, ["b"])
    actions = made.handle(PlaceChanged(True, 4))
    assert (actions[0], opened(actions)) == (Report(""), [("a", 3, 1)])


def test_stop_cancels_and_ends():
    made, _ = started()
    actions = made.handle(StopRequested("by admin"))
    assert {action.node for action in kinds(actions, Cancel)} == {"a", "b"}
    assert actions[-1] == FinishRun("stopped", "by admin")
    assert made.handle(Tick(1000)) == []


def test_a_decision_that_cannot_be_made_fails_the_run():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    assert made.handle(DecisionFailed(1, "boom")) == [
        FinishRun("failed", "the update of round 1 cannot be decided on: boom")
    ]


def test_restored_with_work_in_every_state():
    restored = AsyncRestored(
        decided=1, last_number=4, version=1, open={"b": OpenWork(3, 0)}, undecided={4: "a"}, unevaluated=(1,)
    )
    made = AsyncMachine(POLICY, ("a", "b", "c"), restored=restored)
    assert made.handle(Started(1000)) == [EvaluateCentrally(1), DecideNext()]
    assert made.handle(NodeJoined("a", 1001)) == []  # its update waits for the decision
    assert made.handle(NodeJoined("b", 1002)) == [SendAssignment("b", 3)]
    assert opened(made.handle(NodeJoined("c", 1003))) == [("c", 5, 1)]
    assert opened(made.handle(Decided("a", 4, 2, True, 1004))) == [("a", 6, 2)]


def test_whoever_has_work_from_before_the_restart_is_expected_back():
    restored = AsyncRestored(last_number=1, open={"a": OpenWork(1, 0)})
    made = AsyncMachine(replace(POLICY, min_nodes=1), ("a",), expected={"a": 10.0}, restored=restored)
    made.handle(Started(1000))
    assert made.handle(Tick(1029)) == [Report("no node is connected")]
    assert CloseAssignment("a", 1, "lost", "no connection for 30 s") in made.handle(Tick(1030))


def test_waiting_for_another_run_is_a_sign_of_life():
    made, _ = started()
    made.handle(NodeQueued("a", 90))
    made.handle(Tick(110))
    assert "a" in made.open
    assert "b" not in made.open
    made.handle(Tick(190))
    assert "a" not in made.open


@pytest.mark.parametrize("fails", [False, True])
def test_declines_that_will_not_change_are_said_at_once(fails):
    made, _ = started(replace(POLICY, fail_when_short=fails))
    seen = []
    for node in ("a", "b"):
        answer = NodeAnswered(node, made.open[node].number, "declined", "task-failed: broken", 1)
        seen += made.handle(answer)
    reason = "every node declines its work, and is asked again now and then; a and b declined: task-failed: broken"
    assert (FinishRun("failed", reason) if fails else Report(reason)) in seen
