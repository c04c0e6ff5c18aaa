"""Steps in SQL: written with the commit of a round or a decision, and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select
from typing_extensions import override

from covey.storage.record.contract import DecisionRecord, Json, OpeningRecord, PolicyStateRecord, StepRecord
from covey.storage.record.steps import Steps
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import decision_record, policy_state_record, step_record
from covey.storage.sql.schema import assignments, runs, steps

_IN_RUN = steps.c.run == bindparam("b_run")
_AFTER = select(steps).where(_IN_RUN, steps.c.number > bindparam("b_after")).order_by(steps.c.number)
_DECISIONS = _AFTER.with_only_columns(
    *(c for c in steps.c if c.name not in ("state", "pinned_updates", "pinned_versions", "opens"))
).where(steps.c.state_sha256 != "")
_NEWEST = select(steps).where(_IN_RUN).order_by(steps.c.number.desc()).limit(1)
_NEWEST_STATE = _NEWEST.with_only_columns(
    steps.c.run, steps.c.number, steps.c.state, steps.c.state_sha256, steps.c.pinned_updates, steps.c.pinned_versions
)


def _so_far(count: ColumnElement[int]) -> ColumnElement[int]:
    """The newest step's count of verdicts."""
    newest = select(count).where(_IN_RUN).order_by(steps.c.number.desc()).limit(1)
    return func.coalesce(newest.scalar_subquery(), 0)


def _in_group(verdict: str) -> ColumnElement[int]:
    return (
        select(func.count())
        .where(
            assignments.c.run == bindparam("b_run"),
            assignments.c.group_number == bindparam("b_round"),
            assignments.c.verdict == verdict,
        )
        .scalar_subquery()
    )


_ROSTER = select(func.json_array_length(runs.c.roster)).where(runs.c.run == bindparam("b_run")).scalar_subquery()
_ADD_OF_DECISION = insert(steps).values(
    accepted=_so_far(steps.c.accepted) + bindparam("b_accepted"),
    rejected=_so_far(steps.c.rejected) + bindparam("b_rejected"),
)
_ADD_OF_ROUND = insert(steps).values(
    number=_so_far(steps.c.number) + 1,
    roster=_ROSTER,
    accepted=_so_far(steps.c.accepted) + _in_group("accepted"),
    rejected=_so_far(steps.c.rejected) + _in_group("rejected"),
)


_ADD_OF_OPENING = insert(steps).values(
    number=_so_far(steps.c.number) + 1,
    roster=_ROSTER,
    accepted=_so_far(steps.c.accepted),
    rejected=_so_far(steps.c.rejected),
)


def newest_number(connection: Connection, run: str) -> int:
    """The number of a run's newest step; 0 before the first."""
    return int(connection.execute(_NEWEST.with_only_columns(steps.c.number), {"b_run": run}).scalar() or 0)


def newest_step(connection: Connection, run: str) -> StepRecord | None:
    """A run's newest step."""
    row = connection.execute(_NEWEST, {"b_run": run}).one_or_none()
    return None if row is None else step_record(row)


def add_step_of_round(connection: Connection, number: int, values: dict[str, Any]) -> None:
    """Record the step of round `number`, whose verdicts are written already; the rest comes from the record."""
    connection.execute(_ADD_OF_ROUND, values | {"b_run": values["run"], "b_round": number})


def add_opening_step(connection: Connection, opening: OpeningRecord, newest: int, verdicts: Sequence[Json]) -> None:
    """Record the step that opens a further phase of a round, which started from version `newest`."""
    values = {
        "run": opening.run,
        "cause": [[opening.round, opening.closed]],
        "newest": newest,
        "version": None,
        "verdicts": list(verdicts),
        "state": "",
        "state_sha256": "",
        "pinned_updates": [],
        "pinned_versions": [],
        "opens": list(opening.opens),
        "decided_at": opening.opened_at,
    }
    connection.execute(_ADD_OF_OPENING, values | {"b_run": opening.run})


def add_step_of_decision(connection: Connection, values: dict[str, Any], accepted: int, rejected: int) -> None:
    """Record the step of a decision that accepted and rejected so many updates."""
    counts = {"b_accepted": accepted, "b_rejected": rejected}
    connection.execute(_ADD_OF_DECISION, values | {"b_run": values["run"]} | counts)


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
            return newest_step(connection, run)

    @override
    def decisions(self, run: str, after: int = 0) -> list[DecisionRecord]:
        with self._db.reading() as connection:
            return [decision_record(row) for row in connection.execute(_DECISIONS, {"b_run": run, "b_after": after})]

    @override
    def policy_state(self, run: str) -> PolicyStateRecord | None:
        with self._db.reading() as connection:
            row = connection.execute(_NEWEST_STATE, {"b_run": run}).one_or_none()
        return policy_state_record(row) if row is not None and row.state_sha256 else None
