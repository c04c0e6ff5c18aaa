"""What a node does with an assignment: fetch the model, train, make the update durable, deliver it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc.aio
import structlog

from covey import faults
from covey.artifact import INLINE_BYTES, artifact_of_file
from covey.errors import CorruptChunk, CoveyError, PolicyError, TransferError
from covey.layout import Layout
from covey.node.assignments.base_model import base_model
from covey.node.assignments.journal import FinishedUpdate, Journal
from covey.node.assignments.local_state import CarriedState, State
from covey.node.assignments.transfers import RETRY_S, STALL_S, Transfers
from covey.node.membership.link import Link
from covey.node.operator.adversary import ordered
from covey.node.operator.config import NodeConfig
from covey.node.operator.metrics import NodeMetrics, outcome_of
from covey.parts import PartFile
from covey.protos import coordinator_pb2 as pb
from covey.spec import RunSpec, parse_json
from covey.storage.files.artifacts import ArtifactFiles
from covey.wire.artifacts import artifact_message
from covey.wire.identity import Identity
from covey.wire.signing import PartStatement, ReceiptStatement, UpdateStatement, verify
from covey.wire.streams import upload
from covey.worker.client.supervisor import WorkerSupervisor
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.operations import EVALUATE, TRAIN
from covey.worker.jobs.training import NODE_STATE, TrainJob, TrainProgress, TrainResult

log = structlog.get_logger(room="node")
FINAL = ("late", "invalid-update", "identity", "conflict", "corrupt-chunk", "not-found")
"""Refusals after which offering again would not help."""


@dataclass
class Bench:
    """What all work on this node shares."""

    config: NodeConfig
    identity: Identity
    files: ArtifactFiles
    worker: WorkerSupervisor
    journal: Journal
    link: Link
    carried: CarriedState
    stale: list[Path] = field(default_factory=list)
    """Scratch files of jobs that were given up; the worker may still be writing them."""
    model: str = ""
    """Digest of the newest model's file that is here."""
    metrics: NodeMetrics = field(default_factory=NodeMetrics)

    def keep_model(self, digest: str) -> None:
        """This model is here: recycle the file of the one before."""
        if self.model and self.model != digest:
            self.files.release([self.model])  # a rename
        self.model = digest


