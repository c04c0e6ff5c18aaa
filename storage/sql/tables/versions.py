"""Model versions in SQL, and which files they need."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, insert, select, update
from typing_extensions import override

from covey.errors import Conflict, NotFound
from covey.storage.record.contract import Json, VersionRecord
from covey.storage.record.versions import Versions
from covey.storage.sql.database import Database
from covey.storage.sql.hot import HotStatement
from covey.storage.sql.mapping import AnyRow, version_record, version_values
from covey.storage.sql.schema import file_references, runs, versions

_ADD = HotStatement(insert(versions))
_ADD_REFERENCES = HotStatement(insert(file_references))
_IN_RUN = versions.c.run == bindparam("b_run")
_AFTER = select(versions).where(_IN_RUN, versions.c.version > bindparam("b_after")).order_by(versions.c.version)
_NEWEST = select(versions).where(_IN_RUN).order_by(versions.c.version.desc()).limit(1)
_ONE = select(versions).where(_IN_RUN, versions.c.version == bindparam("b_version"))
_IDENTITY = HotStatement(_ONE.with_only_columns(versions.c.model_sha256, versions.c.digest))
_METRICS = _ONE.with_only_columns(versions.c.metrics, versions.c.evaluated)
_SET_METRICS = (
    update(versions)
    .where(_IN_RUN, versions.c.version == bindparam("b_version"))
    .values(metrics=bindparam("b_metrics"), measured=bindparam("b_measured"), evaluated=bindparam("b_evaluated"))
)
_RUN_EXISTS = select(runs.c.run).where(runs.c.run == bindparam("b_run"))


def add_references(connection: Connection, run: str, kind: str, number: int, node: str, digests: Iterable[str]) -> None:
    """Record which files a kept version or update needs."""
    common = {"run": run, "kind": kind, "number": number, "node": node}
    rows = [common | {"digest": digest} for digest in sorted(set(digests))]
    if rows:
        _ADD_REFERENCES.run(connection, rows)


def same_version(connection: Connection, version: VersionRecord) -> bool:
    """Whether just this version is recorded under its number.

    Raises:
        Conflict: Another one is.
    """
    row = _IDENTITY.row(connection, {"b_run": version.run, "b_version": version.version})
    if row is None:
        return False
    if (row.model_sha256, row.digest) != (version.model_sha256, version.artifact.digest):
        raise Conflict(f"run {version.run} has another version {version.version} already: {row.model_sha256[:12]}")
    return True


def write_version(connection: Connection, version: VersionRecord) -> None:
    """Record a version and the files that it needs, unless it is there. Raises `Conflict`: another one is."""
    if same_version(connection, version):
        return
    _ADD.run(connection, version_values(version))
    if version.kept:
        digests = [version.artifact.digest, *(part.artifact.digest for part in version.state)]
        add_references(connection, version.run, "version", version.version, "", digests)


class SqlVersions(Versions):
    """The methods of `Store` that concern versions."""

    _db: Database

    @override
    def add_version(self, version: VersionRecord) -> None:
        with self._db.writing() as connection:
            if connection.execute(_RUN_EXISTS, {"b_run": version.run}).one_or_none() is None:
                raise NotFound(f"there is no run {version.run!r}")
            write_version(connection, version)
            self._db.touched(version.run).versions.add(version.version)

    @override
    def versions(
        self, run: str, *, after: int = -1, limit: int | None = None, kept_only: bool = False
    ) -> list[VersionRecord]:
        query = _AFTER.where(versions.c.kept.is_(True)) if kept_only else _AFTER
        query = query if limit is None else query.limit(limit)
        with self._db.reading() as connection:
            return [version_record(row) for row in connection.execute(query, {"b_run": run, "b_after": after})]

    @override
    def version(self, run: str, number: int) -> VersionRecord:
        with self._db.reading() as connection:
            row = self._row(connection, run, number)
            newest = self._row(connection, run, -1) if row is None else None
        if row is None and newest is not None:
            raise NotFound(f"run {run} has no version {number}; it has 0 to {newest.version}")
        if row is None:
            raise NotFound(f"run {run} has no version yet")
        return version_record(row)

    def _row(self, connection: Connection, run: str, number: int) -> AnyRow | None:
        if number < 0:
            return connection.execute(_NEWEST, {"b_run": run}).one_or_none()
        return connection.execute(_ONE, {"b_run": run, "b_version": number}).one_or_none()

    @override
    def record_metrics(self, run: str, version: int, metrics: Json, *, evaluated: bool) -> None:
        where = {"b_run": run, "b_version": version}
        with self._db.writing() as connection:
            row = connection.execute(_METRICS, where).one_or_none()
            if row is None:
                raise NotFound(f"run {run} has no version {version}")
            merged = row.metrics | metrics
            values = {"b_metrics": merged, "b_measured": bool(merged), "b_evaluated": row.evaluated or evaluated}
            connection.execute(_SET_METRICS, where | values)
            self._db.touched(run).versions.add(version)
