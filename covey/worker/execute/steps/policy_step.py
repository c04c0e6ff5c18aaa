"""A step by a policy: deciding on one update, and making the next version where the policy wants one.

The result depends on the job alone, so that a decision that was lost in a crash, or is replayed, comes out the same.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from covey.aggregation.asynchronous.contract import Arrival, AsyncContext, AsyncStep, Decision, Pinned, PolicyState
from covey.aggregation.buffers import combine_buffers
from covey.aggregation.verdicts import Verdict
from covey.errors import RunFailed, WorkerError
from covey.vectors import Vector
from covey.worker.execute.from_spec import load_policy, load_server_optimizer
from covey.worker.execute.steps.open_step import OpenStep
from covey.worker.execute.updates.update_form import layout_of
from covey.worker.execute.updates.validate_updates import Admitted, admit
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.steps import EVICTED, LOST, StepResult

STALENESS_KEPT = 100
"""Of how many accepted updates the staleness is remembered, for the server optimizer."""


class OperationState(PolicyState):
    """What is remembered from decision to decision: `state_json`."""

    policy: JsonValue = None
    """The policy's own state; None at first."""
    staleness: tuple[int, ...] = ()
    """Of the last accepted updates, oldest first."""


class PolicyStep:
    """One decision. It is the policy's `Records`, too.

    An update whose files are not what they must be, or hold a value that is not finite, is rejected before the
    policy sees it, and so is one that is staler than the run allows. Held updates of evicted nodes, and those whose
    files are lost, are rejected first.

    Args:
        step: Its job, opened.

    Raises:
        RunFailed: The state is not the policy's, or it cannot go on without an update that is lost.
        WorkerError: The job has not just one answer.
    """

    def __init__(self, step: OpenStep) -> None:
        self._step, self._job, self._spec, self._form = step, step.job, step.spec, step.form
        if len(self._job.answers) != 1:
            raise WorkerError(f"{len(self._job.answers)} updates are to be decided on at once, and a policy takes one")
        (self._arrival,) = self._job.answers
        self._policy = load_policy(self._spec)
        self._gone = {held.number: EVICTED for held in self._job.held if held.node in self._job.evicted}
        self._gone |= {held.number: LOST for held in self._job.held if held.number in self._job.lost}
        self._held = {held.number: held for held in self._job.held if held.number not in self._gone}
        state_json = self._job.state_json
        self._was = OperationState.model_validate_json(state_json) if state_json else OperationState()
        policy_state = _canonical(self._was.policy) if self._was.policy is not None else ""
        before = self._policy.load_state(policy_state)
        self._policy_state = self._policy.dropped(before, sorted({*self._gone, *self._job.lost}))
        if needed := set(self._job.lost).intersection(self._policy.pinned(self._policy_state).updates):
            raise RunFailed(
                f"update {min(needed)} is lost, its files were damaged or missing on the coordinator, and the policy "
                f"{self._spec.aggregation.name!r} cannot go on without it; restore a backup of the coordinator, or "
                "submit the run anew"
            )

    # -- records

    def update(self, number: int) -> Vector:
        """The vector of an earlier update."""
        if number not in self._job.updates:
            raise WorkerError(f"no file was named for update {number}, which the policy's state refers to")
        return self._form.vector(self._job.updates[number], self._step.base)

    def held(self, number: int) -> Arrival:
        """An earlier update that is held."""
        if number not in self._held:
            raise WorkerError(f"update {number} is held by the policy's state, and was not named")
        held = self._held[number]
        vector = self._form.vector(held.parts, self._step.base)
        return Arrival(held.number, held.node, held.weight, held.base_version, vector)

    def model(self, version: int) -> MappedModel:
        """A model version."""
        return self._step.model(version)

    # -- the decision

    def result(self) -> StepResult:
        """What the policy decides, with the next version if there is one.

        Raises:
            LayoutError: A version or a state file is not of the layout.
            RunFailed: The policy cannot be applied.
            WorkerError: A file that the state refers to was not named.
        """
        job, sent = self._job, self._arrival
        admitted = self._admitted()
        if isinstance(admitted, Verdict):
            return self._answer(Decision((admitted,), self._policy_state), self._was.staleness)
        arrival = Arrival(sent.number, sent.node, sent.weight, sent.base_version, admitted.reader)
        weights = self._spec.weights
        context = AsyncContext(job.version, job.roster, self, weights.by, weights.max_share, self._spec.seed)
        decision = self._policy.decide(arrival, self._policy_state, context)
        if decision.step is None:
            return self._answer(decision, self._was.staleness)
        recent = self._recent(decision)
        optimizer = load_server_optimizer(self._spec)
        optimizer.begin(self._step.number, recent)
        buffers = self._buffers(decision.step, admitted)
        model, state = self._step.make(decision.step.direction, buffers, optimizer)
        answer = self._answer(decision, recent)
        return replace(answer, artifact=model.artifact, model_sha256=model.model_sha256, state=state)

    def _admitted(self) -> Admitted | Verdict:
        """The opened arrival, or why it is rejected before the policy sees it."""
        sent, limit = self._arrival, self._spec.max_staleness
        tau = self._job.version - sent.base_version
        if tau < 0:
            raise WorkerError(f"update {sent.number} is based on version {sent.base_version}, which is yet to come")
        numbers = {"staleness": float(tau)}
        if limit is not None and tau > limit:
            reason = f"{tau} versions old, and async.max_staleness is {limit}"
            return Verdict(sent.node, "rejected", reason, 0.0, numbers, sent.number)
        admitted, verdicts = admit([sent], self._form, self._step.base)
        if not admitted:
            return Verdict(sent.node, "rejected", verdicts[sent.node].reason, 0.0, numbers, sent.number)
        return admitted[0]

    def _recent(self, decision: Decision[Any]) -> tuple[int, ...]:
        """The staleness of the last accepted updates, this decision's among them."""
        bases = {sent.number: sent.base_version for sent in (self._arrival, *self._job.held)}
        fresh = [self._job.version - bases[v.number] for v in decision.verdicts if v.accepted]
        return (*self._was.staleness, *fresh)[-STALENESS_KEPT:]

    def _buffers(self, step: AsyncStep, arrival: Admitted) -> Tensor:
        """The raw buffers of the next version: those of the newest one, moved towards the updates' by `step.mixing`."""
        part, old = self._form.buffers, self._step.base.raw_buffers
        shares = {number: share for number, share in step.shares.items() if share > 0}
        if part is None or not shares or step.mixing <= 0:
            return old
        rows = [
            arrival.tensors[part.name]
            if number == self._arrival.number
            else self._form.raw(part, self._held[number].parts)
            for number in shares
        ]
        weights = torch.tensor(list(shares.values()), dtype=torch.float64)
        weights *= step.mixing / weights.sum()
        if step.mixing < 1:
            rows = [old, *rows]
            weights = torch.cat([torch.tensor([1 - step.mixing], dtype=torch.float64), weights])
        return combine_buffers(layout_of(part), rows, weights, step.buffers, old)

    def _answer(self, decision: Decision[Any], recent: tuple[int, ...]) -> StepResult:
        pinned: Pinned = self._policy.pinned(decision.state)
        reasons = self._gone
        gone = [
            Verdict(held.node, "rejected", reasons[held.number], number=held.number)
            for held in self._job.held
            if held.number in reasons
        ]
        after = OperationState(policy=decision.state.model_dump(mode="json"), staleness=recent)
        return StepResult(
            (*decision.verdicts, *gone),
            state_json=_canonical(after.model_dump(mode="json")),
            pinned_updates=pinned.updates,
            pinned_versions=pinned.versions,
        )


def _canonical(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
