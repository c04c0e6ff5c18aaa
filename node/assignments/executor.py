"""What a node does with an assignment, from its policy to the end: train and deliver, or evaluate."""

from __future__ import annotations

import asyncio
import json
import traceback

import structlog

from covey import faults
from covey import messages as msg
from covey.errors import CoveyError, PolicyError, StoreError, TaskError, WorkerError
from covey.layout import Layout
from covey.metrics import EVALUATION, missing
from covey.node.assignments.allowed_time import allowed_time
from covey.node.assignments.base_model import BaseModels
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.held_files import HeldFiles
from covey.node.assignments.kept import kept_file
from covey.node.assignments.offer import Delivery
from covey.node.assignments.training import Training, work_in_words
from covey.node.services import NodeServices
from covey.node.updates import FinishedUpdate
from covey.spec import RunSpec, parse_json
from covey.worker.jobs.evaluation import EvaluateJob
from covey.worker.jobs.operations import EVALUATE

log = structlog.get_logger(room="node")


class Executor:
    """Does one node's assignments; one at a time."""

    def __init__(self, services: NodeServices) -> None:
        self._services = services
        self.held = HeldFiles(services.files, services.store)
        self._bases = BaseModels(self.held)
        self._training = Training(services, self.held, self._bases)

    async def do(self, talk: Conversation) -> None:
        """Do the work of an assignment; what goes wrong is said to the coordinator."""
        talk.began()
        try:
            spec = parse_json(talk.assignment.spec)
            talk.named(spec.full_name)
            self._check(talk, spec)
            await talk.passed(lambda: self._work(talk, spec))
        except CoveyError as error:
            talk.log.warning("assignment declined", code=error.code, reason=str(error))
            talk.decline(error)
        except Exception as error:
            talk.log.exception("work failed")
            failure = WorkerError(f"internal error ({type(error).__name__}); the node's log says more")
            failure.traceback = traceback.format_exc()
            talk.decline(failure)

    def _check(self, talk: Conversation, spec: RunSpec) -> None:
        """Hold the work against the operator's rules. Raises `PolicyError`."""
        config, assignment, store = self._services.config, talk.assignment, self._services.store
        config.check_run(spec)
        trains, key = assignment.work == "train", (assignment.run, assignment.round, assignment.phase)
        if trains and (assignment.phase > 1 or store.finished(*key, assignment.model_sha256) is not None):
            return  # what was begun is finished
        if trains:
            config.policy.check_participants(assignment.participants)
        config.policy.check_hours(self._services.now())

    async def _work(self, talk: Conversation, spec: RunSpec) -> None:
        await self._bases.bring_layout(talk)
        if talk.assignment.work == "evaluate":
            await self._evaluate(talk, spec)
        else:
            await self._train_and_deliver(talk, spec)

    async def forget(self, run: str) -> None:
        """A run has ended: let go of its files and state."""
        await self.held.alone(self._forget, run)

    def _forget(self, run: str) -> None:
        store = self._services.store
        needed = store.needed()
        try:
            store.forget(run)
        except StoreError as error:  # the files go in any case: they may be what fills the disk
            log.warning("what is noted of a run that has ended cannot be dropped", run=run, error=str(error))
        self._training.forget(run)
        self.held.forget(run)
        self.held.release(needed)

    async def _train_and_deliver(self, talk: Conversation, spec: RunSpec) -> None:
        assignment, store = talk.assignment, self._services.store
        faults.reach("assigned")
        while True:
            update = store.finished(assignment.run, assignment.round, assignment.phase, assignment.model_sha256)
            if update is None and assignment.phase > 1:
                update = await self._training.sign_held(talk, spec)
            elif update is None:
                update = await self._training.train(talk, spec)
            talk.advanced("trained", update.digest)
            what = "update" if work_in_words(spec) == "training" else "answer"
            with self._services.metrics.phases.labels("uploading").time():
                is_settled = await Delivery(talk, update, what).deliver()
            if is_settled:
                await (self.held.at_once if update.is_small else self.held.alone)(self._delivered, update)
                return
            if update.private:
                raise PolicyError("the update is lost, and new noise for the same round would cost privacy again")
            await asyncio.to_thread(store.drop_update, assignment.run)  # its files are gone: train again
            talk.advanced("assigned", "")

    def _delivered(self, update: FinishedUpdate) -> None:
        self._training.delivered(update.run)
        try:
            self._services.store.delivered(update)
        except StoreError as error:  # after a restart it is offered once more, and that is all
            log.warning("it cannot be noted that an update was delivered", run=update.run, error=str(error))
        self.held.release(update.digests)  # but for what is momentum too

    async def _evaluate(self, talk: Conversation, spec: RunSpec) -> None:
        assignment, services = talk.assignment, self._services
        layout = Layout.from_json(assignment.layout)
        services.config.check_layout(layout)
        model, _ = await self._bases.bring(talk, layout)
        talk.advanced("has-base", "")
        own = services.store.own_state(assignment.run)
        job = EvaluateJob(
            run=assignment.run,
            spec_json=assignment.spec,
            model=model,
            where="node",
            stall_s=spec.training.stall_s,
            layout=assignment.layout,
            node_paths=services.config.paths,
            node_options=services.config.options,
            task_options=spec.task.nodes.get(services.identity.name, {}),
            allow_path=services.config.allows_paths(spec),
            limits=services.config.train_limits,
            filters=services.config.filters,
            state={name: kept_file(services.files, assignment.run, name, item) for name, item in own.items()},
        )
        async with allowed_time(services.config.limits.round_s):
            result = await services.worker.do(EVALUATE, job)
        if reason := missing(result.metrics).get(EVALUATION):
            talk.failed(TaskError(reason))
        metrics = json.dumps(services.config.scrubbed_reasons(result.metrics)).encode()
        services.link.send(msg.Evaluation(assignment.run, assignment.version, metrics))
