"""Runs in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, func, insert, select, tuple_, update
from typing_extensions import override

from covey.errors import Conflict, NotFound, StoreError
from covey.storage.record.contract import RunRecord, RunState, VersionRecord
from covey.storage.record.runs import Runs
from covey.storage.sql.database import Database
from covey.storage.sql.mapping import AnyRow, run_record, run_values
from covey.storage.sql.schema import groups, runs
from covey.storage.sql.tables.versions import same_version, write_version

TERMINAL = ("completed", "failed", "stopped")
_ADD = insert(runs)
_BY_ID = select(runs).where(runs.c.run == bindparam("b_run"))
_BY_NAME = (
    select(runs).where(runs.c.name == bindparam("b_name")).order_by(runs.c.submitted_at.desc(), runs.c.run.desc())
)
_NEWEST_FIRST = select(runs).order_by(runs.c.submitted_at.desc(), runs.c.run.desc())
_PLACE = select(runs.c.submitted_at).where(runs.c.run == bindparam("b_run"))
_COUNT = select(func.count()).select_from(runs).where(runs.c.state.in_(bindparam("b_states", expanding=True)))
_UPDATE = update(runs).where(runs.c.run == bindparam("b_run"))
_START = _UPDATE.values(
    state="running",
    reason="",
    roster=bindparam("b_roster"),
    parts=bindparam("b_parts"),
    layout=bindparam("b_layout"),
    started_at=bindparam("b_at"),
)
_ROSTER = _UPDATE.values(roster=bindparam("b_roster"), parts=bindparam("b_parts"))
_REASON = _UPDATE.values(reason=bindparam("b_reason"))
_FINISH = _UPDATE.values(state=bindparam("b_state"), reason=bindparam("b_reason"), ended_at=bindparam("b_at"))
_OPEN = and_(groups.c.run == bindparam("b_run"), groups.c.state.in_(("collecting", "aggregating")))
_OPEN_ROUNDS = select(groups.c.number).where(_OPEN)
_FAIL_ROUNDS = update(groups).where(_OPEN).values(state="failed", reason=bindparam("b_reason"))


def run_row(connection: Connection, run: str) -> AnyRow:
    """A run's row by its id. Raises `NotFound`."""
    row = connection.execute(_BY_ID, {"b_run": run}).one_or_none()
    if row is None:
        raise _no_run(run)
    return row


def _place(connection: Connection, run: str) -> float:
    submitted_at: float | None = connection.execute(_PLACE, {"b_run": run}).scalar()
    if submitted_at is None:
        raise _no_run(run)
    return submitted_at


def _no_run(run: str) -> NotFound:
    return NotFound(f"there is no run {run!r}; `covey run list` shows those there are")


class SqlRuns(Runs):
    """The methods of `Store` that concern runs."""

    _db: Database

    @override
    def add_run(self, run: RunRecord, first: VersionRecord | None = None) -> None:
        with self._db.writing() as connection:
            if connection.execute(_BY_ID, {"b_run": run.run}).one_or_none() is not None:
                raise Conflict(f"run {run.run!r} exists already")
            connection.execute(_ADD, run_values(run))
            touched = self._db.touched(run.run)
            touched.row = touched.new = True
            if first is not None:
                write_version(connection, first)
                touched.versions.add(first.version)

    @override
    def run(self, run: str) -> RunRecord:
        with self._db.reading() as connection:
            row = connection.execute(_BY_ID, {"b_run": run}).one_or_none()
            if row is not None:
                return run_record(row)
            named = connection.execute(_BY_NAME, {"b_name": run}).first()
            return run_record(named if named is not None else run_row(connection, run))

    @override
    def runs(
        self, *, states: Sequence[RunState] = (), name: str = "", before: str = "", limit: int = 100
    ) -> list[RunRecord]:
        query = _NEWEST_FIRST.where(runs.c.state.in_(states)) if states else _NEWEST_FIRST
        query = query.where(runs.c.name == name) if name else query
        with self._db.reading() as connection:
            if before:
                query = query.where(
                    tuple_(runs.c.submitted_at, runs.c.run) < tuple_(_place(connection, before), before)
                )
            return [run_record(row) for row in connection.execute(query.limit(limit))]

    @override
    def count_runs(self, states: Sequence[RunState]) -> int:
        with self._db.reading() as connection:
            return int(connection.execute(_COUNT, {"b_states": list(states)}).scalar_one())

    @override
    def start_run(
        self, run: str, roster: Sequence[str], parts: int, layout: str, first: VersionRecord, at: float
    ) -> None:
        with self._db.writing() as connection:
            row = run_row(connection, run)
            if row.state == "running" and row.layout == layout and same_version(connection, first):
                return
            if row.state != "queued":
                raise Conflict(f"run {run} cannot be started: it is {row.state}")
            write_version(connection, first)
            values = {"b_roster": list(roster), "b_parts": parts, "b_layout": layout, "b_at": at}
            connection.execute(_START, {"b_run": run} | values)
            self._db.touched(run).row = True
            self._db.touched(run).versions.add(first.version)

    @override
    def extend_roster(self, run: str, nodes: Sequence[str], parts: int = 0) -> tuple[str, ...]:
        with self._db.writing() as connection:
            row = run_row(connection, run)
            roster = list(dict.fromkeys([*row.roster, *nodes]))
            fixed = row.parts or parts
            if roster != row.roster or fixed != row.parts:
                connection.execute(_ROSTER, {"b_run": run, "b_roster": roster, "b_parts": fixed})
                self._db.touched(run).row = True
            return tuple(roster)

    @override
    def set_reason(self, run: str, reason: str) -> None:
        with self._db.writing() as connection:
            row = run_row(connection, run)
            if row.state not in TERMINAL and row.reason != reason:
                connection.execute(_REASON, {"b_run": run, "b_reason": reason})
                self._db.touched(run).row = True

    @override
    def finish_run(self, run: str, state: RunState, reason: str, at: float) -> None:
        if state not in TERMINAL:
            raise StoreError(f"a run cannot end as {state!r}; choose one of {', '.join(TERMINAL)}")
        with self._db.writing() as connection:
            if run_row(connection, run).state in TERMINAL:
                return
            # What a completed run's reason says is not why a last assignment came to nothing.
            over = f"not needed any more: the run is {state}" if state == "completed" or not reason else reason
            connection.execute(_FINISH, {"b_run": run, "b_state": state, "b_reason": reason, "b_at": at})
            touched = self._db.touched(run)
            touched.row = touched.ended = True
            touched.groups.update(connection.execute(_OPEN_ROUNDS, {"b_run": run}).scalars())
            connection.execute(_FAIL_ROUNDS, {"b_run": run, "b_reason": over})
