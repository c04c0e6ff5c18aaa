"""The further phases of rounds, in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, select, update
from typing_extensions import override

from covey.errors import Conflict
from covey.storage.record.contract import OpeningRecord, UpdateRecord
from covey.storage.record.rounds import Rounds
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import AnyRow, verdict_values
from covey.storage.sql.schema import assignments, groups
from covey.storage.sql.tables.rounds import no_round
from covey.storage.sql.tables.steps import add_opening_step, newest_number, newest_step

_GROUP = and_(groups.c.run == bindparam("b_run"), groups.c.number == bindparam("b_round"))
_STATE = select(groups.c.state, groups.c.phase, groups.c.base_version).where(_GROUP)
_COLLECT = (
    update(groups).where(_GROUP).values(state="collecting", phase=bindparam("b_phase"), attempt_at=bindparam("b_at"))
)
_REJECT = (
    update(assignments)
    .where(
        assignments.c.run == bindparam("b_run"),
        assignments.c.group_number == bindparam("b_round"),
        assignments.c.phase == bindparam("b_of_phase"),
        assignments.c.node == bindparam("b_node"),
        assignments.c.verdict == "received",
    )
    .values(verdict="rejected", reason=bindparam("b_reason"))
)


class SqlPhases(Rounds):
    """The method of `Store` that opens a further phase of a round."""

    _db: Database

    @override
    def open_phase(self, opening: OpeningRecord, rejected: Sequence[UpdateRecord]) -> None:
        where = {"b_run": opening.run, "b_round": opening.round}
        with self._db.writing() as connection:
            row = connection.execute(_STATE, where).one_or_none()
            if row is None:
                raise no_round(opening.run, opening.round)
            if _is_recorded(connection, row, opening):
                return
            if (row.state, row.phase) != ("aggregating", opening.closed):
                raise Conflict(f"round {opening.round} of run {opening.run} is {row.state} in phase {row.phase}")
            for judged in rejected:
                values = {"b_node": judged.node, "b_of_phase": judged.phase, "b_reason": judged.reason}
                connection.execute(_REJECT, where | values)
            add_opening_step(connection, opening, row.base_version, [verdict_values(judged) for judged in rejected])
            connection.execute(_COLLECT, where | {"b_phase": opening.phase, "b_at": opening.opened_at})
            self._db.touched(opening.run).steps.add(newest_number(connection, opening.run))


def _is_recorded(connection: Connection, row: AnyRow, opening: OpeningRecord) -> bool:
    """Whether just this opening is what the run's newest step says."""
    newest = newest_step(connection, opening.run)
    return (
        newest is not None
        and (row.state, row.phase) == ("collecting", opening.phase)
        and newest.cause == ((opening.round, opening.closed),)
        and newest.opens == opening.opens
    )
