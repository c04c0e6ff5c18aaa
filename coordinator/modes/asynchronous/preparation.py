"""What the machine of mode `async` starts from: its numbers, and what the record knows of an unfinished run."""

from __future__ import annotations

from covey.coordinator.modes.asynchronous.events import AsyncPolicy, AsyncRestored, OpenWork
from covey.coordinator.runs.preparation import Prepared
from covey.storage.record.contract import RoundRecord, Store, VersionRecord


def async_policy_of(prepared: Prepared) -> AsyncPolicy:
    """The machine's numbers, from a specification and from what its task and policy need."""
    spec, said = prepared.spec, prepared.description
    return AsyncPolicy(
        updates=spec.rounds_in_all,
        min_nodes=max(spec.min_nodes, said.aggregator_min),
        deadline_s=spec.deadline_s,
        rejoin_s=spec.rounds.rejoin_s,
        max_retries=spec.rounds.max_retries,
        fail_when_short=spec.rounds.short == "fail",
        evaluate_every=spec.evaluation.every,
        evaluate_centrally=said.central and spec.evaluation.where != "nodes",
        evaluate_on_nodes=spec.evaluation.where != "central",
    )


def restore(store: Store, run: str, policy: AsyncPolicy) -> AsyncRestored:
    """What the record knows of a run. Blocking."""
    rounds, state = store.rounds(run), store.policy_state(run)
    decided, newest = state.decision if state else 0, store.version(run, -1).version
    collecting = [one for one in rounds if one.state == "collecting"]
    return AsyncRestored(
        decided=decided,
        last_number=rounds[-1].round if rounds else 0,
        version=newest,
        open={_node(one): OpenWork(one.round, one.base_version) for one in collecting if one.arrival is None},
        undecided={one.round: _node(one) for one in collecting if one.arrival is not None},
        unevaluated=_due(store.versions(run), policy, newest if decided >= policy.updates else -1),
    )


def _node(assignment: RoundRecord) -> str:
    return assignment.invited[0]


def _due(versions: list[VersionRecord], policy: AsyncPolicy, last: int) -> tuple[int, ...]:
    every = policy.evaluate_every
    if not (policy.evaluate_centrally and every):
        return ()
    due = [v for v in versions if v.kept and not v.evaluated and v.version > 0]
    return tuple(v.version for v in due if v.version % every == 0 or v.version == last)
