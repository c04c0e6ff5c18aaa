"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _runs()
    _rounds()
    _versions()
    _identities()
    _events_and_settings()
    _lease()


def downgrade() -> None:
    for table in (
        "lease",
        "settings",
        "events",
        "tokens",
        "keys",
        "nodes",
        "file_references",
        "model_versions",
        "updates",
        "rounds",
        "runs",
    ):
        op.drop_table(table)


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _counts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in names]


def _json(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.JSON(), nullable=False) for name in names]


def _binary(*names: str) -> list[sa.Column[bytes]]:
    return [sa.Column(name, sa.LargeBinary(), nullable=False) for name in names]


def _flags(*names: str) -> list[sa.Column[bool]]:
    return [sa.Column(name, sa.Boolean(), nullable=False) for name in names]


def _real(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _long_text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _runs() -> None:
    op.create_table(
        "runs",
        *_text("run", "name", "mode"),
        *_long_text("spec"),
        *_counts("seed"),
        *_text("state"),
        *_long_text("reason"),
        _real("submitted_at"),
        _real("started_at", nullable=True),
        _real("ended_at", nullable=True),
        *_json("roster"),
        *_counts("parts"),
        *_long_text("layout"),
        sa.PrimaryKeyConstraint("run", name="pk_runs"),
    )
    for column in ("name", "state", "submitted_at"):
        op.create_index(f"ix_runs_{column}", "runs", [column])


def _rounds() -> None:
    op.create_table(
        "rounds",
        *_text("run"),
        *_counts("round", "attempt"),
        *_text("state"),
        *_json("invited"),
        *_counts("base_version"),
        _real("started_at"),
        _real("attempt_at"),
        _real("committed_at", nullable=True),
        *_counts("bytes_received", "bytes_sent"),
        *_long_text("reason"),
        sa.PrimaryKeyConstraint("run", "round", name="pk_rounds"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_rounds_run_runs"),
    )
    op.create_table(
        "updates",
        *_text("run"),
        *_counts("round"),
        *_text("node", "verdict"),
        *_long_text("reason"),
        *_text("digest"),
        *_binary("statement", "signature"),
        *_text("key_id", "base_sha256"),
        *_json("parts"),
        *_counts("bytes"),
        _real("weight"),
        _real("share"),
        *_json("numbers", "metrics"),
        _real("received_at", nullable=True),
        *_flags("kept"),
        sa.PrimaryKeyConstraint("run", "round", "node", name="pk_updates"),
        sa.ForeignKeyConstraint(["run", "round"], ["rounds.run", "rounds.round"], name="fk_updates_run_round_rounds"),
    )
    op.create_index("ix_updates_run_round_verdict", "updates", ["run", "round", "verdict"])
    op.create_index("ix_updates_node_verdict", "updates", ["node", "verdict"])


def _versions() -> None:
    op.create_table(
        "model_versions",
        *_text("run"),
        *_counts("version"),
        *_text("model_sha256", "digest"),
        *_counts("size_bytes"),
        *_binary("chunk_sha256"),
        _real("created_at"),
        *_text("parent_sha256"),
        *_json("state"),
        *_binary("statement", "signature"),
        *_json("metrics"),
        *_flags("evaluated", "kept"),
        sa.PrimaryKeyConstraint("run", "version", name="pk_model_versions"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_model_versions_run_runs"),
    )
    op.create_index("ix_model_versions_run_kept_version", "model_versions", ["run", "kept", "version"])
    op.create_table(
        "file_references",
        *_text("run", "kind"),
        *_counts("number"),
        *_text("node", "digest"),
        sa.PrimaryKeyConstraint("run", "kind", "number", "node", "digest", name="pk_file_references"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_file_references_run_runs"),
    )
    op.create_index("ix_file_references_digest", "file_references", ["digest"])


def _identities() -> None:
    op.create_table(
        "nodes",
        *_text("node", "role", "state"),
        _real("enrolled_at"),
        _real("last_seen_at", nullable=True),
        *_text("certificate_serial"),
        _real("certificate_expires_at"),
        *_text("key_id"),
        *_long_text("version", "device"),
        *_json("tasks"),
        *_text("token"),
        sa.PrimaryKeyConstraint("node", name="pk_nodes"),
    )
    op.create_table(
        "keys",
        *_text("key_id", "node"),
        *_binary("public_key"),
        _real("valid_from"),
        _real("valid_until", nullable=True),
        sa.PrimaryKeyConstraint("key_id", name="pk_keys"),
        sa.ForeignKeyConstraint(["node"], ["nodes.node"], name="fk_keys_node_nodes"),
    )
    op.create_index("ix_keys_node", "keys", ["node"])
    op.create_table(
        "tokens",
        *_text("secret_sha256", "name", "role"),
        _real("created_at"),
        _real("expires_at"),
        *_text("csr_key_sha256"),
        *_binary("certificate"),
        sa.PrimaryKeyConstraint("secret_sha256", name="pk_tokens"),
    )


def _events_and_settings() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        _real("at"),
        *_text("kind", "run", "node"),
        *_json("detail"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_run_id", "events", ["run", "id"])
    op.create_index("ix_events_node_id", "events", ["node", "id"])
    op.create_table("settings", *_text("key"), *_long_text("value"), sa.PrimaryKeyConstraint("key", name="pk_settings"))


def _lease() -> None:
    table = op.create_table(
        "lease", *_counts("id", "epoch"), *_text("holder"), sa.PrimaryKeyConstraint("id", name="pk_lease")
    )
    op.bulk_insert(table, [{"id": 1, "epoch": 0, "holder": ""}])
