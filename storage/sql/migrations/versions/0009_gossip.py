"""What a coordinator knows of gossip runs: who takes part and where, and what the nodes signed of their parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gossip_members",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "node", name="pk_gossip_members"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_gossip_members_run_runs"),
    )
    op.create_table(
        "gossip_statements",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("incarnation", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run", "node", "incarnation", "number", name="pk_gossip_statements"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_gossip_statements_run_runs"),
    )


def downgrade() -> None:
    op.drop_table("gossip_statements")
    op.drop_table("gossip_members")
