"""What the machine of mode `async` starts from: its numbers, and what the record knows of an unfinished run."""

from __future__ import annotations

from covey.coordinator.modes.asynchronous.events import AsyncRestored, AsyncRunPolicy, OpenWork
from covey.coordinator.runs.ports import FOREVER_S
from covey.coordinator.runs.steps.evaluation import unevaluated_versions
from covey.coordinator.runs.steps.preparation import Prepared
from covey.coordinator.runs.steps.stopping import known_to_stop
from covey.machines.stopping import NO_RULES, StopRules
from covey.storage.record.contract import RoundRecord, Store


def async_run_policy_of(
    prepared: Prepared, stop: StopRules = NO_RULES, *, keeps_deadlines: bool = True
) -> AsyncRunPolicy:
    """The machine's numbers, from a specification and from what its task and policy need; `stop`: what ends it."""
    spec = prepared.spec
    return AsyncRunPolicy(
        updates=spec.rounds_in_all,
        min_nodes=max(spec.min_nodes, prepared.description.aggregator_min),
        deadline_s=spec.deadline_s if keeps_deadlines else FOREVER_S,
        hard_deadline_s=spec.rounds.hard_deadline_s if keeps_deadlines else FOREVER_S,
        rejoin_s=spec.rounds.rejoin_s,
        max_retries=spec.rounds.max_retries,
        fail_when_short=spec.rounds.short == "fail",
        evaluate_every=spec.evaluation.every,
        evaluate_centrally=prepared.evaluates_centrally,
        evaluate_on_nodes=prepared.evaluates_on_nodes,
        stop=stop,
    )


def restore(store: Store, run: str, policy: AsyncRunPolicy) -> AsyncRestored:
    """What the record knows of a run. Blocking."""
    last, step = store.rounds(run, limit=1, newest=True), store.last_step(run)
    decided, newest = step.number if step else 0, store.version(run, -1).version
    unevaluated: tuple[int, ...] = ()
    if policy.evaluate_centrally:
        newest_due = newest if decided >= policy.updates else -1
        unevaluated = unevaluated_versions(store, run, policy.evaluate_every, newest_due)
    collecting = store.rounds(run, states=("collecting",))
    values, sent_bytes = known_to_stop(store, run, policy.stop, central=policy.evaluate_centrally)
    return AsyncRestored(
        decided=decided,
        last_number=last[-1].round if last else 0,
        version=newest,
        open={
            _node(assignment): OpenWork(assignment.round, assignment.base_version)
            for assignment in collecting
            if assignment.arrival is None
        },
        undecided={assignment.round: _node(assignment) for assignment in collecting if assignment.arrival is not None},
        unevaluated=unevaluated,
        values=values,
        sent_bytes=sent_bytes,
    )


def _node(assignment: RoundRecord) -> str:
    return assignment.invited[0]
