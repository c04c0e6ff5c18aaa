"""Asynchronous runs in SQL: the order of arrival, decisions, the policy's state."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from covey.errors import Conflict
from covey.storage.record.contract import DecisionRecord, PolicyStateRecord, UpdateRecord, VersionRecord
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import (
    decision_record,
    decision_values,
    policy_state_record,
    policy_state_values,
    update_record,
)
from covey.storage.sql.schema import decisions, policy_states, rounds, updates
from covey.storage.sql.tables.rounds import ENDED, no_round
from covey.storage.sql.tables.updates import round_and_answer, write_outcome
from covey.storage.sql.tables.versions import write_version

_IN_RUN = decisions.c.run == bindparam("b_run")
_ADD = insert(decisions)
_ONE = select(decisions.c.round, decisions.c.state_sha256).where(
    _IN_RUN, decisions.c.decision == bindparam("b_decision")
)
_LAST = select(func.max(decisions.c.decision)).where(_IN_RUN)
_AFTER = select(decisions).where(_IN_RUN, decisions.c.decision > bindparam("b_after")).order_by(decisions.c.decision)
_STATE = select(policy_states).where(policy_states.c.run == bindparam("b_run"))
_DROP_STATE = delete(policy_states).where(policy_states.c.run == bindparam("b_run"))
_ADD_STATE = insert(policy_states)
_UNDECIDED = (
    select(updates)
    .join(rounds, and_(rounds.c.run == updates.c.run, rounds.c.round == updates.c.round))
    .where(
        rounds.c.run == bindparam("b_run"),
        rounds.c.state == "collecting",
        rounds.c.arrival.is_not(None),
        updates.c.verdict == "received",
    )
    .order_by(rounds.c.arrival)
    .limit(1)
)
_ROUND = and_(rounds.c.run == bindparam("b_run"), rounds.c.round == bindparam("b_round"))
_STATE_OF_ROUND = select(rounds.c.state).where(_ROUND)
_DECIDED = (
    update(rounds)
    .where(_ROUND)
    .values(
        state="decided",
        committed_at=bindparam("b_at"),
        bytes_received=bindparam("b_received"),
        bytes_sent=bindparam("b_sent"),
    )
)
_WENT_INTO = update(rounds).where(_ROUND).values(version=bindparam("b_version"))
_FAILED = update(rounds).where(_ROUND).values(state="failed", reason=bindparam("b_reason"))
_JUDGE = (
    update(updates)
    .where(
        updates.c.run == bindparam("b_run"),
        updates.c.round == bindparam("b_round"),
        updates.c.node == bindparam("b_node"),
        updates.c.digest != "",
    )
    .values(
        verdict=bindparam("b_verdict"),
        reason=bindparam("b_reason"),
        share=bindparam("b_share"),
        numbers=bindparam("b_numbers"),
    )
)


class SqlDecisions:
    """The methods of `Store` that concern asynchronous runs."""

    _db: Database

    def close_round(self, outcome: UpdateRecord, *, discard: bool = False) -> bool:
        """As `Store.close_round`."""
        where = {"b_run": outcome.run, "b_round": outcome.round}
        with self._db.writing() as connection:
            row = round_and_answer(connection, outcome)
            if row.state in ENDED:
                return bool(row.state == "failed")
            if row.digest and not discard:
                return False
            write_outcome(connection, outcome, row)
            connection.execute(_FAILED, where | {"b_reason": f"{outcome.verdict}: {outcome.reason}"})
            return True

    def next_arrival(self, run: str) -> UpdateRecord | None:
        """As `Store.next_arrival`."""
        with self._db.reading() as connection:
            row = connection.execute(_UNDECIDED, {"b_run": run}).one_or_none()
        return None if row is None else update_record(row)

    def decide(
        self,
        decision: DecisionRecord,
        state: PolicyStateRecord,
        verdicts: Sequence[UpdateRecord],
        version: VersionRecord | None,
        *,
        bytes_received: int,
        bytes_sent: int,
    ) -> None:
        """As `Store.decide`."""
        where = {"b_run": decision.run, "b_round": decision.round}
        with self._db.writing() as connection:
            if _is_recorded(connection, decision):
                return
            _check_next(connection, decision)
            if version is not None:
                write_version(connection, version)
            for judged in verdicts:
                _judge(connection, judged, version)
            totals = {"b_received": bytes_received, "b_sent": bytes_sent, "b_at": decision.decided_at}
            connection.execute(_DECIDED, where | totals)
            connection.execute(_ADD, decision_values(decision))
            connection.execute(_DROP_STATE, where)
            connection.execute(_ADD_STATE, policy_state_values(state))

    def decisions(self, run: str, after: int = 0) -> list[DecisionRecord]:
        """As `Store.decisions`."""
        with self._db.reading() as connection:
            return [decision_record(row) for row in connection.execute(_AFTER, {"b_run": run, "b_after": after})]

    def policy_state(self, run: str) -> PolicyStateRecord | None:
        """As `Store.policy_state`."""
        with self._db.reading() as connection:
            row = connection.execute(_STATE, {"b_run": run}).one_or_none()
        return None if row is None else policy_state_record(row)


def _is_recorded(connection: Connection, decision: DecisionRecord) -> bool:
    """Whether just this decision is recorded under its number. Raises `Conflict`: another one is."""
    where = {"b_run": decision.run, "b_decision": decision.decision}
    found = connection.execute(_ONE, where).one_or_none()
    if found is None:
        return False
    if (found.round, found.state_sha256) != (decision.round, decision.state_sha256):
        raise Conflict(f"run {decision.run} has another decision {decision.decision} already: on round {found.round}")
    return True


def _check_next(connection: Connection, decision: DecisionRecord) -> None:
    where = {"b_run": decision.run, "b_round": decision.round}
    last = connection.execute(_LAST, where).scalar() or 0
    if decision.decision != last + 1:
        raise Conflict(f"decision {last + 1} of run {decision.run} is next, not {decision.decision}")
    state = connection.execute(_STATE_OF_ROUND, where).scalar()
    if state is None:
        raise no_round(decision.run, decision.round)
    if state != "collecting":
        raise Conflict(f"round {decision.round} of run {decision.run} is {state}")
    first = connection.execute(_UNDECIDED, where).one_or_none()
    if first is None or first.round != decision.round:
        waiting = "no update" if first is None else f"the update of round {first.round}"
        raise Conflict(f"round {decision.round} of run {decision.run} is not next: {waiting} is to be decided on")


def _judge(connection: Connection, judged: UpdateRecord, version: VersionRecord | None) -> None:
    where = {"b_run": judged.run, "b_round": judged.round}
    values = {"b_node": judged.node, "b_verdict": judged.verdict, "b_reason": judged.reason, "b_share": judged.share}
    done = connection.execute(_JUDGE, where | values | {"b_numbers": dict(judged.numbers)})
    if done.rowcount != 1:
        raise Conflict(f"round {judged.round} of run {judged.run} has no update of {judged.node}")
    if version is not None and judged.verdict == "accepted":
        connection.execute(_WENT_INTO, where | {"b_version": version.version})
