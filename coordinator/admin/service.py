"""The gRPC face towards the command line: role admin, or auditor for what only reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from covey import __version__
from covey.coordinator.admin import views
from covey.coordinator.admin.operation import Operation
from covey.coordinator.backup.backup import BackupServices, back_up
from covey.coordinator.nodes.enrolment import EnrolmentServices, create_token
from covey.coordinator.nodes.members import Members
from covey.coordinator.nodes.sessions import Sessions
from covey.coordinator.runs.active_runs import ActiveRuns
from covey.coordinator.runs.ports import Worker
from covey.coordinator.runs.scheduler import Scheduler
from covey.coordinator.store_thread import StoreThread
from covey.driver.changes import Changes
from covey.errors import Conflict, IdentityError, NotFound, SpecError
from covey.machines.protocol import NodeRemoved, PauseChanged, StopRequested
from covey.protos import admin_pb2 as pb
from covey.spec import parse_toml
from covey.storage.files.artifacts import ArtifactFiles
from covey.storage.record.contract import EventRecord, NodeRecord, RunRecord, VersionRecord
from covey.wire.channels import Context, peer_identity
from covey.wire.signing import SigningKey
from covey.wire.streams import serve_download
from covey.worker.jobs.operations import DESCRIBE
from covey.worker.jobs.runs import DescribeJob

R = TypeVar("R")
log = structlog.get_logger(room="coordinator")
WATCH_INTERVAL_S = 0.1
MAX_SPEC_BYTES = 1 << 20


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
    enrolment: EnrolmentServices
    backup: BackupServices
    operation: Operation
    changes: Changes
    clock: Callable[[], float]
    store_name: str
    """For people: the kind of database."""
    allow_paths: bool = False


class AdminService:
    """Serves `covey.v1.Admin`."""

    def __init__(self, env: AdminServices) -> None:
        self._env = env
        self._store = env.store.store

    def _authorised(self, context: Context, *, writes: bool = True) -> str:
        peer = peer_identity(context)
        allowed = ("admin",) if writes else ("admin", "auditor")
        if peer.role not in allowed or peer.name in self._env.members.evicted or peer.expires_at <= self._env.clock():
            raise IdentityError(
                f"{peer.name!r} (role {peer.role}) may not do this; it needs role {' or '.join(allowed)}"
            )
        return peer.name

    async def _call(self, method: Callable[..., R], *args: object, **kwargs: object) -> R:
        return await self._env.store.call(method, *args, **kwargs)

    # -- runs -----------------------------------------------------------------------------------------------------

    async def submit_run(self, request: pb.SubmitRunRequest, context: Context) -> pb.Run:
        """Check a specification with the plug-ins installed here, and queue it."""
        who = self._authorised(context)
        if len(request.spec_toml) > MAX_SPEC_BYTES:
            raise SpecError(f"the specification is larger than {MAX_SPEC_BYTES} bytes")
        spec = parse_toml(request.spec_toml)
        text = spec.to_json()
        await self._env.worker.do(DESCRIBE, DescribeJob(text, self._env.allow_paths))
        now = self._env.clock()
        record = RunRecord(secrets.token_hex(6), spec.name, spec.mode, text, spec.seed, "queued", "", now)
        await self._call(self._store.add_run, record)
        await self._call(self._store.add_event, EventRecord(now, "run-submitted", record.run, detail={"by": who}))
        log.info("run submitted", run=record.run, name=spec.name, by=who)
        self._env.scheduler.wake()
        return await self._view(record)

    async def list_runs(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsReply:
        """Newest first."""
        self._authorised(context, writes=False)
        records = await self._call(self._store.runs, limit=request.limit or 100)
        return pb.ListRunsReply(runs=[await self._view(record) for record in records])

    async def show_run(self, request: pb.RunRequest, context: Context) -> pb.Run:
        """One run."""
        self._authorised(context, writes=False)
        return await self._view(await self._run(request.run))

    async def watch_run(self, request: pb.RunRequest, context: Context) -> AsyncIterator[pb.RunStatus]:
        """Now, and whenever something changed, at most ten times a second, until the run has ended."""
        self._authorised(context, writes=False)
        run = (await self._run(request.run)).run
        shown: dict[int, pb.Round] = {}
        while True:
            seen, began = self._env.changes.count, time.monotonic()
            status = await self._status(run, shown)
            # A long run takes long to read: whoever watches must not keep the store busy with it.
            pause_s = max(WATCH_INTERVAL_S, 4 * (time.monotonic() - began))
            yield status
            if status.run.state not in ("queued", "running"):
                return
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10.0):
                    await self._env.changes.after(seen)

    async def _status(self, run: str, shown: dict[int, pb.Round]) -> pb.RunStatus:
        record = await self._run(run)
        rounds = [views.round_view(r) for r in await self._call(self._store.rounds, run)]
        changed = [r for r in rounds if shown.get(r.round) != r]
        shown.update({r.round: r for r in changed})
        active = self._env.runs.of(run)
        nodes = [
            pb.NodeProgress(node=n, phase=s.phase, step=s.step, steps=s.steps, loss=s.loss, seconds=s.seconds)
            for n, s in sorted(active.progress.items() if active is not None else ())
        ]
        return pb.RunStatus(run=await self._view(record), rounds=changed, nodes=nodes)

    async def stop_run(self, request: pb.RunRequest, context: Context) -> pb.Run:
        """Stop a queued or running run; it ends as `stopped`."""
        who = self._authorised(context)
        record = await self._run(request.run)
        reason, active = f"stopped by {who}", self._env.runs.of(record.run)
        if active is not None:
            active.post(StopRequested(reason))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await self._ended(record.run)
        else:
            await self._call(self._store.finish_run, record.run, "stopped", reason, self._env.clock())
        return await self._view(await self._run(record.run))

    async def _ended(self, run: str) -> None:
        while True:
            seen = self._env.changes.count
            if (await self._run(run)).state not in ("queued", "running"):
                return
            await self._env.changes.after(seen)

    async def _run(self, run: str) -> RunRecord:
        return await self._call(self._store.run, run)

    async def _view(self, record: RunRecord) -> pb.Run:
        versions = await self._call(self._store.versions, record.run)
        state = await self._call(self._store.policy_state, record.run)
        return views.run_view(record, versions, state)

    # -- versions -------------------------------------------------------------------------------------------------

    async def _version(self, request: pb.LocateVersionRequest) -> VersionRecord:
        run = await self._run(request.run)
        if request.version == -2:
            section = json.loads(run.spec)["evaluation"]
            return views.best_version(
                await self._call(self._store.versions, run.run), section["metric"], section["goal"]
            )
        return await self._call(self._store.version, run.run, request.version)

    async def locate_version(self, request: pb.LocateVersionRequest, context: Context) -> pb.Version:
        """Which file holds a version."""
        self._authorised(context, writes=False)
        return views.version_view(await self._version(request))

    async def download_version(self, request: pb.LocateVersionRequest, context: Context) -> AsyncIterator[bytes]:
        """The version's safetensors file."""
        self._authorised(context, writes=False)
        version = await self._version(request)
        if not version.kept or not self._env.files.has(version.artifact.digest):
            raise NotFound(f"version {version.version} is no longer kept; see [keep] in the specification")
        async for chunk in serve_download(self._env.files.path(version.artifact.digest), version.artifact, 0):
            yield chunk

    # -- rounds ---------------------------------------------------------------------------------------------------

    async def list_rounds(self, request: pb.RunRequest, context: Context) -> pb.ListRoundsReply:
        """Every round of a run."""
        self._authorised(context, writes=False)
        run = await self._run(request.run)
        return pb.ListRoundsReply(rounds=[views.round_view(r) for r in await self._call(self._store.rounds, run.run)])

    async def show_round(self, request: pb.RoundRequest, context: Context) -> pb.RoundDetail:
        """One round's updates with their verdicts, and the version it made."""
        self._authorised(context, writes=False)
        run = await self._run(request.run)
        record = await self._call(self._store.round, run.run, request.round)
        updates = await self._call(self._store.updates, run.run, request.round)
        version = None
        if record.version is not None:
            version = views.version_view(await self._call(self._store.version, run.run, record.version))
        return pb.RoundDetail(
            round=views.round_view(record), updates=[views.update_view(u) for u in updates], version=version
        )

    async def audit_run(self, request: pb.RunRequest, context: Context) -> pb.AuditReply:
        """The chain of signed commits and every signed update, for the caller to check."""
        self._authorised(context, writes=False)
        run = await self._run(request.run)
        reply = pb.AuditReply(coordinator_key=self._env.signing_key.public_bytes)
        for version in await self._call(self._store.versions, run.run):
            if version.statement:
                reply.commits.add(version=version.version, statement=version.statement, signature=version.signature)
        for record in await self._call(self._store.rounds, run.run):
            for update in await self._call(self._store.updates, run.run, record.round):
                if update.digest:
                    key = await self._call(self._store.signing_key, update.key_id)
                    reply.updates.append(views.signed_view(update, key, record.base_version))
        return reply

    # -- nodes ----------------------------------------------------------------------------------------------------

    async def list_nodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesReply:
        """Every enrolled node."""
        self._authorised(context, writes=False)
        records = await self._call(self._store.nodes)
        return pb.ListNodesReply(nodes=[self._node_view(record) for record in records])

    async def show_node(self, request: pb.NodeRequest, context: Context) -> pb.NodeDetail:
        """One node and what happened to it."""
        self._authorised(context, writes=False)
        record = await self._node(request.node)
        events = await self._call(self._store.events, node=record.node)
        return pb.NodeDetail(node=self._node_view(record), events=[views.event_view(e) for e in events])

    async def evict_node(self, request: pb.NodeRequest, context: Context) -> pb.Node:
        """Shut a node out: at once, and for good."""
        who = self._authorised(context)
        env, node, now = self._env, request.node, self._env.clock()
        await self._call(self._store.set_node_state, node, "evicted")
        env.members.evicted.add(node)
        env.sessions.close(node, "evicted", f"evicted by {who}")
        await self._call(self._store.add_event, EventRecord(now, "node-evicted", node=node, detail={"by": who}))
        env.runs.post_all(NodeRemoved(node, now))
        return views.node_view(await self._node(node), False)

    def _node_view(self, record: NodeRecord) -> pb.Node:
        env = self._env
        return views.node_view(record, record.node in env.sessions, env.members.drills.get(record.node, ""))

    async def _node(self, node: str) -> NodeRecord:
        return await self._call(self._store.node, node)

    async def create_token(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenReply:
        """A one-time join token."""
        self._authorised(context)
        return await create_token(self._env.enrolment, request)

    # -- the daemon -----------------------------------------------------------------------------------------------

    async def pause(self, request: pb.PauseRequest, context: Context) -> pb.CoordinatorStatus:
        """Open no new round, or go on; survives a restart."""
        self._authorised(context)
        env = self._env
        await self._call(self._store.set_setting, "paused", "true" if request.paused else "false")
        env.operation.paused = request.paused
        env.runs.post_all(PauseChanged(request.paused or env.operation.draining, env.clock()))
        return self._coordinator_status()

    async def drain(self, request: pb.DrainRequest, context: Context) -> pb.CoordinatorStatus:
        """Stop once the rounds in progress are committed; a restart goes on."""
        self._authorised(context)
        env = self._env
        env.operation.draining = True
        env.runs.post_all(PauseChanged(True, env.clock()))
        task = asyncio.create_task(self._stop_when_idle())
        task.add_done_callback(lambda _: None)
        self._draining = task
        return self._coordinator_status()

    async def _stop_when_idle(self) -> None:
        env = self._env
        while not env.runs.are_idle:
            await env.changes.after(env.changes.count)
        env.operation.stop.set()

    async def status(self, request: pb.StatusRequest, context: Context) -> pb.CoordinatorStatus:
        """What the coordinator does now."""
        self._authorised(context, writes=False)
        return self._coordinator_status()

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
        )

    async def backup(self, request: pb.BackupRequest, context: Context) -> pb.BackupReply:
        """A consistent copy of store, model files and keys in a new folder on this machine."""
        self._authorised(context)
        if not request.folder:
            raise Conflict("name the folder to write the backup into")
        size = await back_up(self._env.backup, Path(request.folder))
        return pb.BackupReply(folder=request.folder, bytes=size)
