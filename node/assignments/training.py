"""From a base model to a finished update: trained by the worker, signed, durable."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from covey import faults
from covey import messages as msg
from covey.errors import Obstructed, PolicyError, StoreError, TaskError, WorkerDied, WorkerStalled
from covey.layout import Layout
from covey.metrics import EVALUATED, EVALUATION, failed, missing
from covey.node.assignments.allowed_time import allowed_time
from covey.node.assignments.base_model import BaseModels, Inputs
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.held_files import HeldFiles
from covey.node.assignments.kept import kept_file
from covey.node.assignments.wanted_parts import state_bytes, wanted_parts
from covey.node.operator.adversary import ordered
from covey.node.services import NodeServices
from covey.node.updates import FinishedUpdate, HeldPart, State
from covey.parts import LOCAL, PartFile, slot
from covey.spec import RunSpec
from covey.storage.files.room import scratch_files
from covey.wire.identities.signing import PartStatement, UpdateStatement
from covey.worker.jobs.operations import TRAIN
from covey.worker.jobs.training import TrainJob, TrainProgress, TrainResult

log = structlog.get_logger(room="node")


class Training:
    """Trains on one node, for one assignment after the other.

    Args:
        services: The node's.
        held: Where files of jobs that came to nothing are noted.
        bases: Where base models come from.
    """

    def __init__(self, services: NodeServices, held: HeldFiles, bases: BaseModels) -> None:
        self._services, self._held, self._bases = services, held, bases
        self._filters: dict[str, tuple[str, ...]] = {}
        """By run: those that the newest update has passed."""
        self._known_filters: dict[str, tuple[str, ...]] = {}
        """By run: those that the coordinator has on record."""

    async def train(self, talk: Conversation, spec: RunSpec) -> FinishedUpdate:
        """Do an assignment's training; the update is in the store when this returns.

        Raises:
            CoveyError: It cannot be done; the message is for the coordinator too.
        """
        services, layout = self._services, Layout.from_json(talk.assignment.layout)
        services.config.check_layout(layout)
        if spec.privacy is not None or services.config.train_limits.wants_privacy:
            await self._held.alone(self._require_terms, talk.assignment.run, spec)
        with services.metrics.phases.labels("downloading").time():
            base, inputs = await self._bases.bring(talk, layout)
        faults.reach("downloaded")
        talk.advanced("has-base", "")
        job = self._job(talk.assignment, spec, layout, base, await self._settled_state(talk.assignment, spec), inputs)
        talk.log.info("training")
        with services.metrics.phases.labels("training").time():
            result = await self._use_worker(talk, job)
        services.metrics.trained(result)
        if reason := missing(result.evaluation).get(EVALUATION):
            talk.failed(TaskError(reason), "evaluation")
        faults.reach("trained")
        update = _finished(services, talk.assignment, spec, result, self._notice(talk.assignment, result))
        await talk.passed(lambda: self._held.alone(self._make_durable, result, update))
        faults.reach("journaled")
        return update

    def delivered(self, run: str) -> None:
        """An update of a run is at the coordinator, and with it which filters it has passed."""
        if run in self._filters:
            self._known_filters[run] = self._filters[run]

    def forget(self, run: str) -> None:
        """The run has ended."""
        self._filters.pop(run, None)
        self._known_filters.pop(run, None)

    def _notice(self, assignment: msg.Assignment, result: TrainResult) -> str:
        """What the coordinator is to know of this training, though it could be done."""
        run, texts = assignment.run, list[str]()
        if assignment.node_state and self._services.store.lost_before(run) == assignment.round:
            names = ", ".join(assignment.node_state)[:200]
            gone = f"what it kept of the run ({names}) was gone before round {assignment.round}"
            texts.append(f"{gone}: it began anew without that")
        if result.filters and self._known_filters.get(run) != result.filters:
            texts.append(f"from here on its updates pass this site's outgoing filter {', '.join(result.filters)}"[:200])
            self._filters[run] = result.filters
        return "; ".join(texts)

    async def sign_held(self, talk: Conversation, spec: RunSpec) -> FinishedUpdate:
        """The update of a later phase, of what the round's training made for it; it is in the store afterwards.

        Raises:
            PolicyError: What is asked for is not here any more: nothing is trained twice in a round.
        """
        services, asked = self._services, talk.assignment
        before = services.store.holding(asked.run, asked.round, asked.phase, asked.model_sha256)
        held = () if before is None else tuple(item for item in before.held if item.phase == asked.phase)
        wanted = [(part.name, part.codec) for part in asked.wanted]
        is_here = all(services.files.check(item.part.artifact.digest) for item in held)
        if before is None or not is_here or [(item.part.name, item.part.codec) for item in held] != wanted:
            raise PolicyError(
                f"phase {asked.phase} of round {asked.round} asks for what this node made in phase 1, and it has that "
                "no more"
            )
        update = _held_back(services, spec, before, asked.phase, held)
        await self._held.alone(services.store.save, update, {}, {})
        faults.reach("journaled")
        return update

    def _require_terms(self, run: str, spec: RunSpec) -> None:
        """The account multiplies what one training spends: all of a run's trainings must spend the same."""
        terms = spec.privacy_terms()
        if (before := self._services.store.private_terms(run, terms)) != terms:
            raise PolicyError(f"the run's privacy was {before} on this node before, and cannot become {terms}")

    def _job(
        self, assignment: msg.Assignment, spec: RunSpec, layout: Layout, base: Path, state: State, inputs: Inputs
    ) -> TrainJob:
        """The worker's order."""
        services = self._services
        state_files = self._kept_files(assignment, spec, state)
        scratch, out_state = ({}, {}) if spec.evaluation.only else self._room(assignment, layout)
        job = TrainJob(
            run=assignment.run,
            spec_json=assignment.spec,
            layout=assignment.layout,
            round=assignment.round,
            roster_index=assignment.roster_index,
            num_partitions=assignment.num_partitions,
            part=assignment.part,
            base=base,
            phase=assignment.phase,
            inputs={part: path for (part, source), path in inputs.items() if not source},
            others={
                part: {source: path for (of, source), path in inputs.items() if source and of == part}
                for part in {part for part, source in inputs if source}
            },
            evaluate=assignment.evaluate,
            scratch=scratch,
            node_paths=services.config.paths,
            node_options=services.config.options,
            task_options=spec.task.nodes.get(services.identity.name, {}),
            allow_path=services.config.allows_paths(spec),
            broadcast=base64.b64encode(assignment.broadcast).decode(),
            state=state_files,
            stall_s=spec.training.stall_s,
            limits=services.config.train_limits,
            private_before=services.store.private_updates(assignment.run),
            out_state=out_state,
            filters=services.config.filters,
        )
        drill = services.config.drill
        if drill is None:
            return job
        return ordered(drill, job, services.identity.name, assignment.model_sha256, services.config.data_dir)

    def _kept_files(self, assignment: msg.Assignment, spec: RunSpec, state: State) -> dict[str, Path]:
        """What this node keeps; for an evaluation, as far as it is whole: the worker says what it comes to.

        Raises:
            StoreError: Something that a training goes on from is damaged or missing.
        """
        kept, files = dict[str, Path](), self._services.files
        for name, artifact in state.items():
            try:
                kept[name] = kept_file(files, assignment.run, name, artifact)
            except StoreError:
                if not spec.evaluation.only:
                    raise
                log.warning("what stays here of the run is damaged or missing", run=spec.model.parent, file=name)
        return kept

    def _room(self, assignment: msg.Assignment, layout: Layout) -> tuple[dict[str, Path], dict[str, Path]]:
        """A file for each part, and for each state that is kept, by name."""
        parts = {("part", part.name): part.size_bytes for part in wanted_parts(assignment)}
        states = {("state", name): state_bytes(layout) for name in assignment.node_state}
        scratch = scratch_files(self._services.files, parts | states)
        return {name: scratch["part", name] for _, name in parts}, {name: scratch["state", name] for _, name in states}

    async def _settled_state(self, assignment: msg.Assignment, spec: RunSpec) -> State:
        """What this node keeps of the run, now that its last update is decided on; the files of the rest go.

        Of a run that only evaluates: what stays here of the run whose model that is.
        """
        if spec.evaluation.only:
            kept = self._services.store.own_state(spec.model.parent.partition("@")[0])
            return {name: artifact for name, artifact in kept.items() if name == slot(LOCAL)}
        return await self._held.alone(self._settle, assignment) if assignment.node_state else {}

    def _settle(self, assignment: msg.Assignment) -> State:
        store = self._services.store
        before = store.needed()
        state = store.settle(assignment.run, assignment.feedback, assignment.round)
        self._held.release(before)
        return state

    async def _use_worker(self, talk: Conversation, job: TrainJob) -> TrainResult:
        """Train, for as long as the operator allows, however many rounds a local-only baseline has.

        Files of a job that came to nothing are dropped once a later job shows that nobody writes them.
        """

        def progressed(now: TrainProgress) -> None:
            if math.isfinite(now.loss):
                self._services.metrics.loss.set(now.loss)
            loss = math.nan if job.filters else now.loss  # filters see the metrics of a training as a whole
            talk.report(msg.Progress(job.run, job.round, "training", now.step, now.steps, loss, now.seconds))

        try:
            async with allowed_time(self._services.config.limits.round_s):
                result = await self._train_safely(job, progressed)
        except Obstructed:  # which the worker has said: it writes no more, and what it wrote is in its way
            for path in (*job.scratch.values(), *job.out_state.values()):
                self._services.files.discard(path)
            raise
        except BaseException:
            self._held.abandon((*job.scratch.values(), *job.out_state.values()))
            raise
        written = {file.name for file in (*result.state, *result.own_state)}
        self._held.abandon(path for name, path in job.out_state.items() if name not in written)
        self._held.discard_abandoned()
        return result

    async def _train_safely(self, job: TrainJob, progressed: Callable[[TrainProgress], object]) -> TrainResult:
        """Train; where the evaluation that comes first hangs, or kills its worker, train without it."""
        is_training = not job.evaluate

        def heard(now: TrainProgress) -> None:
            nonlocal is_training
            is_training = True
            progressed(now)

        try:
            return await self._services.worker.do(TRAIN, job, heard)
        except (WorkerDied, WorkerStalled) as error:
            if is_training:
                raise
            log.warning("the evaluation failed; training without it", run=job.run, round=job.round, error=str(error))
            result = await self._services.worker.do(TRAIN, replace(job, evaluate=False), progressed)
            return replace(result, evaluation=failed(f"{error.code}: {error}"))

    def _make_durable(self, result: TrainResult, update: FinishedUpdate) -> None:
        files = self._services.files
        for part in result.parts:
            # What a power cut takes of these is found at the next start, and made again from the same base: the same
            # bytes. New noise would cost privacy again, and what is held for a later phase is not made twice.
            files.adopt(part.path, part.artifact, durable=update.private or bool(update.held))
        for file in (*result.state, *result.own_state):
            files.adopt(file.path, file.artifact)
        state, own = ({file.name: file.artifact for file in files} for files in (result.state, result.own_state))
        store, before = self._services.store, self._services.store.needed()
        store.save(update, state, own)
        self._held.release(before)  # what was held back, and is not asked for any more


