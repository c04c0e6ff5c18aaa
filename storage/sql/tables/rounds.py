"""Rounds in SQL: open and close."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from typing_extensions import override

from covey.errors import Conflict, NotFound
from covey.machines.protocol import NO_UPDATE
from covey.storage.record.contract import RoundRecord, RoundState
from covey.storage.record.rounds import Rounds
from covey.storage.sql.database import Database
from covey.storage.sql.hot import HotStatement
from covey.storage.sql.mapping import COUNTED_VERDICTS, ROUND_COLUMNS, AnyRow, round_record, round_values
from covey.storage.sql.schema import assignments, groups, runs, versions
from covey.storage.sql.tables.tallies import SHORTFALL, last_reasons

ENDED = ("committed", "decided", "failed")
_ADD = HotStatement(insert(groups))
_IN_RUN = groups.c.run == bindparam("b_run")
_WHERE = and_(_IN_RUN, groups.c.number == bindparam("b_round"))
_BARE = HotStatement(select(groups.c.state, groups.c.attempt, groups.c.phase, groups.c.base_version).where(_WHERE))
_RUN_AND_BASE = HotStatement(
    select(runs.c.state, versions.c.version)
    .select_from(runs)
    .outerjoin(versions, and_(versions.c.run == runs.c.run, versions.c.version == bindparam("b_version")))
    .where(runs.c.run == bindparam("b_run"))
)
_NEW_ATTEMPT = (
    update(groups)
    .where(_WHERE)
    .values(
        state="collecting",
        phase=1,
        attempt=bindparam("b_attempt"),
        invited=bindparam("b_invited"),
        attempt_at=bindparam("b_at"),
        reason=bindparam("b_reason"),
    )
)
_IN_GROUP = and_(assignments.c.run == bindparam("b_run"), assignments.c.group_number == bindparam("b_round"))
_FORGET = delete(assignments).where(
    _IN_GROUP, assignments.c.verdict.in_(NO_UPDATE), assignments.c.node.in_(bindparam("b_nodes", expanding=True))
)
_AGGREGATING = HotStatement(update(groups).where(_WHERE).values(state="aggregating"))


def _counted(verdict: str) -> ColumnElement[int]:
    """How many nodes of a group have a verdict, in whatever phase: found in an index, for each group that is shown."""
    return (
        select(func.count(assignments.c.node.distinct()))
        .where(
            assignments.c.run == groups.c.run,
            assignments.c.group_number == groups.c.number,
            assignments.c.verdict == verdict,
        )
        .correlate(groups)
        .scalar_subquery()
        .label(verdict)
    )


_RECEIVED_BYTES = (
    select(cast(func.coalesce(func.sum(assignments.c.bytes), 0), BigInteger))
    .where(assignments.c.run == groups.c.run, assignments.c.group_number == groups.c.number)
    .correlate(groups)
    .scalar_subquery()
)
_SO_FAR = case((groups.c.state.in_(("collecting", "aggregating")), _RECEIVED_BYTES), else_=groups.c.bytes_received)
"""What an open round has received is in its answers: the sum is written with its end."""
_SHOWN = (
    select(
        *(column for column in ROUND_COLUMNS if column.name != "bytes_received"),
        _SO_FAR.label("bytes_received"),
        *map(_counted, COUNTED_VERDICTS),
        versions.c.metrics,
    )
    .select_from(groups)
    .outerjoin(versions, and_(versions.c.run == groups.c.run, versions.c.version == groups.c.version))
)
_ONE = _SHOWN.where(_WHERE)
_OF_RUN = _SHOWN.where(_IN_RUN)


def _has_shortfall(row: AnyRow) -> bool:
    """Whether some node of a round has no update that counts."""
    return any(row._mapping[verdict] for verdict in SHORTFALL)


def no_round(run: str, number: int) -> NotFound:
    """The error of a round that is not recorded."""
    return NotFound(f"run {run} has no round {number}")


class SqlRounds(Rounds):
    """The methods of `Store` that concern rounds."""

    _db: Database

    @override
    def open_round(self, record: RoundRecord) -> None:
        where = {"b_run": record.run, "b_round": record.round}
        with self._db.writing() as connection:
            row: AnyRow | None = _BARE.row(connection, where)
            if row is None:
                _check_run(connection, record)
                _ADD.run(connection, round_values(record))
            elif _is_new_attempt(row, record):
                connection.execute(_FORGET, where | {"b_nodes": list(record.invited)})
                values = {"b_attempt": record.attempt, "b_invited": list(record.invited)}
                connection.execute(
                    _NEW_ATTEMPT, where | values | {"b_at": record.attempt_at, "b_reason": record.reason}
                )

    @override
    def rounds(
        self,
        run: str,
        *,
        after: int = 0,
        limit: int | None = None,
        newest: bool = False,
        states: Sequence[RoundState] = (),
    ) -> list[RoundRecord]:
        # A sum, so that the few rounds in a state are found by their state, and not among all by their number.
        number = groups.c.number + 0 if states else groups.c.number
        query = _OF_RUN.order_by(number.desc() if newest else number)
        query = query.where(groups.c.state.in_(states)) if states else query
        query = query.where(number > after) if after else query
        query = query if limit is None else query.limit(limit)
        with self._db.reading() as connection:
            rows = connection.execute(query, {"b_run": run}).all()
            reasons = last_reasons(connection, run, [row.round for row in rows if _has_shortfall(row)])
        return [round_record(row, reasons.get(row.round, "")) for row in (reversed(rows) if newest else rows)]

    @override
    def round(self, run: str, number: int) -> RoundRecord:
        with self._db.reading() as connection:
            row = connection.execute(_ONE, {"b_run": run, "b_round": number}).one_or_none()
            if row is None:
                raise no_round(run, number)
            reasons = last_reasons(connection, run, [number] if _has_shortfall(row) else [])
        return round_record(row, reasons.get(number, ""))

    @override
    def begin_aggregation(self, run: str, number: int) -> None:
        where = {"b_run": run, "b_round": number}
        with self._db.writing() as connection:
            row = _BARE.row(connection, where)
            if row is None:
                raise no_round(run, number)
            if row.state == "collecting":
                _AGGREGATING.run(connection, where)
            elif row.state != "aggregating":
                raise Conflict(f"round {number} of run {run} is {row.state}")


def _check_run(connection: Connection, record: RoundRecord) -> None:
    where = {"b_run": record.run, "b_version": record.base_version}
    row = _RUN_AND_BASE.row(connection, where)
    if row is None:
        raise NotFound(f"there is no run {record.run!r}")
    if row.state != "running":
        raise Conflict(f"round {record.round} cannot be opened: run {record.run} is {row.state}")
    if row.version is None:
        raise Conflict(f"round {record.round} cannot start from version {record.base_version}, which is not recorded")


def _is_new_attempt(row: AnyRow, record: RoundRecord) -> bool:
    """Whether a recorded round is to be tried again; False if just this attempt is recorded already."""
    if row.state in ENDED:
        raise Conflict(f"round {record.round} of run {record.run} is {row.state}")
    if row.base_version != record.base_version:
        raise Conflict(f"round {record.round} of run {record.run} starts from version {row.base_version}")
    if record.attempt < row.attempt:
        raise Conflict(f"round {record.round} of run {record.run} is in attempt {row.attempt} already")
    return bool(record.attempt > row.attempt)
