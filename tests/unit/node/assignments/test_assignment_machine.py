"""The machine of assignments: by example, and under any interleaving of what can happen."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from covey import messages as msg
from covey.node.assignments import events as ev
from covey.node.assignments.machine import AssignmentMachine
from tests.unit.node.memory import assignment

RUNS = ("a", "b", "c")


def machine_with(*events):
    machine = AssignmentMachine()
    for event in events:
        machine.handle(event)
    return machine


def assigned(*args, **fields):
    return ev.Assigned(assignment(*args, **fields))


def test_work_begins_at_once_and_other_runs_wait_in_order():
    machine = AssignmentMachine()
    assert machine.handle(assigned("a")) == [ev.Start(assignment("a"))]
    assert machine.handle(assigned("c")) == []
    assert machine.handle(assigned("b")) == []
    assert machine.handle(ev.Ended()) == [ev.Start(assignment("c"))]
    assert machine.handle(ev.Ended()) == [ev.Start(assignment("b"))]
    assert machine.handle(ev.Ended()) == []


def test_what_waits_is_reported():
    machine = machine_with(assigned("a"), assigned("b", 4), assigned("c", 7))
    reports = [action.message for action in machine.handle(ev.ReportDue())]
    assert [(report.run, report.round, report.phase) for report in reports] == [("b", 4, "queued"), ("c", 7, "queued")]


def test_the_same_work_again_goes_on_and_asks_again():
    machine, again = machine_with(assigned("a")), assignment("a", attempt=2)
    assert machine.handle(ev.Assigned(again)) == [ev.Renew(again), ev.AskAgain()]
    machine.handle(ev.Advanced("has-base"))
    assert machine.handle(ev.Assigned(again)) == [ev.Renew(again)]
    assert machine.working == again


def test_a_newer_assignment_of_a_run_takes_the_place_of_the_waiting_one():
    machine = machine_with(assigned("a"), assigned("b", 1), assigned("c", 1))
    assert machine.handle(assigned("b", 2)) == [ev.Drop(assignment("b", 1))]
    assert machine.waiting == (assignment("b", 2), assignment("c", 1))
    again = assignment("b", 2, attempt=2)
    assert machine.handle(ev.Assigned(again)) == []
    assert machine.waiting[0] == again


def test_a_newer_assignment_of_the_run_in_progress_stops_it_and_is_next_after_those_that_wait():
    machine = machine_with(assigned("a", 1), assigned("b", 1))
    assert machine.handle(assigned("a", 2)) == [ev.Stop()]
    assert machine.handle(assigned("a", 3)) == [ev.Drop(assignment("a", 2))]
    assert machine.handle(ev.Ended()) == [ev.Start(assignment("b", 1))]
    assert machine.handle(ev.Ended()) == [ev.Start(assignment("a", 3))]


def test_work_that_is_stopping_is_not_the_work_that_is_assigned_again():
    machine = machine_with(assigned("a"), ev.Cancelled("a", 1))
    assert machine.handle(assigned("a")) == []
    assert machine.handle(ev.Ended()) == [ev.Start(assignment("a"))]


def test_settled_work_is_not_stopped():
    machine = machine_with(assigned("a", 1), ev.Advanced("settled", "d"))
    assert machine.handle(ev.Cancelled("a", 1)) == []
    assert machine.handle(assigned("a", 2)) == []
    assert machine.handle(ev.Ended()) == [ev.Start(assignment("a", 2))]


@pytest.mark.parametrize("then", [assigned("a", 2), ev.Cancelled("a", 0)])
def test_a_receipt_that_has_come_is_noted_though_the_next_message_is_here_already(then):
    machine = machine_with(assigned("a", 1), ev.Advanced("offered", "u"))
    receipt = msg.Receipt("u", b"", b"")
    assert machine.handle(ev.Answered(receipt)) == [ev.Tell(receipt)]
    assert machine.handle(then) == []


def test_cancelling_a_round_leaves_other_rounds_and_runs():
    machine = machine_with(assigned("a", 1), assigned("b", 1))
    assert machine.handle(ev.Cancelled("b", 2)) == []
    assert machine.handle(ev.Cancelled("c", 1)) == []
    assert machine.handle(ev.Cancelled("b", 1)) == [ev.Drop(assignment("b", 1))]
    assert machine.handle(ev.Cancelled("a", 1)) == [ev.Stop()]
    assert machine.handle(ev.Cancelled("a", 1)) == []


def test_a_run_that_has_ended_is_forgotten_once_its_work_is_over():
    machine = machine_with(assigned("a"), assigned("b"))
    assert machine.handle(ev.Cancelled("b", 0)) == [ev.Drop(assignment("b")), ev.Forget("b")]
    assert machine.handle(ev.Cancelled("a", 0)) == [ev.Stop()]
    assert machine.handle(ev.Ended()) == [ev.Forget("a")]
    assert machine.handle(ev.Cancelled("never-heard-of", 0)) == [ev.Forget("never-heard-of")]


def test_answers_reach_only_work_that_may_have_asked():
    grant, receipt = msg.DownloadGrant("d"), msg.Receipt("u", b"", b"")
    machine = AssignmentMachine()
    assert machine.handle(ev.Answered(grant)) == []
    machine.handle(assigned("a"))
    assert machine.handle(ev.Answered(grant)) == [ev.Tell(grant)]
    assert machine.handle(ev.Answered(receipt)) == []
    machine.handle(ev.Advanced("offered", "u"))
    assert machine.handle(ev.Answered(grant)) == []
    assert machine.handle(ev.Answered(receipt)) == [ev.Tell(receipt)]
    assert machine.handle(ev.Answered(msg.Receipt("other", b"", b""))) == []
    machine.handle(ev.Cancelled("a", 1))
    assert machine.handle(ev.Answered(receipt)) == []


def test_after_a_loss_only_those_ask_again_who_wait_for_an_answer():
    machine = AssignmentMachine()
    assert machine.handle(ev.Lost()) == []
    machine.handle(assigned("a"))
    asks = {}
    for stage in ("assigned", "has-base", "trained", "offered", "settled"):
        machine.handle(ev.Advanced(stage, "u"))
        asks[stage] = machine.handle(ev.Lost()) == [ev.AskAgain()]
    assert asks == {"assigned": True, "has-base": False, "trained": False, "offered": True, "settled": False}


def dropped(actions):
    return [action.assignment for action in actions if isinstance(action, ev.Drop)]


class Interleavings(RuleBasedStateMachine):
    """Whatever is assigned is begun, renewed, or dropped for a reason; in order; never two at once."""

    def __init__(self):
        super().__init__()
        self.machine = AssignmentMachine()
        self.running: msg.Assignment | None = None
        self.stopping = False
        self.queue: dict[str, msg.Assignment] = {}
        self.ended_runs = set()
        self.stage = "assigned"

    def do(self, event):
        actions = self.machine.handle(event)
        for action in actions:
            match action:
                case ev.Start(assignment=started):
                    assert self.running is None
                    expected = next(iter(self.queue))
                    assert started == self.queue.pop(expected)
                    self.running, self.stopping, self.stage = started, False, "assigned"
                case ev.Stop():
                    assert self.running is not None
                    assert not self.stopping
                    self.stopping = True
                case ev.Renew(assignment=renewed):
                    assert not self.stopping
                    assert self.running is not None
                    assert renewed.key == self.running.key
                    self.running = renewed
                case ev.Forget(run=run):
                    assert run in self.ended_runs
                    assert self.running is None or self.running.run != run
                    assert run not in self.queue
                    self.ended_runs.remove(run)
        return actions

    @rule(run=st.sampled_from(RUNS), number=st.integers(1, 3), attempt=st.integers(1, 2))
    def assign(self, run, number, attempt):
        asked = assignment(run, number, attempt=attempt)
        self.ended_runs.discard(run)
        is_running = self.running is not None and self.running.key == asked.key and not self.leaving()
        before, ran = self.queue.get(run), self.running
        if not is_running:
            self.queue[run] = asked
        actions = self.do(ev.Assigned(asked))
        if is_running:
            assert ev.Renew(asked) in actions
            assert self.running == asked
        else:
            assert (before in dropped(actions)) == (before is not None and before.key != asked.key)
            if ran is not None and ran.run == run:
                assert self.leaving()

    def leaving(self):
        return self.stopping or self.stage == "settled"

    @precondition(lambda self: self.running is not None)
    @rule(stage=st.sampled_from(("assigned", "has-base", "trained", "offered", "settled")))
    def advance(self, stage):
        if self.stage != "settled":
            self.stage = stage
            assert self.do(ev.Advanced(stage, "u" if stage in ("trained", "offered", "settled") else "")) == []

    @precondition(lambda self: self.running is not None)
    @rule()
    def end(self):
        waiting, self.running = len(self.queue), None
        self.do(ev.Ended())
        assert (self.running is not None) == (waiting > 0)

    @rule(run=st.sampled_from(RUNS), number=st.integers(0, 3))
    def cancel(self, run, number):
        waiting = self.queue.get(run)
        is_dropped = waiting is not None and number in (0, waiting.round)
        hits = self.running is not None and self.running.run == run and number in (0, self.running.round)
        if is_dropped:
            del self.queue[run]
        if number == 0:
            self.ended_runs.add(run)
        actions = self.do(ev.Cancelled(run, number))
        assert (waiting in dropped(actions)) == is_dropped
        if hits:
            assert self.leaving()
        if number == 0 and (self.running is None or self.running.run != run):
            assert ev.Forget(run) in actions

    @rule(update=st.sampled_from(("u", "v")))
    def answer(self, update):
        receipt = msg.Receipt(update, b"", b"")
        is_awaited = self.running is not None and not self.stopping and self.stage == "offered" and update == "u"
        assert self.do(ev.Answered(receipt)) == ([ev.Tell(receipt)] if is_awaited else [])
        if is_awaited:
            self.stage = "settled"

    @rule()
    def lose(self):
        asks = self.running is not None and not self.stopping and self.stage in ("assigned", "offered")
        assert self.do(ev.Lost()) == ([ev.AskAgain()] if asks else [])

    @invariant()
    def nothing_is_lost(self):
        assert self.machine.working == self.running
        assert self.machine.waiting == tuple(self.queue.values())
        assert self.running is not None or not self.queue

    @invariant()
    def everything_that_waits_is_said(self):
        messages = [action.message for action in self.machine.handle(ev.ReportDue()) if isinstance(action, ev.Send)]
        said = [(report.run, report.round) for report in messages if isinstance(report, msg.Progress)]
        assert said == [(asked.run, asked.round) for asked in self.queue.values()]


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
