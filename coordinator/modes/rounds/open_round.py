"""What the round machine knows of its open round: who is asked, who answered, and what that puts on record. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from covey.coordinator.modes.rounds import events as ev
from covey.coordinator.modes.rounds.waiting import overdue_text
from covey.machines import protocol as pr
from covey.machines.attendance import Attendance
from covey.machines.membership import Membership


class OpenRound:
    """The open round of a run in `rounds` mode; between rounds its number is 0.

    Args:
        policy: The numbers it goes by.
        roster: Node ids in order.
        expected: Nodes not connected now but recently seen, with the time they were last seen.
        restored: The store's knowledge of a run in progress.
    """

    def __init__(
        self, policy: ev.RoundPolicy, roster: Iterable[str], expected: Mapping[str, float] | None, restored: ev.Restored
    ) -> None:
        self.policy = policy
        self.members = Membership(roster, expected)
        self.attendance = Attendance(restored.attendance)
        self.committed = restored.committed
        self.round = restored.round
        self.attempt = restored.attempt
        self.invited = restored.invited
        self.answers = dict(restored.answers)
        """Those of phase 1."""
        self._reasons = dict(restored.reasons)
        """Of those that did not count, in whatever phase."""
        self.phase = restored.phase
        self._asked, self._phase_answers = restored.asked, dict(restored.phase_answers)
        """Of a later phase: who is asked, and what they answered."""
        self.state = "aggregating" if restored.aggregating else "collecting" if restored.round else "idle"
        self._reason = ""
        self._actions: list[ev.RoundAction] = []

    def collects(self, node: str, number: int) -> bool:
        """Whether an update of this node for this round would count now."""
        return self.state == "collecting" and number == self.round and node in self.asked

    def expects(self, node: str, number: int) -> bool:
        """Whether this node's answer for this round is still to come."""
        return self.collects(node, number) and node not in self._answers

    @property
    def asked(self) -> tuple[str, ...]:
        """The nodes whose answers the present phase waits for, or has."""
        return self.invited if self.phase == 1 else self._asked

    @property
    def _answers(self) -> dict[str, pr.Verdict]:
        """Those of the present phase."""
        return self.answers if self.phase == 1 else self._phase_answers

    # -- small questions ------------------------------------------------------------------------------------------

    def _eligible(self) -> list[str]:
        """The nodes that may be asked, and are connected or expected back."""
        return [node for node in self.members.eligible() if not self.policy.only or node in self.policy.only]

    def _pending(self) -> list[str]:
        return [node for node in self.asked if node not in self._answers] if self.round else []

    def _received(self) -> list[str]:
        return [node for node in self.members.roster if self.answers.get(node) == "received"]

    def _evicted(self) -> list[str]:
        """Who was evicted while the worker looked at its answer: it does not count in what follows."""
        return [node for node in self._received() if self.members.why_gone(node) == "removed"]

    def _overdue(self, node: str) -> tuple[pr.Verdict, str]:
        verdict: pr.Verdict = "late" if node in self.members.present else "lost"
        return verdict, overdue_text(self.attendance.next(node, self.round) if verdict == "late" else None)

    # -- recording ------------------------------------------------------------------------------------------------

    def _answer(self, node: str, verdict: pr.Verdict, reason: str) -> None:
        self._answers[node], self._reasons[node] = verdict, reason
        if verdict == "rejected":
            self.answers[node] = verdict
        self._actions.append(ev.RecordOutcome(node, self.round, verdict, reason, self.phase))

    def _cancel(self, node: str, reason: str) -> None:
        if node in self.members.present:
            self._actions.append(pr.Cancel(node, self.round, reason))

    def _report(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._actions.append(pr.Report(reason))
