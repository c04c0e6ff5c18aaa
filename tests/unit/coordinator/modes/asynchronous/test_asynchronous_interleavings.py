"""The machine of mode async under any interleaving of joins, losses, late and double messages, crashes and restarts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from covey.coordinator.modes.asynchronous.events import (
    AsyncRestored,
    CloseAssignment,
    Decided,
    DecideNext,
    NothingToDecide,
    OpenAssignment,
    OpenWork,
    SendAssignment,
)
from covey.coordinator.modes.asynchronous.machine import AsyncMachine
from covey.machines.protocol import (
    Evaluated,
    FinishRun,
    NodeAnswered,
    NodeJoined,
    NodeLost,
    NodeRemoved,
    PauseChanged,
    PlaceChanged,
    Started,
    Tick,
    UpdateStored,
)
from tests.unit.coordinator.modes.asynchronous.async_machine import POLICY


class Record:
    """What a store has: the assignments, the order of arrival, the decisions. It survives the machine."""

    def __init__(self):
        self.rounds = {}
        self.arrivals = []
        self.decisions = []
        self.version = 0
        self.evaluated = set()

    def restored(self):
        waiting = [n for n in self.arrivals if n not in self.decisions and self.rounds[n][2] == "collecting"]
        collecting = {n for n, row in self.rounds.items() if row[2] == "collecting"}
        open_ = {self.rounds[n][0]: OpenWork(n, self.rounds[n][1]) for n in sorted(collecting - set(self.arrivals))}
        due = tuple(v for v in range(2, self.version + 1, 2) if v not in self.evaluated)
        return AsyncRestored(
            len(self.decisions),
            max(self.rounds, default=0),
            self.version,
            open_,
            {n: self.rounds[n][0] for n in waiting},
            due,
        )


NODES = ("a", "b", "c", "d")


class AnyInterleaving(RuleBasedStateMachine):
    """Events in any order; actions change a pretended record, as the runner changes the store."""

    @initialize(nodes=st.integers(1, 4), updates=st.integers(1, 12), min_nodes=st.integers(1, 2))
    def begin(self, nodes, updates, min_nodes):
        self.policy = replace(POLICY, updates=updates, min_nodes=min(min_nodes, nodes))
        self.names = NODES[:nodes]
        self.record, self.now = Record(), 1000.0
        self.connected, self.gone, self.working = set(), set(), {}
        self.words, self.deciding, self.ended = [], False, None
        self.restart()

    @rule()
    def restart(self):
        """kill -9, and a start from the record alone: words that were on the way are lost."""
        if self.ended:
            return
        self.connected.clear()
        self.words, self.deciding = [], False
        self.machine = AsyncMachine(self.policy, self.names, restored=self.record.restored())
        self.feed(Started(self.now))

    def feed(self, event):
        for action in self.machine.handle(event):
            self.do(action)

    def do(self, action):
        assert self.ended is None, "an action after the end"
        rounds = self.record.rounds
        match action:
            case OpenAssignment(node=node, number=number, base_version=base):
                assert number == max(rounds, default=0) + 1
                assert base == self.record.version
                assert node not in self.gone
                mine = [n for n, row in rounds.items() if row[0] == node and row[2] == "collecting"]
                assert not mine, f"{node} has {mine} open"
                rounds[number] = [node, base, "collecting"]
            case SendAssignment(node=node, number=number):
                assert node in self.connected
                assert rounds[number][0] == node
                if rounds[number][2] == "collecting":
                    self.working[node] = number
            case CloseAssignment(node=node, number=number):
                assert rounds[number][0] == node
                if number in self.record.arrivals:  # the record keeps what came first
                    self.feed(UpdateStored(node, number, self.now))
                else:
                    rounds[number][2] = "failed"
            case DecideNext():
                assert not self.deciding
                self.deciding = True
            case FinishRun(state=state):
                self.ended = state

    # -- nodes

    @rule(node=st.sampled_from(NODES))
    def join(self, node):
        if node in self.names and node not in self.gone:
            self.connected.add(node)
            self.feed(NodeJoined(node, self.now))

    @rule(node=st.sampled_from(NODES))
    def lose(self, node):
        self.connected.discard(node)
        self.feed(NodeLost(node, self.now))

    @rule(node=st.sampled_from(NODES))
    def deliver(self, node):
        """The record takes it if the assignment is open; the word of it reaches the machine later."""
        number = self.working.get(node)
        if number is None or node not in self.connected or self.record.rounds[number][2] != "collecting":
            return
        if self.ended is None and self.machine.state != "finishing":
            if number not in self.record.arrivals:
                self.record.arrivals.append(number)
            self.words.append((node, number))

    @precondition(lambda self: self.words)
    @rule(which=st.integers(0, 20), twice=st.booleans())
    def word(self, which, twice):
        node, number = self.words.pop(which % len(self.words))
        if not number:  # the record had nothing more when it was asked
            self.deciding = False
            self.feed(NothingToDecide(self.now))
            return
        self.feed(UpdateStored(node, number, self.now))
        if twice:
            self.feed(UpdateStored(node, number, self.now))

    @rule(node=st.sampled_from(NODES), verdict=st.sampled_from(["declined", "rejected"]))
    def answer(self, node, verdict):
        number = self.working.get(node)
        if number is not None and self.machine.expects(node, number):
            self.feed(NodeAnswered(node, number, verdict, "no", self.now))

    @rule(node=st.sampled_from(NODES[1:]))
    def evict(self, node):
        if len(self.gone) < len(self.names) - self.policy.min_nodes:
            self.gone.add(node)
            self.connected.discard(node)
            self.feed(NodeRemoved(node, self.now))

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 101.0]))
    def wait(self, seconds):
        self.now += seconds
        self.feed(Tick(self.now))

    @rule(paused=st.booleans())
    def pause(self, paused):
        self.feed(PauseChanged(paused, self.now))

    @rule(has_place=st.booleans())
    def lend_the_place(self, has_place):
        self.feed(PlaceChanged(has_place, self.now))

    # -- the coordinator's own work

    @precondition(lambda self: self.deciding and ("", 0) not in self.words)
    @rule(makes_version=st.booleans())
    def decide(self, makes_version):
        record = self.record
        waiting = [n for n in record.arrivals if record.rounds[n][2] == "collecting"]
        if self.ended:
            return
        if not waiting:
            self.words.append(("", 0))
            return
        self.deciding = False
        number = waiting[0]
        node = record.rounds[number][0]
        if node in self.gone:
            record.rounds[number][2] = "failed"
        else:
            assert len(record.decisions) < self.policy.updates
            record.rounds[number][2] = "decided"
            record.decisions.append(number)
            record.version += makes_version
        self.feed(Decided(node, number, record.version, node not in self.gone, self.now))

    @rule()
    def evaluate(self):
        for version in self.machine.unevaluated[:1]:
            self.record.evaluated.add(version)
            self.feed(Evaluated(version, self.now))

    # -- what always holds

    @invariant()
    def decisions_follow_the_arrivals(self):
        kept = [n for n in self.record.arrivals if self.record.rounds[n][2] != "failed"]
        assert self.record.decisions == kept[: len(self.record.decisions)]

    @invariant()
    def one_thing_a_node(self):
        busy = [*self.machine.open, *self.machine.undecided.values()]
        settled = {n for n, row in self.record.rounds.items() if row[2] != "collecting"}
        current = [node for n, node in self.machine.undecided.items() if n not in settled]
        assert len(self.machine.open) + len(current) == len({*self.machine.open, *current}), busy

    @invariant()
    def there_is_always_a_next_step(self):
        machine = self.machine
        if self.ended or machine.state == "finishing":
            return
        if machine.undecided:
            assert self.deciding
        waiting = [n for n in self.record.arrivals if self.record.rounds[n][2] == "collecting"]
        if waiting and not self.words:
            assert self.deciding
        for node in self.connected - self.gone:
            idle = node not in machine.open and node not in machine.undecided.values()
            hands_out = machine._has_place and not machine._paused
            if idle and hands_out and len(machine.members.eligible()) >= self.policy.min_nodes:
                assert machine.wake_at is not None

    def teardown(self):
        """Whatever happened: with a live federation the run comes to its end."""
        if not hasattr(self, "machine"):
            return
        self.feed(PauseChanged(False, self.now))
        self.feed(PlaceChanged(True, self.now))
        for _ in range(40 * (self.policy.updates + 1)):
            if self.ended:
                break
            for node in self.names:
                self.join(node)
                self.deliver(node)
            while self.words:
                self.word(0, twice=False)
            if self.deciding and ("", 0) not in self.words:
                self.decide(makes_version=True)
            self.evaluate()
            self.wait(1.0)
        assert self.ended == "completed"
        assert len(self.record.decisions) == self.policy.updates


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
