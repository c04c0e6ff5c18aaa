"""What the round machine starts from: its numbers, and what the record knows of an unfinished run."""

from __future__ import annotations

from dataclasses import replace

from covey.coordinator.modes.rounds.events import Restored, RoundPolicy
from covey.coordinator.runs.ports import FOREVER_S
from covey.coordinator.runs.steps.evaluation import unevaluated_versions
from covey.coordinator.runs.steps.preparation import Prepared
from covey.coordinator.runs.steps.stopping import known_to_stop
from covey.machines.attendance import WINDOW_ROUNDS
from covey.machines.stopping import NO_RULES, StopRules
from covey.storage.record.contract import RoundRecord, Store


def round_policy_of(prepared: Prepared, stop: StopRules = NO_RULES, *, keeps_deadlines: bool = True) -> RoundPolicy:
    """The machine's numbers, from a specification and from what its task and rule need; `stop`: what ends it before."""
    rounds, last = prepared.spec.rounds, prepared.description.last_round
    return RoundPolicy(
        count=rounds.count if last is None else last,
        why_last=prepared.description.why_last,
        participants=rounds.participants,
        min_nodes=max(rounds.min_nodes, prepared.description.aggregator_min),
        quorum=rounds.quorum,
        deadline_s=rounds.deadline_s if keeps_deadlines else FOREVER_S,
        hard_deadline_s=rounds.hard_deadline_s if keeps_deadlines else FOREVER_S,
        rejoin_s=rounds.rejoin_s,
        max_retries=rounds.max_retries,
        fail_when_short=rounds.short == "fail",
        seed=prepared.spec.seed,
        phases=prepared.description.phases,
        only=prepared.spec.evaluation.nodes,
        evaluate_every=prepared.spec.evaluation.every,
        evaluate_centrally=prepared.evaluates_centrally,
        evaluate_on_nodes=prepared.evaluates_on_nodes,
        stop=stop,
    )


def restore(store: Store, run: str, policy: RoundPolicy) -> Restored:
    """What the record knows of a run. Blocking."""
    rounds = store.rounds(run, limit=2, newest=True)  # the open one, and the last that ended before it
    committed = max((record.round for record in rounds if record.state == "committed"), default=0)
    unevaluated: tuple[int, ...] = ()
    if policy.evaluate_centrally:
        unevaluated = unevaluated_versions(store, run, policy.evaluate_every, policy.count)
    attendance = tuple(store.verdicts(run, after=max(0, committed - WINDOW_ROUNDS), upto=committed))
    current = next((record for record in rounds if record.round == committed + 1), None)
    values, sent_bytes = known_to_stop(store, run, policy.stop, central=policy.evaluate_centrally)
    known = Restored(
        committed=committed, attendance=attendance, unevaluated=unevaluated, values=values, sent_bytes=sent_bytes
    )
    if current is None or current.state not in ("collecting", "aggregating"):
        return known
    answers = store.updates(run, current.round)
    params = opened_with(store, current)
    return replace(
        known,
        round=current.round,
        attempt=current.attempt,
        aggregating=current.state == "aggregating",
        invited=current.invited,
        answers={answer.node: answer.verdict for answer in answers if answer.phase == 1},
        reasons={answer.node: answer.reason for answer in answers if answer.reason},
        phase=current.phase,
        asked=tuple(params),
        phase_answers={a.node: a.verdict for a in answers if a.phase == current.phase > 1 and a.node in params},
    )


def opened_with(store: Store, current: RoundRecord) -> dict[str, str]:
    """The nodes that are asked in a round's present phase, if it is not the first, and with what. Blocking."""
    if current.phase == 1:
        return {}
    step = store.last_step(current.run)
    return {} if step is None else {str(item["node"]): str(item["params"]) for item in step.opens}
