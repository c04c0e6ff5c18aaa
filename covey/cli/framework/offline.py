"""Reading a coordinator's record: through the coordinator while it runs, else straight from its store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from covey.artifact import read_chunks
from covey.cli.framework.connection import announced_address, connect
from covey.coordinator.admin import views
from covey.coordinator.config import DATABASE, sqlite_url
from covey.coordinator.nodes.adversaries import NEWEST, drills_on_record
from covey.errors import NotFound
from covey.protos import admin_pb2 as pb
from covey.spec import parse_json
from covey.storage.record.contract import NodeRecord, RunRecord, Store, VersionRecord
from covey.storage.sql.store import open_store
from covey.wire.identity import Identity

if TYPE_CHECKING:
    from covey.cli.framework.options import Target

ARTIFACTS = Path("files") / "artifacts"
"""Where, in a coordinator's data directory, the model and update files are, named by digest."""
BEST = -2


class Reader(Protocol):
    """What can be read of a federation, wherever it is read from."""

    def runs(self, limit: int) -> list[pb.Run]:
        """The newest runs."""

    def run(self, run: str) -> pb.Run:
        """A run by its id, or by its name."""

    def rounds(self, run: str) -> list[pb.Round]:
        """A run's rounds in order."""

    def round(self, run: str, number: int) -> pb.RoundDetail:
        """One round, its updates and its version."""

    @property
    def identity(self) -> Identity:
        """Whose keys the reader trusts."""

    def version(self, run: str, number: int) -> pb.Version:
        """A version by its number; -1: the newest, -2: the best."""

    def chunks(self, run: str, version: pb.Version) -> Iterator[bytes]:
        """The version's file, chunk by chunk."""

    def signed(self, run: str) -> pb.AuditReply:
        """Every signed statement of a run."""

    def nodes(self) -> list[pb.Node]:
        """All nodes by name."""

    def node(self, node: str) -> pb.NodeDetail:
        """One node and its events."""


class Offline:
    """The record of a coordinator that is not running: no node is connected, the rest is the same."""

    def __init__(self, store: Store, data_dir: Path) -> None:
        self._store, self._data_dir = store, data_dir

    @property
    def identity(self) -> Identity:
        """The coordinator's own: a backup holds it too."""
        return Identity.load(self._data_dir / "keys")

    def runs(self, limit: int) -> list[pb.Run]:
        """The newest runs."""
        return [self._run_view(record) for record in self._store.runs(limit=limit)]

    def run(self, run: str) -> pb.Run:
        """A run by its id, or by its name."""
        return self._run_view(self._store.run(run))

    def rounds(self, run: str) -> list[pb.Round]:
        """A run's rounds in order."""
        return [views.round_view(record) for record in self._store.rounds(self._store.run(run).run)]

    def round(self, run: str, number: int) -> pb.RoundDetail:
        """One round, its updates and its version."""
        run_id = self._store.run(run).run
        record = self._store.round(run_id, number)
        made = record.version
        return pb.RoundDetail(
            round=views.round_view(record),
            updates=[views.update_view(update) for update in self._store.updates(run_id, number)],
            version=None if made is None else views.version_view(self._store.version(run_id, made)),
        )

    def version(self, run: str, number: int) -> pb.Version:
        """A version by its number; -1: the newest, -2: the best."""
        return views.version_view(self._version_record(self._store.run(run), number))

    def _version_record(self, run: RunRecord, number: int) -> VersionRecord:
        if number != BEST:
            return self._store.version(run.run, number)
        evaluation = parse_json(run.spec).evaluation
        return views.best_version(self._store.versions(run.run), evaluation.metric, evaluation.goal)

    def chunks(self, run: str, version: pb.Version) -> Iterator[bytes]:
        """The version's file, chunk by chunk."""
        path = self._data_dir / ARTIFACTS / version.artifact.digest
        try:
            with path.open("rb", buffering=0) as file:
                yield from map(bytes, read_chunks(file))
        except FileNotFoundError as error:
            raise NotFound(f"the file of version {version.version} is gone: {path}; restore a backup") from error

    def signed(self, run: str) -> pb.AuditReply:
        """Every signed statement of a run."""
        run_id = self._store.run(run).run
        rounds = {each.round: each for each in self._store.rounds(run_id)}
        updates = (update for number in rounds for update in self._store.updates(run_id, number))
        return pb.AuditReply(
            coordinator_key=self.identity.signing_key.public_bytes,
            commits=[views.commit_view(version) for version in self._store.versions(run_id) if version.statement],
            updates=[
                views.signed_view(update, self._store.signing_key(update.key_id), rounds[update.round].base_version)
                for update in updates
                if update.digest
            ],
        )

    def nodes(self) -> list[pb.Node]:
        """All nodes by name."""
        drills = drills_on_record(self._store.events(limit=NEWEST))
        return [views.node_view(record, False, drills.get(record.node, "")) for record in self._store.nodes()]

    def node(self, node: str) -> pb.NodeDetail:
        """One node and its events."""
        record = self._node_record(node)
        found = self._store.events(node=node)
        view = views.node_view(record, False, drills_on_record(found).get(node, ""))
        return pb.NodeDetail(node=view, events=[views.event_view(event) for event in found])

    def _node_record(self, node: str) -> NodeRecord:
        for record in self._store.nodes():
            if record.node == node:
                return record
        raise NotFound(f"no node named {node!r} is enrolled")

    def _run_view(self, record: RunRecord) -> pb.Run:
        state = self._store.policy_state(record.run) if record.mode == "async" else None
        return views.run_view(record, self._store.versions(record.run), state)


@contextlib.contextmanager
def reader(target: Target) -> Iterator[Reader]:
    """Read through the coordinator, or, where none runs on the data directory, from its SQLite store.

    Raises:
        NotFound: No coordinator runs there, and there is no SQLite store.
        CoveyError: As `covey.cli.framework.connection.connect`.
    """
    folder = target.data_dir
    if folder is None or announced_address(folder) is not None:
        with connect(target) as admin:
            yield admin
        return
    with offline_store(folder) as store:
        yield Offline(store, folder)


@contextlib.contextmanager
def offline_store(data_dir: Path) -> Iterator[Store]:
    """The SQLite store in a data directory.

    Raises:
        NotFound: There is none.
    """
    if not (data_dir / DATABASE).is_file():
        raise NotFound(
            f"no coordinator is running on {data_dir}, and it has no {DATABASE}; "
            "name a coordinator's data directory, or start a coordinator whose store is elsewhere"
        )
    store = open_store(sqlite_url(data_dir))
    try:
        yield store
    finally:
        store.close()
