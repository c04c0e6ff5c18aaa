"""The round machine: scripted cases, then any interleaving of joins, losses, late and double messages, and restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from covey.coordinator.modes.rounds.events import (
    Aggregate,
    Aggregated,
    AggregationFailed,
    Assign,
    Commit,
    OpenPhase,
    OpenRound,
    PhasePlanned,
    RecordOutcome,
    Restored,
    RoundCommitted,
    RoundPolicy,
)
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.machines.protocol import (
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
    Report,
    Started,
    StopRequested,
    Tick,
    TransferProgressed,
    UpdateStored,
)

POLICY = RoundPolicy(count=2, min_nodes=2, deadline_s=100, hard_deadline_s=300, rejoin_s=30, evaluate_on_nodes=False)


def machine(policy=POLICY, nodes=("a", "b", "c"), **kwargs):
    made = RoundMachine(policy, (), **kwargs)
    actions = made.handle(Started(0))
    for node in nodes:
        actions += made.handle(NodeJoined(node, 0))
    return made, actions


def started(policy=POLICY, nodes=("a", "b", "c")):
    """All nodes are known before the first of them connects, as after enrolment."""
    made = RoundMachine(policy, nodes)
    actions = made.handle(Started(0))
    for node in nodes:
        actions += made.handle(NodeJoined(node, 0))
    return made, actions


def kinds(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


def commit(made, now):
    number = made.round
    actions = made.handle(Aggregated(number, True, {}, now))
    assert kinds(actions, Commit) == [Commit(number)]
    return made.handle(RoundCommitted(number, now))


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
    assert RecordOutcome("c", 1, "lost", "no update before the deadline") in actions
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
    answers = {"a": "received", "b": "received"} | ({"c": "received"} if aggregating else {})
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


def test_eviction_frees_a_run_that_waits_for_the_evicted():
    made, _ = started(replace(POLICY, max_retries=0))
    made.handle(UpdateStored("a", 1, 1))
    made.handle(UpdateStored("b", 1, 1))
    assert "waiting for more nodes" in kinds(made.handle(Tick(100)), Report)[0].reason
    actions = made.handle(NodeRemoved("c", 200))
    assert actions[-1] == Aggregate(1, ("a", "b"))


def test_an_evicted_node_does_not_count_even_if_its_update_was_on_its_way():
    made, _ = started()
    made.handle(NodeRemoved("c", 1))
    assert made.handle(UpdateStored("c", 1, 2)) == []
    made.handle(UpdateStored("a", 1, 3))
    assert made.handle(UpdateStored("b", 1, 3))[-1] == Aggregate(1, ("a", "b"))


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
        OpenPhase(1, 1, 2, {"b": "", "c": ""}, {}),
        RecordOutcome("b", 1, "rejected", "evicted", 2),
        Assign("c", 1, 1),
    ]
    assert made.handle(UpdateStored("c", 1, 4, 2)) == [Aggregate(1, ("a", "c"))]


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
    assert RecordOutcome("c", 1, "lost", "no update before the deadline", 2) in actions
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


class Interleavings(RuleBasedStateMachine):
    """A daemon that executes actions faithfully, with a durable record, over a world that does anything."""

    nodes = st.sampled_from(["a", "b", "c", "d"])

    @initialize(
        quorum=st.sampled_from([0.5, 1.0]),
        participants=st.sampled_from([1.0, 0.5, 3]),
        min_nodes=st.integers(1, 3),
        retries=st.integers(0, 2),
        phases=st.sampled_from([1, 1, 2, 3]),
    )
    def begin(self, quorum, participants, min_nodes, retries, phases):
        self.policy = RoundPolicy(
            count=3,
            quorum=quorum,
            participants=participants,
            min_nodes=min_nodes,
            deadline_s=100,
            hard_deadline_s=300,
            rejoin_s=30,
            max_retries=retries,
            seed=1,
            phases=phases,
        )
        self.asked_in: set[tuple[int, str]] = set()
        """Whom the method has asked in this attempt of the round, by phase."""
        self.now, self.connected, self.committed, self.finished = 0.0, set(), [], None
        self.crash_after = None
        self.record = Restored()
        self.roster: tuple[str, ...] = ()
        self.aggregated: dict[int, tuple[str, ...]] = {}
        self.outstanding: list[object] = []
        self.machine = RoundMachine(self.policy, ())
        self.feed(Started(0))

    def feed(self, event):
        for action in self.machine.handle(event):
            if self.crash_after == 0:
                self.crash_after = None
                self.restart()
                return
            self.execute(action)
            if self.crash_after is not None:
                self.crash_after -= 1

    def execute(self, action):
        record = self.record
        match action:
            case OpenRound(round=number, attempt=attempt, invited=invited, roster=roster):
                assert self.finished is None
                assert number == record.committed + 1
                assert record.round in (0, number)
                assert attempt > (record.attempt if record.round else 0)
                assert len(set(invited)) == len(invited)
                self.asked_in = set()
                kept = {n: v for n, v in record.answers.items() if v in ("received", "rejected")}
                self.record = replace(
                    record,
                    round=number,
                    attempt=attempt,
                    invited=invited,
                    aggregating=False,
                    answers=kept if record.round else {},
                    phase=1,
                    asked=(),
                    phase_answers={},
                )
                assert roster[: len(self.roster)] == self.roster  # only ever appended to
                self.roster = roster
            case OpenPhase(round=number, closed=closed, phase=phase, params=params, rejected=rejected):
                assert (number, closed, record.aggregating) == (record.round, record.phase, True)
                self.record = replace(
                    record,
                    aggregating=False,
                    phase=phase,
                    asked=tuple(params),
                    answers={**record.answers, **dict.fromkeys(rejected, "rejected")},
                    phase_answers={},
                )
            case Assign(node=node, round=number):
                assert node in self.connected
                assert self.answers_now().get(node) != "received"
                assert node in (record.asked if record.phase > 1 else record.invited)
            case RecordOutcome(node=node, verdict=verdict, phase=phase):
                assert phase == record.phase
                if self.answers_now().get(node) == "received":
                    assert verdict == "rejected"
                self.note(node, verdict)
                if verdict == "rejected":
                    self.record = replace(self.record, answers={**self.record.answers, node: verdict})
            case Aggregate(round=number, nodes=nodes):
                assert number == record.round
                assert len(set(nodes)) == len(nodes)
                assert record.phase > 1 or len(nodes) >= self.policy.min_nodes
                assert all(record.answers.get(node) == "received" for node in nodes)
                self.record = replace(record, aggregating=True)
                self.aggregated[number] = nodes
                self.outstanding = [action]
            case Commit(round=number):
                assert number not in self.committed
                self.committed.append(number)
                self.record = Restored(committed=number, unevaluated=(*record.unevaluated, number))
                self.outstanding = [RoundCommitted(number, self.now)]
            case EvaluateCentrally(version=version):  # what is asked for is answered, whatever came before
                self.record = replace(record, unevaluated=tuple({*record.unevaluated, version}))
            case FinishRun(state=state):
                assert self.finished is None
                self.finished = state
                if state == "completed":
                    assert self.committed == [1, 2, 3]

    def answers_now(self):
        return self.record.answers if self.record.phase == 1 else self.record.phase_answers

    def note(self, node, verdict):
        name = "answers" if self.record.phase == 1 else "phase_answers"
        self.record = replace(self.record, **{name: {**self.answers_now(), node: verdict}})

    @rule(node=nodes)
    def join(self, node):
        self.connected.add(node)
        self.feed(NodeJoined(node, self.now))

    @rule(node=nodes)
    def lose(self, node):
        self.connected.discard(node)
        self.feed(NodeLost(node, self.now))

    @rule(node=nodes, late=st.integers(0, 2))
    def update(self, node, late):
        """Recorded only where the store would record it; the event may come twice."""
        number = self.record.round - late
        open_now = number == self.record.round and number > 0 and not self.record.aggregating
        phase = self.record.phase
        asked = self.record.asked if phase > 1 else self.record.invited
        if open_now and self.answers_now().get(node) not in ("received", "rejected") and node in asked:
            self.note(node, "received")
        elif open_now:
            return
        self.feed(UpdateStored(node, number, self.now, phase))
        self.feed(UpdateStored(node, number, self.now, phase))

    @rule(node=nodes)
    def decline(self, node):
        self.feed(NodeAnswered(node, self.record.round, "declined", "no", self.now, self.record.phase))

    @rule(node=nodes)
    def progress(self, node):
        self.feed(TransferProgressed(node, self.now))

    @rule(seconds=st.sampled_from([0.5, 10, 40, 120]))
    def time_passes(self, seconds):
        self.now += seconds
        self.feed(Tick(self.now))

    @precondition(lambda self: self.outstanding)
    @rule(rejects=st.booleans())
    def finish_outstanding(self, rejects):
        item = self.outstanding.pop()
        if isinstance(item, RoundCommitted):
            self.feed(item)
        else:
            worst = {item.nodes[-1]: "non-finite"} if rejects and item.nodes else {}
            if self.plan(item, rejects, worst):
                return
            enough = len(item.nodes) - len(worst) >= self.policy.min_nodes
            enough = enough and (self.policy.phases == 1 or "received" in self.record.phase_answers.values())
            self.feed(Aggregated(item.round, enough, worst, self.now))

    def plan(self, item, rejects, worst):
        """Like a method: asks one after the other until one has answered, perhaps in a third phase, too."""
        record, delivered = self.record, "received" in self.record.phase_answers.values()
        phase = max(2, record.phase + delivered)
        if phase > self.policy.phases or (delivered and not rejects):
            return False
        left = [node for node in item.nodes if node not in worst and (phase, node) not in self.asked_in]
        if left:
            self.asked_in.add((phase, left[0]))
            self.feed(PhasePlanned(item.round, phase, {left[0]: ""}, worst, self.now))
        return bool(left)

    @rule(version=st.integers(0, 3))
    def evaluated(self, version):
        self.record = replace(self.record, unevaluated=tuple(v for v in self.record.unevaluated if v != version))
        self.feed(Evaluated(version, self.now))
        for node in "abcd":
            self.feed(NodeEvaluated(node, version, self.now))

    @rule(actions=st.integers(0, 3))
    def arm_a_crash(self, actions):
        """The daemon will die after so many more actions, perhaps between two of one event."""
        self.crash_after = actions

    @rule(paused=st.booleans())
    def pause(self, paused):
        self.feed(PauseChanged(paused, self.now))

    @rule()
    def crash_and_restart(self):
        self.restart()

    def restart(self):
        """Everything in memory is gone; the record and the world stay."""
        if self.finished:
            return
        self.outstanding = []
        self.machine = RoundMachine(self.policy, self.roster, restored=self.record)
        self.feed(Started(self.now))
        for node in sorted(self.connected):
            self.feed(NodeJoined(node, self.now))

    @invariant()
    def always_a_next_action_or_an_end(self):
        if not hasattr(self, "machine") or self.finished:
            return
        waits_for_nodes = bool(self.machine._reason)
        waits_for_answers = self.outstanding or self.record.unevaluated
        assert self.machine.wake_at is not None or waits_for_nodes or waits_for_answers

    @invariant()
    def commits_in_order(self):
        if hasattr(self, "committed"):
            assert self.committed == list(range(1, len(self.committed) + 1))

    def teardown(self):
        """A world that behaves from now on brings every run to its end."""
        if not hasattr(self, "machine"):
            return
        self.crash_after = None
        for _ in range(200):
            if self.finished:
                break
            self.feed(PauseChanged(False, self.now))
            for node in "abcd":
                if node not in self.connected or (self.policy.phases > 1 and self.machine._stuck):
                    self.join(node)  # a round that the method left short is tried again with who comes anew
            while self.outstanding:
                self.finish_outstanding(False)
            for version in self.record.unevaluated:
                self.evaluated(version)
            for node in (*self.record.invited, *self.record.asked):
                self.update(node, 0)
            if self.machine.state == "finishing":
                for node in "abcd":
                    self.feed(NodeEvaluated(node, 3, self.now))
            self.time_passes(40)
        assert self.finished, (self.machine.state, self.record, self.machine._reason)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


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
