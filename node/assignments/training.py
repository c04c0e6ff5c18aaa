"""From a base model to a finished update: trained by the worker, signed, durable."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path

from covey import faults
from covey import messages as msg
from covey.layout import Layout
from covey.node.assignments.base_model import BaseModels, Inputs
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.held_files import HeldFiles
from covey.node.assignments.wanted_parts import state_bytes, wanted_parts
from covey.node.operator.adversary import ordered
from covey.node.services import NodeServices
from covey.node.updates import FinishedUpdate, State
from covey.spec import RunSpec
from covey.wire.signing import PartStatement, UpdateStatement
from covey.worker.jobs.operations import TRAIN
from covey.worker.jobs.training import TrainJob, TrainProgress, TrainResult


class Training:
    """Trains on one node, for one assignment after the other.

    Args:
        services: The node's.
        held: Where files of jobs that came to nothing are noted.
        bases: Where base models come from.
    """

    def __init__(self, services: NodeServices, held: HeldFiles, bases: BaseModels) -> None:
        self._services, self._held, self._bases = services, held, bases

    async def train(self, talk: Conversation, spec: RunSpec) -> FinishedUpdate:
        """Do an assignment's training; the update is in the store when this returns.

        Raises:
            CoveyError: It cannot be done; the message is for the coordinator too.
        """
        services, layout = self._services, Layout.from_json(talk.assignment.layout)
        with services.metrics.phases.labels("downloading").time():
            base, inputs = await self._bases.bring(talk, layout)
        faults.reach("downloaded")
        talk.advanced("has-base", "")
        job = self._job(talk.assignment, spec, layout, base, await self._settled_state(talk.assignment), inputs)
        talk.log.info("training")
        with services.metrics.phases.labels("training").time():
            result = await self._use_worker(talk, job)
        services.metrics.trained(result)
        faults.reach("trained")
        update = _signed(services, talk.assignment, spec, result)
        await asyncio.to_thread(self._make_durable, result, update)
        faults.reach("journaled")
        return update

    def _job(
        self, assignment: msg.Assignment, spec: RunSpec, layout: Layout, base: Path, state: State, inputs: Inputs
    ) -> TrainJob:
        """The worker's order."""
        services, files = self._services, self._services.files
        job = TrainJob(
            run=assignment.run,
            spec_json=assignment.spec,
            layout=assignment.layout,
            round=assignment.round,
            roster_index=assignment.roster_index,
            num_partitions=assignment.num_partitions,
            base=base,
            phase=assignment.phase,
            inputs={part: path for (part, source), path in inputs.items() if not source},
            evaluate=assignment.evaluate,
            scratch={part.name: files.scratch(part.size_bytes) for part in wanted_parts(assignment, layout)},
            node_paths=services.config.paths,
            node_options=services.config.options,
            allow_path=services.config.allows_path(spec.task.name),
            broadcast=base64.b64encode(assignment.broadcast).decode(),
            state={name: files.path(artifact.digest) for name, artifact in state.items()},
            out_state={name: files.scratch(state_bytes(layout)) for name in assignment.node_state},
        )
        drill = services.config.drill
        if drill is None:
            return job
        return ordered(drill, job, services.identity.name, assignment.model_sha256, services.config.data_dir)

    async def _settled_state(self, assignment: msg.Assignment) -> State:
        """What this node keeps of the run, now that its last update is decided on; the files of the rest go."""
        store, files = self._services.store, self._services.files
        if not assignment.node_state:
            return {}
        before = store.needed()
        state = await asyncio.to_thread(store.settle, assignment.run, assignment.feedback, assignment.round)
        files.release(before - store.needed())
        return state

    async def _use_worker(self, talk: Conversation, job: TrainJob) -> TrainResult:
        """Train; files of a job that came to nothing are dropped once a later job shows that nobody writes them."""

        def progressed(now: TrainProgress) -> None:
            self._services.metrics.loss.set(now.loss)
            talk.report(msg.Progress(job.run, job.round, "training", now.step, now.steps, now.loss, now.seconds))

        try:
            result = await self._services.worker.do(TRAIN, job, progressed)
        except BaseException:
            self._held.abandon((*job.scratch.values(), *job.out_state.values()))
            raise
        written = {file.name for file in (*result.state, *result.own_state)}
        self._held.abandon(path for name, path in job.out_state.items() if name not in written)
        self._held.discard_abandoned()
        return result

    def _make_durable(self, result: TrainResult, update: FinishedUpdate) -> None:
        written = [(part.path, part.artifact) for part in result.parts]
        written += [(file.path, file.artifact) for file in (*result.state, *result.own_state)]
        for path, artifact in written:
            self._services.files.adopt(path, artifact)
        state, own = ({file.name: file.artifact for file in files} for files in (result.state, result.own_state))
        self._services.store.save(update, state, own)


def _signed(services: NodeServices, assignment: msg.Assignment, spec: RunSpec, result: TrainResult) -> FinishedUpdate:
    identity = services.identity
    parts = tuple(
        PartStatement(
            name=part.name,
            codec=part.codec,
            options=dict(spec.exchange.options),
            layout=part.layout,
            digest=part.artifact.digest,
            bytes=part.artifact.size_bytes,
        )
        for part in result.parts
    )
    statement = UpdateStatement(
        federation=identity.federation,
        run=assignment.run,
        round=assignment.round,
        node=identity.name,
        key=identity.signing_key.key_id,
        base=assignment.model_sha256,
        parts=parts,
        weight=float(result.examples) if spec.weights.by == "examples" else 1.0,
        metrics=dict(result.metrics) | {f"evaluation/{name}": pair for name, pair in result.evaluation.items()},
    ).to_bytes()
    return FinishedUpdate(
        run=assignment.run,
        round=assignment.round,
        base=assignment.model_sha256,
        digest=hashlib.sha256(statement).hexdigest(),
        statement=statement,
        signature=identity.signing_key.sign(statement),
        parts=tuple(file.part for file in result.parts),
        private=result.private,
        phase=assignment.phase,
    )
