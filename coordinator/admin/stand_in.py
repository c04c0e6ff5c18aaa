"""Pages of the record by today's methods of the store; to be replaced by the store's own paged methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from covey.coordinator.admin.units import unit_of
from covey.storage.record.contract import (
    EventRecord,
    Json,
    NodeRecord,
    RoundRecord,
    RunRecord,
    RunState,
    Store,
    UpdateRecord,
    VersionRecord,
)

ALL = 1 << 31


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run besides its own record: its newest version, and what became of the updates."""

    version: int = 0
    model_sha256: str = ""
    decided: int = 0
    """Updates decided on, where each is decided on by itself."""
    metrics: Json = field(default_factory=dict)
    """Of the newest version that has some."""
    accepted: int = 0
    rejected: int = 0


class PagedStore:
    """A store with the methods that readers of long lists need; only read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, run: str) -> RunRecord:
        """As `Store.run`."""
        return self._store.run(run)

    def runs(
        self, *, states: Sequence[RunState] = (), name: str = "", before: str = "", limit: int = 100
    ) -> list[RunRecord]:
        """Runs, newest submission first, optionally only those in some states, of a name, before a run (its id)."""
        listed = self._store.runs(states=states, limit=ALL)
        if before:
            listed = listed[[record.run for record in listed].index(before) + 1 :]
        return [record for record in listed if not name or record.name == name][:limit]

    def run_summaries(self, runs: Sequence[str]) -> dict[str, RunSummary]:
        """A summary of each of these runs (ids)."""
        return {run: self._summary(run) for run in runs}

    def _summary(self, run: str) -> RunSummary:
        versions = self._store.versions(run)
        rounds = self._store.rounds(run)
        state = self._store.policy_state(run) if unit_of(self._store.run(run).mode) == "updates" else None
        return RunSummary(
            versions[-1].version if versions else 0,
            versions[-1].model_sha256 if versions else "",
            state.decision if state else 0,
            next((version.metrics for version in reversed(versions) if version.metrics), {}),
            sum(record.accepted for record in rounds),
            sum(record.rejected for record in rounds),
        )

    def rounds(self, run: str, *, after: int = 0, limit: int | None = None, newest: bool = False) -> list[RoundRecord]:
        """A run's rounds after a number, in order: the first `limit` ones, or with `newest` the last ones."""
        listed = [record for record in self._store.rounds(run) if record.round > after]
        if limit is None:
            return listed
        return listed[max(0, len(listed) - limit) :] if newest else listed[:limit]

    def round(self, run: str, number: int) -> RoundRecord:
        """As `Store.round`."""
        return self._store.round(run, number)

    def updates(self, run: str, number: int) -> list[UpdateRecord]:
        """As `Store.updates`."""
        return self._store.updates(run, number)

    def versions(self, run: str, *, after: int = -1, limit: int | None = None) -> list[VersionRecord]:
        """A run's versions after a number, in order."""
        listed = [record for record in self._store.versions(run) if record.version > after]
        return listed if limit is None else listed[:limit]

    def version(self, run: str, number: int) -> VersionRecord:
        """As `Store.version`."""
        return self._store.version(run, number)

    def signed_updates(self, run: str, *, after: tuple[int, str] = (0, ""), limit: int = 1000) -> list[UpdateRecord]:
        """Updates with a signed statement after a round and node, by round and node."""
        numbers = [record.round for record in self._store.rounds(run) if record.round >= after[0]]
        updates = (update for number in numbers for update in self._store.updates(run, number) if update.digest)
        return [update for update in updates if (update.round, update.node) > after][:limit]

    def signing_key(self, key_id: str) -> bytes:
        """As `Store.signing_key`."""
        return self._store.signing_key(key_id)

    def node(self, node: str) -> NodeRecord:
        """As `Store.node`."""
        return self._store.node(node)

    def nodes(self) -> list[NodeRecord]:
        """As `Store.nodes`."""
        return self._store.nodes()

    def events(
        self, *, run: str = "", node: str = "", before_id: int = 0, limit: int = 100
    ) -> list[tuple[int, EventRecord]]:
        """Events with a number each that grows with time, newest first; `before_id`: only those with a smaller one."""
        listed = self._store.events(run=run, node=node, limit=ALL)
        numbered = [(len(listed) - index, event) for index, event in enumerate(listed)]
        return [item for item in numbered if not before_id or item[0] < before_id][:limit]
