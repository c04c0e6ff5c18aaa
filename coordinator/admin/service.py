"""The gRPC face towards the command line: role admin, or auditor for what only reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch
from typing import TypeVar

import structlog

from covey import __version__
from covey.coordinator.admin import at_work, views
from covey.coordinator.admin.access.callers import Access, Right
from covey.coordinator.admin.access.evictions import Evictions
from covey.coordinator.admin.access.study_edits import StudyEdits
from covey.coordinator.admin.checking import RunChecks
from covey.coordinator.admin.operation import Operation
from covey.coordinator.admin.queries import Queries
from covey.coordinator.admin.scoped import ScopedViews
from covey.coordinator.admin.submission import Sent, Submission, Submissions, SubmissionServices
from covey.coordinator.backup.backup import BackupServices, back_up
from covey.coordinator.nodes.enrolment import EnrolmentServices, create_token
from covey.coordinator.nodes.last_seen import heard_at
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.deletion import DeletionServices, delete_run
from covey.coordinator.runs.ports import Worker
from covey.coordinator.runs.schedule.scheduler import Scheduler
from covey.coordinator.store_thread import StoreThread
from covey.coordinator.studies import Studies
from covey.driver.changes import Changes
from covey.errors import Conflict, IdentityError, NotFound, SpecError
from covey.machines.protocol import PauseChanged, StopRequested
from covey.protos import admin_pb2 as pb
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import EventRecord, NodeRecord, RunRecord
from covey.wire.artifacts import artifact_from
from covey.wire.channels import Context, peer_identity
from covey.wire.identities.signing import SigningKey
from covey.wire.transfers.streams import serve_download

R = TypeVar("R")
log = structlog.get_logger(room="coordinator")
LEAST_TOKEN_ID = 8
"""Characters of a token's id by which one may be revoked."""
WATCH_INTERVAL_S = 0.1


@dataclass(frozen=True)
class AdminServices:
    """What the service towards admins is given."""

    federation: str
    store: StoreThread
    files: ArtifactFiles
    worker: Worker
    signing_key: SigningKey
    sessions: Sessions
    members: Members
    runs: ActiveRuns
    scheduler: Scheduler
    studies: Studies
    enrolment: EnrolmentServices
    backup: BackupServices
    operation: Operation
    deletion: DeletionServices
    site_log: Callable[[RunRecord, str, int], pb.ListSiteLogReply]
    changes: Changes
    clock: Callable[[], float]
    """The machines'."""
    store_name: str
    """For people: the kind of database."""
    allow_paths: bool = False
    data_paths: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    """Unix time in seconds: what certificates and the record go by."""


