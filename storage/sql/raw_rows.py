"""Rows as the database has them, without trust in what their columns hold: for seals, and for an audit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import JSON, Boolean, Connection, Double, Label, Table, type_coerce
from sqlalchemy.types import NullType

from covey.storage.record.seals import BYTES
from covey.storage.sql.engine import load_json

Row = Mapping[str, Any]


def raw_columns(table: Table) -> list[Label[Any]]:
    """The columns, as the driver gives them."""
    return [type_coerce(column, NullType()).label(column.name) for column in table.c]


def raw_values(table: Table, row: Row) -> dict[str, Any]:
    """A row of `raw_columns`: bytes as `{"$bytes": hex}`, JSON parsed, the same from either back end."""
    return {name: read(row[name]) for name, read in _readers(table)}


@cache
def _readers(table: Table) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    return tuple((column.name, _READ.get(type(column.type), _as_it_is)) for column in table.c)


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Read texts of SQLite that are not UTF-8 too, as somebody else may have put there; bytes become surrogates."""
    raw = connection.connection.dbapi_connection
    if not isinstance(raw, sqlite3.Connection):
        yield
        return
    raw.text_factory = lambda data: data.decode(errors="surrogateescape")
    try:
        yield
    finally:
        raw.text_factory = str


def _as_it_is(value: Any) -> Any:
    return {BYTES: bytes(value).hex()} if isinstance(value, bytes | bytearray | memoryview) else value


def _json(value: Any) -> Any:
    if value in ("{}", "[]"):
        return {} if value == "{}" else []
    if not isinstance(value, str | bytes):
        return value
    try:
        return load_json(value)
    except ValueError:
        return _as_it_is(value)


def _boolean(value: Any) -> Any:
    return bool(value) if isinstance(value, int) and value in (0, 1) else _as_it_is(value)


def _double(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else _as_it_is(value)


_READ = {JSON: _json, Boolean: _boolean, Double: _double}
