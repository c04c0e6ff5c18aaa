"""One database in use: many connections that read, one that writes, and the lease that fences the writer.

Every transaction that writes first takes the row of `lease`, on both back ends: there is one writer at a
time, and a writer whose fencing number is no longer in that row stops (`Fenced`).

On PostgreSQL the connection that writes is also the one that holds the advisory lock. When it breaks, the
lock is gone with it; the next write opens another one, takes the lock again, and goes on if nobody was
coordinator in between.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from sqlalchemy import URL, Connection, exc, select, update

from covey.errors import Conflict, Fenced, StoreError, StoreUnavailable
from covey.storage.sql.engine import WRITES, make_engine, sqlite_path, translated
from covey.storage.sql.hot import HotStatement
from covey.storage.sql.locks import AdvisoryLock, FileLock
from covey.storage.sql.schema import LEASE_ROW, lease
from covey.storage.sql.touched import Ledger, Touched

_TAKE_ROW = HotStatement(select(lease.c.epoch, lease.c.holder).where(lease.c.id == LEASE_ROW).with_for_update())
_READ_ROW = select(lease.c.epoch, lease.c.holder).where(lease.c.id == LEASE_ROW)


class Database:
    """Connections to one database that is at this version's schema. Safe to use from any thread.

    Args:
        url: As `covey.storage.sql.engine.database_url` gives it.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine = make_engine(url)
        path = self._path = sqlite_path(url)
        one_state = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reads = self.engine if path else self.engine.execution_options(**one_state)
        self._lock: FileLock | AdvisoryLock = FileLock(path) if path else AdvisoryLock()
        self._writing = threading.Lock()
        self._writer: Connection | None = None
        self._epoch: int | None = None
        self._closed = False
        self._touched: dict[str, Touched] = {}
        self.ledger: Ledger | None = None
        """Seals, at the end of a transaction, each run of which something was `touched`."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads one consistent state."""
        self._check_open()
        with translated(self._path), self._reads.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: committed durably at the end, rolled back by an error.

        Raises:
            Fenced: Another coordinator took the lease.
        """
        with self._writing:
            self._check_open()
            self._touched = {}
            try:
                with translated(self._path), self._begun() as connection:
                    yield connection
                    self._seal(connection)
            except BaseException:
                if self.ledger is not None:
                    self.ledger.forget()
                raise

    def touched(self, run: str) -> Touched:
        """Where a method notes what it changes of a run in the transaction that writes; "": what belongs to no run."""
        return self._touched.setdefault(run, Touched())

    def _seal(self, connection: Connection) -> None:
        if self.ledger is not None:
            for run, touched in sorted(self._touched.items()):
                self.ledger.seal(connection, run, touched)

    @contextlib.contextmanager
    def _begun(self) -> Iterator[Connection]:
        connection, holder, epoch = self._take_row()
        try:
            if self._epoch is not None and epoch != self._epoch:
                raise Fenced(
                    f"{holder} took the lease on this store (number {epoch}, ours was {self._epoch}): "
                    "this coordinator must stop"
                )
            yield connection
            connection.commit()
        except BaseException as error:
            self._give_up(connection, error)
            raise

    def _take_row(self) -> tuple[Connection, str, int]:
        """Begin a transaction; a connection that has broken since the last one is replaced, once."""
        try:
            return self._try_take_row()
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return self._try_take_row()

    def _try_take_row(self) -> tuple[Connection, str, int]:
        connection = self._connected()
        try:
            [row] = _TAKE_ROW.rows(connection, {})
        except BaseException as error:
            self._give_up(connection, error)
            raise
        return connection, row.holder, row.epoch

    def _connected(self) -> Connection:
        if self._writer is None:
            connection = self.engine.connect().execution_options(**{WRITES: True})
            try:
                if self._epoch is not None:
                    self._retake(connection)
            except BaseException:
                connection.close()
                raise
            self._writer = connection
        return self._writer

    def _give_up(self, connection: Connection, error: BaseException) -> None:
        """Roll back; a broken connection is dropped, so that no other one takes its place unnoticed."""
        broken = isinstance(error, exc.DBAPIError) and error.connection_invalidated
        try:
            connection.rollback()
        except exc.DBAPIError:
            broken = True
        if broken:
            self._writer = None
            connection.invalidate()
            connection.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("this store is closed")

    # -- lease -----------------------------------------------------------------------------------------------

    def acquire_lease(self, holder: str) -> int:
        """Take the lease that allows to write, for `holder`; its fencing number. Conflict: another process has it."""
        if self._epoch is not None:
            return self._epoch
        with self._writing, translated(self._path):
            self._check_open()
            connection = self._connected()
            try:
                if not self._lock.take(connection):
                    raise Conflict(self._held_by(connection))
                return self._new_epoch(holder)
            except BaseException:
                self._drop_lease()
                raise

    def lease_number(self) -> int:
        """The fencing number of the newest lease, whoever has it; 0 before the first one."""
        with self.reading() as connection:
            number: int = connection.execute(_READ_ROW).one().epoch
        return number

    def _drop_lease(self) -> None:
        """End the writing connection, and with it the lock."""
        if self._writer is not None:
            with contextlib.suppress(exc.DBAPIError):
                self._writer.rollback()
                self._writer.detach()
            with contextlib.suppress(exc.DBAPIError):
                self._writer.close()
            self._writer = None
        self._lock.release()

    def _new_epoch(self, holder: str) -> int:
        with self._begun() as connection:
            epoch: int = connection.execute(_READ_ROW).one().epoch + 1
            connection.execute(update(lease).where(lease.c.id == LEASE_ROW).values(epoch=epoch, holder=holder))
        self._epoch = epoch
        return epoch

    def _retake(self, connection: Connection) -> None:
        """Get the lock back that broke with its connection.

        While the epoch is still ours, whoever holds it can only be our own lost connection.
        """
        if self._lock.take(connection):
            return
        row = connection.execute(_READ_ROW).one()
        connection.rollback()
        if row.epoch == self._epoch:
            raise StoreUnavailable("the database has not noticed yet that the old connection broke; try again")
        raise Fenced(f"{row.holder} took the lease on this store; this coordinator must stop")

    def _held_by(self, connection: Connection) -> str:
        row = connection.execute(_READ_ROW).one()
        connection.rollback()
        holder = row.holder or "just starting"
        return f"another coordinator ({holder}) runs on this store: stop it first, or use another store"

    # -- end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the lease and every connection."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            self._drop_lease()
            self.engine.dispose()
