"""The read model: what is shown of a record, in pages. The admin service reads through it, and whoever reads offline.

Every method is one call in the store's thread. None reads all rounds or versions of a run at once.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import IO

from covey.coordinator.admin import views
from covey.coordinator.admin.access.finding import everything, find_run
from covey.coordinator.admin.pages import MAX_PAGE_BYTES, fitting, page_size
from covey.coordinator.admin.watched_rounds import WatchedRounds
from covey.coordinator.runs.sent_again import MOST_ROUNDS, SENT_AGAIN, on_record
from covey.errors import CoveyError, NotFound
from covey.parts import METHOD
from covey.protos import admin_pb2 as pb
from covey.storage.record.contract import NodeRecord, RunRecord, Store, VersionRecord
from covey.storage.record.gossip import JOINED
from covey.storage.record.seals import canonical
from covey.storage.record.versions import best_version, no_longer_kept

BEST = -2
"""Instead of a version's number: the best one by the run's metric."""
RUNS = 100
EVENTS = 100
MOST_JOINED = 100_000
"""More nodes than can join a gossip run."""
SCANNED = 500
"""Records that are read at a time where all of a run have to be gone through."""


class Queries:
    """Questions about a record.

    Args:
        store: Only read.
        node_view: How a node is shown: whether it is connected is not in the record.
    """

    def __init__(self, store: Store, node_view: Callable[[NodeRecord], pb.Node]) -> None:
        self._store = store
        self._node_view = node_view

    # -- runs

    def run(self, run: str) -> pb.Run:
        """A run by its id, or the newest of that name. Raises `NotFound`."""
        record = find_run(self._store, run)
        return self._run_views([record])[0]

    def runs(
        self, limit: int = 0, before: str = "", sees: Callable[[RunRecord], bool] = everything
    ) -> pb.ListRunsReply:
        """A page of runs, newest submission first; `before`: only those submitted before this one; `sees`: of these."""
        size = page_size(limit, RUNS)
        before_id = find_run(self._store, before, sees).run if before else ""
        seen = list(islice(self._seen(before_id, size + 1, sees), size + 1))
        runs, more = fitting(self._run_views(seen), size)
        return pb.ListRunsReply(runs=runs, next=runs[-1].run if more else "")

    def _seen(self, before: str, size: int, sees: Callable[[RunRecord], bool]) -> Iterator[RunRecord]:
        while page := self._store.runs(before=before, limit=size):
            yield from filter(sees, page)
            before, size = page[-1].run, max(size, RUNS)

    def _run_views(self, records: list[RunRecord]) -> list[pb.Run]:
        summaries = self._store.run_summaries([record.run for record in records])
        steps = {record.run: self._store.gossip_step(record.run) for record in records if views.observes(record)}
        return [views.run_view(record, summaries[record.run], steps.get(record.run, 0)) for record in records]

    def gossip(self, run: str, after: str = "", limit: int = 0) -> pb.ListGossipReply:
        """A page of the parts in a gossip run, by node."""
        run_id, size = find_run(self._store, run).run, page_size(limit)
        members = self._store.gossip_members(run_id, after=after, limit=size + 1)
        stated = self._store.newest_gossip_statements(run_id, [member.node for member in members])
        newest = {row.node: row for row in stated}
        late = {event.node for event in self._store.events(run=run_id, kind=JOINED, limit=MOST_JOINED)}
        parts = (views.gossip_view(m, newest.get(m.node), late=m.node in late) for m in members)
        kept, more = fitting(parts, size)
        return pb.ListGossipReply(parts=kept, next=kept[-1].node if more else "")

    # -- rounds

    def rounds(self, run: str, after: int = 0, limit: int = 0, *, newest: bool = False) -> pb.ListRoundsReply:
        """A page of a run's rounds after a number, in order; with `newest` the last ones."""
        run_id, size = find_run(self._store, run).run, page_size(limit)
        if newest:
            records = self._store.rounds(run_id, after=after, limit=size, newest=True)
            kept, _ = fitting(map(views.round_view, reversed(records)), size)
            return pb.ListRoundsReply(rounds=reversed(kept))
        records = self._store.rounds(run_id, after=after, limit=size + 1)
        kept, more = fitting(map(views.round_view, records), size)
        return pb.ListRoundsReply(rounds=kept, next=kept[-1].round if more else 0)

    def round(self, run: str, number: int, after: str = "", limit: int = 0) -> pb.RoundDetail:
        """One round, a page of its updates by node, and the version it made."""
        run_id, size = find_run(self._store, run).run, page_size(limit)
        record = self._store.round(run_id, number)
        updates = (u for u in self._store.updates(run_id, number) if u.node > after)
        kept, more = fitting(map(views.update_view, updates), size)
        version = None if record.version is None else self._store.version(run_id, record.version)
        resent = on_record(self._store.events(run=run_id, kind=SENT_AGAIN, limit=MOST_ROUNDS), number)
        return pb.RoundDetail(
            round=views.round_view(record),
            resent_up=resent.up,
            resent_down=resent.down,
            updates=kept,
            version=None if version is None else views.version_view(version),
            next=kept[-1].node if more else "",
        )

    def contributions(self, run: str, after: str = "", limit: int = 0) -> pb.ListContributionsReply:
        """A page of what each node of a run's roster did in it, in the roster's order."""
        record, size = find_run(self._store, run), page_size(limit)
        begin = record.roster.index(after) + 1 if after in record.roster else 0
        counted = self._store.contributions(record.run, record.roster[begin : begin + size + 1])
        kept, more = fitting(map(views.contribution_view, counted), size)
        return pb.ListContributionsReply(contributions=kept, next=kept[-1].node if more else "")

    # -- versions

    def version(self, run: str, number: int, node: str = "") -> VersionRecord:
        """A version by its number; -1: the newest, -2 (`BEST`): the best. Raises `NotFound`.

        With `node`, in a run without a global model: with that node's own file in place of the model's. A name of a
        file that the run's method keeps with the version, such as `method/totals`, stands for that.
        """
        version = self._version(run, number)
        if not node:
            return version
        kept = {file.name: file.artifact for file in version.state if file.name.startswith(METHOD)}
        if node in kept:
            return replace(version, artifact=kept[node])
        if node not in version.members:
            known = f"of {', '.join(version.members)}" if version.members else "as there is one model for all nodes"
            raise NotFound(f"version {version.version} has no file of {node!r}, but {known}")
        return replace(version, artifact=version.members[node])

    def kept_version(self, run: str, number: int, node: str = "") -> VersionRecord:
        """`version`, if its file is still kept. Raises `NotFound`, with those that are."""
        version = self.version(run, number, node)
        if not version.kept:
            raise no_longer_kept(self._store, version)
        return version

    def _version(self, run: str, number: int) -> VersionRecord:
        record = find_run(self._store, run)
        if number != BEST:
            return self._store.version(record.run, number)
        section = json.loads(record.spec)["evaluation"]
        return best_version(self._kept_versions(record.run), section["metric"], section["goal"])

    def _kept_versions(self, run: str) -> Iterator[VersionRecord]:
        page = self._store.versions(run, limit=SCANNED, kept_only=True)
        while page:
            yield from page
            page = self._store.versions(run, after=page[-1].version, limit=SCANNED, kept_only=True)

    # -- what is signed

    def signed(self, run: str, coordinator_key: bytes) -> Iterator[pb.AuditReply]:
        """All that is signed of a run, in messages of a bounded size: each is a page that is read when it is asked for.

        Args:
            run: Its id or name.
            coordinator_key: The raw Ed25519 public key of the coordinator.
        """
        run_id = find_run(self._store, run).run
        yield pb.AuditReply(coordinator_key=coordinator_key)
        yield from self._commits(run_id)
        yield from self._signed_updates(run_id)

    def audited(self, run: str, coordinator_key: bytes) -> Iterator[pb.AuditReply]:
        """Every row of a run, as it is on record at one moment, with its seals; in messages of a bounded size.

        Args:
            run: Its id or name.
            coordinator_key: The raw Ed25519 public key of the coordinator.
        """
        yield pb.AuditReply(coordinator_key=coordinator_key)
        with tempfile.TemporaryFile() as spool:  # who reads slowly keeps no transaction open
            for row in self._store.audited_rows(self._run_id(run)):
                spool.write(row.table.encode() + b" " + canonical(row.values) + b"\n")
            spool.seek(0)
            yield from _audited_pages(spool)

    def _run_id(self, run: str) -> str:
        """A run's id, also where its row cannot be read as a run's."""
        try:
            return find_run(self._store, run).run
        except CoveyError:
            raise
        except (ValueError, TypeError, LookupError):
            return run

    def _commits(self, run: str) -> Iterator[pb.AuditReply]:
        page = self._store.versions(run, limit=SCANNED)
        while page:
            commits, _ = fitting(map(views.commit_view, page), SCANNED)
            yield pb.AuditReply(commits=[commit for commit in commits if commit.statement])
            page = self._store.versions(run, after=commits[-1].version, limit=SCANNED)

    def _signed_updates(self, run: str) -> Iterator[pb.AuditReply]:
        page = self._store.signed_updates(run, limit=SCANNED)
        while page:
            signed, _ = fitting(map(views.signed_view, page), SCANNED)
            yield pb.AuditReply(updates=signed)
            page = self._store.signed_updates(run, (signed[-1].round, signed[-1].node), SCANNED)

    # -- nodes and events

    def nodes(self, after: str = "", limit: int = 0, role: str = "") -> pb.ListNodesReply:
        """A page of nodes, or of identities of another role, by name."""
        of_role = role if role in ("admin", "auditor", "member") else "node"
        size = page_size(limit)
        records = self._store.nodes(role=of_role, after=after, limit=size + 1)  # type: ignore[arg-type]
        nodes, more = fitting(map(self._node_view, records), size)
        return pb.ListNodesReply(nodes=nodes, next=nodes[-1].node if more else "")

    def node(self, node: str, role: str = "") -> pb.NodeDetail:
        """One identity, of this role where one is named, and its newest events. Raises `NotFound`."""
        record = self._store.node(node)
        if role not in ("", record.role):
            raise NotFound(f"there is no {role} {node!r}")
        events = self._store.events(node=record.node, limit=EVENTS)
        return pb.NodeDetail(node=self._node_view(record), events=[views.event_view(event) for event in events])

    def events(self, run: str = "", node: str = "", before: int = 0, limit: int = 0) -> pb.ListEventsReply:
        """A page of events, newest first, optionally of one run (its id) or node."""
        size = page_size(limit, EVENTS)
        records = self._store.events(run=run, node=node, before_id=before, limit=size + 1)
        kept, more = fitting(map(views.event_view, records), size)
        return pb.ListEventsReply(events=kept, next=records[len(kept) - 1].id if more else 0)

    def tokens(self, now: float, limit: int = 0, skip: int = 0) -> pb.ListTokensReply:
        """A page of join tokens, the newest first."""
        size = page_size(limit)
        records = self._store.tokens(skip=skip, limit=size + 1)
        kept, more = fitting((views.token_view(record, now) for record in records), size)
        return pb.ListTokensReply(tokens=kept, next=skip + len(kept) if more else 0)

    # -- watching

    def watched(self, run: str) -> WatchedRounds:
        """A run's rounds (by its id), for one who watches them."""
        return WatchedRounds(self._store, run)


def _audited_pages(spool: IO[bytes]) -> Iterator[pb.AuditReply]:
    rows: list[pb.AuditedRow] = []
    size_bytes = 0
    for line in spool:
        table, _, values = line.rstrip(b"\n").partition(b" ")
        rows.append(pb.AuditedRow(table=table.decode(), values=values))
        size_bytes += len(line)
        if size_bytes > MAX_PAGE_BYTES:
            yield pb.AuditReply(rows=rows)
            rows, size_bytes = [], 0
    yield pb.AuditReply(rows=rows)
