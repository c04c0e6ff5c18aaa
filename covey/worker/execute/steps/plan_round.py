"""Asks the run's method what follows from a phase's answers. The same answers have the same consequence, always."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from covey import faults
from covey.errors import LayoutError, LimitExceeded, RunFailed
from covey.learning.data import size_of
from covey.learning.training import loop
from covey.methods.contract import Answer, Close, Open, PlanContext
from covey.vectors import Vector
from covey.worker.execute.from_spec import uses_root
from covey.worker.execute.root_dataset import central_data_of, evaluation_indices, moved_model
from covey.worker.execute.steps.open_step import OpenStep
from covey.worker.execute.updates.validate_updates import open_parts
from covey.worker.jobs.steps import OpenedPhase, StepAnswer

MAX_PARAMS_BYTES = 1 << 16


class Planner:
    """One round, as its method sees it.

    Args:
        step: Its job, opened.
        updates: What each node sent in all phases.
    """

    def __init__(self, step: OpenStep, updates: Sequence[StepAnswer]) -> None:
        self._step, self._job, self._form = step, step.job, step.form
        self._sent = {update.node: set(update.parts) for update in updates}
        self._broken = _half_rejected(step.job.answers)
        self.answers: tuple[Answer, ...] = ()
        """What the method was shown."""

    def plan(self) -> OpenedPhase | Close:
        """What the method decides; answers that cannot be opened are rejected.

        Raises:
            RunFailed: It decides something impossible: the method's mistake.
            SpecError: It asks for central data, and the task has none.
        """
        job, method = self._job, self._form.method
        self.answers = answers = self._answers()
        context = PlanContext(self._step.number, self._form.run, job.roster, self._audit)
        plan = method.plan(job.phase, answers, self._form.state(job.state), context)
        faults.reach("method-plan")
        rejected = {**plan.rejected, **self._broken}
        usable = {answer.node for answer in answers if answer.verdict == "received"} - set(rejected)
        mistake = self._mistake(plan, usable, answers)
        if mistake:
            raise RunFailed(f"method {self._form.run.spec.method.name!r} {mistake}; this is a mistake in the method")
        if isinstance(plan, Close):
            return replace(plan, rejected=rejected)
        return OpenedPhase(plan.phase, dict(plan.assignments), rejected)

    def _answers(self) -> tuple[Answer, ...]:
        opened = [self._opened(row) for row in self._job.answers]
        return tuple(
            Answer(a.node, a.phase, "rejected", self._broken[a.node]) if a.node in self._broken else a for a in opened
        )

    def _opened(self, row: StepAnswer) -> Answer:
        parts: Mapping[str, object] = {}
        if row.verdict == "received":
            try:
                parts = open_parts(row.node, row.parts, self._form, self._step.base, (row.phase,))
            except (LayoutError, LimitExceeded) as error:
                self._broken[row.node] = str(error)
        return Answer(row.node, row.phase, row.verdict, row.reason, row.weight, row.metrics, parts)

    def _mistake(self, plan: Open | Close, usable: set[str], answers: tuple[Answer, ...]) -> str:
        if isinstance(plan, Close):
            wrong = [node for node in plan.nodes if self._sent.get(node) != {part.name for part in self._form.sent}]
            strange = sorted({*wrong, *(set(plan.nodes) - usable)})
            return f"closes the round with {', '.join(strange)}, which did not send every part" if strange else ""
        if not max(2, self._job.phase) <= plan.phase <= self._form.method.phases:
            return f"opens phase {plan.phase} after phase {self._job.phase}, and has {self._form.method.phases}"
        asked = {answer.node for answer in answers if answer.phase == plan.phase}
        if not plan.assignments or not usable.issuperset(plan.assignments) or asked.intersection(plan.assignments):
            return f"asks {sorted(plan.assignments)} in phase {plan.phase}, and only {sorted(usable - asked)} can be"
        too_long = any(
            len(text.encode()) > MAX_PARAMS_BYTES or not _is_json(text) for text in plan.assignments.values()
        )
        return f"asks with what is not JSON of at most {MAX_PARAMS_BYTES} bytes" if too_long else ""

    def _audit(self, step: Vector | None) -> Mapping[str, float]:
        run = self._step.run
        data = central_data_of(run, f"method {run.spec.method.name!r}")
        indices = evaluation_indices(run.spec, size_of(data)) if uses_root(run.spec) else None
        model = moved_model(run, self._form.run.layout, self._step.base, step)
        stats = loop.evaluate(run.task, model, data, run.spec.evaluation.batch_size, run.device, indices)
        return {name: stat.ratio for name, stat in stats.items()}


def _half_rejected(answers: Iterable[StepAnswer]) -> dict[str, str]:
    """Nodes with an answer that was rejected and one that was not, and why: a node is rejected in all phases."""
    received = {row.node for row in answers if row.verdict == "received"}
    return {row.node: row.reason for row in answers if row.verdict == "rejected" and row.node in received}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text == ""
    return True
