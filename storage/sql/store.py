"""The store in SQL: SQLite in the data directory, or PostgreSQL by URL."""

from __future__ import annotations

from typing_extensions import override

from covey.storage.record.contract import Store
from covey.storage.sql.check import check
from covey.storage.sql.database import Database
from covey.storage.sql.engine import database_url
from covey.storage.sql.migrations import migrate as migrations
from covey.storage.sql.migrations.migrate import migrate
from covey.storage.sql.tables.commits import SqlCommits
from covey.storage.sql.tables.events import SqlEvents
from covey.storage.sql.tables.gossip import SqlGossip
from covey.storage.sql.tables.identities import SqlIdentities
from covey.storage.sql.tables.retention import SqlRetention
from covey.storage.sql.tables.rounds import SqlRounds
from covey.storage.sql.tables.runs import SqlRuns
from covey.storage.sql.tables.seals import SqlSeals
from covey.storage.sql.tables.signed import SqlSigned
from covey.storage.sql.tables.steps import SqlSteps
from covey.storage.sql.tables.summaries import SqlSummaries
from covey.storage.sql.tables.updates import SqlUpdates
from covey.storage.sql.tables.versions import SqlVersions

__all__ = ["SqlStore", "migrate", "open_store"]


class SqlStore(
    SqlRuns,
    SqlSummaries,
    SqlRounds,
    SqlUpdates,
    SqlSigned,
    SqlCommits,
    SqlSteps,
    SqlVersions,
    SqlRetention,
    SqlIdentities,
    SqlEvents,
    SqlSeals,
    SqlGossip,
    Store,
):
    """A `Store` on a database that is at this version's schema; made by `open_store`."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def database(self) -> Database:
        """The database, for copying it."""
        return self._db

    @override
    def acquire_lease(self, holder: str) -> int:
        return self._db.acquire_lease(holder)

    @override
    def close(self) -> None:
        self._db.close()

    @override
    def check(self) -> list[str]:
        with self._db.reading() as connection:
            return check(connection)


def open_store(url: str, *, migrate: bool = True) -> SqlStore:
    """Open a store, and bring its schema up to date first where it is behind.

    Args:
        url: `sqlite:///PATH` (made if it is missing; its folder must exist) or
        `postgresql://USER@HOST/DATABASE`.
        migrate: False for who only reads: a database that is behind, missing or empty is refused, and stays as it is.

    Raises:
        StoreError: The URL is not a store's, or the database was made by a newer Covey, or may not be migrated.
        StoreUnavailable: The database cannot be reached.
    """
    if migrate:
        migrations.migrate(url)
    else:
        migrations.require_current(url)
    return SqlStore(Database(database_url(url)))
