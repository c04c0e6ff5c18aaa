"""Deciding on one update of an asynchronous run, and making the next version where the policy wants one.

The result depends on the job alone, so that a decision that was lost in a crash, or is replayed, comes out the same.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from covey import faults
from covey.aggregation.asynchronous.contract import (
    ASYNC_POLICIES,
    Arrival,
    AsyncContext,
    AsyncPolicy,
    AsyncStep,
    AsyncVerdict,
    Decision,
    Pinned,
    PolicyState,
)
from covey.aggregation.buffers import combine_buffers
from covey.errors import WorkerError
from covey.layout import Layout
from covey.learning.state import ModelFile
from covey.spec import RunSpec, parse_json
from covey.vectors import Vector
from covey.worker.execute.from_spec import load_server_optimizer
from covey.worker.execute.next_version import Step, StepFiles, make_version
from covey.worker.execute.update_form import UpdateForm, layout_of
from covey.worker.execute.validate_updates import Admitted, admit
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs import decisions as dm
from covey.worker.jobs.aggregation import AggregateRow
from covey.worker.jobs.files import WrittenFile
from covey.worker.program.host import Host

STALENESS_KEPT = 100
"""Of how many accepted updates the staleness is remembered, for the server optimizer."""


class OperationState(PolicyState):
    """What is remembered from decision to decision: `state_json`."""

    policy: JsonValue = None
    """The policy's own state; None at first."""
    staleness: tuple[int, ...] = ()
    """Of the last accepted updates, oldest first."""


def load_policy(spec: RunSpec) -> AsyncPolicy[Any]:
    """The run's policy.

    Raises:
        PluginError: Not installed here.
        SpecError: Its options are wrong.
    """
    return ASYNC_POLICIES.make(spec.aggregation.name, spec.aggregation.options)


def decide(job: dm.DecideJob, host: Host) -> dm.DecideResult:
    """Decide on the job's arrival.

    An update whose files are not what they must be, or hold a value that is not finite, is rejected before the
    policy sees it, and so is one that is staler than the run allows. Held updates of evicted nodes are rejected first.

    Raises:
        LayoutError: A version or a state file is not of the layout.
        RunFailed: The policy cannot be applied.
        WorkerError: A file that the state refers to was not named.
    """
    began = time.monotonic()
    torch.set_num_threads(1)  # an evaluation may have set another number, on which sums depend
    return replace(_Deciding(job).result(host), seconds=time.monotonic() - began)


