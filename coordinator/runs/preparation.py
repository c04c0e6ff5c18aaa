"""What a run needs before its first round: a checked specification, version 0, and what is known of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from covey.coordinator.modes.rounds.events import Restored, RoundPolicy
from covey.layout import Layout
from covey.parts import DeclaredPart, sent
from covey.spec import RunSpec, parse_json
from covey.storage.record.contract import RunRecord, Store, VersionRecord
from covey.worker.jobs.operations import DESCRIBE, INITIAL
from covey.worker.jobs.runs import DescribeJob, Description, InitialJob

if TYPE_CHECKING:
    from covey.coordinator.environment import Environment


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its rounds."""

    run: RunRecord
    spec: RunSpec
    layout: Layout
    newest: VersionRecord
    policy: RoundPolicy
    restored: Restored
    description: Description
    """What the worker said of the specification."""

    def slot_bytes(self) -> dict[str, int]:
        """The files that a version has beside the model, and about how large they are."""
        return dict(self.description.slots)

    def sent(self, phase: int = 1) -> tuple[DeclaredPart, ...]:
        """The parts that each node sends in a phase of a round, in the order of its statement."""
        return sent(self.description.parts, phase)


async def prepare(env: Environment, run: RunRecord) -> Prepared:
    """Bring a queued or running run to where its round machine can start; makes version 0 if there is none.

    Raises:
        CoveyError: The task, rule, codec or optimizer cannot be used here.
    """
    spec = parse_json(run.spec)
    description = await env.worker.do(DESCRIBE, DescribeJob(run.spec, env.config.allow_paths))
    if run.state == "queued":
        run = await _start(env, run, spec)
    newest = await env.store.persist(env.store.store.version, run.run, -1)
    restored = await env.store.persist(_restore, env.store.store, run, spec, description.central)
    return Prepared(
        run, spec, Layout.from_json(run.layout), newest, policy_of(spec, description), restored, description
    )


async def _start(env: Environment, run: RunRecord, spec: RunSpec) -> RunRecord:
    out = env.files.scratch(0)
    made = await env.worker.do(INITIAL, InitialJob(run.run, run.spec, out, env.config.allow_paths))
    env.files.adopt(out, made.artifact)
    now = env.now()
    first = VersionRecord(run.run, 0, made.model_sha256, made.artifact, now)
    parts = spec.data.parts or 0
    store = env.store
    await store.persist(store.store.start_run, run.run, (), parts, made.layout, first, now)
    return replace(run, state="running", started_at=now, layout=made.layout, parts=parts)


def policy_of(spec: RunSpec, description: Description) -> RoundPolicy:
    """The machine's numbers from a specification and from what its task and rule need."""
    rounds, evaluation = spec.rounds, spec.evaluation
    return RoundPolicy(
        count=rounds.count,
        participants=rounds.participants,
        min_nodes=max(rounds.min_nodes, description.aggregator_min),
        quorum=rounds.quorum,
        deadline_s=rounds.deadline_s,
        hard_deadline_s=rounds.hard_deadline_s,
        rejoin_s=rounds.rejoin_s,
        max_retries=rounds.max_retries,
        fail_when_short=rounds.short == "fail",
        seed=spec.seed,
        evaluate_every=evaluation.every,
        evaluate_centrally=description.central and evaluation.where != "nodes",
        evaluate_on_nodes=evaluation.where != "central",
    )


def _restore(store: Store, run: RunRecord, spec: RunSpec, central: bool) -> Restored:
    if spec.mode != "rounds":
        return Restored()
    rounds = store.rounds(run.run)
    committed = [record.round for record in rounds if record.state == "committed"]
    last = max(committed, default=0)
    unevaluated = tuple(_due(store, run, spec)) if central and spec.evaluation.where != "nodes" else ()
    current = next((record for record in rounds if record.round == last + 1), None)
    if current is None or current.state not in ("collecting", "aggregating"):
        return Restored(committed=last, unevaluated=unevaluated)
    return Restored(
        committed=last,
        round=current.round,
        attempt=current.attempt,
        aggregating=current.state == "aggregating",
        invited=current.invited,
        answers={update.node: update.verdict for update in store.updates(run.run, current.round)},
        unevaluated=unevaluated,
    )


def _due(store: Store, run: RunRecord, spec: RunSpec) -> list[int]:
    every = spec.evaluation.every
    wanted: Callable[[int], bool] = lambda n: bool(every) and n > 0 and (n == spec.rounds.count or n % every == 0)  # noqa: E731
    return [v.version for v in store.versions(run.run) if v.kept and not v.evaluated and wanted(v.version)]
