"""Join tokens of several uses: each use is a row of its own, with the certificate that was given for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    used = _used()  # read first: no row may refer to a token while SQLite makes the table of tokens anew
    with op.batch_alter_table("tokens") as table:
        table.add_column(sa.Column("uses", sa.BigInteger(), nullable=False, server_default="1"))
        table.drop_column("csr_key_sha256")
        table.drop_column("certificate")
    _drop_default("uses")
    redemptions = op.create_table(
        "redemptions",
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("csr_key_sha256", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("certificate", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("secret_sha256", "csr_key_sha256", name="pk_redemptions"),
        sa.ForeignKeyConstraint(
            ["secret_sha256"], ["tokens.secret_sha256"], name="fk_redemptions_secret_sha256_tokens"
        ),
    )
    op.bulk_insert(redemptions, used)


def _used() -> list[dict[str, object]]:
    """The use of each token that has one, as a row of `redemptions`."""
    query = "SELECT secret_sha256, csr_key_sha256, name AS node, certificate FROM tokens WHERE csr_key_sha256 <> ''"
    return [dict(row) for row in op.get_bind().execute(sa.text(query)).mappings()]


def downgrade() -> None:
    """A token of several uses becomes one that is used, by the first of its keys in their order."""
    empty = "''::bytea" if op.get_bind().dialect.name == "postgresql" else "x''"
    with op.batch_alter_table("tokens") as table:
        table.add_column(sa.Column("csr_key_sha256", sa.String(), nullable=False, server_default=""))
        table.add_column(sa.Column("certificate", sa.LargeBinary(), nullable=False, server_default=sa.text(empty)))
        table.drop_column("uses")
    _drop_default("csr_key_sha256", "certificate")
    first = "SELECT {} FROM redemptions r WHERE r.secret_sha256 = tokens.secret_sha256 ORDER BY csr_key_sha256 LIMIT 1"
    op.execute(
        f"UPDATE tokens SET csr_key_sha256 = ({first.format('csr_key_sha256')}),"
        f" certificate = ({first.format('certificate')})"
        " WHERE secret_sha256 IN (SELECT secret_sha256 FROM redemptions)"
    )
    op.drop_table("redemptions")


def _drop_default(*columns: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for column in columns:
            op.alter_column("tokens", column, server_default=None)
