"""Which of each node's updates was decided on last: what nodes keep from update to update follows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from covey.messages import Feedback
from covey.storage.record.contract import Store, UpdateRecord


class VerdictFeedback:
    """Node to its newest update on which was decided, and whether it was accepted."""

    def __init__(self) -> None:
        self._newest: dict[str, Feedback] = {}

    @classmethod
    def load(cls, store: Store, run: str, roster: Sequence[str], last: int) -> VerdictFeedback:
        """From the record of the rounds up to `last`. Blocking."""
        feedback, missing = cls(), set(roster)
        for number in range(last, 0, -1):
            decided = [u for u in store.updates(run, number) if u.node in missing]
            feedback.note(decided)
            missing -= {u.node for u in decided if u.node in feedback._newest}
            if not missing:
                break
        return feedback

    def note(self, updates: Iterable[UpdateRecord]) -> None:
        """Updates were decided on; what a node keeps comes from its training, in phase 1."""
        for update in updates:
            if update.digest and update.phase == 1 and update.verdict in ("accepted", "rejected"):
                self._newest[update.node] = Feedback(update.digest, update.verdict == "accepted")

    def of(self, node: str) -> Feedback:
        """The node's; an empty digest if it has none."""
        return self._newest.get(node, Feedback())
