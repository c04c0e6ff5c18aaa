"""Steps in SQL, and the order of arrival: reading them."""

from __future__ import annotations

from sqlalchemy import and_, bindparam, select
from typing_extensions import override

from covey.storage.record.contract import StepRecord, UpdateRecord
from covey.storage.record.steps import Steps
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import UPDATE_COLUMNS, step_record, update_record
from covey.storage.sql.schema import assignments, groups, steps

_IN_RUN = steps.c.run == bindparam("b_run")
_AFTER = select(steps).where(_IN_RUN, steps.c.number > bindparam("b_after")).order_by(steps.c.number)
_NEWEST = select(steps).where(_IN_RUN).order_by(steps.c.number.desc()).limit(1)
UNDECIDED = (
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
"""The update of a run that arrived first of those that were not decided on."""


class SqlSteps(Steps):
    """The methods of `Store` that read steps."""

    _db: Database

    @override
    def steps(self, run: str, after: int = 0, limit: int | None = None) -> list[StepRecord]:
        query = _AFTER if limit is None else _AFTER.limit(limit)
        with self._db.reading() as connection:
            return [step_record(row) for row in connection.execute(query, {"b_run": run, "b_after": after})]

    @override
    def last_step(self, run: str) -> StepRecord | None:
        with self._db.reading() as connection:
            row = connection.execute(_NEWEST, {"b_run": run}).one_or_none()
        return None if row is None else step_record(row)

    @override
    def next_arrival(self, run: str) -> UpdateRecord | None:
        with self._db.reading() as connection:
            row = connection.execute(UNDECIDED, {"b_run": run}).one_or_none()
        return None if row is None else update_record(row)
