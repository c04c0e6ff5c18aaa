"""Which part of experiment data an assignment of an asynchronous run is for; a row from before has none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("groups", sa.Column("part", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("groups", "part")
