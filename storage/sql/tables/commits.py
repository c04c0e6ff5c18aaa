"""Committing a step in SQL: one transaction, whatever the mode of its run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, insert, select, update
from typing_extensions import override

from covey.errors import Conflict
from covey.storage.record.contract import StepRecord, UpdateRecord, VersionRecord
from covey.storage.record.steps import Steps
from covey.storage.sql.database import Database
from covey.storage.sql.hot import HotStatement
from covey.storage.sql.mapping import AnyRow, step_values
from covey.storage.sql.schema import assignments, groups, steps
from covey.storage.sql.tables.rounds import no_round
from covey.storage.sql.tables.steps import UNDECIDED
from covey.storage.sql.tables.versions import same_version, write_version

_earlier = steps.alias()
_GROUP = and_(groups.c.run == bindparam("b_run"), groups.c.number == bindparam("b_round"))
_NEWEST = select(func.max(_earlier.c.number)).where(_earlier.c.run == bindparam("b_run")).scalar_subquery()
_BEFORE = HotStatement(
    select(
        groups.c.state.label("group_state"),
        groups.c.phase,
        groups.c.base_version,
        *(steps.c[name] for name in ("number", "cause", "version", "state_sha256", "opens", "accepted", "rejected")),
    )
    .select_from(groups)
    .outerjoin(steps, and_(steps.c.run == bindparam("b_run"), steps.c.number == _NEWEST))
    .where(_GROUP)
)
"""A group, and the run's newest step."""
_ANSWER = and_(
    assignments.c.run == bindparam("b_run"),
    assignments.c.group_number == bindparam("b_round"),
    assignments.c.phase == bindparam("b_phase"),
    assignments.c.node == bindparam("b_node"),
    assignments.c.digest != "",
)
_JUDGE = HotStatement(
    update(assignments)
    .where(_ANSWER)
    .values(
        verdict=bindparam("b_verdict"),
        reason=bindparam("b_reason"),
        share=bindparam("b_share"),
        numbers=bindparam("b_numbers"),
    )
)
_IS_SENT = select(assignments.c.node).where(_ANSWER)
_OPEN = (
    update(groups).where(_GROUP).values(state="collecting", phase=bindparam("b_phase"), attempt_at=bindparam("b_at"))
)
_END = HotStatement(
    update(groups)
    .where(_GROUP)
    .values(
        state=bindparam("b_state"),
        version=bindparam("b_version"),
        committed_at=bindparam("b_at"),
        bytes_received=bindparam("b_received"),
        bytes_sent=bindparam("b_sent"),
    )
)
_WENT_INTO = update(groups).where(_GROUP).values(version=bindparam("b_version"))
_DROP_STATE = update(steps).where(steps.c.run == bindparam("b_run"), steps.c.number == bindparam("b_number"))
_DROP_STATE = _DROP_STATE.values(state="")


def _in_group(verdict: str) -> ColumnElement[int]:
    """How many answers of a group have a verdict."""
    return (
        select(func.count())
        .where(
            assignments.c.run == bindparam("b_run"),
            assignments.c.group_number == bindparam("b_round"),
            assignments.c.verdict == verdict,
        )
        .scalar_subquery()
    )


_ADD = HotStatement(
    insert(steps).values(
        accepted=bindparam("b_accepted") + _in_group("accepted"),
        rejected=bindparam("b_rejected") + _in_group("rejected"),
    )
)


class SqlCommits(Steps):
    """The method of `Store` by which a run goes on."""

    _db: Database

    @override
    def commit_step(
        self,
        step: StepRecord,
        judged: Sequence[UpdateRecord] = (),
        version: VersionRecord | None = None,
        *,
        bytes_received: int = 0,
        bytes_sent: int = 0,
    ) -> None:
        where = {"b_run": step.run, "b_round": step.group}
        with self._db.writing() as connection:
            before: AnyRow | None = _BEFORE.row(connection, where)
            if before is None:
                raise no_round(step.run, step.group)
            if _is_recorded(connection, before, step, version):
                return
            _check_next(connection, before, step, version)
            if version is not None:
                write_version(connection, version)
            _judge(connection, judged)
            _add(connection, before, step, judged)
            self._touch(step, judged, version)
            if step.opens:
                connection.execute(_OPEN, where | {"b_phase": step.opens[0]["phase"], "b_at": step.decided_at})
                return
            totals = {"b_at": step.decided_at, "b_received": bytes_received, "b_sent": bytes_sent}
            _END.run(connection, where | totals | _end_of_group(before, step, judged))
            _note_version(connection, step, judged)

    def _touch(self, step: StepRecord, judged: Sequence[UpdateRecord], version: VersionRecord | None) -> None:
        """What the step changes for good; a round that goes on in another phase may change yet."""
        touched = self._db.touched(step.run)
        touched.steps.add(step.number)
        if version is not None:
            touched.versions.add(version.version)
        if not step.opens:
            touched.groups.update({step.group, *(update.round for update in judged)})


