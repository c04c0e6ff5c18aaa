"""Which assignment a node works on: one at a time, in the order in which they came, of each run the newest only.

Pure: no clock, no I/O. `handle` takes what happened, and gives what is to be done, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

from covey import messages as msg
from covey.node.assignments import events as ev


@dataclass
class _Work:
    """The work in progress."""

    assignment: msg.Assignment
    stage: ev.Stage = "assigned"
    update: str = ""
    stopping: bool = False

    @property
    def is_leaving(self) -> bool:
        """Whether it will end by itself, or was told to."""
        return self.stopping or self.stage == "settled"

    def awaits(self, answer: ev.Answer) -> bool:
        """Whether it may have asked for this answer."""
        if isinstance(answer, msg.DownloadGrant | msg.ModelElsewhere):
            return self.stage == "assigned"
        return self.stage == "offered" and answer.update == self.update


class AssignmentMachine:
    """The assignments of one node."""

    def __init__(self) -> None:
        self._work: _Work | None = None
        self._waiting: dict[str, msg.Assignment] = {}
        self._ended_runs: set[str] = set()

    @property
    def working(self) -> msg.Assignment | None:
        """What is in progress, stopping work included."""
        return self._work.assignment if self._work is not None else None

    @property
    def waiting(self) -> tuple[msg.Assignment, ...]:
        """What will be begun later, in this order."""
        return tuple(self._waiting.values())

    def handle(self, event: ev.Event) -> list[ev.Action]:
        """What is to be done now that this has happened."""
        match event:
            case ev.Assigned(assignment=assignment):
                return self._assigned(assignment)
            case ev.Cancelled(run=run, round=number):
                return self._cancelled(run, number)
            case ev.Answered(answer=answer):
                return self._answered(answer)
            case ev.Lost():
                return self._ask_again()
            case ev.Advanced(stage=stage, update=update):
                if self._work is not None:
                    self._work.stage, self._work.update = stage, update
                return []
            case ev.Ended():
                self._work = None
                return [*self._forget(), *self._next()]
            case ev.ReportDue():
                return [ev.Send(msg.Progress(a.run, a.round, "queued")) for a in self._waiting.values()]

    def _assigned(self, assignment: msg.Assignment) -> list[ev.Action]:
        self._ended_runs.discard(assignment.run)
        work = self._work
        if work is not None and work.assignment.key == assignment.key and not work.is_leaving:
            work.assignment = assignment
            return [ev.Renew(assignment), *self._ask_again()]
        actions: list[ev.Action] = []
        before = self._waiting.get(assignment.run)
        if before is not None and before.key != assignment.key:
            actions.append(ev.Drop(before))
        self._waiting[assignment.run] = assignment  # a run keeps its place
        if work is not None and work.assignment.run == assignment.run:
            actions += self._stop()
        return actions + self._next()

    def _answered(self, answer: ev.Answer) -> list[ev.Action]:
        work = self._work
        if work is None or work.stopping or not work.awaits(answer):
            return []
        if isinstance(answer, msg.Receipt):  # the next assignment may be here before this is noted
            work.stage = "settled"
        return [ev.Tell(answer)]

    def _cancelled(self, run: str, number: int) -> list[ev.Action]:
        actions, waiting, work = [], self._waiting.get(run), self._work
        if waiting is not None and number in (0, waiting.round):
            actions += self._drop(run)
        if work is not None and work.assignment.run == run and number in (0, work.assignment.round):
            actions += self._stop()
        if number == 0:
            self._ended_runs.add(run)
        return actions + self._forget()

    def _ask_again(self) -> list[ev.Action]:
        """Nothing is asked for while the worker trains."""
        work = self._work
        asks = work is not None and not work.stopping and work.stage in ("assigned", "offered")
        return [ev.AskAgain()] if asks else []

    def _stop(self) -> list[ev.Action]:
        """What is settled has little left to do, and does it."""
        if self._work is None or self._work.is_leaving:
            return []
        self._work.stopping = True
        return [ev.Stop()]

    def _drop(self, run: str) -> list[ev.Action]:
        waiting = self._waiting.pop(run, None)
        return [ev.Drop(waiting)] if waiting is not None else []

    def _next(self) -> list[ev.Action]:
        if self._work is not None or not self._waiting:
            return []
        assignment = self._waiting.pop(next(iter(self._waiting)))
        self._work = _Work(assignment)
        return [ev.Start(assignment)]

    def _forget(self) -> list[ev.Action]:
        """The runs that have ended, but for the one that is still being worked for."""
        busy = {self._work.assignment.run} if self._work is not None else set()
        ended, self._ended_runs = sorted(self._ended_runs - busy), self._ended_runs & busy
        return [ev.Forget(run) for run in ended]
