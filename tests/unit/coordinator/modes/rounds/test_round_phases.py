"""The round machine with a method of several phases, in scripted cases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.modes.rounds.events import (
    Aggregate,
    Aggregated,
    Assign,
    OpenPhase,
    OpenRound,
    PhasePlanned,
    RecordOutcome,
    Restored,
    UpdatesLost,
)
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.machines.protocol import (
    NodeAnswered,
    NodeJoined,
    NodeLost,
    NodeRemoved,
    Report,
    Started,
    Tick,
    UpdateStored,
    Verdict,
)
from tests.unit.coordinator.modes.rounds.round_machine import LATE, POLICY, commit, kinds, started

PHASED = replace(POLICY, phases=2)


def bidding(policy=PHASED):
    """All three have answered in phase 1."""
    made, _ = started(policy)
    for node in "abc":
        actions = made.handle(UpdateStored(node, 1, 1))
    assert actions == [Aggregate(1, ("a", "b", "c"))]
    return made


def test_a_further_phase_asks_those_that_the_method_names():
    made = bidding()
    actions = made.handle(PhasePlanned(1, 2, {"b": "{}"}, {"a": "a lie"}, 2))
    assert actions == [OpenPhase(1, 1, 2, {"b": "{}"}, {"a": "a lie"}), Assign("b", 1, 1)]
    assert [made.expects(node, 1) for node in "abc"] == [False, True, False]
    assert made.handle(UpdateStored("c", 1, 3, 2)) == []  # was not asked
    assert made.handle(UpdateStored("b", 1, 3)) == []  # heard late: it is of phase 1
    assert made.handle(UpdateStored("b", 1, 3, 2)) == [Aggregate(1, ("b", "c"))]
    assert OpenRound(2, 1, ("a", "b", "c"), ("a", "b", "c")) in commit(made, 4)
    assert made.phase == 1


def test_the_loss_of_who_was_asked_closes_the_phase_and_the_next_may_be_asked():
    made = bidding()
    made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 2))
    made.handle(NodeLost("b", 3))
    actions = made.handle(Tick(33))
    assert actions == [RecordOutcome("b", 1, "lost", "no connection for 30 s", 2), Aggregate(1, ("a", "b", "c"))]
    actions = made.handle(PhasePlanned(1, 2, {"c": ""}, {}, 34))
    assert actions == [OpenPhase(1, 2, 2, {"c": ""}, {}), Assign("c", 1, 1)]


def test_who_was_given_up_since_it_answered_is_lost_at_once_in_a_later_phase():
    made = bidding()
    made.handle(NodeLost("b", 2))
    assert made.handle(Tick(32)) == []
    lost = RecordOutcome("b", 1, "lost", "no connection for 30 s", 2)
    assert made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 33)) == [
        OpenPhase(1, 1, 2, {"b": ""}, {}),
        lost,
        Aggregate(1, ("a", "b", "c")),
    ]
    assert made.handle(PhasePlanned(1, 2, {"c": ""}, {}, 34))[-1] == Assign("c", 1, 1)


def test_who_was_evicted_since_it_answered_is_rejected_at_once_in_a_later_phase():
    made = bidding()
    assert made.handle(NodeRemoved("b", 2)) == []
    actions = made.handle(PhasePlanned(1, 2, {"b": "", "c": ""}, {}, 3))
    assert actions == [
        OpenPhase(1, 1, 2, {"b": "", "c": ""}, {"b": "evicted"}),
        RecordOutcome("b", 1, "rejected", "evicted", 2),
        Assign("c", 1, 1),
    ]
    assert made.handle(UpdateStored("c", 1, 4, 2)) == [Aggregate(1, ("a", "c"))]


def test_who_was_evicted_while_its_answer_was_looked_at_does_not_count_though_it_is_not_asked_again():
    made = bidding()
    made.handle(NodeRemoved("a", 2))
    actions = made.handle(PhasePlanned(1, 2, {"c": ""}, {"b": "lied"}, 3))
    assert actions == [OpenPhase(1, 1, 2, {"c": ""}, {"a": "evicted", "b": "lied"}), Assign("c", 1, 1)]
    assert made.handle(UpdateStored("c", 1, 4, 2)) == [Aggregate(1, ("c",))]


def test_who_was_evicted_while_its_answer_was_looked_at_does_not_count_in_another_attempt():
    made = bidding()
    made.handle(NodeRemoved("a", 2))
    actions = made.handle(Aggregated(1, False, {}, 3))
    assert actions[0] == RecordOutcome("a", 1, "rejected", "evicted")
    assert kinds(actions, Aggregate)[-1] == Aggregate(1, ("b", "c"))


def test_who_was_evicted_before_a_restart_is_not_expected():
    answers: dict[str, Verdict] = dict.fromkeys("abc", "received")
    restored = Restored(round=1, attempt=1, invited=("a", "b", "c"), answers=answers, aggregating=True)
    made = RoundMachine(PHASED, ("a", "b", "c"), restored=restored)
    assert made.handle(NodeRemoved("a", 0)) == []
    made.handle(Started(0))
    assert made.members.eligible() == ["b", "c"]
    assert made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 1))[0] == OpenPhase(1, 1, 2, {"b": ""}, {"a": "evicted"})


def test_who_is_expected_back_is_waited_for_in_a_later_phase():
    made = bidding()
    made.handle(NodeLost("b", 2))
    assert made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 3)) == [OpenPhase(1, 1, 2, {"b": ""}, {})]
    assert made.handle(NodeJoined("b", 31)) == [Assign("b", 1, 1)]


def test_a_decline_or_the_deadline_closes_the_phase():
    made = bidding()
    made.handle(PhasePlanned(1, 2, {"b": "", "c": ""}, {}, 2))
    assert kinds(made.handle(NodeAnswered("b", 1, "declined", "no", 3, 2)), Aggregate) == []
    assert made.wake_at == 102
    actions = made.handle(Tick(102))
    assert RecordOutcome("c", 1, "late", LATE, 2) in actions
    assert kinds(actions, Aggregate) == [Aggregate(1, ("a", "b", "c"))]


def test_who_returns_within_the_grace_is_asked_again_in_the_phase():
    made = bidding()
    made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 2))
    made.handle(NodeLost("b", 3))
    assert made.handle(NodeJoined("b", 20)) == [Assign("b", 1, 1)]


def test_an_evicted_node_is_out_of_every_phase():
    made = bidding()
    made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 2))
    assert made.handle(NodeRemoved("a", 3)) == [RecordOutcome("a", 1, "rejected", "evicted", 2)]
    assert made.handle(UpdateStored("b", 1, 4, 2)) == [Aggregate(1, ("b", "c"))]


def test_a_round_that_the_method_leaves_short_is_tried_again_from_phase_1_and_then_waits():
    made = bidding(replace(PHASED, max_retries=1))
    made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 2))
    made.handle(NodeAnswered("b", 1, "declined", "no", 3, 2))
    actions = made.handle(Aggregated(1, False, {}, 4))
    everybody = ("a", "b", "c")
    assert kinds(actions, OpenRound) == [OpenRound(1, 2, everybody, everybody)]
    assert actions[-1] == Aggregate(1, everybody)
    assert made.phase == 1
    actions = made.handle(Aggregated(1, False, {}, 5))
    assert kinds(actions, OpenRound) == [OpenRound(1, 3, everybody, everybody)]  # for those who may still come
    assert kinds(actions, Aggregate) == []
    assert "waiting for more nodes" in kinds(actions, Report)[-1].reason


@pytest.mark.parametrize("aggregating", [False, True])
def test_restored_in_the_middle_of_a_phase(aggregating):
    restored = Restored(
        round=1,
        attempt=1,
        aggregating=aggregating,
        invited=("a", "b", "c"),
        answers=dict.fromkeys("abc", "received"),
        phase=2,
        asked=("a", "b"),
        phase_answers={"a": "received"},
    )
    made = RoundMachine(PHASED, ("a", "b", "c"), restored=restored)
    actions = made.handle(Started(0))
    if aggregating:
        assert kinds(actions, Aggregate) == [Aggregate(1, ("a", "b", "c"))]
    else:
        assert made.handle(NodeJoined("a", 1)) == made.handle(NodeJoined("c", 1)) == []
        assert made.handle(NodeJoined("b", 1)) == [Assign("b", 1, 1)]


def test_an_update_of_phase_one_that_is_lost_while_a_later_one_is_aggregated_begins_the_round_anew():
    made = bidding()
    made.handle(PhasePlanned(1, 2, {"b": ""}, {}, 2))
    assert made.handle(UpdateStored("b", 1, 3, 2)) == [Aggregate(1, ("a", "b", "c"))]
    actions = made.handle(UpdatesLost(1, ("c",), 4))
    assert actions == [OpenRound(1, 2, ("a", "b", "c"), ("a", "b", "c")), Assign("c", 1, 2)]
    assert made.phase == 1
    assert made.handle(UpdateStored("c", 1, 5)) == [Aggregate(1, ("a", "b", "c"))]


def test_the_same_is_found_out_after_a_restart_from_the_record_alone():
    restored = Restored(
        round=1, attempt=1, invited=("a", "b", "c"), answers=dict.fromkeys("ab", "received"), phase=2, asked=("b",)
    )
    made = RoundMachine(PHASED, ("a", "b", "c"), restored=restored)
    actions = made.handle(Started(0))
    assert actions == [OpenRound(1, 2, ("a", "b", "c"), ("a", "b", "c"))]
    assert made.handle(NodeJoined("c", 1)) == [Assign("c", 1, 2)]