class Work:
    """One assignment, from its arrival to its end."""

    def __init__(self, bench: Bench, message: pb.Assignment) -> None:
        self.bench = bench
        self._wire = Transfers(bench, message)
        self._log = log.bind(run=message.run, round=message.round)
        self._outcome = ""

    @property
    def message(self) -> pb.Assignment:
        """The assignment as it was last sent."""
        return self._wire.message

    @message.setter
    def message(self, message: pb.Assignment) -> None:
        self._wire.message = message

    @property
    def answers(self) -> asyncio.Queue[pb.CoordinatorMessage | None]:
        """Grants, receipts and refusals meant for this work; None: ask, or offer, again."""
        return self._wire.answers

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Two assignments with the same key ask for the same work."""
        message = self.message
        return message.run, message.round, message.model_sha256, message.work

    async def do(self) -> None:
        """Do the work; what goes wrong is said to the coordinator."""
        try:
            if self.message.work == pb.Assignment.EVALUATE:
                await self._evaluate()
            else:
                await self._train_and_deliver()
        except CoveyError as error:
            self._log.warning("assignment declined", code=error.code, reason=str(error))
            self._decline(error)
        except Exception:
            self.ended("failed")
            raise

    def ended(self, outcome: str) -> None:
        """How a training ended (one of `metrics.OUTCOMES`); the first word counts, and counts once."""
        if self.message.work != pb.Assignment.EVALUATE and not self._outcome:
            self._outcome = outcome
            self.bench.metrics.updates.labels(outcome).inc()

    def _decline(self, error: CoveyError) -> None:
        message = self.message
        if message.work == pb.Assignment.EVALUATE:
            empty = pb.Evaluation(run=message.run, version=message.version)
            self.bench.link.send(pb.NodeMessage(evaluation=empty))
            return
        self.ended(outcome_of(error))
        decline = pb.Decline(
            run=message.run, round=message.round, attempt=message.attempt, code=error.code, reason=str(error)[:1000]
        )
        self.bench.link.send(pb.NodeMessage(decline=decline))

    # -- training -------------------------------------------------------------------------------------------------

    async def _train_and_deliver(self) -> None:
        message, journal = self.message, self.bench.journal
        spec = parse_json(message.spec)
        self.bench.config.check_run(spec)
        faults.reach("assigned")
        while True:
            update = journal.find(message.run, message.round, message.model_sha256)
            if update is None:
                update = await self._train(spec)
            with self._timed("uploading"):
                delivered = await self._deliver(update)
            if delivered:
                await asyncio.to_thread(self._delivered, update)
                return
            if update.private:
                raise PolicyError("the update is lost, and new noise for the same round would cost privacy again")
            await asyncio.to_thread(journal.forget, message.run)  # its files are gone: train again

    def _timed(self, phase: str) -> AbstractContextManager[object]:
        return self.bench.metrics.phases.labels(phase).time()

    async def _train(self, spec: RunSpec) -> FinishedUpdate:
        message, bench = self.message, self.bench
        layout = Layout.from_json(message.layout)
        with self._timed("downloading"):
            base = await base_model(self._wire, layout)
        faults.reach("downloaded")
        state = await self._settled_state() if message.node_state else {}
        sizes = {"model": 4 * layout.part("model").numel, "buffers": layout.part("buffers").nbytes}
        job = TrainJob(
            run=message.run,
            spec_json=message.spec.decode(),
            layout=message.layout.decode(),
            round=message.round,
            roster_index=message.roster_index,
            parts=message.num_partitions,
            base=base,
            evaluate=message.evaluate,
            scratch={name: bench.files.scratch(size) for name, size in sizes.items() if size},
            node_paths=bench.config.paths,
            node_options=bench.config.options,
            allow_path=bench.config.allows_path(spec.task.name),
            broadcast=base64.b64encode(message.broadcast).decode(),
            state={name: bench.files.path(artifact.digest) for name, artifact in state.items()},
            out_state={name: bench.files.scratch(sizes["model"]) for name in message.node_state if name in NODE_STATE},
        )
        if bench.config.drill is not None:
            job = ordered(bench.config.drill, job, bench.identity.name, message.model_sha256, bench.config.data_dir)
        self._log.info("training")
        with self._timed("training"):
            result = await self._use_worker(job)
        bench.metrics.trained(result)
        faults.reach("trained")
        update = self._sign(spec, layout, result)
        await asyncio.to_thread(self._make_durable, result, update)
        faults.reach("journaled")
        return update

    async def _settled_state(self) -> State:
        """What this node keeps of the run, now that its last update is decided on."""
        message, carried, files = self.message, self.bench.carried, self.bench.files
        before = carried.referenced()
        settle = partial(carried.settle, accepted=message.settled_accepted)
        state = await asyncio.to_thread(settle, message.run, message.settled)
        files.release(before - carried.referenced() - self.bench.journal.referenced())
        return state

    async def _use_worker(self, job: TrainJob) -> TrainResult:
        """Train; files of a job that came to nothing are dropped once a later job shows that nobody writes them."""
        bench, stale = self.bench, self.bench.stale
        try:
            result = await bench.worker.do(TRAIN, job, self._progress)
        except BaseException:
            stale.extend((*job.scratch.values(), *job.out_state.values()))
            raise
        written = {part.name for part in result.state}
        stale.extend(path for name, path in job.out_state.items() if name not in written)
        while stale:
            bench.files.discard(stale.pop())
        return result

    def _progress(self, now: TrainProgress) -> None:
        self.bench.metrics.loss.set(now.loss)
        self._wire.report("training", now.step, now.steps, now.loss, now.seconds)

    def _sign(self, spec: RunSpec, layout: Layout, result: TrainResult) -> FinishedUpdate:
        message, identity = self.message, self.bench.identity
        metrics = dict(result.metrics) | {f"evaluation/{name}": pair for name, pair in result.evaluation.items()}
        parts = tuple(
            PartStatement(
                name=part.name,
                codec=part.codec,
                options=dict(spec.exchange.options),
                layout=layout.part(part.name).sha256,
                digest=part.artifact.digest,
                bytes=part.artifact.size_bytes,
            )
            for part in result.parts
        )
        statement = UpdateStatement(
            federation=identity.federation,
            run=message.run,
            round=message.round,
            node=identity.name,
            key=identity.signing_key.key_id,
            base=message.model_sha256,
            parts=parts,
            weight=float(result.examples) if spec.weights.by == "examples" else 1.0,
            metrics=metrics,
        ).to_bytes()
        return FinishedUpdate(
            run=message.run,
            round=message.round,
            base=message.model_sha256,
            digest=hashlib.sha256(statement).hexdigest(),
            statement=statement,
            signature=identity.signing_key.sign(statement),
            parts=tuple(file.part for file in result.parts),
            private=result.private,
        )

    def _make_durable(self, result: TrainResult, update: FinishedUpdate) -> None:
        bench = self.bench
        written = [(part.path, part.artifact) for part in result.parts]
        written += [(part.path, part.artifact) for part in result.state]
        for path, artifact in written:
            bench.files.adopt(path, artifact)
        if result.state:
            bench.carried.stage(update.run, update.digest, {part.name: part.artifact for part in result.state})
        bench.journal.save(update)

    # -- delivery -------------------------------------------------------------------------------------------------

    async def _deliver(self, update: FinishedUpdate) -> bool:
        """Offer until there is a receipt, or a refusal that is final. False: files are wanted that are gone here."""
        offer = await asyncio.to_thread(self._offer, update)
        while True:
            await self.bench.link.connected()
            self.bench.link.send(pb.NodeMessage(offer=offer))
            self.bench.metrics.sent.inc(sum(len(part.data) for part in offer.parts))
            settled = await self._follow(update)
            if settled is not None:
                return settled

    def _offer(self, update: FinishedUpdate) -> pb.UpdateOffer:
        """The offer; small parts come along."""
        files = self.bench.files
        small = sum(part.artifact.size_bytes for part in update.parts) <= INLINE_BYTES
        data = [
            files.path(part.artifact.digest).read_bytes() if small and files.has(part.artifact.digest) else b""
            for part in update.parts
        ]
        parts = [_part_message(part, content) for part, content in zip(update.parts, data, strict=True)]
        return pb.UpdateOffer(statement=update.statement, signature=update.signature, parts=parts)

    async def _follow(self, update: FinishedUpdate) -> bool | None:
        """The answers to one offer; None: offer again."""
        patience: float | None = None  # until all was sent
        while (answer := await self._wire.answer_within(patience)) is not None:
            kind = answer.WhichOneof("kind")
            if kind == "receipt" and answer.receipt.update == update.digest:
                self._check_receipt(answer.receipt, update)
                self.ended("received")
                return True
            if kind == "refusal" and answer.refusal.update == update.digest:
                return await self._refused(answer.refusal)
            # An offer that was made twice is granted twice: what was sent is not sent again.
            if kind == "upload" and answer.upload.update == update.digest and patience is None:
                own = {part.artifact.digest for part in update.parts}
                if not own.issuperset(part.digest for part in answer.upload.parts):
                    raise CorruptChunk("the coordinator asks for a file that this update does not have")
                if not all(self.bench.files.has(part.digest) for part in answer.upload.parts):
                    return False
                try:
                    await self._upload(update, answer.upload)
                except (grpc.aio.AioRpcError, TransferError) as error:
                    await self._wire.back_off("upload", error)
                    return None if await asyncio.to_thread(self._intact, update) else False
                patience = STALL_S  # the receipt is due
        return None

    def _intact(self, update: FinishedUpdate) -> bool:
        """Whether this node's own files are still what they should be; a damaged one would be refused for ever."""
        files = self.bench.files
        return all(artifact_of_file(files.path(part.artifact.digest)) == part.artifact for part in update.parts)

    async def _upload(self, update: FinishedUpdate, grant: pb.UploadGrant) -> None:
        artifacts = {part.artifact.digest: part.artifact for part in update.parts}
        for wanted in grant.parts:
            artifact = artifacts[wanted.digest]
            if wanted.offset > artifact.size_bytes:
                raise CorruptChunk("the coordinator asks for more than this update's file has")
            path = self.bench.files.path(artifact.digest)
            meter = self._wire.meter("uploading", wanted.offset, artifact.size_bytes, "node-upload-chunk")
            await upload(self.bench.link.uploads, path, artifact, wanted.offset, stall_s=STALL_S, on_progress=meter)

    async def _refused(self, refusal: pb.Refusal) -> bool | None:
        self._log.warning("update refused", code=refusal.code, reason=refusal.reason)
        if refusal.code not in FINAL:
            await asyncio.sleep(RETRY_S * (2 + random.random()))
            return None
        self.ended("refused")
        return True

    def _check_receipt(self, receipt: pb.Receipt, update: FinishedUpdate) -> None:
        verify(self.bench.identity.coordinator_key, receipt.statement, receipt.signature)
        if ReceiptStatement.from_bytes(receipt.statement).update != update.digest:
            raise CorruptChunk("the receipt is for another update")
        self._log.info("update delivered")

    def _delivered(self, update: FinishedUpdate) -> None:
        self.bench.journal.delivered(update)
        sent = {part.artifact.digest for part in update.parts}
        self.bench.files.release(sent - self.bench.carried.referenced())  # momentum may be just what was sent

    # -- evaluation -----------------------------------------------------------------------------------------------

    async def _evaluate(self) -> None:
        message, bench = self.message, self.bench
        spec = parse_json(message.spec)
        bench.config.check_run(spec)
        path = await base_model(self._wire, Layout.from_json(message.layout))
        job = EvaluateJob(
            run=message.run,
            spec_json=message.spec.decode(),
            model=path,
            where="node",
            node_paths=bench.config.paths,
            node_options=bench.config.options,
            allow_path=bench.config.allows_path(spec.task.name),
        )
        totals = (await bench.worker.do(EVALUATE, job)).metrics
        text = _json_bytes(totals)
        bench.link.send(
            pb.NodeMessage(evaluation=pb.Evaluation(run=message.run, version=message.version, metrics=text))
        )


def _json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


def _part_message(part: PartFile, data: bytes) -> pb.Part:
    return pb.Part(data=data, name=part.name, codec=part.codec, artifact=artifact_message(part.artifact))
