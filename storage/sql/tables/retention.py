"""Retention in SQL: which files a run lets go. It costs as much as is still kept, however long the run is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    and_,
    bindparam,
    delete,
    exists,
    not_,
    or_,
    select,
    update,
)
from typing_extensions import override

from covey.errors import Conflict
from covey.storage.record.retention import Retention
from covey.storage.record.versions import rated
from covey.storage.sql.database import Database
from covey.storage.sql.schema import Base, assignments, events, file_references, groups, steps, versions
from covey.storage.sql.tables.rounds import ENDED
from covey.storage.sql.tables.runs import TERMINAL, run_row

_RUN: BindParameter[str] = bindparam("b_run")
_VERSIONS: BindParameter[int] = bindparam("b_versions", expanding=True)
_ROUNDS: BindParameter[int] = bindparam("b_rounds", expanding=True)
_KEPT_VERSIONS = (
    select(versions.c.version, versions.c.metrics)
    .where(versions.c.run == _RUN, versions.c.kept.is_(True))
    .order_by(versions.c.version.desc())
)
_HELD_ROUNDS = (
    select(groups.c.number, groups.c.state)
    .where(
        groups.c.run == _RUN,
        groups.c.number.in_(
            select(file_references.c.number).where(file_references.c.run == _RUN, file_references.c.kind == "update")
        ),
    )
    .order_by(groups.c.number.desc())
)
_NEWEST_ROUNDS = (
    select(groups.c.number)
    .where(groups.c.run == _RUN, groups.c.state.in_(("committed", "decided")))
    .order_by(groups.c.number.desc())
    .limit(bindparam("b_limit"))
)

_OPEN_BASES = (
    select(groups.c.base_version)
    .where(groups.c.run == _RUN, groups.c.state.in_(("collecting", "aggregating")))
    .distinct()
)
_PINS = (
    select(steps.c.pinned_updates, steps.c.pinned_versions)
    .where(steps.c.run == _RUN)
    .order_by(steps.c.number.desc())
    .limit(1)
)


def _let_go(references: FromClause) -> ColumnElement[bool]:
    """The references of the versions and rounds that go."""
    columns = references.c
    return and_(
        columns.run == _RUN,
        or_(
            and_(columns.kind == "version", columns.number.in_(_VERSIONS)),
            and_(columns.kind == "update", columns.number.in_(_ROUNDS)),
        ),
    )


_other = file_references.alias()
_UNNEEDED = (
    select(file_references.c.digest)
    .where(
        _let_go(file_references),
        not_(exists().where(_other.c.digest == file_references.c.digest, not_(_let_go(_other)))),
    )
    .distinct()
)
_DELETE = delete(file_references).where(_let_go(file_references))
_MARK_VERSIONS = update(versions).where(versions.c.run == _RUN, versions.c.version.in_(_VERSIONS)).values(kept=False)
_MARK_UPDATES = (
    update(assignments)
    .where(assignments.c.run == _RUN, assignments.c.group_number.in_(_ROUNDS), assignments.c.digest != "")
    .values(kept=False)
)
_REFERENCED = select(file_references.c.digest).distinct()
_ONLY_OF_RUN = (
    select(file_references.c.digest)
    .where(
        file_references.c.run == _RUN,
        not_(exists().where(_other.c.digest == file_references.c.digest, _other.c.run != _RUN)),
    )
    .distinct()
)
_DELETE_RUN = [
    delete(table).where(table.c.run == _RUN)
    for table in reversed(Base.metadata.sorted_tables)
    if "run" in table.c and table is not events
]
"""Everything of a run but its events, what refers to something before it."""


class SqlRetention(Retention):
    """The methods of `Store` that concern which files are kept."""

    _db: Database

    @override
    def prune(
        self,
        run: str,
        *,
        versions: int,
        updates: int,
        metric: str,
        goal: Literal["max", "min"],
        pinned: Sequence[int] = (),
    ) -> list[str]:
        with self._db.writing() as connection:
            kept = {row.version: row.metrics for row in connection.execute(_KEPT_VERSIONS, {"b_run": run})}
            pins = connection.execute(_PINS, {"b_run": run}).one_or_none()
            bases = connection.execute(_OPEN_BASES, {"b_run": run}).scalars()
            best = [version for version, _ in rated(kept, metric, goal)[:1]]
            stay = {*list(kept)[:versions], *pinned, *bases, *best}
            old = set(_old_rounds(connection, run, updates))
            gone = {
                "b_run": run,
                "b_versions": sorted(set(kept) - stay - set(pins.pinned_versions if pins else ())),
                "b_rounds": sorted(old - set(pins.pinned_updates if pins else ())),
            }
            return _release(connection, gone) if gone["b_versions"] or gone["b_rounds"] else []

    @override
    def delete_run(self, run: str) -> list[str]:
        with self._db.writing() as connection:
            state = run_row(connection, run).state
            if state not in TERMINAL:
                raise Conflict(f"run {run} is {state}; stop it first: covey run stop {run}")
            unneeded = sorted(connection.execute(_ONLY_OF_RUN, {"b_run": run}).scalars())
            for delete_all in _DELETE_RUN:
                connection.execute(delete_all, {"b_run": run})
            return unneeded

    @override
    def referenced_digests(self, kind: Literal["version", "update"] | None = None) -> set[str]:
        wanted = _REFERENCED if kind is None else _REFERENCED.where(file_references.c.kind == kind)
        with self._db.reading() as connection:
            return set(connection.execute(wanted).scalars())


def _old_rounds(connection: Connection, run: str, keep: int) -> list[int]:
    """Ended rounds whose payloads are still there and that are not among the newest committed ones."""
    newest = set(connection.execute(_NEWEST_ROUNDS, {"b_run": run, "b_limit": keep}).scalars())
    held = connection.execute(_HELD_ROUNDS, {"b_run": run})
    return sorted(row.number for row in held if row.state in ENDED and row.number not in newest)


def _release(connection: Connection, gone: Mapping[str, Any]) -> list[str]:
    unneeded = sorted(connection.execute(_UNNEEDED, gone).scalars())
    connection.execute(_DELETE, gone)
    if gone["b_versions"]:
        connection.execute(_MARK_VERSIONS, gone)
    if gone["b_rounds"]:
        connection.execute(_MARK_UPDATES, gone)
    return unneeded