class _Deciding:
    """One decision. It is the policy's `Records`, too."""

    def __init__(self, job: dm.DecideJob) -> None:
        self._job, self._spec, self._layout = job, parse_json(job.spec_json), Layout.from_json(job.layout)
        self._form, self._policy = UpdateForm(self._spec, self._layout), load_policy(self._spec)
        self._gone = tuple(one for one in job.held if one.node in job.evicted)
        self._held = {one.number: one for one in job.held if one not in self._gone}
        self._newest = self._open(job.version)
        self._was = OperationState.model_validate_json(job.state_json) if job.state_json else OperationState()
        policy_state = _canonical(self._was.policy) if self._was.policy is not None else ""
        before = self._policy.load_state(policy_state)
        self._policy_state = self._policy.dropped(before, [one.number for one in self._gone])

    # -- records

    def update(self, number: int) -> Vector:
        """The vector of an earlier update."""
        if number not in self._job.updates:
            raise WorkerError(f"no file was named for update {number}, which the policy's state refers to")
        return self._form.vector(self._job.updates[number], self._newest)

    def held(self, number: int) -> Arrival:
        """An earlier update that is held."""
        if number not in self._held:
            raise WorkerError(f"update {number} is held by the policy's state, and was not named")
        one = self._held[number]
        return Arrival(one.number, one.node, one.weight, one.base_version, self._form.vector(one.parts, self._newest))

    def model(self, version: int) -> MappedModel:
        """A model version."""
        return self._newest if version == self._job.version else self._open(version)

    def _open(self, version: int) -> MappedModel:
        if version not in self._job.models:
            raise WorkerError(f"no file was named for version {version}, which is needed")
        return MappedModel(self._job.models[version], self._layout)

    # -- the decision

    def result(self, host: Host) -> dm.DecideResult:
        """What the policy decides, with the next version if there is one."""
        job = self._job
        found = self._admitted()
        if isinstance(found, AsyncVerdict):
            return self._answer(Decision((found,), self._policy_state), None, (), self._was.staleness)
        arrival = Arrival(
            job.arrival.number, job.arrival.node, job.arrival.weight, job.arrival.base_version, found.reader
        )
        weights = self._spec.weights
        context = AsyncContext(job.version, job.roster, self, weights.by, weights.max_share, self._spec.seed)
        decision = self._policy.decide(arrival, self._policy_state, context)
        if decision.step is None:
            return self._answer(decision, None, (), self._was.staleness)
        recent = self._recent(decision)
        made, state = self._make(decision.step, found, recent, host)
        return self._answer(decision, made, state, recent)

    def _admitted(self) -> Admitted | AsyncVerdict:
        """The opened arrival, or why it is rejected before the policy sees it."""
        one, limit = self._job.arrival, self._spec.max_staleness
        tau = self._job.version - one.base_version
        if tau < 0:
            raise WorkerError(f"update {one.number} is based on version {one.base_version}, which is yet to come")
        numbers = {"staleness": float(tau)}
        if limit is not None and tau > limit:
            reason = f"{tau} versions old, and async.max_staleness is {limit}"
            return AsyncVerdict(one.number, one.node, "rejected", reason, 0.0, numbers)
        row = AggregateRow(one.node, one.weight, one.parts)
        admitted, verdicts = admit([row], self._form, self._newest)
        if not admitted:
            return AsyncVerdict(one.number, one.node, "rejected", verdicts[one.node].reason, 0.0, numbers)
        return admitted[0]

    def _recent(self, decision: Decision[Any]) -> tuple[int, ...]:
        """The staleness of the last accepted updates, this decision's among them."""
        bases = {one.number: one.base_version for one in (self._job.arrival, *self._job.held)}
        fresh = [self._job.version - bases[v.number] for v in decision.verdicts if v.verdict == "accepted"]
        return (*self._was.staleness, *fresh)[-STALENESS_KEPT:]

    def _make(
        self, step: AsyncStep, arrival: Admitted, recent: tuple[int, ...], host: Host
    ) -> tuple[ModelFile, tuple[WrittenFile, ...]]:
        job, number = self._job, self._job.version + 1
        optimizer = load_server_optimizer(self._spec)
        optimizer.begin(number, recent)

        def each_block() -> None:
            faults.reach("aggregate-block")
            host.check_cancelled()

        doing = Step(
            number=number,
            direction=step.direction,
            sign=-1.0 if self._spec.exchange.payload == "gradient" else 1.0,
            buffers=self._buffers(step, arrival),
            optimizer=optimizer,
            kept={},
        )
        files = StepFiles(job.state, job.out, job.out_state)
        return make_version(files, self._layout, self._newest, doing, each_block)

    def _buffers(self, step: AsyncStep, arrival: Admitted) -> Tensor:
        """The raw buffers of the next version: those of the newest one, moved towards the updates' by `step.mixing`."""
        part, old = self._form.buffers, self._newest.raw_buffers
        shares = {number: share for number, share in step.shares.items() if share > 0}
        if part is None or not shares or step.mixing <= 0:
            return old
        rows = [
            arrival.tensors[part.name]
            if number == self._job.arrival.number
            else self._form.raw(part, self._held[number].parts)
            for number in shares
        ]
        weights = torch.tensor(list(shares.values()), dtype=torch.float64)
        weights *= step.mixing / weights.sum()
        if step.mixing < 1:
            rows = [old, *rows]
            weights = torch.cat([torch.tensor([1 - step.mixing], dtype=torch.float64), weights])
        return combine_buffers(layout_of(part), rows, weights, step.buffers, old)

    def _answer(
        self, decision: Decision[Any], made: ModelFile | None, state: tuple[WrittenFile, ...], recent: tuple[int, ...]
    ) -> dm.DecideResult:
        pinned: Pinned = self._policy.pinned(decision.state)
        gone = [AsyncVerdict(one.number, one.node, "rejected", dm.EVICTED) for one in self._gone]
        after = OperationState(policy=decision.state.model_dump(mode="json"), staleness=recent)
        return dm.DecideResult(
            verdicts=tuple(_message(verdict) for verdict in (*decision.verdicts, *gone)),
            state_json=_canonical(after.model_dump(mode="json")),
            pinned_updates=pinned.updates,
            pinned_versions=pinned.versions,
            artifact=made.artifact if made else None,
            model_sha256=made.model_sha256 if made else "",
            state=state,
        )


def _message(verdict: AsyncVerdict) -> dm.AsyncVerdict:
    return dm.AsyncVerdict(
        verdict.number, verdict.node, verdict.verdict, verdict.reason, verdict.share, dict(verdict.numbers)
    )


def _canonical(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
