"""Rounds in SQL: open, close, commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, delete, func, insert, select, update

from covey.errors import Conflict, NotFound
from covey.storage.record.contract import RoundRecord, UpdateRecord, VersionRecord
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import AnyRow, round_record, round_values
from covey.storage.sql.schema import rounds, runs, updates, versions
from covey.storage.sql.tables.versions import same_version, write_version

ENDED = ("committed", "decided", "failed")
_ADD = insert(rounds)
_WHERE = and_(rounds.c.run == bindparam("b_run"), rounds.c.round == bindparam("b_round"))
_BARE = select(rounds.c.state, rounds.c.attempt, rounds.c.base_version).where(_WHERE)
_RUN_STATE = select(runs.c.state).where(runs.c.run == bindparam("b_run"))
_BASE = select(versions.c.version).where(
    versions.c.run == bindparam("b_run"), versions.c.version == bindparam("b_version")
)
_NEW_ATTEMPT = (
    update(rounds)
    .where(_WHERE)
    .values(
        state="collecting",
        attempt=bindparam("b_attempt"),
        invited=bindparam("b_invited"),
        attempt_at=bindparam("b_at"),
        reason=bindparam("b_reason"),
    )
)
_FORGET = delete(updates).where(
    updates.c.run == bindparam("b_run"),
    updates.c.round == bindparam("b_round"),
    updates.c.verdict.in_(("declined", "lost")),
    updates.c.node.in_(bindparam("b_nodes", expanding=True)),
)
_AGGREGATING = update(rounds).where(_WHERE).values(state="aggregating")
_COMMITTED = (
    update(rounds)
    .where(_WHERE)
    .values(
        state="committed",
        version=rounds.c.round,
        committed_at=bindparam("b_at"),
        bytes_received=bindparam("b_received"),
        bytes_sent=bindparam("b_sent"),
    )
)
_SENDERS = select(updates.c.node).where(
    updates.c.run == bindparam("b_run"), updates.c.round == bindparam("b_round"), updates.c.digest != ""
)
_JUDGE = (
    update(updates)
    .where(
        updates.c.run == bindparam("b_run"),
        updates.c.round == bindparam("b_round"),
        updates.c.node == bindparam("b_node"),
    )
    .values(
        verdict=bindparam("b_verdict"),
        reason=bindparam("b_reason"),
        share=bindparam("b_share"),
        numbers=bindparam("b_numbers"),
    )
)
_COUNTS = (
    select(
        updates.c.round,
        func.sum(case((updates.c.verdict == "accepted", 1), else_=0)).label("accepted"),
        func.sum(case((updates.c.verdict == "rejected", 1), else_=0)).label("rejected"),
    )
    .where(updates.c.run == bindparam("b_run"))
    .group_by(updates.c.round)
)


def _with_counts(*, one: bool) -> Any:
    where = _WHERE if one else rounds.c.run == bindparam("b_run")
    counts = (_COUNTS.where(updates.c.round == bindparam("b_round")) if one else _COUNTS).subquery()
    made = and_(versions.c.run == rounds.c.run, versions.c.version == rounds.c.version)
    return (
        select(rounds, counts.c.accepted, counts.c.rejected, versions.c.metrics)
        .outerjoin(counts, counts.c.round == rounds.c.round)
        .outerjoin(versions, made)
        .where(where)
        .order_by(rounds.c.round)
    )


_ALL = _with_counts(one=False)
_ONE = _with_counts(one=True)


def no_round(run: str, number: int) -> NotFound:
    """The error for a round that is not there."""
    return NotFound(f"run {run} has no round {number}")


class SqlRounds:
    """The methods of `Store` that concern rounds."""

    _db: Database

    def open_round(self, record: RoundRecord) -> None:
        """As `Store.open_round`."""
        where = {"b_run": record.run, "b_round": record.round}
        with self._db.writing() as connection:
            row = connection.execute(_BARE, where).one_or_none()
            if row is None:
                _check_run(connection, record)
                connection.execute(_ADD, round_values(record))
            elif _is_new_attempt(row, record):
                connection.execute(_FORGET, where | {"b_nodes": list(record.invited)})
                values = {"b_attempt": record.attempt, "b_invited": list(record.invited)}
                connection.execute(
                    _NEW_ATTEMPT, where | values | {"b_at": record.attempt_at, "b_reason": record.reason}
                )

    def rounds(self, run: str) -> list[RoundRecord]:
        """As `Store.rounds`."""
        with self._db.reading() as connection:
            return [round_record(row) for row in connection.execute(_ALL, {"b_run": run})]

    def round(self, run: str, number: int) -> RoundRecord:
        """As `Store.round`."""
        with self._db.reading() as connection:
            row = connection.execute(_ONE, {"b_run": run, "b_round": number}).one_or_none()
        if row is None:
            raise no_round(run, number)
        return round_record(row)

    def begin_aggregation(self, run: str, number: int) -> None:
        """As `Store.begin_aggregation`."""
        where = {"b_run": run, "b_round": number}
        with self._db.writing() as connection:
            row = connection.execute(_BARE, where).one_or_none()
            if row is None:
                raise no_round(run, number)
            if row.state == "collecting":
                connection.execute(_AGGREGATING, where)
            elif row.state != "aggregating":
                raise Conflict(f"round {number} of run {run} is {row.state}")

    def commit_round(
        self,
        run: str,
        number: int,
        version: VersionRecord,
        verdicts: Sequence[UpdateRecord],
        *,
        bytes_received: int,
        bytes_sent: int,
        at: float,
    ) -> None:
        """As `Store.commit_round`."""
        where = {"b_run": run, "b_round": number}
        if (version.run, version.version) != (run, number):
            raise Conflict(f"round {number} of run {run} cannot make version {version.version} of run {version.run}")
        with self._db.writing() as connection:
            row = connection.execute(_BARE, where).one_or_none()
            if row is None:
                raise no_round(run, number)
            if row.state == "committed" and same_version(connection, version):
                return
            if row.state != "aggregating":
                raise Conflict(f"round {number} of run {run} is {row.state}, not aggregating")
            write_version(connection, version)
            _judge(connection, where, verdicts)
            totals = {"b_received": bytes_received, "b_sent": bytes_sent, "b_at": at}
            connection.execute(_COMMITTED, where | totals)


def _check_run(connection: Connection, record: RoundRecord) -> None:
    state = connection.execute(_RUN_STATE, {"b_run": record.run}).scalar()
    if state is None:
        raise NotFound(f"there is no run {record.run!r}")
    if state != "running":
        raise Conflict(f"round {record.round} cannot be opened: run {record.run} is {state}")
    base = {"b_run": record.run, "b_version": record.base_version}
    if connection.execute(_BASE, base).one_or_none() is None:
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


def _judge(connection: Connection, where: dict[str, Any], verdicts: Sequence[UpdateRecord]) -> None:
    senders = set(connection.execute(_SENDERS, where).scalars())
    unknown = sorted({update.node for update in verdicts} - senders)
    if unknown:
        raise Conflict(f"round {where['b_round']} of run {where['b_run']} has no update of {', '.join(unknown)}")
    judged = [
        where
        | {"b_node": update.node, "b_verdict": update.verdict, "b_reason": update.reason, "b_share": update.share}
        | {"b_numbers": dict(update.numbers)}
        for update in verdicts
    ]
    if judged:
        connection.execute(_JUDGE, judged)
