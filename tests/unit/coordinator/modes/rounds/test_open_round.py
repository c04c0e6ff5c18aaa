"""What is known of the open round, and what an answer puts on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from covey.coordinator.modes.rounds import events as ev
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.coordinator.modes.rounds.open_round import OpenRound
from covey.machines.protocol import NodeAnswered, NodeJoined, Started

ROSTER = ("ada", "bob", "cyd")


def restored(**fields: Any) -> ev.Restored:
    """Round 2 is open for all, and ada's update of phase 1 is here."""
    open_now = ev.Restored(committed=1, round=2, attempt=1, invited=ROSTER, answers={"ada": "received"})
    return replace(open_now, **fields)


def known(**fields: Any) -> OpenRound:
    return OpenRound(ev.RoundPolicy(5), ROSTER, None, restored(**fields))


def test_the_round_takes_what_was_asked_and_is_still_to_come() -> None:
    open_round = known()
    assert [open_round.collects(node, 2) for node in (*ROSTER, "dan")] == [True, True, True, False]
    assert [open_round.expects(node, 2) for node in (*ROSTER, "dan")] == [False, True, True, False]
    assert not open_round.collects("bob", 1)


def test_a_later_phase_asks_and_counts_for_itself() -> None:
    open_round = known(phase=2, asked=("ada", "bob"), phase_answers={"bob": "received"})
    assert open_round.asked == ("ada", "bob")
    assert [open_round.expects(node, 2) for node in ROSTER] == [True, False, False]
    assert open_round.answers == {"ada": "received"}


def test_nothing_is_collected_between_rounds_and_while_the_worker_aggregates() -> None:
    assert not OpenRound(ev.RoundPolicy(5), ROSTER, None, ev.Restored()).collects("ada", 0)
    assert not known(aggregating=True).collects("bob", 2)


def test_a_rejection_in_a_later_phase_counts_for_the_whole_round() -> None:
    machine = RoundMachine(ev.RoundPolicy(5), ROSTER, {}, restored(phase=2, asked=("ada", "bob")))
    actions = machine.handle(NodeAnswered("ada", 2, "rejected", "not finite", 1.0, 2))
    assert ev.RecordOutcome("ada", 2, "rejected", "not finite", 2) in actions
    assert machine.answers == {"ada": "rejected"}
    assert machine.expects("bob", 2)
    assert not machine.expects("ada", 2)


def test_only_those_that_the_policy_names_are_asked_also_when_it_is_tried_again() -> None:
    made = RoundMachine(ev.RoundPolicy(1, only=("ada", "cyd")), ROSTER)
    actions = made.handle(Started(0))
    for node in ROSTER:
        actions += made.handle(NodeJoined(node, 0))
    assert [action.node for action in actions if isinstance(action, ev.Assign)] == ["ada", "cyd"]
    made.handle(NodeAnswered("ada", 1, "declined", "no data", 1))
    again = made.handle(NodeAnswered("cyd", 1, "lost", "no connection", 2))
    assert {*made.invited, *(action.node for action in again if isinstance(action, ev.Assign))} <= {"ada", "cyd"}
    assert made.round == 1
