"""Asynchronous runs: arrivals, decisions and the policy's state; a round names the version that it made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("version", sa.BigInteger(), nullable=True))
    op.add_column("rounds", sa.Column("arrival", sa.BigInteger(), nullable=True))
    op.execute("UPDATE rounds SET version = round WHERE state = 'committed'")
    op.create_index("ix_rounds_run_state_arrival", "rounds", ["run", "state", "arrival"])
    op.create_index("ix_rounds_run_arrival", "rounds", ["run", "arrival"])
    _decisions()
    _policy_states()


def downgrade() -> None:
    op.drop_table("policy_states")
    op.drop_table("decisions")
    op.drop_index("ix_rounds_run_arrival", "rounds")
    op.drop_index("ix_rounds_run_state_arrival", "rounds")
    with op.batch_alter_table("rounds") as table:
        table.drop_column("arrival")
        table.drop_column("version")


def _count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("run", sa.String(), nullable=False),
        _count("decision"),
        _count("round"),
        _count("newest"),
        _count("version", nullable=True),
        _count("roster"),
        sa.Column("verdicts", sa.JSON(), nullable=False),
        sa.Column("state_sha256", sa.String(), nullable=False),
        sa.Column("decided_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("run", "decision", name="pk_decisions"),
        sa.ForeignKeyConstraint(["run", "round"], ["rounds.run", "rounds.round"], name="fk_decisions_run_round_rounds"),
    )


def _policy_states() -> None:
    op.create_table(
        "policy_states",
        sa.Column("run", sa.String(), nullable=False),
        _count("decision"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("pinned_updates", sa.JSON(), nullable=False),
        sa.Column("pinned_versions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_policy_states"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_policy_states_run_runs"),
    )
