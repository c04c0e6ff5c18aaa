"""Contradictions in a record: no transaction of ours leaves one, a hand at the database or a bad disk may."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import ColumnElement, Connection, FromClause, and_, func, not_, or_, select
from sqlalchemy import exists as exists_

from covey.storage.sql.schema import (
    decisions,
    file_references,
    keys,
    nodes,
    policy_states,
    rounds,
    runs,
    updates,
    versions,
)

_TERMINAL = ("completed", "failed", "stopped")
_earlier = versions.alias()


def check(connection: Connection) -> list[str]:
    """Every contradiction found, one line each; none in a sound record."""
    looks: tuple[Callable[[Connection], Iterator[str]], ...] = (
        _broken_pages,
        _orphans,
        _round_gaps,
        _version_gaps,
        _unfinished,
        _unjudged,
        _decision_gaps,
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
    no_run = select(rounds.c.run, rounds.c.round).where(_without(rounds, runs, runs.c.run == rounds.c.run))
    for run, number in connection.execute(no_run):
        yield f"round {number} belongs to run {run}, which is not there"
    in_round = and_(rounds.c.run == updates.c.run, rounds.c.round == updates.c.round)
    no_round = select(updates.c.run, updates.c.round, updates.c.node).where(_without(updates, rounds, in_round))
    for run, number, node in connection.execute(no_round):
        yield f"the update of {node} belongs to round {number} of run {run}, which is not there"
    no_owner = select(versions.c.run, versions.c.version).where(_without(versions, runs, runs.c.run == versions.c.run))
    for run, number in connection.execute(no_owner):
        yield f"version {number} belongs to run {run}, which is not there"


def _round_gaps(connection: Connection) -> Iterator[str]:
    counted = select(rounds.c.run, func.max(rounds.c.round), func.count()).group_by(rounds.c.run)
    for run, last, count in connection.execute(counted):
        if last != count:
            yield f"run {run} has {count} rounds, but the last one is number {last}"
    of_run = versions.c.run == rounds.c.run
    own = _without(rounds, versions, of_run, versions.c.version == rounds.c.round)
    other = _without(rounds, versions, of_run, versions.c.version == rounds.c.version)
    missing = select(rounds.c.run, rounds.c.round, rounds.c.state).where(
        or_(and_(rounds.c.state == "committed", own), and_(rounds.c.version.is_not(None), other))
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
    is_open = rounds.c.state.in_(("collecting", "aggregating"))
    ended = (
        select(rounds.c.run, rounds.c.round)
        .join(runs, runs.c.run == rounds.c.run)
        .where(is_open, runs.c.state.in_(_TERMINAL))
    )
    for run, number in connection.execute(ended):
        yield f"run {run} has ended, but its round {number} is open"
    several = (
        select(rounds.c.run)
        .join(runs, runs.c.run == rounds.c.run)
        .where(is_open, runs.c.mode == "rounds")
        .group_by(rounds.c.run)
        .having(func.count() > 1)
    )
    for run in connection.execute(several).scalars():
        yield f"run {run} has several open rounds"


def _unjudged(connection: Connection) -> Iterator[str]:
    where = and_(rounds.c.run == updates.c.run, rounds.c.round == updates.c.round)
    found = (
        select(updates.c.run, updates.c.round, updates.c.node)
        .join(rounds, where)
        .where(updates.c.verdict == "received", rounds.c.state.in_(("committed", "decided")))
    )
    for run, number, node in connection.execute(found):
        yield f"round {number} of run {run} is over, but the update of {node} has no verdict"


def _decision_gaps(connection: Connection) -> Iterator[str]:
    counted = select(decisions.c.run, func.max(decisions.c.decision), func.count()).group_by(decisions.c.run)
    states = dict(connection.execute(select(policy_states.c.run, policy_states.c.decision)).all())
    for run, last, count in connection.execute(counted):
        if last != count:
            yield f"run {run} has {count} decisions, but the last one is number {last}"
        if states.get(run) != last:
            yield f"run {run} has {last} decisions, but its policy's state is of another one"
    on_it = and_(decisions.c.run == rounds.c.run, decisions.c.round == rounds.c.round)
    found = select(rounds.c.run, rounds.c.round).where(rounds.c.state == "decided", _without(rounds, decisions, on_it))
    for run, number in connection.execute(found):
        yield f"round {number} of run {run} is decided, but there is no decision on it"


def _unreferenced(connection: Connection) -> Iterator[str]:
    needed = and_(
        file_references.c.run == versions.c.run,
        file_references.c.kind == "version",
        file_references.c.number == versions.c.version,
        file_references.c.digest == versions.c.digest,
    )
    found = select(versions.c.run, versions.c.version).where(
        versions.c.kept.is_(True), _without(versions, file_references, needed)
    )
    for run, number in connection.execute(found):
        yield f"version {number} of run {run} is kept, but its file is not recorded as needed"


def _keyless(connection: Connection) -> Iterator[str]:
    own = and_(keys.c.key_id == nodes.c.key_id, keys.c.node == nodes.c.node)
    found = select(nodes.c.node, nodes.c.key_id).where(nodes.c.key_id != "", _without(nodes, keys, own))
    for node, key_id in connection.execute(found):
        yield f"signing key {key_id} of {node} is not on record"
