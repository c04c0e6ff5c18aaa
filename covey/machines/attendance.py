"""Who is connected and lets rounds pass without an answer: it is invited last, for longer each time.

What is known of it follows from the record alone: how each node answered in the rounds that are committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from covey.machines.protocol import Verdict

MISSES = 2
"""So many times in a row a node may be late before it is invited last: once may be bad luck."""
REST_ROUNDS = 8
"""In so many rounds it is invited last then; after each further time in a row in twice as many."""
MOST_DOUBLED = 3
WINDOW_ROUNDS = 256
"""What was longer ago makes no difference."""


@dataclass(frozen=True)
class Missed:
    """So many times in a row a node was late, the last time in this round."""

    times: int
    round: int

    @property
    def rest_rounds(self) -> int:
        """In how many rounds after that one it is invited last."""
        return 0 if self.times < MISSES else int(REST_ROUNDS * 2 ** min(self.times - MISSES, MOST_DOUBLED))


class Attendance:
    """The nodes of one run that were late.

    Args:
        answers: Round, node and verdict of what is on record, in the order of rounds.
    """

    def __init__(self, answers: Iterable[tuple[int, str, Verdict]] = ()) -> None:
        self._missed: dict[str, Missed] = {}
        for round, node, verdict in answers:
            self._note(round, node, verdict)

    def committed(self, round: int, answers: Mapping[str, Verdict]) -> None:
        """A round is over; how each of the invited answered in the end."""
        for node, verdict in answers.items():
            self._note(round, node, verdict)

    def _note(self, round: int, node: str, verdict: Verdict) -> None:
        if verdict == "late":
            self._missed[node] = self.next(node, round)
        elif verdict != "lost":  # who has no connection can say nothing
            self._missed.pop(node, None)

    def next(self, node: str, round: int) -> Missed:
        """What will be known of a node if it is late in this round."""
        before = self._missed.get(node)
        return Missed(before.times + 1 if before is not None else 1, round)

    def rests(self, node: str, round: int) -> bool:
        """Whether a node is invited last in a round."""
        missed = self._missed.get(node)
        return missed is not None and round <= missed.round + missed.rest_rounds

    def willing(self, nodes: Sequence[str], round: int, wanted: int) -> list[str]:
        """Those of the nodes that answer, in their order; where they are fewer than wanted, some of the others too."""
        resting = [node for node in nodes if self.rests(node, round)]
        missing = wanted - (len(nodes) - len(resting))
        resting.sort(key=lambda node: self._missed[node].times)
        left_out = set(resting[max(0, missing) :])
        return [node for node in nodes if node not in left_out]
