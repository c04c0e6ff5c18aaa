"""Statements of the path that every round takes: compiled once, and run on the driver's own connection."""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exc
from sqlalchemy.sql.expression import Delete, Insert, Select, Update
from sqlalchemy.types import TypeEngine

Values = Mapping[str, Any]
Processor = Callable[[Any], Any]


@dataclass(frozen=True)
class _Compiled:
    """SQL for SQLite, and what has to be done to the values on their way in and out."""

    text: str
    names: tuple[str, ...]
    constants: Values
    bind: Mapping[str, Processor]
    row: Any = None
    read: tuple[Processor | None, ...] = ()

    def bound(self, values: Values) -> tuple[Any, ...]:
        """The values in their order."""
        whole, bind = {**self.constants, **values}, self.bind
        return tuple(bind[name](whole[name]) if name in bind else whole[name] for name in self.names)


class HotStatement:
    """A statement that is executed several times in each round.

    SQLAlchemy looks a statement up, makes a context for it and wraps its result at every execution. On SQLite, where
    the statement itself takes microseconds, that was most of what the record took of a round; this does it once. On
    PostgreSQL it is executed as any other.

    Args:
        statement: Without `expanding` parameters.
    """

    def __init__(self, statement: Select[Any] | Insert | Update | Delete) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, ...], _Compiled] = {}

    def rows(self, connection: Connection, values: Values) -> Sequence[Any]:
        """What a SELECT finds; each row has its columns as attributes, and `_mapping`."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, values).all()
        compiled = self._for(connection, values)
        rows = _on_driver(connection, "execute", compiled.text, compiled.bound(values)).fetchall()
        return [compiled.row(*_processed(row, compiled.read)) for row in rows]

    def row(self, connection: Connection, values: Values) -> Any:
        """The one row that a SELECT finds; None: there is none."""
        rows = self.rows(connection, values)
        if len(rows) > 1:
            raise exc.MultipleResultsFound(f"{len(rows)} rows were found where there can be one")
        return rows[0] if rows else None

    def run(self, connection: Connection, values: Values | Sequence[Values]) -> int:
        """Change something, once for each of several values; how many rows were changed."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, values).rowcount
        if isinstance(values, Mapping):
            compiled = self._for(connection, values)
            return int(_on_driver(connection, "execute", compiled.text, compiled.bound(values)).rowcount)
        compiled = self._for(connection, values[0])
        return int(_on_driver(connection, "executemany", compiled.text, [*map(compiled.bound, values)]).rowcount)

    def _for(self, connection: Connection, values: Values) -> _Compiled:
        key = tuple(values)
        if key not in self._compiled:
            self._compiled[key] = self._compile(connection, key)
        return self._compiled[key]

    def _compile(self, connection: Connection, keys: Sequence[str]) -> _Compiled:
        dialect, statement = connection.dialect, self._statement
        compiled: Any = statement.compile(dialect=dialect, column_keys=sorted(keys))
        names = tuple(compiled.positiontup or ())
        bind = {name: _processor(compiled.binds[name].type, dialect, "bind_processor") for name in names}
        row, read = None, ()
        if isinstance(statement, Select):
            columns = list(statement.selected_columns)
            row = _row_class([str(column.name) for column in columns])
            read = tuple(_processor(column.type, dialect, "result_processor", None) for column in columns)
        used = {name: process for name, process in bind.items() if process is not None}
        return _Compiled(str(compiled), names, dict(compiled.params), used, row, read)


def begin(connection: Connection, statement: str) -> None:
    """Begin a transaction of SQLite's."""
    _driver(connection, "execute", statement, ())


def _on_driver(connection: Connection, method: str, text: str, values: Any) -> Any:
    if not connection.in_transaction():
        connection.begin()
    return _driver(connection, method, text, values)


def _driver(connection: Connection, method: str, text: str, values: Any) -> Any:
    try:
        return getattr(connection.connection.driver_connection, method)(text, values)
    except sqlite3.Error as error:
        kind: type[exc.DBAPIError] = getattr(exc, type(error).__name__, exc.DBAPIError)
        raise kind(text, None, error) from error


def _processor(kind: TypeEngine[Any], dialect: Any, which: str, *arguments: Any) -> Any:
    return getattr(kind.dialect_impl(dialect), which)(dialect, *arguments)


def _processed(row: Sequence[Any], read: Sequence[Processor | None]) -> list[Any]:
    return [value if process is None else process(value) for value, process in zip(row, read, strict=True)]


def _row_class(names: Sequence[str]) -> Any:
    class Row(namedtuple("Row", names)):  # type: ignore[misc]
        """A row as SQLAlchemy's are read here."""

        @property
        def _mapping(self) -> dict[str, Any]:
            return self._asdict()

    return Row