def _finished(
    services: NodeServices, assignment: msg.Assignment, spec: RunSpec, result: TrainResult, notice: str
) -> FinishedUpdate:
    """What a training made, signed as far as it is sent now."""
    held = {part.name: part.held for part in assignment.wanted if part.held}
    sent = [file for file in result.parts if file.name not in held]
    identity = services.identity
    metrics = {**result.metrics, **{f"{EVALUATED}{name}": value for name, value in result.evaluation.items()}}
    statement = UpdateStatement(
        federation=identity.federation,
        run=assignment.run,
        round=assignment.round,
        node=identity.name,
        key=identity.signing_key.key_id,
        base=assignment.model_sha256,
        parts=tuple(_part_statement(file.part, file.layout, spec) for file in sent),
        weight=float(result.examples) if spec.weights.by == "examples" else 1.0,
        metrics=services.config.scrubbed_reasons(metrics),
        phase=assignment.phase,
        code=result.code,
        notice=notice,
    )
    kept = tuple(HeldPart(held[file.name], file.part, file.layout) for file in result.parts if file.name in held)
    return _signed(services, statement, tuple(file.part for file in sent), kept, private=result.private)


def _held_back(
    services: NodeServices, spec: RunSpec, before: FinishedUpdate, phase: int, held: tuple[HeldPart, ...]
) -> FinishedUpdate:
    """A later phase's update: what was held back, said to be of the same training as what was sent before."""
    statement = replace(
        UpdateStatement.from_bytes(before.statement),
        key=services.identity.signing_key.key_id,  # perhaps renewed since
        parts=tuple(_part_statement(item.part, item.layout, spec) for item in held),
        phase=phase,
        notice="",  # it was said with what was sent before
    )
    rest = tuple(item for item in before.held if item not in held)
    return _signed(services, statement, tuple(item.part for item in held), rest, private=before.private)


def _part_statement(part: PartFile, layout: str, spec: RunSpec) -> PartStatement:
    return PartStatement(
        name=part.name,
        codec=part.codec,
        options=dict(spec.exchange.options),
        layout=layout,
        digest=part.artifact.digest,
        bytes=part.artifact.size_bytes,
    )


def _signed(
    services: NodeServices,
    statement: UpdateStatement,
    parts: tuple[PartFile, ...],
    held: tuple[HeldPart, ...],
    *,
    private: bool,
) -> FinishedUpdate:
    text = statement.to_bytes()
    return FinishedUpdate(
        run=statement.run,
        round=statement.round,
        base=statement.base,
        digest=hashlib.sha256(text).hexdigest(),
        statement=text,
        signature=services.identity.signing_key.sign(text),
        parts=parts,
        private=private,
        phase=statement.phase,
        held=held,
    )
