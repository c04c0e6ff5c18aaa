"""What node and coordinator say to each other about one assignment: answers, reports, granted downloads."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import structlog

from covey import faults
from covey import messages as msg
from covey.artifact import INLINE_BYTES, Artifact
from covey.errors import CoveyError, Obstructed, TransferError
from covey.metrics import failed
from covey.node.assignments.events import Answer, Stage
from covey.node.models.assembly import Unassembled
from covey.node.operator.metrics import outcome_of
from covey.node.ports import OnBytes
from covey.node.services import NodeServices
from covey.storage.files.spool import obstruction

log = structlog.get_logger(room="node")
STALL_S = 30.0
RETRY_S = 0.5
REPORT_S = 0.5
OBSTACLE_S = 2.0
"""How often it is tried again what this machine has no room for."""
MAX_REASON = 1000
R = TypeVar("R")
_PHASES: dict[Stage, str] = {
    "assigned": "download",
    "has-base": "training",
    "trained": "upload",
    "offered": "upload",
    "settled": "delivery",
}
OnStage = Callable[[Stage, str], None]
"""Told how far the work is, and which update it is about (empty before it is finished)."""


class Conversation:
    """The session, as the work of one assignment sees it.

    Args:
        services: The node's.
        assignment: What is asked for.
        on_stage: Told whenever the work has come further, or must go back.
    """

    def __init__(self, services: NodeServices, assignment: msg.Assignment, on_stage: OnStage) -> None:
        self.services, self.assignment, self._on_stage = services, assignment, on_stage
        self._stage: Stage = "assigned"
        self.log = log.bind(run=assignment.run, round=assignment.round)
        self.outcome = ""
        self._obstacle = ""
        self._answers: asyncio.Queue[Answer | None] = asyncio.Queue()

    def began(self) -> None:
        """The work begins."""
        if (site_log := self.services.site_log) is not None:
            site_log.began(self.assignment.run, self.assignment.round)

    def named(self, name: str) -> None:
        """What people call the run."""
        if (site_log := self.services.site_log) is not None:
            site_log.named(self.assignment.run, name)

    def advanced(self, stage: Stage, update: str) -> None:
        """The work has come further, or must go back."""
        self._stage = stage
        self._on_stage(stage, update)

    def failed(self, error: CoveyError, phase: str = "") -> None:
        """The work, or a phase of it, failed: who is allowed to see this node's log hears where."""
        if (site_log := self.services.site_log) is not None:
            phase = phase or (_PHASES[self._stage] if self.assignment.work == "train" else "evaluation")
            site_log.failed(self.assignment.run, self.assignment.round, phase, error)

    # -- answers --------------------------------------------------------------------------------------------------

    def answered(self, answer: Answer) -> None:
        """The coordinator has answered."""
        self._answers.put_nowait(answer)

    def ask_again(self) -> None:
        """What was asked or offered may have been overheard."""
        self._answers.put_nowait(None)

    async def answer_within(self, seconds: float | None) -> Answer | None:
        """The next answer; None: there was none in time, or something is to be asked again."""
        try:
            async with asyncio.timeout(seconds):
                return await self._answers.get()
        except TimeoutError:
            return None

    # -- reports --------------------------------------------------------------------------------------------------

    def report(self, progress: msg.Progress) -> None:
        """Say how far this node is."""
        self.services.link.send(progress)

    def ended(self, outcome: str) -> None:
        """How a training ended (one of `metrics.OUTCOMES`); the first word counts, and counts once."""
        if self.assignment.work == "train" and not self.outcome:
            self.outcome = outcome
            self.services.metrics.updates.labels(outcome).inc()

    def decline(self, error: CoveyError) -> None:
        """The work came to nothing; after an answer to its update that is nobody else's concern."""
        assignment, text = self.assignment, self.services.config.scrubbed(str(error))
        self.failed(error)
        if assignment.work == "evaluate":
            metrics = json.dumps(failed(f"{error.code}: {text}")).encode()
            self.services.link.send(msg.Evaluation(assignment.run, assignment.version, metrics))
        elif not self.outcome:
            decline = msg.Decline(assignment.run, assignment.round, assignment.attempt, error.code, text[:MAX_REASON])
            self.services.link.send(decline)
        self.ended(outcome_of(error))

    # -- transfers ------------------------------------------------------------------------------------------------

    def meter(self, phase: str, done_bytes: int, artifact: Artifact, point: str) -> OnBytes:
        """Counts the bytes of a transfer and reports them, in MiB, a few times a second.

        Args:
            phase: `downloading` or `uploading`.
            done_bytes: How much was there before.
            artifact: The file.
            point: The fault point that each chunk passes.
        """
        metrics, clock = self.services.metrics, self.services.clock
        began = reported = clock.now()
        counter = metrics.received if phase == "downloading" else metrics.sent

        def passed(count: int) -> None:
            nonlocal done_bytes, reported
            done_bytes, now = done_bytes + count, clock.now()
            counter.inc(count)
            faults.reach(point)
            if now - reported >= REPORT_S:
                reported = now
                step, steps = done_bytes >> 20, artifact.size_bytes >> 20
                self.report(self.progress(phase, step=step, steps=steps, seconds=now - began))

        return passed

    def progress(self, phase: str, *, step: int, steps: int, seconds: float) -> msg.Progress:
        """A report on a transfer."""
        assignment = self.assignment
        return msg.Progress(assignment.run, assignment.round, phase, step, steps, seconds=seconds)

    async def download(self, artifact: Artifact, data: bytes, *, granted: bool, peers: bool = False) -> Path:
        """A file of the coordinator's, resumed wherever it broke.

        Args:
            artifact: The file; validated.
            data: The file itself if it came along, else empty.
            granted: Whether it may be fetched without asking.
            peers: Whether it may come from other nodes.

        Raises:
            CorruptChunk: What came along is not the file.
            StoreError: The disk is full, or refuses.
        """
        services, files = self.services, self.services.files
        if artifact.is_without_table and not files.check(artifact.digest):
            artifact, granted = await self._with_table(artifact), True
        if data and not files.check(artifact.digest):
            services.metrics.received.inc(len(data))
            if len(data) <= INLINE_BYTES:  # not synced: it can be had again
                return files.put(artifact, data)
            return await asyncio.to_thread(files.put, artifact, data)
        peers = peers and services.models is not None
        while not files.check(artifact.digest):
            await services.link.connected()
            if not granted:
                answer = await self._ask(artifact.digest, takes_peers=peers)
                if answer is None:
                    continue
                if isinstance(answer, msg.ModelElsewhere):
                    peers = await self._from_peers(artifact, answer)
                    continue
            try:
                meter = self.meter("downloading", files.offset(artifact), artifact, "node-download-chunk")
                await services.bulk.download(artifact, meter)
            except TransferError as error:
                granted = False
                await services.clock.sleep(self.interrupted("download", error))
        return files.path(artifact.digest)

    async def _ask(
        self, digest: str, *, with_table: bool = False, takes_peers: bool = False
    ) -> msg.DownloadGrant | msg.ModelElsewhere | None:
        """Ask for a download; None: there was no grant in time."""
        self.services.link.send(msg.DownloadAsk(digest, with_table, takes_peers))
        while (answer := await self.answer_within(STALL_S)) is not None:
            if isinstance(answer, msg.DownloadGrant | msg.ModelElsewhere) and answer.digest == digest:
                return answer
        return None

    async def _from_peers(self, artifact: Artifact, elsewhere: msg.ModelElsewhere) -> bool:
        """Have a file from other nodes; False: what is missing is to come from the coordinator."""
        services, run = self.services, self.assignment.run
        if services.models is None:
            return False
        meter = self.meter("downloading", services.files.offset(artifact), artifact, "node-download-chunk")
        try:
            came = await services.models.bring(run, artifact, elsewhere, meter)
        except Unassembled as error:
            self.log.warning("other nodes do not give the model; having it from the coordinator", reason=str(error))
            services.link.send(msg.ModelReport(run, artifact.digest, is_lent=False, liars=error.liars))
            return False
        if came.liars:
            services.link.send(msg.ModelReport(run, artifact.digest, is_lent=False, liars=came.liars))
        return True

    async def _with_table(self, artifact: Artifact) -> Artifact:
        """A file that was announced without its chunk digests, with those that its grant brings."""
        while True:
            await self.services.link.connected()
            grant = await self._ask(artifact.digest, with_table=True)
            if isinstance(grant, msg.DownloadGrant) and grant.chunk_sha256:
                whole = replace(artifact, chunk_sha256=grant.chunk_sha256)
                whole.validate(artifact.size_bytes)
                return whole

    async def passed(self, work: Callable[[], Awaitable[R]]) -> R:
        """Do something that can be repeated; while this machine is in the way of it, say so and try again.

        The round's deadline does not wait: the coordinator gives this node up then, and says what it waited for.
        """
        while True:
            try:
                return await work()
            except Obstructed as error:
                obstacle = error
            except OSError as error:
                if (obstructed := obstruction(error)) is None:
                    raise
                obstacle = obstructed
            self._say_obstacle(obstacle)
            await self.services.clock.sleep(OBSTACLE_S)

    def _say_obstacle(self, error: Obstructed) -> None:
        text = self.services.config.scrubbed(str(error))[:MAX_REASON]
        if text != self._obstacle:
            self.log.warning("this machine is in the way; trying again", error=text, retry_s=OBSTACLE_S)
        self._obstacle = text
        if self.assignment.work == "train":
            self.report(msg.Progress(self.assignment.run, self.assignment.round, "waiting", waits_for=text))

    def interrupted(self, what: str, error: CoveyError) -> float:
        """A transfer broke: say so. How many seconds to wait before it is begun again."""
        self.log.warning(f"{what} interrupted; going on where it broke", reason=str(error))
        return RETRY_S * (0.5 + random.random())
