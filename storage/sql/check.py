"""Contradictions in a record: no transaction of ours leaves one, a hand at the database or a bad disk may."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import ColumnElement, Connection, FromClause, and_, func, not_, or_, select
from sqlalchemy import exists as exists_

from covey.spec.modes import MODES
from covey.storage.sql.schema import assignments, file_references, groups, keys, nodes, runs, steps, versions

_TERMINAL = ("completed", "failed", "stopped")
_earlier = versions.alias()
_later = steps.alias()
_IS_NEWEST = not_(exists_().where(_later.c.run == steps.c.run, _later.c.number > steps.c.number).correlate(steps))


def check(connection: Connection) -> list[str]:
    """Every contradiction found, one line each; none in a sound record."""
    looks: tuple[Callable[[Connection], Iterator[str]], ...] = (
        _broken_pages,
        _orphans,
        _round_gaps,
        _version_gaps,
        _unfinished,
        _unjudged,
        _step_gaps,
        _causeless,
        _miscounted,
        _unreferenced,
        _keyless,
    )
    return [line for look in looks for line in look(connection)]


def _broken_pages(connection: Connection) -> Iterator[str]:
    if connection.dialect.name == "sqlite":
        for line in connection.exec_driver_sql("PRAGMA integrity_check").scalars():
            if line != "ok":
                yield f"the database file is damaged: {line}"


def _without(table: FromClause, parent: FromClause, *pairs: ColumnElement[bool]) -> ColumnElement[bool]:
    return not_(exists_().select_from(parent).where(*pairs).correlate(table))


def _orphans(connection: Connection) -> Iterator[str]:
    no_run = select(groups.c.run, groups.c.number).where(_without(groups, runs, runs.c.run == groups.c.run))
    for run, number in connection.execute(no_run):
        yield f"round {number} belongs to run {run}, which is not there"
    in_round = and_(groups.c.run == assignments.c.run, groups.c.number == assignments.c.group_number)
    no_round = select(assignments.c.run, assignments.c.group_number, assignments.c.node).where(
        _without(assignments, groups, in_round)
    )
    for run, number, node in connection.execute(no_round):
        yield f"the update of {node} belongs to round {number} of run {run}, which is not there"
    no_owner = select(versions.c.run, versions.c.version).where(_without(versions, runs, runs.c.run == versions.c.run))
    for run, number in connection.execute(no_owner):
        yield f"version {number} belongs to run {run}, which is not there"
    no_origin = select(steps.c.run, steps.c.number).where(_without(steps, runs, runs.c.run == steps.c.run))
    for run, number in connection.execute(no_origin):
        yield f"step {number} belongs to run {run}, which is not there"


def _round_gaps(connection: Connection) -> Iterator[str]:
    counted = select(groups.c.run, func.max(groups.c.number), func.count()).group_by(groups.c.run)
    for run, last, count in connection.execute(counted):
        if last != count:
            yield f"run {run} has {count} rounds, but the last one is number {last}"
    of_run = versions.c.run == groups.c.run
    own = _without(groups, versions, of_run, versions.c.version == groups.c.number)
    other = _without(groups, versions, of_run, versions.c.version == groups.c.version)
    missing = select(groups.c.run, groups.c.number, groups.c.state).where(
        or_(and_(groups.c.state == "committed", own), and_(groups.c.version.is_not(None), other))
    )
    for run, number, state in connection.execute(missing):
        yield f"round {number} of run {run} is {state}, but its version is not there"


def _version_gaps(connection: Connection) -> Iterator[str]:
    before = and_(_earlier.c.run == versions.c.run, _earlier.c.version == versions.c.version - 1)
    gaps = select(versions.c.run, versions.c.version).where(
        versions.c.version > 0, _without(versions, _earlier, before)
    )
    for run, number in connection.execute(gaps):
        yield f"run {run} has version {number}, but not the one before it"
    broken = (
        select(versions.c.run, versions.c.version)
        .join(_earlier, before)
        .where(versions.c.parent_sha256 != "", versions.c.parent_sha256 != _earlier.c.model_sha256)
    )
    for run, number in connection.execute(broken):
        yield f"version {number} of run {run} names another parent than the version before it"
    first = and_(versions.c.run == runs.c.run, versions.c.version == 0)
    for run in connection.execute(
        select(runs.c.run).where(runs.c.state == "running", _without(runs, versions, first))
    ).scalars():
        yield f"run {run} is running, but has no version 0"


def _unfinished(connection: Connection) -> Iterator[str]:
    is_open = groups.c.state.in_(("collecting", "aggregating"))
    ended = (
        select(groups.c.run, groups.c.number)
        .join(runs, runs.c.run == groups.c.run)
        .where(is_open, runs.c.state.in_(_TERMINAL))
    )
    for run, number in connection.execute(ended):
        yield f"run {run} has ended, but its round {number} is open"
    several = (
        select(groups.c.run)
        .join(runs, runs.c.run == groups.c.run)
        .where(is_open, runs.c.mode.in_([mode.name for mode in MODES.values() if mode.synchronous]))
        .group_by(groups.c.run)
        .having(func.count() > 1)
    )
    for run in connection.execute(several).scalars():
        yield f"run {run} has several open rounds"


def _unjudged(connection: Connection) -> Iterator[str]:
    where = and_(groups.c.run == assignments.c.run, groups.c.number == assignments.c.group_number)
    rows = (
        select(assignments.c.run, assignments.c.group_number, assignments.c.node)
        .join(groups, where)
        .where(assignments.c.verdict == "received", groups.c.state.in_(("committed", "decided")))
    )
    for run, number, node in connection.execute(rows):
        yield f"round {number} of run {run} is over, but the update of {node} has no verdict"


def _step_gaps(connection: Connection) -> Iterator[str]:
    counted = select(steps.c.run, func.max(steps.c.number), func.count()).group_by(steps.c.run)
    for run, last, count in connection.execute(counted):
        if last != count:
            yield f"run {run} has {count} steps, but the last one is number {last}"
    stateless = select(steps.c.run, steps.c.number).where(_IS_NEWEST, steps.c.state_sha256 != "", steps.c.state == "")
    for run, number in connection.execute(stateless):
        yield f"the state after the last step of run {run} (number {number}) is not there"


def _causeless(connection: Connection) -> Iterator[str]:
    taken = {
        (run, number)
        for run, causes, opens in connection.execute(select(steps.c.run, steps.c.cause, steps.c.opens))
        for number, _ in (causes if not opens else ())  # a round goes on with what it opens
    }
    for run, number, state in connection.execute(select(groups.c.run, groups.c.number, groups.c.state)):
        if state in ("committed", "decided") and (run, number) not in taken:
            yield f"round {number} of run {run} is {state}, but there is no step of it"
        if (run, number) in taken:
            taken.remove((run, number))
            if state not in ("committed", "decided"):
                yield f"a step of run {run} took the updates of round {number}, which is {state}"
    for run, number in sorted(taken):
        yield f"a step of run {run} took the updates of round {number}, which is not there"


def _miscounted(connection: Connection) -> Iterator[str]:
    ended = and_(
        groups.c.run == assignments.c.run,
        groups.c.number == assignments.c.group_number,
        groups.c.state.in_(("committed", "decided")),
    )
    counted = (
        select(assignments.c.run, assignments.c.verdict, func.count())
        .join(groups, ended)
        .where(assignments.c.verdict.in_(("accepted", "rejected")))
        .group_by(assignments.c.run, assignments.c.verdict)
    )
    counts = {(run, verdict): count for run, verdict, count in connection.execute(counted)}
    for row in connection.execute(select(steps.c.run, steps.c.accepted, steps.c.rejected).where(_IS_NEWEST)):
        for verdict in ("accepted", "rejected"):
            if row._mapping[verdict] != (count := counts.get((row.run, verdict), 0)):
                yield f"run {row.run} has {count} {verdict} updates, but its last step counts {row._mapping[verdict]}"


def _unreferenced(connection: Connection) -> Iterator[str]:
    needed = and_(
        file_references.c.run == versions.c.run,
        file_references.c.kind == "version",
        file_references.c.number == versions.c.version,
        file_references.c.digest == versions.c.digest,
    )
    missing = select(versions.c.run, versions.c.version).where(
        versions.c.kept.is_(True), _without(versions, file_references, needed)
    )
    for run, number in connection.execute(missing):
        yield f"version {number} of run {run} is kept, but its file is not recorded as needed"


def _keyless(connection: Connection) -> Iterator[str]:
    own = and_(keys.c.key_id == nodes.c.key_id, keys.c.node == nodes.c.node)
    missing = select(nodes.c.node, nodes.c.key_id).where(nodes.c.key_id != "", _without(nodes, keys, own))
    for node, key_id in connection.execute(missing):
        yield f"signing key {key_id} of {node} is not on record"
