"""The round machine in scripted cases: what it asks for, whom it waits for, and how a run ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.modes.rounds.events import (
    Aggregate,
    Aggregated,
    AggregationFailed,
    Assign,
    OpenRound,
    RecordOutcome,
    Restored,
    RoundCommitted,
    UpdatesLost,
)
from covey.coordinator.modes.rounds.machine import RoundMachine
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
    NodeRemoved,
    PauseChanged,
    PlaceChanged,
    Report,
    Started,
    StopRequested,
    Tick,
    UpdateStored,
    Verdict,
)
from tests.unit.coordinator.modes.rounds.round_machine import POLICY, commit, kinds, machine, started


def test_a_run_that_ends_before_its_rounds_says_why():
    made, _ = started(replace(POLICY, count=1, why_last="the budget is spent", evaluate_centrally=False))
    for node in ("a", "b", "c"):
        made.handle(UpdateStored(node, 1, 1))
    assert kinds(commit(made, 2), FinishRun) == [FinishRun("completed", "the budget is spent")]


def test_a_run_of_two_rounds():
    made, actions = started()
    assert kinds(actions, OpenRound) == [OpenRound(1, 1, ("a", "b", "c"), ("a", "b", "c"))]
    assert {action.node for action in kinds(actions, Assign)} == {"a", "b", "c"}
    assert made.handle(UpdateStored("c", 1, 1)) == []
    assert made.handle(UpdateStored("a", 1, 2)) == []
    assert made.handle(UpdateStored("b", 1, 3)) == [Aggregate(1, ("a", "b", "c"))]
    actions = commit(made, 4)
    assert isinstance(actions[0], OpenRound)
    assert actions[0].round == 2
    assert actions[-1] == EvaluateCentrally(1)
    for node in "abc":
        actions = made.handle(UpdateStored(node, 2, 5))
    actions = commit(made, 6)
    assert EvaluateCentrally(2) in actions
    assert made.handle(Evaluated(1, 7)) == []
    assert made.handle(Evaluated(2, 7)) == [FinishRun("completed", "")]
    assert made.done


def test_double_and_late_messages_change_nothing():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    assert made.handle(UpdateStored("a", 1, 1)) == []
    assert made.handle(NodeAnswered("a", 1, "declined", "no", 1)) == []
    made.handle(UpdateStored("b", 1, 1))
    made.handle(UpdateStored("c", 1, 1))
    assert made.handle(UpdateStored("c", 1, 2)) == []
    assert made.handle(Aggregated(7, True, {}, 2)) == []
    commit(made, 3)
    assert made.handle(UpdateStored("a", 1, 4)) == []
    assert made.handle(RoundCommitted(1, 4)) == []


def test_too_few_nodes_wait_and_go_on():
    made, actions = machine(nodes=("a",))
    assert not kinds(actions, OpenRound)
    assert "needs 2 nodes; 1 connected" in kinds(actions, Report)[-1].reason
    actions = made.handle(NodeJoined("b", 5))
    assert kinds(actions, OpenRound)[0].invited == ("a", "b")
    assert Report("") in actions


def test_a_declining_node_is_left_out():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    actions = made.handle(NodeAnswered("c", 1, "declined", "task not allowed", 2))
    assert actions[0] == RecordOutcome("c", 1, "declined", "task not allowed")
    assert actions[-1] == Aggregate(1, ("a", "b"))


def test_rejections_by_the_rule_lead_to_another_attempt():
    made, _ = started(replace(POLICY, min_nodes=3), nodes=("a", "b", "c", "d"))
    for node in "abcd":
        made.handle(UpdateStored(node, 1, 1))
    actions = made.handle(Aggregated(1, False, {"d": "non-finite"}, 2))
    assert RecordOutcome("d", 1, "rejected", "non-finite") in actions
    assert kinds(actions, OpenRound)[0].invited == ("a", "b", "c")
    assert actions[-1] == Aggregate(1, ("a", "b", "c"))


def test_rejections_that_leave_too_few_wait_with_an_open_round():
    made, _ = started(replace(POLICY, min_nodes=3))
    for node in "abc":
        made.handle(UpdateStored(node, 1, 1))
    actions = made.handle(Aggregated(1, False, {"c": "non-finite"}, 2))
    assert kinds(actions, OpenRound)[0].attempt == 2
    assert "waiting for more nodes" in kinds(actions, Report)[0].reason
    actions = made.handle(NodeJoined("d", 3))
    assert kinds(actions, OpenRound)[0].invited == ("a", "b", "d")
    assert made.handle(UpdateStored("d", 1, 4)) == [Aggregate(1, ("a", "b", "d"))]


def test_participants_are_drawn_from_the_seed():
    policy = replace(POLICY, participants=2, min_nodes=1, seed=5)
    drawn = [kinds(started(policy, tuple("abcdef"))[1], OpenRound)[0].invited for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2
    others = {
        kinds(started(replace(policy, seed=seed), tuple("abcdef"))[1], OpenRound)[0].invited for seed in range(20)
    }
    assert len(others) > 3


def test_eviction_takes_an_update_back():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    actions = made.handle(NodeRemoved("b", 2))
    assert actions == [RecordOutcome("b", 1, "rejected", "evicted")]
    actions = made.handle(UpdateStored("c", 1, 3))
    assert actions[-1] == Aggregate(1, ("a", "c"))


def test_pause_opens_no_round():
    made = RoundMachine(POLICY, ("a", "b"))
    made.handle(PauseChanged(True, 0))
    made.handle(Started(0))
    made.handle(NodeJoined("a", 0))
    assert not kinds(made.handle(NodeJoined("b", 0)), OpenRound)
    assert kinds(made.handle(PauseChanged(False, 1)), OpenRound)


def test_without_a_place_the_open_round_goes_on_and_no_other_is_opened():
    made, _ = started()
    assert made.handle(PlaceChanged(False, 1)) == []
    for node in ("a", "b", "c"):
        made.handle(UpdateStored(node, 1, 2))
    actions = commit(made, 3)
    assert kinds(actions, Report) == [Report(NO_PLACE)]
    assert not kinds(actions, OpenRound)
    made.handle(NodeRemoved("a", 3))
    made.handle(NodeRemoved("b", 3))
    assert "needs 2 nodes" in made._reason  # nor could it if it had one
    made.handle(NodeJoined("a", 4))
    assert [type(action) for action in made.handle(PlaceChanged(True, 5))][:2] == [Report, OpenRound]


def test_stop_cancels_and_ends():
    made, _ = started()
    actions = made.handle(StopRequested("by admin"))
    assert {action.node for action in kinds(actions, Cancel)} == {"a", "b", "c"}
    assert actions[-1] == FinishRun("stopped", "by admin")
    assert made.handle(Tick(1000)) == []


def test_a_failed_aggregation_fails_the_run():
    made, _ = started()
    for node in "abc":
        made.handle(UpdateStored(node, 1, 1))
    assert made.handle(AggregationFailed(1, "boom")) == [FinishRun("failed", "round 1 cannot be aggregated: boom")]


def test_the_last_version_is_evaluated_on_the_nodes():
    made, _ = started(replace(POLICY, count=1, evaluate_on_nodes=True, evaluate_centrally=False))
    for node in "abc":
        made.handle(UpdateStored(node, 1, 1))
    actions = commit(made, 2)
    assert {a.node for a in kinds(actions, AssignEvaluation)} == {"a", "b", "c"}
    made.handle(NodeEvaluated("a", 1, 3))
    made.handle(NodeLost("b", 3))
    assert made.handle(NodeEvaluated("c", 1, 3)) == [FinishRun("completed", "")]


@pytest.mark.parametrize("aggregating", [False, True])
def test_restored_in_the_middle_of_a_round(aggregating):
    answers: dict[str, Verdict] = dict.fromkeys("abc" if aggregating else "ab", "received")
    made = RoundMachine(POLICY, ("a", "b", "c"), restored=Restored(0, 1, 1, aggregating, ("a", "b", "c"), answers))
    actions = made.handle(Started(1000))
    if aggregating:
        assert actions == [Aggregate(1, ("a", "b", "c"))]
        return
    assert actions == []
    assert made.handle(NodeJoined("a", 1001)) == []  # it has answered already: not asked again
    assert made.handle(NodeJoined("c", 1002)) == [Assign("c", 1, 1)]
    assert made.handle(UpdateStored("c", 1, 1003)) == [Aggregate(1, ("a", "b", "c"))]


def test_nothing_moves_before_the_start():
    """A restart is not a deadline: who had not delivered is still expected."""
    made = RoundMachine(
        replace(POLICY, min_nodes=1, quorum=0.5),
        "abc",
        restored=Restored(0, 1, 1, False, tuple("abc"), {"a": "received"}),
    )
    assert made.handle(PauseChanged(False, 1000)) == []
    assert made.handle(Started(1000)) == []
    assert made.handle(NodeJoined("b", 1001)) == [Assign("b", 1, 1)]


def test_an_evicted_node_does_not_count_even_if_its_update_was_on_its_way():
    made, _ = started()
    made.handle(NodeRemoved("c", 1))
    assert made.handle(UpdateStored("c", 1, 2)) == []
    made.handle(UpdateStored("a", 1, 3))
    assert made.handle(UpdateStored("b", 1, 3))[-1] == Aggregate(1, ("a", "b"))


def test_a_run_whose_nodes_all_decline_for_good_says_why_and_asks_for_no_more_nodes():
    made, _ = started(nodes=("a", "b"))
    made.handle(NodeAnswered("a", 1, "declined", "task-failed: labels are strings", 1))
    actions = made.handle(NodeAnswered("b", 1, "declined", "task-failed: labels are strings", 2))
    (report,) = kinds(actions, Report)
    assert "a and b declined: task-failed: labels are strings" in report.reason
    assert "no node that is here can do this work" in report.reason
    assert "more nodes" not in report.reason
    # Its operator has mended the task and started the node again: it is asked once more.
    assert kinds(made.handle(NodeJoined("a", 9)), Assign) == [Assign("a", 1, 1)]


def test_it_fails_with_that_reason_if_the_specification_says_so():
    made, _ = started(replace(POLICY, fail_when_short=True), nodes=("a", "b"))
    made.handle(NodeAnswered("a", 1, "declined", "declined: task not allowed", 1))
    (finish,) = kinds(made.handle(NodeAnswered("b", 1, "declined", "invalid-spec: no labels", 2)), FinishRun)
    assert finish.state == "failed"
    assert "a declined: task not allowed; b declined: invalid-spec: no labels" in finish.reason


def test_more_nodes_are_waited_for_where_they_would_help():
    made, _ = started(nodes=("a", "b"))
    made.handle(UpdateStored("a", 1, 1))
    (report,) = kinds(made.handle(NodeAnswered("b", 1, "declined", "task-failed: no data", 2)), Report)
    assert report.reason == "round 1: b declined: task-failed: no data; 1 of 2 updates; waiting for more nodes"


def test_a_node_that_was_left_out_of_a_later_attempt_is_asked_when_it_is_started_again():
    made, _ = started()
    made.handle(NodeAnswered("a", 1, "declined", "task-failed: broken", 1))
    made.handle(UpdateStored("b", 1, 1))
    made.handle(UpdateStored("c", 1, 1))
    assert made.invited == ("b", "c")
    made.handle(Aggregated(1, False, {"b": "non-finite"}, 2))
    made.handle(NodeLost("a", 3))
    assert kinds(made.handle(NodeJoined("a", 4)), OpenRound)[0].invited == ("a", "c")


def test_why_nodes_refused_is_known_after_a_restart():
    restored = Restored(
        round=1,
        attempt=1,
        invited=("a", "b"),
        answers={"a": "declined", "b": "declined"},
        reasons={"a": "task-failed: broken", "b": "task-failed: broken"},
    )
    made, actions = machine(nodes=(), restored=restored)
    assert "a and b declined: task-failed: broken" in kinds(actions, Report)[-1].reason
    assert kinds(made.handle(NodeJoined("a", 1)), Assign) == [Assign("a", 1, 1)]  # perhaps its cause is mended


def test_what_was_lost_on_the_coordinator_is_asked_for_again_and_nothing_is_made_of_the_rest():
    made, _ = started(replace(POLICY, quorum=0.5))
    for node in "abc":
        made.handle(UpdateStored(node, 1, 1))
    actions = made.handle(UpdatesLost(1, ("b",), 2))
    assert actions == [OpenRound(1, 2, ("a", "b", "c"), ("a", "b", "c")), Assign("b", 1, 2)]
    assert made.handle(Tick(3)) == []  # two of three would do, and one is on its way
    assert made.handle(UpdateStored("b", 1, 4)) == [Aggregate(1, ("a", "b", "c"))]
    assert OpenRound(2, 1, ("a", "b", "c"), ("a", "b", "c")) in commit(made, 5)


def test_a_lost_update_of_a_node_that_is_gone_ends_the_round_as_any_that_does_not_come():
    made, _ = started()
    for node in "abc":
        made.handle(UpdateStored(node, 1, 1))
    made.handle(NodeLost("b", 2))
    made.handle(NodeRemoved("c", 2))
    actions = made.handle(UpdatesLost(1, ("b", "c"), 40))
    assert RecordOutcome("b", 1, "lost", "no connection for 30 s") in actions
    assert RecordOutcome("c", 1, "rejected", "evicted") in actions
    assert not kinds(actions, Aggregate)
    assert "round 1" in kinds(actions, Report)[-1].reason


def test_a_coordinator_that_loses_updates_again_and_again_fails_the_run_in_words():
    made, _ = started(replace(POLICY, max_retries=2))
    for attempt in (1, 2, 3):
        for node in "abc":
            made.handle(UpdateStored(node, 1, attempt))
        actions = made.handle(UpdatesLost(1, ("a",), attempt))
    (end,) = actions
    assert isinstance(end, FinishRun)
    assert end.state == "failed"
    assert end.reason.startswith("round 1: in 3 attempts updates were damaged or missing on the coordinator")
    assert "check its disk" in end.reason


def test_news_of_a_loss_that_comes_too_late_changes_nothing():
    made, _ = started()
    assert made.handle(UpdatesLost(1, ("a",), 1)) == []
    for node in "abc":
        made.handle(UpdateStored(node, 1, 1))
    assert made.handle(UpdatesLost(2, ("a",), 1)) == []
