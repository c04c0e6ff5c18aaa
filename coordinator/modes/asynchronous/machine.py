"""The machine of mode `async`, as a pure state machine: `handle(event) -> list[Action]`.

It does no I/O and has no clock: events carry the time, and the caller sends a `Tick` at `wake_at`. What it needs after
a crash is in the store, because the caller executes actions in order and makes `OpenAssignment`, `CloseAssignment` and
each decision durable before it goes on; `AsyncRestored` brings it back.

A node has one thing at a time: an open assignment, or an update that is recorded and waits for its decision, or
nothing; then it gets its next assignment at once, from the newest version. Decisions are made one at a time, in the
order in which the store recorded the updates. An assignment ends without an update when its node declines, sends what
is refused, is away for `rejoin_s`, or shows no progress for `deadline_s`.

    (nothing) -> open -> recorded -> decided -> (nothing)
                  |-> closed, then a pause that doubles each time in a row -> (nothing)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from covey.coordinator.modes.asynchronous.events import (
    AsyncAction,
    AsyncEvent,
    AsyncRestored,
    AsyncRunPolicy,
    CloseAssignment,
    Decided,
    DecideNext,
    DecisionFailed,
    NothingToDecide,
    OpenAssignment,
    SendAssignment,
)
from covey.machines.evaluation import Evaluations, is_due
from covey.machines.membership import Membership
from covey.machines.protocol import (
    NO_PLACE,
    Cancel,
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
    RunState,
    Started,
    StopRequested,
    Tick,
    TransferProgressed,
    UpdateStored,
    Verdict,
)
from covey.machines.shortage import Refusals, all_declined_for_good, refusals_text
from covey.machines.stopping import Stopping


@dataclass
class _Work:
    """An open assignment; `moved_at` is the last sign of progress."""

    number: int
    base_version: int
    moved_at: float


@dataclass
class _Pause:
    """A node gets no work until `until`, after so many assignments in a row without an update; why the last one."""

    until: float
    failures: int
    verdict: Verdict
    reason: str


class AsyncMachine:
    """One run in `async` mode.

    Args:
        policy: The numbers it goes by.
        roster: Node ids in order; nodes that come later are appended.
        expected: Nodes not connected now but recently seen, with the time they were last seen.
        restored: The store's knowledge of a run in progress.
    """

    _has_place = True
    """Of the class, as event logs of older versions open with machines that do not have it."""

    def __init__(
        self,
        policy: AsyncRunPolicy,
        roster: Iterable[str],
        expected: Mapping[str, float] | None = None,
        restored: AsyncRestored | None = None,
    ) -> None:
        restored = restored or AsyncRestored()
        self.policy = policy
        self.members = Membership(roster, expected)
        self.decided = restored.decided
        self.committed = restored.version
        self.open = {node: _Work(work.number, work.base_version, 0.0) for node, work in restored.open.items()}
        self.undecided = dict(restored.undecided)
        """Assignments whose update is recorded, and their nodes."""
        self.deciding = False
        self._fresh: dict[int, str] = {}
        """Of the undecided ones, those that were recorded since the record was asked what is next."""
        self._last_number = restored.last_number
        self._phase = "working"
        self._evaluations = Evaluations(restored.unevaluated)
        self._stopping = Stopping(policy.stop, restored.values, restored.sent_bytes)
        self._why_stop = ""
        self._pauses: dict[str, _Pause] = {}
        self._paused = self._started = False
        self._started_at = 0.0
        self._reason = ""
        self._now = 0.0
        self._actions: list[AsyncAction] = []

    # -- the outside ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """`working`, `idle` (no assignment is open, nothing is to be decided), `finishing` or `done`."""
        quiet = not (self.open or self.undecided or self.deciding)
        return "idle" if self._phase == "working" and quiet else self._phase

    @property
    def done(self) -> bool:
        """Whether the run is in a terminal state."""
        return self._phase == "done"

    @property
    def unevaluated(self) -> tuple[int, ...]:
        """Versions whose central evaluation is still to be done."""
        return self._evaluations.unevaluated

    @property
    def wake_at(self) -> float | None:
        """When the machine wants a `Tick` at the latest; None: only an event can move it."""
        times = self.members.give_up_times(self.policy.rejoin_s)
        if self._phase == "working":
            times += [work.moved_at + self.policy.deadline_s for work in self.open.values()]
            times += [pause.until for node, pause in self._pauses.items() if pause.until > self._now]
            times += self._stopping.wake_times()
        if self._phase == "finishing":
            times += self._evaluations.wake_times()
        return max(self._now, min(times)) if times else None

    def collects(self, node: str, number: int) -> bool:
        """Whether this node works on this assignment, or its update for it waits for a decision."""
        return self.expects(node, number) or self.undecided.get(number) == node

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's update for this assignment is still to come."""
        return self._phase == "working" and node in self.open and self.open[node].number == number

    def handle(self, event: AsyncEvent) -> list[AsyncAction]:
        """Take one event; returns what is to be done, in order. Unknown nodes and late messages change nothing."""
        self._actions = []
        if self._phase != "done":
            self._now = max(self._now, getattr(event, "now", self._now))
            self._take(event)
            if self._started:
                self._advance()
        return self._actions

    # -- events ---------------------------------------------------------------------------------------------------

    def _take(self, event: AsyncEvent) -> None:
        match event:
            case Started():
                self._start()
            case NodeJoined(node=node):
                self._joined(node)
            case NodeLost(node=node):
                if self.members.leave(node, self._now):
                    self._evaluations.answered(node)
            case NodeRemoved(node=node):
                self._removed(node)
            case UpdateStored(node=node, round=number):
                self._stored(node, number)
            case NodeAnswered(node=node, round=number, verdict=verdict, reason=reason):
                if self.expects(node, number):
                    self._close(node, verdict, reason)
            case TransferProgressed(node=node, now=now) | NodeQueued(node=node, now=now):
                if node in self.open:  # told of late, perhaps
                    self.open[node].moved_at = max(self.open[node].moved_at, now)
                if isinstance(event, NodeQueued):
                    self._evaluations.queued(node, self._now)
            case Decided():
                self._settled(event)
            case NothingToDecide():
                self.deciding, self.undecided = False, dict(self._fresh)
            case DecisionFailed(number=number, reason=reason):
                self._finish("failed", f"the update of round {number} cannot be decided on: {reason}")
            case Evaluated(version=version, value=value):
                self._evaluations.evaluated(version)
                self._stopping.measured(version, value)
            case NodeEvaluated(node=node):
                self._evaluations.answered(node)
            case PauseChanged(paused=paused):
                self._paused = paused
            case PlaceChanged(has_place=has_place):
                self._has_place = has_place
            case StopRequested(reason=reason):
                self._stop(reason)
            case Tick() | _:
                pass

    def _start(self) -> None:
        self._started, self._started_at = True, self._now
        self.members.start(self._now, at_work=self.open)  # whoever has work from before the restart is expected back
        for work in self.open.values():
            work.moved_at = self._now
        self._actions += self._evaluations.start()

    def _joined(self, node: str) -> None:
        self.members.join(node)
        if node in self.open and self._phase == "working":
            self.open[node].moved_at = self._now
            self._actions.append(SendAssignment(node, self.open[node].number))

    def _removed(self, node: str) -> None:
        self.members.remove(node)
        self._pauses.pop(node, None)
        self._evaluations.answered(node)
        if node in self.open:
            self._close(node, "rejected", "evicted")

    def _stored(self, node: str, number: int) -> None:
        """The record has an update; should it be settled already, then the record will say so."""
        if self.expects(node, number):
            del self.open[node]
        self.undecided[number] = self._fresh[number] = node
        self._pauses.pop(node, None)

    def _settled(self, event: Decided) -> None:
        self.deciding = False
        self.decided += event.counted
        self._stopping.sent(event.sent_bytes)
        self.undecided.pop(event.number, None)
        if self.expects(event.node, event.number):  # the word of its arrival is still to come
            del self.open[event.node]
        if event.version > self.committed:
            self.committed = event.version
            self._actions += self._evaluations.committed(self.policy, self.committed)

    def _stop(self, reason: str) -> None:
        self._cancel_all("the run was stopped")
        self._finish("stopped", reason)

    # -- moving on ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        if self._phase == "done":
            return
        self._lose_the_overdue()
        if self._phase == "working":
            self._why_stop = self._why_stop or self._stopping.why(self._now)
            self._decide_next()
            if (self._why_stop or self.decided >= self.policy.updates) and not self.deciding:
                self._begin_finishing()
            else:
                self._hand_out()
        if self._phase == "finishing":
            self._try_to_finish()

    def _decide_next(self) -> None:
        is_over = self._why_stop or self.decided >= self.policy.updates
        if self.undecided and not self.deciding and not is_over:
            self.deciding, self._fresh = True, {}
            self._actions.append(DecideNext())

    def _lose_the_overdue(self) -> None:
        for node in self.members.give_up(self._now, self.policy.rejoin_s):
            if self._phase == "working" and node in self.open:
                self._close(node, "lost", f"no connection for {self.policy.rejoin_s:g} s")
        for node, work in list(self.open.items()):
            if self._phase == "working" and self._now - work.moved_at >= self.policy.deadline_s:
                self._cancel(node, work.number, "the assignment took too long")
                verdict: Verdict = "late" if node in self.members.present else "lost"
                self._close(node, verdict, f"no progress for {self.policy.deadline_s:g} s")

    def _hand_out(self) -> None:
        if self._paused:
            self._report("paused by the operator")
            return
        eligible = self.members.eligible()
        if len(eligible) < self.policy.min_nodes:
            self._report_short(len(eligible))
            return
        trouble = self._trouble(eligible)
        if trouble and self.members.present and self.policy.fail_when_short:
            self._cancel_all("the run has failed")
            self._finish("failed", trouble)
            return
        free = [node for node in eligible if node in self.members.present and self._is_free(node)]
        self._report(trouble or (NO_PLACE if free and not self._has_place else ""))
        for node in free if self._has_place else ():
            self._open(node)

    def _trouble(self, eligible: list[str]) -> str:
        """Why nothing comes, if nothing does: nobody is there, or every node refuses its work time and again."""
        if not self.members.present:
            return "" if self.deciding or self._now == self._started_at else "no node is connected"
        pauses = {node: self._pauses[node] for node in eligible if node in self._pauses}
        refusals: Refusals = {node: (pause.verdict, pause.reason) for node, pause in pauses.items()}
        if len(pauses) < len(eligible):
            return ""
        if all_declined_for_good(refusals):
            return f"every node declines its work, and is asked again now and then; {refusals_text(refusals)}"
        if min(pause.failures for pause in pauses.values()) <= self.policy.max_retries:
            return ""
        last, pause = list(pauses.items())[-1]
        return f"no node delivers an update any more; the last one: {last} {pause.verdict}: {pause.reason}"

    def _is_free(self, node: str) -> bool:
        pause = self._pauses.get(node)
        busy = node in self.open or node in self.undecided.values()
        return not busy and (pause is None or self._now >= pause.until)

    def _open(self, node: str) -> None:
        self._last_number += 1
        self.open[node] = _Work(self._last_number, self.committed, self._now)
        self._actions.append(OpenAssignment(node, self._last_number, self.committed, tuple(self.members.roster)))
        self._actions.append(SendAssignment(node, self._last_number))

    def _close(self, node: str, verdict: Verdict, reason: str) -> None:
        work = self.open.pop(node)
        self._actions.append(CloseAssignment(node, work.number, verdict, reason))
        failures = self._pauses[node].failures + 1 if node in self._pauses else 1
        wait = min(self.policy.retry_s * 2.0 ** min(failures - 1, 30), self.policy.retry_max_s)
        self._pauses[node] = _Pause(self._now + wait, failures, verdict, reason)

    def _begin_finishing(self) -> None:
        self._phase = "finishing"
        self._report("")
        self._cancel_all(self._why_stop or "the run has all its updates")
        self.open.clear()
        policy, last = self.policy, self.committed
        if not is_due(last, policy.evaluate_every):  # else it is evaluated anyway
            self._actions += self._evaluations.committed(policy, last, last=True)
        self._actions += self._evaluations.ask_nodes(policy, last, self.members.connected(), self._now)

    def _try_to_finish(self) -> None:
        if self._evaluations.all_done(self._now):
            self._finish("completed", self._why_stop)

    def _finish(self, state: RunState, reason: str) -> None:
        self._phase = "done"
        self._actions.append(FinishRun(state, reason))

    # -- small things ---------------------------------------------------------------------------------------------

    def _cancel_all(self, reason: str) -> None:
        for node, work in self.open.items():
            self._cancel(node, work.number, reason)

    def _cancel(self, node: str, number: int, reason: str) -> None:
        if node in self.members.present:
            self._actions.append(Cancel(node, number, reason))

    def _report(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._actions.append(Report(reason))

    def _report_short(self, eligible: int) -> None:
        present = len(self.members.present)
        text = f"{self.policy.min_nodes} nodes are needed; {present} connected"
        away = eligible - present
        self._report(text + (f", {away} expected back" if away > 0 else ""))