def _is_recorded(connection: Connection, before: AnyRow, step: StepRecord, version: VersionRecord | None) -> bool:
    """Whether just this step is the newest one. Raises `Conflict`: another one has its number."""
    if before.number != step.number:
        return False
    values = step_values(step)
    names = ("cause", "version", "state_sha256", "opens")
    if any(getattr(before, name) != values[name] for name in names):
        raise Conflict(f"run {step.run} has another step {step.number} already: on round {before.cause[-1][0]}")
    return version is None or same_version(connection, version)


def _check_next(connection: Connection, before: AnyRow, step: StepRecord, version: VersionRecord | None) -> None:
    name, expected = f"round {step.group} of run {step.run}", (before.number or 0) + 1
    if step.number != expected:
        raise Conflict(f"step {expected} of run {step.run} is next, not {step.number}")
    version_number = None if version is None else version.version
    if step.version != version_number or (
        version is not None and (version.run, version_number) != (step.run, step.newest + 1)
    ):
        raise Conflict(f"a step from version {step.newest} of run {step.run} cannot make version {version_number}")
    if before.group_state == "collecting":
        _check_arrival(connection, step, name)
    elif (before.group_state, before.phase) != ("aggregating", step.cause[-1][1]):
        raise Conflict(f"{name} is {before.group_state} in phase {before.phase}")
    elif before.base_version != step.newest:
        raise Conflict(f"{name} starts from version {before.base_version}, not {step.newest}")


def _check_arrival(connection: Connection, step: StepRecord, name: str) -> None:
    first = connection.execute(UNDECIDED, {"b_run": step.run}).one_or_none()
    if first is None or first.round != step.group:
        waiting = "no update" if first is None else f"the update of round {first.round}"
        raise Conflict(f"{name} is collecting, and not next: {waiting} is to be decided on")


def _judge(connection: Connection, judged: Sequence[UpdateRecord]) -> None:
    rows = [
        {"b_run": update.run, "b_round": update.round, "b_phase": update.phase, "b_node": update.node}
        | {
            "b_verdict": update.verdict,
            "b_reason": update.reason,
            "b_share": update.share,
            "b_numbers": dict(update.numbers),
        }
        for update in judged
    ]
    if rows and _JUDGE.run(connection, rows) != len(rows):
        sent = [connection.execute(_IS_SENT, row).one_or_none() is not None for row in rows]
        nodes = ", ".join(sorted({update.node for update, is_sent in zip(judged, sent, strict=True) if not is_sent}))
        raise Conflict(f"round {judged[0].round} of run {judged[0].run} has no update of {nodes}")


def _add(connection: Connection, before: AnyRow, step: StepRecord, judged: Sequence[UpdateRecord]) -> None:
    """Record the step; where its group ends with it, all of the group's verdicts count, else none."""
    others = [update.verdict for update in judged if update.round != step.group]
    values = step_values(step) | {"b_run": step.run, "b_round": 0 if step.opens else step.group}
    counts = {
        "b_accepted": (before.accepted or 0) + others.count("accepted"),
        "b_rejected": (before.rejected or 0) + others.count("rejected"),
    }
    _ADD.run(connection, values | counts)
    if step.state and step.number > 1:
        connection.execute(_DROP_STATE, {"b_run": step.run, "b_number": step.number - 1})


def _end_of_group(before: AnyRow, step: StepRecord, judged: Sequence[UpdateRecord]) -> dict[str, Any]:
    """A round has the version that it made; an assignment that in which its update is, if there is one yet."""
    if before.group_state == "aggregating":
        return {"b_state": "committed", "b_version": step.version}
    is_in = any(update.round == step.group and update.verdict == "accepted" for update in judged)
    return {"b_state": "decided", "b_version": step.version if is_in else None}


def _note_version(connection: Connection, step: StepRecord, judged: Sequence[UpdateRecord]) -> None:
    """Updates that were held went into the version."""
    rows = [
        {"b_run": step.run, "b_round": update.round, "b_version": step.version}
        for update in judged
        if update.verdict == "accepted" and update.round != step.group
    ]
    if rows and step.version is not None:
        connection.execute(_WENT_INTO, rows)
