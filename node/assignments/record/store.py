"""A node's own record on disk: the journal of finished updates, and local state by run."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import override

from covey import messages as msg
from covey.node.assignments.record.journal import Journal
from covey.node.assignments.record.local_state import LocalStates
from covey.node.assignments.record.receipts import Receipts
from covey.node.assignments.record.spending import Spending
from covey.node.ports import Store
from covey.node.updates import FinishedUpdate, State


class NodeStore(Store):
    """`covey.node.ports.Store` in a node's data directory; made where it is missing."""

    def __init__(self, data_dir: Path) -> None:
        self._journal = Journal(data_dir / "journal")
        self._state = LocalStates(data_dir / "state")
        self._receipts = Receipts(data_dir / "receipts")
        self._spending = Spending(data_dir / "state")

    @override
    def finished(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        return self._journal.find(run, number, phase, base)

    @override
    def holding(self, run: str, number: int, phase: int, base: str) -> FinishedUpdate | None:
        return self._journal.holding(run, number, phase, base)

    @override
    def save(self, update: FinishedUpdate, state: State, own: State) -> None:
        if update.private and update.phase == 1:  # first of all: what is spent is never had back
            self._spending.note(update.run)
        if state or own:  # first: an update that is in the journal is offered, whatever happens now
            self._state.stage(update, state, own)
        self._journal.save(update)

    @override
    def private_terms(self, run: str, given: str) -> str:
        return self._spending.terms(run, given)

    @override
    def private_updates(self, run: str) -> int:
        return self._spending.updates_of(run)

    @override
    def delivered(self, update: FinishedUpdate) -> None:
        self._journal.delivered(update)

    @override
    def keep_receipt(self, run: str, statement: bytes, signature: bytes) -> None:
        self._receipts.keep(run, statement, signature)

    @override
    def drop_update(self, run: str) -> None:
        self._journal.forget(run)

    @override
    def settle(self, run: str, feedback: msg.Feedback, number: int) -> State:
        return self._state.settle(run, feedback, number)

    @override
    def lost_before(self, run: str) -> int:
        return self._state.lost_before(run)

    @override
    def own_state(self, run: str) -> State:
        return self._state.own_state(run)

    @override
    def forget(self, run: str) -> None:
        self._state.forget(run)
        self._journal.run_ended(run)

    @override
    def needed(self) -> set[str]:
        return self._journal.referenced() | self._state.digests()
