"""What a run has come to, in SQL: the newest of everything, found in indexes however long the run is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select
from typing_extensions import override

from covey.storage.record.contract import RunSummary
from covey.storage.record.runs import Runs
from covey.storage.sql.database import Database
from covey.storage.sql.schema import runs, steps, versions

_ASKED = runs.c.run.in_(bindparam("b_runs", expanding=True))


def _newest(number: ColumnElement[int], *where: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.max(number)).where(*where).correlate(runs).scalar_subquery()


_OF_RUN = versions.c.run == runs.c.run
_earlier = versions.alias()
_NEWEST_VERSION = (
    select(versions.c.run, versions.c.version, versions.c.model_sha256)
    .select_from(runs)
    .join(versions, _OF_RUN)
    .where(_ASKED, versions.c.version == _newest(_earlier.c.version, _earlier.c.run == runs.c.run))
)
_NEWEST_METRICS = (
    select(versions.c.run, versions.c.metrics)
    .select_from(runs)
    .join(versions, _OF_RUN)
    .where(
        _ASKED,
        versions.c.version
        == _newest(_earlier.c.version, and_(_earlier.c.run == runs.c.run, _earlier.c.measured.is_(True))),
    )
)
_before = steps.alias()
_NEWEST_STEP = (
    select(steps.c.run, steps.c.number, steps.c.state_sha256, steps.c.accepted, steps.c.rejected)
    .select_from(runs)
    .join(steps, steps.c.run == runs.c.run)
    .where(_ASKED, steps.c.number == _newest(_before.c.number, _before.c.run == runs.c.run))
)


class SqlSummaries(Runs):
    """The method of `Store` that sums runs up."""

    _db: Database

    @override
    def run_summaries(self, runs: Sequence[str]) -> dict[str, RunSummary]:
        fields: dict[str, dict[str, Any]] = {run: {} for run in runs}
        with self._db.reading() as connection:
            for run, values in _read(connection, list(fields)):
                fields[run] |= values
        return {run: RunSummary(**values) for run, values in fields.items()}


def _read(connection: Connection, runs: list[str]) -> list[tuple[str, dict[str, Any]]]:
    asked = {"b_runs": runs}
    newest = [
        (row.run, {"version": row.version, "model_sha256": row.model_sha256})
        for row in connection.execute(_NEWEST_VERSION, asked)
    ]
    measured = [(row.run, {"metrics": row.metrics}) for row in connection.execute(_NEWEST_METRICS, asked)]
    decided = [
        (
            row.run,
            {
                "updates_decided": row.number if row.state_sha256 else 0,
                "accepted": row.accepted,
                "rejected": row.rejected,
            },
        )
        for row in connection.execute(_NEWEST_STEP, asked)
    ]
    return newest + measured + decided
