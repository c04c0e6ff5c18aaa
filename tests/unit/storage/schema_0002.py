"""A record of schema 0002, as the last version with that schema wrote it: rows, and what its store's methods said."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import JSON, MetaData, create_engine, text

from covey.storage.sql.engine import database_url
from covey.storage.sql.migrations import migrate as migrations

DUMP = json.loads((Path(__file__).parent / "data" / "schema_0002.json").read_text())
TABLES, READINGS = DUMP["tables"], DUMP["readings"]
REFUSAL = (
    f"start the coordinator, or run `covey store migrate`, to bring the record from revision 0002 to {migrations.HEAD} "
    "(make a backup first)"
)


@contextmanager
def connected(url):
    engine = create_engine(database_url(url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def go_to(connection, revision):
    config = Config()
    config.set_main_option("script_location", str(migrations.MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    move = command.downgrade if revision < (migrations.revision(connection) or "") else command.upgrade
    move(config, revision)


def table(connection, name):
    metadata = MetaData()
    metadata.reflect(connection, only=[name])
    return metadata.tables[name]


def write(url):
    """Make a database with the rows, at their schema."""
    with connected(url) as connection:
        go_to(connection, "0002")
        for name, rows in TABLES.items():
            insert(connection, table(connection, name), rows)


def insert(connection, target, rows):
    columns = ", ".join(target.c.keys())
    values = ", ".join(f"CAST(:{c.name} AS JSON)" if _is_json(connection, c) else f":{c.name}" for c in target.c)
    for row in rows:
        values_of_row = {
            name: base64.b64decode(value["base64"]) if isinstance(value, dict) else value for name, value in row.items()
        }
        for column in target.c:
            if isinstance(values_of_row[column.name], int) and "BOOLEAN" in str(column.type).upper():
                values_of_row[column.name] = bool(values_of_row[column.name])
        connection.execute(text(f"INSERT INTO {target.name} ({columns}) VALUES ({values})"), values_of_row)


def _is_json(connection, column):
    return connection.dialect.name == "postgresql" and isinstance(column.type, JSON)
