"""The round machine under any interleaving of joins, losses, late and double messages, phases, crashes and restarts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from covey.coordinator.modes.rounds.events import (
    Aggregate,
    Aggregated,
    Assign,
    Commit,
    OpenPhase,
    OpenRound,
    PhasePlanned,
    RecordOutcome,
    Restored,
    RoundCommitted,
    RoundPolicy,
    UpdatesLost,
)
from covey.coordinator.modes.rounds.machine import RoundMachine
from covey.machines.protocol import (
    EvaluateCentrally,
    Evaluated,
    FinishRun,
    NodeAnswered,
    NodeEvaluated,
    NodeJoined,
    NodeLost,
    PauseChanged,
    PlaceChanged,
    Started,
    Tick,
    TransferProgressed,
    UpdateStored,
)


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
        self.outstanding: list[Aggregate | RoundCommitted] = []
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
        answers = {**self.answers_now(), node: verdict}
        if self.record.phase == 1:
            self.record = replace(self.record, answers=answers)
        else:
            self.record = replace(self.record, phase_answers=answers)

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

    @precondition(lambda self: self.outstanding and isinstance(self.outstanding[-1], Aggregate))
    @rule(which=st.integers(0, 3), crashes=st.booleans())
    def lose_an_update(self, which, crashes):
        """A file is found damaged as it is used: the record forgets the update, then the machine hears of it."""
        item = self.outstanding.pop()
        sent = [node for node, verdict in self.record.answers.items() if verdict == "received"]
        lost = sent[which % len(sent)] if sent else ""
        answers = {node: verdict for node, verdict in self.record.answers.items() if node != lost}
        self.record = replace(self.record, aggregating=False, answers=answers)
        if crashes:
            self.restart()
        else:
            self.feed(UpdatesLost(item.round, (lost,) if lost else (), self.now))

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

    @rule(has_place=st.booleans())
    def lend_the_place(self, has_place):
        self.feed(PlaceChanged(has_place, self.now))

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
            self.feed(PlaceChanged(True, self.now))
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
