"""A node's own record on disk: the journal of finished updates, and local state by run."""

from __future__ import annotations

from pathlib import Path

from covey import messages as msg
from covey.node.assignments.journal import Journal
from covey.node.assignments.local_state import LocalState
from covey.node.updates import FinishedUpdate, State


class NodeStore:
    """`covey.node.ports.Store` in a node's data directory; made where it is missing."""

    def __init__(self, data_dir: Path) -> None:
        self._journal = Journal(data_dir / "journal")
        self._state = LocalState(data_dir / "state")

    def finished(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        """As `Store.finished`."""
        return self._journal.find(run, number, phase, base)

    def holding(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        """As `Store.holding`."""
        return self._journal.holding(run, number, phase, base)

    def save(self, update: FinishedUpdate, state: State, own: State) -> None:
        """As `Store.save`."""
        if state or own:  # first: an update that is in the journal is offered, whatever happens now
            self._state.stage(update, state, own)
        self._journal.save(update)

    def delivered(self, update: FinishedUpdate) -> None:
        """As `Store.delivered`."""
        self._journal.delivered(update)

    def drop_update(self, run: str) -> None:
        """As `Store.drop_update`."""
        self._journal.forget(run)

    def settle(self, run: str, feedback: msg.Feedback, number: int) -> State:
        """As `Store.settle`."""
        return self._state.settle(run, feedback, number)

    def own_state(self, run: str) -> State:
        """As `Store.own_state`."""
        return self._state.own_state(run)

    def forget(self, run: str) -> None:
        """As `Store.forget`."""
        self._state.forget(run)
        self._journal.run_ended(run)

    def needed(self) -> set[str]:
        """As `Store.needed`."""
        return self._journal.referenced() | self._state.digests()
