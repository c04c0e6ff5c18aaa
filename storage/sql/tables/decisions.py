"""Asynchronous runs in SQL: the order of arrival, and decisions."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, select, update
from typing_extensions import override

from covey.errors import Conflict
from covey.storage.record.contract import DecisionRecord, PolicyStateRecord, UpdateRecord, VersionRecord
from covey.storage.record.steps import Steps
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import PHASE, UPDATE_COLUMNS, decision_values, update_record
from covey.storage.sql.schema import assignments, groups, steps
from covey.storage.sql.tables.rounds import no_round
from covey.storage.sql.tables.steps import add_step_of_decision
from covey.storage.sql.tables.versions import write_version

_STEP = and_(steps.c.run == bindparam("b_run"), steps.c.number == bindparam("b_number"))
_IDENTITY = select(steps.c.cause, steps.c.state_sha256).where(_STEP)
_LAST = select(steps.c.number).where(steps.c.run == bindparam("b_run")).order_by(steps.c.number.desc()).limit(1)
_DROP_STATE = update(steps).where(_STEP).values(state="")
_UNDECIDED = (
    select(*UPDATE_COLUMNS)
    .join(groups, and_(groups.c.run == assignments.c.run, groups.c.number == assignments.c.group_number))
    .where(
        groups.c.run == bindparam("b_run"),
        groups.c.state == "collecting",
        groups.c.arrival.is_not(None),
        assignments.c.verdict == "received",
    )
    .order_by(groups.c.arrival)
    .limit(1)
)
_GROUP = and_(groups.c.run == bindparam("b_run"), groups.c.number == bindparam("b_round"))
_STATE_OF_GROUP = select(groups.c.state).where(_GROUP)
_DECIDED = (
    update(groups)
    .where(_GROUP)
    .values(
        state="decided",
        committed_at=bindparam("b_at"),
        bytes_received=bindparam("b_received"),
        bytes_sent=bindparam("b_sent"),
    )
)
_WENT_INTO = update(groups).where(_GROUP).values(version=bindparam("b_version"))
_JUDGE = (
    update(assignments)
    .where(
        assignments.c.run == bindparam("b_run"),
        assignments.c.group_number == bindparam("b_round"),
        assignments.c.phase == PHASE,
        assignments.c.node == bindparam("b_node"),
        assignments.c.digest != "",
    )
    .values(
        verdict=bindparam("b_verdict"),
        reason=bindparam("b_reason"),
        share=bindparam("b_share"),
        numbers=bindparam("b_numbers"),
    )
)


class SqlDecisions(Steps):
    """The methods of `Store` that take answers in the order of their arrival."""

    _db: Database

    @override
    def next_arrival(self, run: str) -> UpdateRecord | None:
        with self._db.reading() as connection:
            row = connection.execute(_UNDECIDED, {"b_run": run}).one_or_none()
        return None if row is None else update_record(row)

    @override
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
            _add_step(connection, decision, state, verdicts)
            touched = self._db.touched(decision.run)
            touched.steps.add(decision.decision)
            touched.groups.update({decision.round, *(judged.round for judged in verdicts)})
            if version is not None:
                touched.versions.add(version.version)


def _add_step(
    connection: Connection, decision: DecisionRecord, state: PolicyStateRecord, verdicts: Sequence[UpdateRecord]
) -> None:
    accepted, rejected = (sum(judged.verdict == verdict for judged in verdicts) for verdict in ("accepted", "rejected"))
    add_step_of_decision(connection, decision_values(decision, state), accepted, rejected)
    if decision.decision > 1:
        connection.execute(_DROP_STATE, {"b_run": decision.run, "b_number": decision.decision - 1})


def _is_recorded(connection: Connection, decision: DecisionRecord) -> bool:
    """Whether just this decision is recorded under its number. Raises `Conflict`: another one is."""
    where = {"b_run": decision.run, "b_number": decision.decision}
    row = connection.execute(_IDENTITY, where).one_or_none()
    if row is None:
        return False
    if (row.cause, row.state_sha256) != ([[decision.round, PHASE]], decision.state_sha256):
        raise Conflict(
            f"run {decision.run} has another decision {decision.decision} already: on round {row.cause[0][0]}"
        )
    return True


def _check_next(connection: Connection, decision: DecisionRecord) -> None:
    where = {"b_run": decision.run, "b_round": decision.round}
    last = connection.execute(_LAST, where).scalar() or 0
    if decision.decision != last + 1:
        raise Conflict(f"decision {last + 1} of run {decision.run} is next, not {decision.decision}")
    state = connection.execute(_STATE_OF_GROUP, where).scalar()
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