class AdminService:
    """Serves `covey.v1.Admin`."""

    def __init__(self, env: AdminServices) -> None:
        self._env, self._store = env, env.store.store
        self._queries = Queries(env.store.store, self._node_view)
        ports = (env.store, env.files, env.worker, env.scheduler, env.backup.background, env.backup.retention)
        self._access = Access(env.members, env.studies, env.store.store, env.now)
        self._scoped = ScopedViews(self._queries, env.studies, env.runs)
        wake, seen = env.scheduler.wake, self._scoped.node_view
        self._evictions = Evictions(env.store, env.studies, env.runs, wake, seen, env.now, env.clock)
        self.study_edits = StudyEdits(self._access, env.store, env.studies, wake, env.now)
        services = SubmissionServices(*ports, env.studies, env.now, env.allow_paths, env.data_paths)
        self._submissions = Submissions(services)
        self.checks = RunChecks(self._access, self._submissions, services, env.sessions, env.runs.places.room)

    async def _run(self, context: Context, text: str, right: Right = "read") -> RunRecord:
        """The run that a caller names, who may do this with it."""
        return await self._call(self._access.run, self._access.caller(context), text, right)

    async def _call(self, method: Callable[..., R], *args: object, **kwargs: object) -> R:
        return await self._env.store.call(method, *args, **kwargs)

    # -- runs -----------------------------------------------------------------------------------------------------

    async def submit_run(self, request: pb.SubmitRunRequest, context: Context) -> pb.Run:
        """Check a specification with the plug-ins installed here, and queue it."""
        submission = await self._submissions.check(request, self._access.caller(context))
        return await self._queued(submission)

    async def submit_run_with_model(
        self, requests: AsyncIterator[pb.SubmitModelRequest], context: Context
    ) -> AsyncIterator[pb.Run]:
        """The same, with the file of the model that the run begins with, which is asked for by an empty run."""
        caller, first = self._access.caller(context), await anext(requests, None)
        if first is None or not first.HasField("submission") or not first.HasField("model"):
            raise SpecError("the first message of a submission with a model says what it is, and which file comes")
        artifact = artifact_from(first.model)
        submission = await self._submissions.check(first.submission, caller, artifact)
        yield pb.Run()
        chunks = (memoryview(request.data) async for request in requests)
        yield await self._queued(submission, Sent(artifact, chunks))

    async def _queued(self, submission: Submission, sent: Sent | None = None) -> pb.Run:
        await self._submissions.queue(submission, sent)
        view = await self._call(self._queries.run, submission.record.run)
        view.reason = view.reason or submission.told
        return view

    async def list_runs(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsReply:
        """Newest first."""
        caller = self._access.caller(context)
        reply = await self._call(self._scoped.runs, caller, request.limit, request.before)
        for view in reply.runs:
            self._add_awaited(view)
        return reply

    async def show_run(self, request: pb.RunRequest, context: Context) -> pb.Run:
        """One run."""
        run = (await self._run(context, request.run)).run
        return self._add_awaited(await self._call(self._queries.run, run))

    def _add_awaited(self, view: pb.Run) -> pb.Run:
        """Where a run waits for a place, for nodes that are away, or for this machine, say so: the record does not."""
        if view.state in ("queued", "running"):
            active, place = self._env.runs.of(view.run), self._env.scheduler.awaited(view.run)
            view.reason = "; ".join(filter(None, [place, active.awaited if active is not None else "", view.reason]))
        return view

    async def watch_run(self, request: pb.RunRequest, context: Context) -> AsyncIterator[pb.RunStatus]:
        """Now, and whenever something changed, at most ten times a second, until the run has ended."""
        run = (await self._run(context, request.run)).run
        rounds = self._queries.watched(run)
        while True:
            seen, began = self._env.changes.count, time.monotonic()
            view = self._add_awaited(await self._call(self._queries.run, run))
            ended = view.state not in ("queued", "running")
            async for changed in self._pages(rounds.changes(last=ended)):
                active = self._env.runs.of(run)
                for item in changed:
                    at_work.add_received(active, item)
                nodes, count = at_work.progress_views(active, self._env.sessions)
                yield pb.RunStatus(run=view, rounds=changed, nodes=nodes, nodes_count=count)
            if ended:
                return
            # Reading takes the store's time: whoever watches must not keep it busy.
            await asyncio.sleep(max(WATCH_INTERVAL_S, 4 * (time.monotonic() - began)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10.0):
                    await self._env.changes.after(seen)

    async def _pages(self, pages: Iterator[list[pb.Round]]) -> AsyncIterator[list[pb.Round]]:
        """Pages that hold something, each read in a call of its own; an empty one where none does."""
        last: list[pb.Round] = []
        while (page := await self._call(next, pages, None)) is not None:
            if last and page:
                yield last
            last = page or last
        yield last

    async def stop_run(self, request: pb.RunRequest, context: Context) -> pb.Run:
        """Stop a queued or running run; it ends as `stopped`."""
        who, record = peer_identity(context).name, await self._run(context, request.run, "manage")
        reason, active = f"stopped by {who}", self._env.runs.of(record.run)
        if active is not None:
            active.post(StopRequested(reason))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await self._ended(record.run)
        else:
            await self._call(self._store.finish_run, record.run, "stopped", reason, self._env.now())
            self._env.scheduler.wake()
        return await self._call(self._queries.run, record.run)

    async def delete_run(self, request: pb.RunRequest, context: Context) -> pb.DeleteRunReply:
        """Delete a run that has ended, with its files."""
        who, record = peer_identity(context).name, await self._run(context, request.run, "manage")
        deleted = await self._call(delete_run, self._env.deletion, record.run)
        detail = {"by": who, "name": record.name, "state": record.state}
        event = EventRecord(self._env.now(), "run-deleted", record.run, detail=detail)
        await self._call(self._store.add_event, event)
        log.info("run deleted", run=record.run, name=record.name, by=who, files=deleted.files)
        self._env.changes.notify()
        return pb.DeleteRunReply(run=record.run, files=deleted.files, bytes=deleted.bytes)

    async def _ended(self, run: str) -> None:
        while True:
            seen = self._env.changes.count
            if (await self._call(self._store.run, run)).state not in ("queued", "running"):
                return
            await self._env.changes.after(seen)

    # -- versions -------------------------------------------------------------------------------------------------

    async def locate_version(self, request: pb.LocateVersionRequest, context: Context) -> pb.Version:
        """Which file holds a version."""
        run = (await self._run(context, request.run)).run
        return views.version_view(await self._call(self._queries.version, run, request.version, request.node))

    async def download_version(self, request: pb.LocateVersionRequest, context: Context) -> AsyncIterator[bytes]:
        """The version's safetensors file."""
        run = (await self._run(context, request.run)).run
        version = await self._call(self._queries.kept_version, run, request.version, request.node)
        if not await asyncio.to_thread(self._env.files.check, version.artifact.digest):
            raise NotFound(f"the file of version {version.version} is damaged or missing; restore a backup")
        async for chunk in serve_download(self._env.files.path(version.artifact.digest), version.artifact, 0):
            yield chunk

    # -- rounds ---------------------------------------------------------------------------------------------------

    async def list_rounds(self, request: pb.ListRoundsRequest, context: Context) -> pb.ListRoundsReply:
        """A page of a run's rounds."""
        run = (await self._run(context, request.run)).run
        reply = await self._call(self._queries.rounds, run, request.after, request.limit, newest=request.newest)
        for view in reply.rounds:
            at_work.add_received(self._env.runs.of(run), view)
        return reply

    async def show_round(self, request: pb.RoundRequest, context: Context) -> pb.RoundDetail:
        """One round, a page of its updates with their verdicts, and the version it made."""
        run = (await self._run(context, request.run)).run
        detail = await self._call(self._queries.round, run, request.round, request.after, request.limit)
        active = self._env.runs.of(run)
        at_work.add_received(active, detail.round)
        at_work.add_resent(active, detail)
        if not request.after and detail.round.state in ("collecting", "aggregating"):
            nodes, detail.nodes_count = at_work.progress_views(active, self._env.sessions, request.round)
            detail.nodes.extend(nodes)
        return detail

    async def list_contributions(
        self, request: pb.ListContributionsRequest, context: Context
    ) -> pb.ListContributionsReply:
        """A page of what each node of a run did in it."""
        run = (await self._run(context, request.run)).run
        return await self._call(self._queries.contributions, run, request.after, request.limit)

    async def audit_run(self, request: pb.AuditRequest, context: Context) -> AsyncIterator[pb.AuditReply]:
        """Every row of a run with its seals, or commits and updates that are signed, for the caller to check."""
        caller = self._access.caller(context)
        run = request.run if caller.sees_all else (await self._run(context, request.run)).run
        ask = self._queries.audited if request.rows else self._queries.signed
        pages = ask(run, self._env.signing_key.public_bytes)
        while (page := await self._call(next, pages, None)) is not None:
            yield page

    # -- nodes ----------------------------------------------------------------------------------------------------

    async def list_gossip(self, request: pb.ListGossipRequest, context: Context) -> pb.ListGossipReply:
        """The parts in a gossip run, by node."""
        run = (await self._run(context, request.run)).run
        return await self._call(self._queries.gossip, run, request.after, request.limit)

    async def list_nodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesReply:
        """A page of the enrolled nodes."""
        caller = self._access.caller(context)
        return await self._call(self._scoped.nodes, caller, request.after, request.limit, request.role)

    async def show_node(self, request: pb.NodeRequest, context: Context) -> pb.NodeDetail:
        """One node and what happened to it."""
        caller = self._access.caller(context)
        return await self._call(self._scoped.node, caller, request.node)

    async def list_events(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsReply:
        """A page of events, newest first."""
        run = request.run
        if not self._access.caller(context).sees_all:
            if not run:
                raise IdentityError("only who sees all studies may list the events of all; name a run of yours")
            run = (await self._run(context, run)).run
        return await self._call(self._queries.events, run, request.node, request.before, request.limit)

    async def list_site_log(self, request: pb.ListSiteLogRequest, context: Context) -> pb.ListSiteLogReply:
        """A page of what a node shares of its log about a run."""
        run = await self._run(context, request.run)
        return await asyncio.to_thread(self._env.site_log, run, request.node, request.after)

    async def evict_node(self, request: pb.NodeRequest, context: Context) -> pb.Node:
        """Shut a node out, of the federation or of one study: at once, and for good."""
        if request.study:
            return await self._evictions.evict(self._access.caller(context), request)
        who, env, node, now = self._access.federation(context).name, self._env, request.node, self._env.now()
        await self._call(self._store.set_node_state, node, "evicted")
        env.members.evict(node)
        env.sessions.close(node, "evicted", f"evicted by {who}")
        await self._call(self._store.add_event, EventRecord(now, "node-evicted", node=node, detail={"by": who}))
        env.runs.shut_out(node, now)
        return views.node_view(await self._call(self._store.node, node), False)

    def _node_view(self, record: NodeRecord) -> pb.Node:
        env, session = self._env, self._env.sessions.live().get(record.node)
        view = views.node_view(record, record.node in env.sessions, env.members.drills.get(record.node, ""))
        if session is not None:
            view.last_seen_at = heard_at(session, env.now())
            view.work.extend(at_work.works_of(env.runs, record.node))
            views.add_room(view, env.runs.places.room(record.node))
        return view

    async def create_token(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenReply:
        """A one-time join token."""
        self._access.federation(context)
        return await create_token(self._env.enrolment, request)

    async def list_tokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensReply:
        """A page of join tokens, without their secrets."""
        self._access.federation(context, writes=False)
        return await self._call(self._queries.tokens, self._env.now(), request.limit, request.skip)

    async def revoke_token(self, request: pb.RevokeTokenRequest, context: Context) -> pb.ListTokensReply:
        """Let unused tokens be redeemed no more."""
        who, now = self._access.federation(context).name, self._env.now()
        by_id = fullmatch(r"[0-9a-f]+", request.token) is not None
        if by_id and len(request.token) < LEAST_TOKEN_ID:
            raise NotFound(f"give at least {LEAST_TOKEN_ID} characters of a token's id, or the name that it is for")
        revoked = await self._call(self._store.revoke_tokens, request.token)
        for record in revoked:
            detail = {"by": who, "token": record.secret_sha256[: views.TOKEN_ID_CHARS]}
            await self._call(self._store.add_event, EventRecord(now, "token-revoked", node=record.name, detail=detail))
        return pb.ListTokensReply(tokens=[views.token_view(record, now) for record in revoked])

    # -- the daemon -----------------------------------------------------------------------------------------------

    async def pause(self, request: pb.PauseRequest, context: Context) -> pb.CoordinatorStatus:
        """Open no new round, or go on; survives a restart."""
        who, env = self._access.federation(context).name, self._env
        await self._call(self._store.set_setting, "paused", "true" if request.paused else "false")
        await self._note("paused" if request.paused else "resumed", who)
        env.operation.paused = request.paused
        env.runs.post_all(PauseChanged(request.paused or env.operation.draining, env.clock()))
        return self._coordinator_status()

    async def drain(self, request: pb.DrainRequest, context: Context) -> pb.CoordinatorStatus:
        """Stop once the rounds in progress are committed; a restart goes on."""
        who, env = self._access.federation(context).name, self._env
        await self._note("draining", who)
        env.operation.draining = True
        env.runs.post_all(PauseChanged(True, env.clock()))
        task = asyncio.create_task(self._stop_when_idle())
        task.add_done_callback(lambda _: None)
        self._draining = task
        return self._coordinator_status()

    async def _note(self, kind: str, who: str) -> None:
        await self._call(self._store.add_event, EventRecord(self._env.now(), kind, detail={"by": who}))

    async def _stop_when_idle(self) -> None:
        env = self._env
        while not env.runs.are_idle:
            await env.changes.after(env.changes.count)
        env.operation.stop.set()

    async def status(self, request: pb.StatusRequest, context: Context) -> pb.CoordinatorStatus:
        """What the coordinator does now."""
        return self._scoped.status(self._access.caller(context), self._coordinator_status())

    def _coordinator_status(self) -> pb.CoordinatorStatus:
        env = self._env
        return pb.CoordinatorStatus(
            version=__version__,
            federation=env.federation,
            state=env.operation.state,
            nodes_connected=len(env.sessions.nodes()),
            current_run=next(iter(env.runs.active), ""),
            active_runs=list(env.runs.active),
            store=env.store_name,
            waits_for=at_work.awaited_by(env.runs) if env.operation.draining else (),
        )

    async def backup(self, request: pb.BackupRequest, context: Context) -> pb.BackupReply:
        """A consistent copy of store, model files and keys in a new folder on this machine."""
        self._access.federation(context)
        if not request.folder:
            raise Conflict("name the folder to write the backup into")
        size = await back_up(self._env.backup, Path(request.folder))
        return pb.BackupReply(folder=request.folder, bytes=size, machine=socket.gethostname())
