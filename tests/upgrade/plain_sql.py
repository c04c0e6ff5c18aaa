"""A record as PostgreSQL's plain SQL: what `pg_dump --inserts` writes, without a `pg_dump` of the server's own age.

The statements that make the tables are those that the migrations send; the server itself writes out the values.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, event, text

MAKES_TABLES = ("CREATE ", "ALTER ", "DROP ")


def tables_of(url: str) -> list[str]:
    """Bring an empty database to this Covey's schema; the statements that did it."""
    from covey.cli.main import covey

    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.lstrip().upper().startswith(MAKES_TABLES):
            found.append(" ".join(line.strip() for line in statement.strip().splitlines()) + ";")

    event.listen(Engine, "before_cursor_execute", note)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            covey(["store", "migrate", "--store", url], standalone_mode=False)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return found


def rows_of(url: str) -> list[str]:
    """Statements that fill empty tables as those of a database, each after those that it refers to."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        with engine.connect() as connection:
            metadata = MetaData()
            metadata.reflect(connection)
            tables = metadata.sorted_tables
            rows = [line for table in tables for line in _inserts(connection, table)]
            return rows + [line for table in tables for line in _sequences(connection, table)]
    finally:
        engine.dispose()


def _inserts(connection: Connection, table: Table) -> Iterator[str]:
    """The values as the server writes them, with every digit of a float."""
    columns = [f'"{column.name}"' for column in table.columns]
    values = " || ', ' || ".join(f"quote_nullable({column}::text)" for column in columns)
    order = ", ".join(f'"{column.name}"' for column in table.primary_key) or "1"
    query = f'SELECT {values} FROM "{table.name}" ORDER BY {order}'
    yield f'DELETE FROM "{table.name}";'  # a row may come with the schema
    for value in connection.execute(text(query)).scalars():
        yield f'INSERT INTO "{table.name}" ({", ".join(columns)}) VALUES ({value});'


def _sequences(connection: Connection, table: Table) -> Iterator[str]:
    column = table.autoincrement_column
    if column is None:
        return
    name = connection.execute(
        text("SELECT pg_get_serial_sequence(:t, :c)"), {"t": table.name, "c": column.name}
    ).scalar()
    highest = connection.execute(text(f'SELECT max("{column.name}") FROM "{table.name}"')).scalar()
    if name and highest:
        yield f"SELECT setval('{name}', {highest});"
