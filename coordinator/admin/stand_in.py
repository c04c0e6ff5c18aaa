"""Pages of the record by today's methods of the store; to be replaced by the store's own paged methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields

from covey.coordinator.admin.modes import mode_named
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
    """What is known of a run besides its own record: its newest version, and how many decisions there were."""

    version: int = 0
    model_sha256: str = ""
    updates_decided: int = 0
    """Where each is decided on by itself."""
    metrics: Json = field(default_factory=dict)
    """Of the newest version that has some."""


@dataclass(frozen=True)
class SignedUpdateRecord(UpdateRecord):
    """An update with what it takes to check its signature."""

    base_version: int = 0
    """The version that its round started from."""
    signing_key: bytes = b""
    """Raw Ed25519 public key that `key_id` names."""


@dataclass(frozen=True)
class NumberedEvent(EventRecord):
    """An event with a number, higher than those of all before it."""

    id: int = field(default=0, compare=False)


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
        state = self._store.policy_state(run) if not mode_named(self._store.run(run).mode).synchronous else None
        return RunSummary(
            versions[-1].version if versions else 0,
            versions[-1].model_sha256 if versions else "",
            state.decision if state else 0,
            next((version.metrics for version in reversed(versions) if version.metrics), {}),
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

    def versions(
        self, run: str, *, after: int = -1, limit: int | None = None, kept_only: bool = False
    ) -> list[VersionRecord]:
        """A run's versions after a number, in order; with `kept_only` those whose files are kept."""
        listed = [v for v in self._store.versions(run) if v.version > after and (v.kept or not kept_only)]
        return listed if limit is None else listed[:limit]

    def version(self, run: str, number: int) -> VersionRecord:
        """As `Store.version`."""
        return self._store.version(run, number)

    def signed_updates(
        self, run: str, after: tuple[int, str] = (0, ""), limit: int | None = None
    ) -> list[SignedUpdateRecord]:
        """Updates with a signed statement after a round and node, by round and node."""
        signed: list[SignedUpdateRecord] = []
        for record in self._store.rounds(run):
            for update in self._store.updates(run, record.round) if record.round >= after[0] else ():
                if update.digest and (update.round, update.node) > after:
                    signed.append(self._signed(update, record.base_version))
            if limit is not None and len(signed) >= limit:
                break
        return signed[:limit]

    def _signed(self, update: UpdateRecord, base_version: int) -> SignedUpdateRecord:
        values = {item.name: getattr(update, item.name) for item in fields(update)}
        return SignedUpdateRecord(
            **values, base_version=base_version, signing_key=self._store.signing_key(update.key_id)
        )

    def node(self, node: str) -> NodeRecord:
        """As `Store.node`."""
        return self._store.node(node)

    def nodes(self) -> list[NodeRecord]:
        """As `Store.nodes`."""
        return self._store.nodes()

    def events(self, *, run: str = "", node: str = "", before_id: int = 0, limit: int = 100) -> list[NumberedEvent]:
        """Events, newest first; `before_id`: only those with a smaller number."""
        listed = self._store.events(run=run, node=node, limit=ALL)
        numbered = [NumberedEvent(**asdict(event), id=len(listed) - index) for index, event in enumerate(listed)]
        return [event for event in numbered if not before_id or event.id < before_id][:limit]
