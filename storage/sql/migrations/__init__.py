"""The schema, version by version (Alembic), and `migrate`, which brings a database up to date.

A migration names its own tables and columns: it must do the same when the schema has moved on."""
