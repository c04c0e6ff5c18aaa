"""Databases as their administrator sees them."""

from __future__ import annotations

from sqlalchemy import create_engine

from covey.storage.sql.engine import database_url


def execute(url, *statements):
    """Run SQL outside of any transaction."""
    engine = create_engine(database_url(url), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()
