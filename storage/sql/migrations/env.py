"""How Alembic runs the migrations: in the transaction of the connection that `migrate` gives it."""

from __future__ import annotations

from alembic import context

from covey.storage.sql.schema import Base


def _run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise SystemExit("run migrations by `covey store migrate`")
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    context.run_migrations()


_run()
