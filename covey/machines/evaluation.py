"""Which versions are to be evaluated, where, and what of that a run still waits for when its work is done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from covey.machines.protocol import AssignEvaluation, EvaluateCentrally


class EvaluationPolicy(Protocol):
    """The numbers of a machine's policy that say what is evaluated."""

    @property
    def evaluate_every(self) -> int:
        """Versions from one evaluation to the next; 0: none."""

    @property
    def evaluate_centrally(self) -> bool:
        """Whether the task has central data to evaluate on."""

    @property
    def evaluate_on_nodes(self) -> bool:
        """Whether the nodes evaluate the last version on their own data."""

    @property
    def deadline_s(self) -> float:
        """How long each node has for that, from when it was asked, or last said that it works for another run first."""

    @property
    def hard_deadline_s(self) -> float:
        """How long all of them have at the most, whatever they say."""


def is_due(version: int, every: int, *, last: bool = False) -> bool:
    """Whether a version is one of those that are evaluated: each `every`th, and the last one; none if `every` is 0."""
    return bool(every) and version > 0 and (last or version % every == 0)


class Evaluations:
    """The evaluations of one run.

    Args:
        unevaluated: Versions whose central evaluation is still to be done, by the record.
    """

    def __init__(self, unevaluated: Iterable[int] = ()) -> None:
        self._unevaluated = set(unevaluated)
        self._newest = max(self._unevaluated, default=0)
        """The last version of which an evaluation was asked for."""
        self._asked: dict[str, float] = {}
        """Node whose evaluation of the last version is to come, to the time until which it is waited for."""
        self._deadline_s = self._latest = 0.0

    @property
    def unevaluated(self) -> tuple[int, ...]:
        """Versions whose central evaluation is still to be done, in order."""
        return tuple(sorted(self._unevaluated))

    def start(self) -> list[EvaluateCentrally]:
        """What was left undone before the coordinator's start."""
        return [EvaluateCentrally(version) for version in self.unevaluated]

    def committed(self, policy: EvaluationPolicy, version: int, *, last: bool = False) -> list[EvaluateCentrally]:
        """A version was made; what is to be evaluated."""
        if not (policy.evaluate_centrally and is_due(version, policy.evaluate_every, last=last)):
            return []
        self._newest = version
        self._unevaluated.add(version)
        return [EvaluateCentrally(version)]

    def ended_early(self, policy: EvaluationPolicy, version: int) -> list[EvaluateCentrally]:
        """A version turned out to be the last one; what is to be evaluated still."""
        is_known = version == self._newest or is_due(version, policy.evaluate_every)
        return [] if is_known else self.committed(policy, version, last=True)

    def ask_nodes(
        self, policy: EvaluationPolicy, version: int, nodes: Iterable[str], now: float
    ) -> list[AssignEvaluation]:
        """The work is done: the connected nodes evaluate the last version."""
        if not (policy.evaluate_on_nodes and is_due(version, policy.evaluate_every, last=True)):
            return []
        self._deadline_s = policy.deadline_s
        self._latest = now + max(policy.deadline_s, policy.hard_deadline_s)
        self._asked = dict.fromkeys(nodes, now + policy.deadline_s)
        return [AssignEvaluation(node, version) for node in sorted(self._asked)]

    def queued(self, node: str, now: float) -> None:
        """A node works for another run first: its time begins when it is done there, within the hard deadline."""
        if node in self._asked:
            self._asked[node] = min(self._latest, max(self._asked[node], now + self._deadline_s))

    def evaluated(self, version: int) -> None:
        """A central evaluation ended."""
        self._unevaluated.discard(version)

    def answered(self, node: str) -> None:
        """A node has answered, or will not any more."""
        self._asked.pop(node, None)

    def wake_times(self) -> list[float]:
        """When the nodes' time is up."""
        return [min(self._asked.values())] if self._asked else []

    def all_done(self, now: float) -> bool:
        """Whether nothing is waited for any more; nodes that have not answered in time are not."""
        self._asked = {node: until for node, until in self._asked.items() if now < until}
        return not self._unevaluated and not self._asked
