"""The round machine and time: lost nodes, deadlines, rounds that are short, nodes that work for another run."""

from __future__ import annotations

from dataclasses import replace

from covey.coordinator.modes.rounds.events import Aggregate, Assign, OpenRound, RecordOutcome, Restored
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.machines.protocol import (
    Cancel,
    NodeJoined,
    NodeLost,
    NodeQueued,
    NodeRemoved,
    Report,
    Started,
    Tick,
    TransferProgressed,
    UpdateStored,
)
from tests.unit.coordinator.modes.rounds.round_machine import LATE, POLICY, RESTS, commit, kinds, started


def test_a_node_that_returns_within_the_grace_takes_part():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    made.handle(NodeLost("c", 2))
    assert made.wake_at == 32
    assert made.handle(Tick(31)) == []
    assert made.handle(NodeJoined("c", 31)) == [Assign("c", 1, 1)]
    assert made.handle(UpdateStored("c", 1, 40)) == [Aggregate(1, ("a", "b", "c"))]


def test_a_lost_node_costs_one_attempt_and_the_round_closes():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    made.handle(NodeLost("c", 2))
    actions = made.handle(Tick(32))
    assert RecordOutcome("c", 1, "lost", "no connection for 30 s") in actions
    assert kinds(actions, OpenRound) == [OpenRound(1, 2, ("a", "b"), ("a", "b", "c"))]
    assert actions[-1] == Aggregate(1, ("a", "b"))
    actions = commit(made, 33)
    assert kinds(actions, OpenRound)[0].invited == ("a", "b")


def test_a_lost_node_joins_the_next_round():
    made, _ = started()
    made.handle(NodeLost("c", 2))
    made.handle(Tick(32))
    made.handle(UpdateStored("a", 1, 33))
    made.handle(UpdateStored("b", 1, 33))
    assert made.state == "aggregating"
    made.handle(NodeJoined("c", 34))
    assert kinds(commit(made, 35), OpenRound)[0].invited == ("a", "b", "c")


def test_the_deadline_closes_a_round_with_a_quorum():
    made, _ = started(replace(POLICY, quorum=0.6))
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    assert made.handle(Tick(99)) == []
    actions = made.handle(Tick(100))
    assert RecordOutcome("c", 1, "late", LATE) in actions
    assert Cancel("c", 1, "the round was closed") in actions
    assert actions[-1] == Aggregate(1, ("a", "b"))


def test_progress_extends_the_deadline_up_to_the_hard_one():
    made, _ = started(replace(POLICY, quorum=0.6))
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    now = 95
    while now < 300:
        assert not kinds(made.handle(TransferProgressed("c", now)), Aggregate)
        now += 9
    assert kinds(made.handle(Tick(300)), Aggregate)


def test_short_rounds_are_tried_again_then_wait():
    made, _ = started(replace(POLICY, min_nodes=3, max_retries=2))
    made.handle(UpdateStored("a", 1, 1))
    attempts = []
    now = 0
    for _ in range(4):
        now += 100
        attempts += kinds(made.handle(Tick(now)), OpenRound)
    assert [opened.attempt for opened in attempts] == [2, 3]
    assert made.wake_at is None
    assert kinds(made.handle(UpdateStored("b", 1, now)), Report)[0].reason.startswith("round 1: 2 of 3 updates")
    assert made.handle(UpdateStored("c", 1, now))[-1] == Aggregate(1, ("a", "b", "c"))


def test_short_rounds_fail_if_the_specification_says_so():
    made, _ = started(replace(POLICY, min_nodes=3, max_retries=0, fail_when_short=True))
    actions = made.handle(Tick(100))
    assert actions[-1].state == "failed"
    assert "0 of 3 updates" in actions[-1].reason


def test_eviction_frees_a_run_that_waits_for_the_evicted():
    made, _ = started(replace(POLICY, max_retries=0))
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    assert kinds(made.handle(Tick(100)), Report)[0].reason.endswith("; waiting for c")
    actions = made.handle(NodeRemoved("c", 200))
    assert actions[-1] == Aggregate(1, ("a", "b"))


def test_a_node_that_works_for_another_run_first_has_its_time_from_when_it_is_done_there():
    made, _ = started(replace(POLICY, hard_deadline_s=1000))
    for now in (50, 90, 140):
        made.handle(NodeQueued("a", now))
    made.handle(UpdateStored("b", 1, 150))
    made.handle(UpdateStored("c", 1, 150))
    assert made.wake_at == 240
    assert made.handle(Tick(239)) == []
    made.handle(Tick(240))
    assert made.attempt == 2


def test_no_queue_extends_a_round_beyond_its_hard_deadline():
    made, _ = started()
    for now in range(0, 300, 30):
        made.handle(NodeQueued("a", now))
    assert made.wake_at == POLICY.hard_deadline_s


def test_who_is_not_waited_for_extends_nothing():
    made, _ = started()
    made.handle(UpdateStored("a", 1, 50))
    made.handle(NodeQueued("a", 90))
    made.handle(NodeQueued("stranger", 90))
    assert made.wake_at == POLICY.deadline_s


def updates(made, nodes, now):
    actions = []
    for node in nodes:
        actions += made.handle(UpdateStored(node, made.round, now))
    return actions


def test_a_silent_node_costs_two_deadlines_and_not_one_each_round():
    made, _ = started(replace(POLICY, count=20, quorum=0.5))
    updates(made, "ab", 1)
    actions = made.handle(Tick(100))
    assert RecordOutcome("c", 1, "late", LATE) in actions
    assert kinds(commit(made, 101), OpenRound)[0].invited == ("a", "b", "c")
    updates(made, "ab", 102)
    assert RecordOutcome("c", 2, "late", RESTS) in made.handle(Tick(201))
    actions, now = commit(made, 202), 202.0
    for _ in range(8):
        assert kinds(actions, OpenRound)[0].invited == ("a", "b")
        now += 1
        assert kinds(updates(made, "ab", now), Aggregate)  # at once: nobody is waited for
        actions = commit(made, now)
    assert made.round == 11
    assert kinds(actions, OpenRound)[0].invited == ("a", "b", "c")  # perhaps it answers again
    assert kinds(updates(made, "abc", now), Aggregate)
    assert kinds(commit(made, now), OpenRound)[0].invited == ("a", "b", "c")


def test_after_a_restart_the_record_says_who_is_silent():
    restored = Restored(committed=2, attendance=((1, "c", "late"), (2, "a", "accepted"), (2, "c", "late")))
    made = RoundMachine(replace(POLICY, count=20, quorum=0.5), "abc", restored=restored)
    actions = made.handle(Started(200))
    for node in "abc":
        actions += made.handle(NodeJoined(node, 200))
    assert kinds(actions, OpenRound)[0].invited == ("a", "b")


def test_a_silent_node_that_is_needed_is_asked_all_the_same():
    made, _ = started(replace(POLICY, count=20, min_nodes=3, quorum=0.5))
    updates(made, "ab", 1)
    made.handle(Tick(100))
    updates(made, "c", 110)
    assert kinds(commit(made, 111), OpenRound)[0].invited == ("a", "b", "c")
