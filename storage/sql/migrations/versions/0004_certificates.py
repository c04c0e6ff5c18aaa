"""Which certificate a node asked with when it renewed: it is good until the new one is used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("nodes") as table:
        table.add_column(sa.Column("previous_serial", sa.String(), nullable=False, server_default=""))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("nodes", "previous_serial", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("nodes") as table:
        table.drop_column("previous_serial")
