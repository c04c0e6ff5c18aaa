"""What the nodes answer in a round, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update
from typing_extensions import override

from covey.errors import Conflict, StoreError
from covey.machines.protocol import NO_UPDATE
from covey.spec.modes import mode_named
from covey.storage.record.contract import ContributionRecord, UpdateRecord, Verdict
from covey.storage.record.updates import Updates
from covey.storage.sql.database import Database
from covey.storage.sql.hot import HotStatement
from covey.storage.sql.mapping import UPDATE_COLUMNS, AnyRow, update_record, update_values
from covey.storage.sql.schema import assignments, file_references, groups, runs
from covey.storage.sql.tables.rounds import ENDED, no_round
from covey.storage.sql.tables.tallies import tallies
from covey.storage.sql.tables.versions import add_references

_ADD = HotStatement(insert(assignments))
_IN_GROUP = and_(assignments.c.run == bindparam("b_run"), assignments.c.group_number == bindparam("b_round"))
_WHERE = and_(_IN_GROUP, assignments.c.phase == bindparam("b_phase"), assignments.c.node == bindparam("b_node"))
_OF_NODE = and_(
    assignments.c.run == groups.c.run,
    assignments.c.group_number == groups.c.number,
    assignments.c.phase == bindparam("b_phase"),
    assignments.c.node == bindparam("b_node"),
)
_GROUP = and_(groups.c.run == bindparam("b_run"), groups.c.number == bindparam("b_round"))
_GROUP_AND_ANSWER = HotStatement(
    select(
        groups.c.state,
        groups.c.phase,
        groups.c.attempt,
        groups.c.base_version,
        assignments.c.verdict,
        assignments.c.digest,
        runs.c.mode,
    )
    .select_from(groups)
    .join(runs, runs.c.run == groups.c.run)
    .outerjoin(assignments, _OF_NODE)
    .where(_GROUP)
)
_FORGET = delete(assignments).where(_WHERE)
_REJECT = (
    update(assignments)
    .where(_WHERE)
    .values(verdict="rejected", reason=bindparam("b_reason"), numbers=bindparam("b_numbers"))
)
_OF_GROUP = HotStatement(select(*UPDATE_COLUMNS).where(_IN_GROUP))
_VERDICTS = select(assignments.c.group_number, assignments.c.node, assignments.c.verdict).where(
    assignments.c.run == bindparam("b_run"),
    assignments.c.phase == 1,
    assignments.c.group_number > bindparam("b_after"),
    assignments.c.group_number <= bindparam("b_upto"),
)
_OF_GROUPS = (
    select(*UPDATE_COLUMNS)
    .where(
        assignments.c.run == bindparam("b_run"), assignments.c.group_number.in_(bindparam("b_rounds", expanding=True))
    )
    .order_by(assignments.c.group_number)
)
_LAST_ARRIVAL = select(func.max(groups.c.arrival)).where(groups.c.run == bindparam("b_run"))
_ARRIVED = update(groups).where(_GROUP).values(arrival=bindparam("b_arrival"))
_FAILED = update(groups).where(_GROUP).values(state="failed", reason=bindparam("b_reason"))
_REFERENCED = select(file_references.c.digest).where(
    file_references.c.run == bindparam("b_run"),
    file_references.c.kind == "update",
    file_references.c.number == bindparam("b_round"),
    file_references.c.node == bindparam("b_node"),
)
_LET_GO = delete(file_references).where(
    file_references.c.run == bindparam("b_run"),
    file_references.c.kind == "update",
    file_references.c.number == bindparam("b_round"),
    file_references.c.node == bindparam("b_node"),
    file_references.c.digest.in_(bindparam("b_digests", expanding=True)),
)
_COLLECT_AGAIN = update(groups).where(_GROUP).values(state="collecting", arrival=None)
_REPLACEABLE = (None, *NO_UPDATE)


class SqlUpdates(Updates):
    """The methods of `Store` that concern updates and outcomes."""

    _db: Database

    @override
    def record_update(self, update: UpdateRecord) -> bool:
        with self._db.writing() as connection:
            row = _group_and_answer(connection, update)
            if row.digest and row.digest == update.digest:
                return False
            if row.verdict not in _REPLACEABLE:
                raise Conflict(f"{update.node} has another update in round {update.round} already ({row.verdict})")
            if row.state != "collecting" or (mode_named(row.mode).synchronous and update.phase != row.phase):
                raise Conflict(
                    f"round {update.round} takes no update any more: it is {row.state}"
                    + (f" in phase {row.phase}" if row.phase > 1 else "")
                )
            _write(connection, update, "received", row)
            if not mode_named(row.mode).synchronous:
                last = connection.execute(_LAST_ARRIVAL, {"b_run": update.run}).scalar() or 0
                connection.execute(_ARRIVED, _key(update) | {"b_arrival": last + 1})
            return True

    @override
    def record_outcome(self, update: UpdateRecord) -> bool:
        if update.verdict not in (*NO_UPDATE, "rejected"):
            raise StoreError(f"{update.verdict!r} is not an outcome; record the update instead")
        with self._db.writing() as connection:
            row = _group_and_answer(connection, update)
            return row.state in ("collecting", "aggregating") and _write_outcome(connection, update, row)

    @override
    def verdicts(self, run: str, *, after: int = 0, upto: int) -> list[tuple[int, str, Verdict]]:
        with self._db.reading() as connection:
            rows = connection.execute(_VERDICTS, {"b_run": run, "b_after": after, "b_upto": upto}).all()
        return sorted((row.group_number, row.node, row.verdict) for row in rows)

    @override
    def contributions(self, run: str, nodes: Sequence[str]) -> list[ContributionRecord]:
        with self._db.reading() as connection:
            counted = tallies(connection, nodes, run)
        return [counted[node].contribution(node) for node in nodes]

    @override
    def forget_update(self, update: UpdateRecord) -> bool:
        with self._db.writing() as connection:
            row = _group_and_answer(connection, update)
            if row.state not in ("collecting", "aggregating") or (row.verdict, row.digest) != (
                "received",
                update.digest,
            ):
                return False
            connection.execute(_FORGET, _key(update))
            connection.execute(_LET_GO, _key(update) | {"b_digests": [p.artifact.digest for p in update.parts]})
            connection.execute(_COLLECT_AGAIN, _key(update))
            return True

    @override
    def close_round(self, outcome: UpdateRecord, *, discard: bool = False) -> bool:
        with self._db.writing() as connection:
            row = _group_and_answer(connection, outcome)
            if row.state in ENDED:
                return bool(row.state == "failed")
            if row.digest and not discard:
                return False
            _write_outcome(connection, outcome, row)
            reason = f"{outcome.verdict}: {outcome.reason}"
            connection.execute(_FAILED, {"b_run": outcome.run, "b_round": outcome.round, "b_reason": reason})
            self._db.touched(outcome.run).groups.add(outcome.round)
            return True

    @override
    def updates(self, run: str, number: int) -> list[UpdateRecord]:
        with self._db.reading() as connection:
            rows = _OF_GROUP.rows(connection, {"b_run": run, "b_round": number})
        return sorted(map(update_record, rows), key=lambda record: (record.node, record.phase))

    @override
    def updates_of(self, run: str, numbers: Sequence[int]) -> list[UpdateRecord]:
        with self._db.reading() as connection:
            rows = connection.execute(_OF_GROUPS, {"b_run": run, "b_rounds": sorted(set(numbers))}).all()
        return sorted(map(update_record, rows), key=lambda record: (record.round, record.node, record.phase))


def _key(update: UpdateRecord) -> dict[str, Any]:
    return {"b_run": update.run, "b_round": update.round, "b_node": update.node, "b_phase": update.phase}


def _group_and_answer(connection: Connection, update: UpdateRecord) -> AnyRow:
    """The round's state and this node's answer in it so far (None, None: there is none)."""
    row: AnyRow | None = _GROUP_AND_ANSWER.row(connection, _key(update))
    if row is None:
        raise no_round(update.run, update.round)
    return row


def _write_outcome(connection: Connection, update: UpdateRecord, answer: AnyRow) -> bool:
    """Record an outcome, where there is no answer yet that it cannot change; returns whether it did."""
    if answer.verdict in _REPLACEABLE:
        _write(connection, update, update.verdict, answer)
    elif answer.verdict == "received" and update.verdict == "rejected":
        values = {"b_reason": update.reason, "b_numbers": dict(update.numbers)}
        connection.execute(_REJECT, _key(update) | values)
    else:
        return False
    return True


def _write(connection: Connection, update: UpdateRecord, verdict: str, answer: AnyRow) -> None:
    if answer.verdict is not None:
        connection.execute(_FORGET, _key(update))
    _ADD.run(connection, update_values(update, answer.attempt, answer.base_version) | {"verdict": verdict})
    if update.kept and update.parts:
        digests = {part.artifact.digest for part in update.parts}
        if update.phase > 1:  # what an earlier phase brought may be sent again
            digests -= set(connection.execute(_REFERENCED, _key(update)).scalars())
        add_references(connection, update.run, "update", update.round, update.node, digests)
