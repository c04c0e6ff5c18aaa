"""Groups of assignments and steps, for both modes, in place of rounds, updates, decisions and policy states.

Every committed round gets a step, made from its updates. What nobody wrote down at the time is filled in from what is
known now: the roster's size is that of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BLOCK_ROWS = 1000
PHASE = 1
ANSWER = (
    "verdict, reason, digest, statement, signature, key_id, base_sha256, parts, bytes, weight, share, numbers, metrics,"
    " received_at, kept"
)
GROUP = (
    "attempt, state, invited, base_version, started_at, attempt_at, committed_at, bytes_received, bytes_sent, reason,"
    " version, arrival"
)


def upgrade() -> None:
    _create_groups()
    _create_assignments()
    _create_steps()
    op.execute(f"INSERT INTO groups (run, number, phase, {GROUP}) SELECT run, round, {PHASE}, {GROUP} FROM rounds")
    answer = ", ".join(f"u.{name}" for name in ANSWER.split(", "))
    op.execute(
        f"INSERT INTO assignments (run, group_number, phase, node, kind, attempt, base_version, {ANSWER})"
        f" SELECT u.run, u.round, {PHASE}, u.node, 'train', r.attempt, r.base_version, {answer}"
        " FROM updates u JOIN rounds r ON r.run = u.run AND r.round = u.round"
    )
    _write_steps()
    for table in ("policy_states", "decisions", "updates", "rounds"):
        op.drop_table(table)
    _index_runs_and_versions()


def downgrade() -> None:
    op.drop_index("ix_model_versions_run_measured_version", "model_versions")
    with op.batch_alter_table("model_versions") as table:
        table.drop_column("measured")
    op.drop_index("ix_runs_submitted_at_run", "runs")
    op.create_index("ix_runs_submitted_at", "runs", ["submitted_at"])
    _create_rounds()
    _create_updates()
    _create_decisions()
    op.execute(f"INSERT INTO rounds (run, round, {GROUP}) SELECT run, number, {GROUP} FROM groups")
    op.execute(
        f"INSERT INTO updates (run, round, node, {ANSWER}) SELECT run, group_number, node, {ANSWER} FROM assignments"
    )
    _write_decisions()
    for name in ("steps", "assignments", "groups"):
        op.drop_table(name)


# -- tables ------------------------------------------------------------------------------------------------------


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _long_text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _count(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable) for name in names]


def _json(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.JSON(), nullable=False) for name in names]


def _real(*names: str, nullable: bool = False) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double(), nullable=nullable) for name in names]


def _answer() -> list[sa.Column[Any]]:
    return [
        *_text("verdict"),
        *_long_text("reason"),
        *_text("digest"),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("statement", "signature")),
        *_text("key_id", "base_sha256"),
        *_json("parts"),
        *_count("bytes"),
        *_real("weight", "share"),
        *_json("numbers", "metrics"),
        *_real("received_at", nullable=True),
        sa.Column("kept", sa.Boolean(), nullable=False),
    ]


def _attempt() -> list[sa.Column[Any]]:
    return [
        *_text("state"),
        *_json("invited"),
        *_count("base_version"),
        *_real("started_at", "attempt_at"),
        *_real("committed_at", nullable=True),
        *_count("bytes_received", "bytes_sent"),
        *_long_text("reason"),
        *_count("version", "arrival", nullable=True),
    ]


def _create_groups() -> None:
    op.create_table(
        "groups",
        *_text("run"),
        *_count("number", "attempt", "phase"),
        *_attempt(),
        sa.PrimaryKeyConstraint("run", "number", name="pk_groups"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_groups_run_runs"),
    )
    op.create_index("ix_groups_run_state_arrival", "groups", ["run", "state", "arrival"])
    op.create_index("ix_groups_run_arrival", "groups", ["run", "arrival"])


def _create_assignments() -> None:
    op.create_table(
        "assignments",
        *_text("run"),
        *_count("group_number", "phase"),
        *_text("node", "kind"),
        *_count("attempt", "base_version"),
        *_answer(),
        sa.PrimaryKeyConstraint("run", "group_number", "phase", "node", name="pk_assignments"),
        sa.ForeignKeyConstraint(
            ["run", "group_number"], ["groups.run", "groups.number"], name="fk_assignments_run_group_number_groups"
        ),
    )
    op.create_index("ix_assignments_run_group_number_verdict", "assignments", ["run", "group_number", "verdict"])
    columns = ["node", "run", "group_number", "verdict"]
    op.create_index("ix_assignments_node_run_group_number_verdict", "assignments", columns)


def _create_steps() -> None:
    op.create_table(
        "steps",
        *_text("run"),
        *_count("number"),
        *_json("cause"),
        *_count("newest"),
        *_count("version", nullable=True),
        *_count("roster"),
        *_json("verdicts"),
        *_long_text("state"),
        *_text("state_sha256"),
        *_json("pinned_updates", "pinned_versions", "opens"),
        *_count("accepted", "rejected"),
        *_real("decided_at"),
        sa.PrimaryKeyConstraint("run", "number", name="pk_steps"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_steps_run_runs"),
    )


def _index_runs_and_versions() -> None:
    op.drop_index("ix_runs_submitted_at", "runs")
    op.create_index("ix_runs_submitted_at_run", "runs", ["submitted_at", "run"])
    column: sa.Column[bool] = sa.Column("measured", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("model_versions", column)
    op.execute("UPDATE model_versions SET measured = true WHERE CAST(metrics AS TEXT) <> '{}'")
    op.create_index("ix_model_versions_run_measured_version", "model_versions", ["run", "measured", "version"])


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        *_text("run"),
        *_count("round", "attempt"),
        *_attempt(),
        sa.PrimaryKeyConstraint("run", "round", name="pk_rounds"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_rounds_run_runs"),
    )
    op.create_index("ix_rounds_run_state_arrival", "rounds", ["run", "state", "arrival"])
    op.create_index("ix_rounds_run_arrival", "rounds", ["run", "arrival"])


def _create_updates() -> None:
    op.create_table(
        "updates",
        *_text("run"),
        *_count("round"),
        *_text("node"),
        *_answer(),
        sa.PrimaryKeyConstraint("run", "round", "node", name="pk_updates"),
        sa.ForeignKeyConstraint(["run", "round"], ["rounds.run", "rounds.round"], name="fk_updates_run_round_rounds"),
    )
    op.create_index("ix_updates_run_round_verdict", "updates", ["run", "round", "verdict"])
    op.create_index("ix_updates_node_verdict", "updates", ["node", "verdict"])


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        *_text("run"),
        *_count("decision", "round", "newest"),
        *_count("version", nullable=True),
        *_count("roster"),
        *_json("verdicts"),
        *_text("state_sha256"),
        *_real("decided_at"),
        sa.PrimaryKeyConstraint("run", "decision", name="pk_decisions"),
        sa.ForeignKeyConstraint(["run", "round"], ["rounds.run", "rounds.round"], name="fk_decisions_run_round_rounds"),
    )
    op.create_table(
        "policy_states",
        *_text("run"),
        *_count("decision"),
        *_long_text("state"),
        *_json("pinned_updates", "pinned_versions"),
        sa.PrimaryKeyConstraint("run", name="pk_policy_states"),
        sa.ForeignKeyConstraint(["run"], ["runs.run"], name="fk_policy_states_run_runs"),
    )


# -- rows: JSON stays the text that it is ------------------------------------------------------------------------

STATELESS = {"state": "", "state_sha256": "", "pinned_updates": "[]", "pinned_versions": "[]"}
STEP = (
    "run, number, cause, newest, version, roster, verdicts, state, state_sha256, pinned_updates, pinned_versions,"
    " opens, accepted, rejected, decided_at"
)
_JSON = ("cause", "verdicts", "pinned_updates", "pinned_versions", "opens")


def _write_steps() -> None:
    _insert("steps", STEP, _steps_of_decisions())
    _insert("steps", STEP, _steps_of_rounds())


def _steps_of_decisions() -> Iterator[dict[str, Any]]:
    rows = _rows(
        "SELECT d.run, d.decision AS number, d.round, d.newest, d.version, d.roster,"
        " CAST(d.verdicts AS TEXT) AS verdicts, d.state_sha256, d.decided_at, s.state,"
        " CAST(s.pinned_updates AS TEXT) AS pinned_updates, CAST(s.pinned_versions AS TEXT) AS pinned_versions"
        " FROM decisions d LEFT JOIN policy_states s ON s.run = d.run AND s.decision = d.decision"
        " ORDER BY d.run, d.decision"
    )
    for _, decisions in groupby(rows, key=lambda row: row["run"]):
        counts = {"accepted": 0, "rejected": 0}
        for row in decisions:
            _count_verdicts(counts, json.loads(row["verdicts"]))
            # Only the newest decision has a state.
            state = {name: row[name] if row["state"] is not None else STATELESS[name] for name in _STATE}
            yield {**row, **state, **counts, "cause": _cause(row["round"]), "opens": "[]"}


_STATE = ("state", "pinned_updates", "pinned_versions")


def _steps_of_rounds() -> Iterator[dict[str, Any]]:
    rows = _rows(
        "SELECT r.run, r.round AS number, r.base_version AS newest, r.version,"
        " COALESCE(r.committed_at, r.attempt_at) AS decided_at, json_array_length(n.roster) AS roster,"
        " u.node, u.verdict, u.reason, u.share,"
        " CAST(u.numbers AS TEXT) AS numbers, u.digest"
        " FROM rounds r JOIN runs n ON n.run = r.run"
        " LEFT JOIN updates u ON u.run = r.run AND u.round = r.round AND u.verdict IN ('accepted', 'rejected')"
        " WHERE r.state = 'committed' ORDER BY r.run, r.round"
    )
    for _, of_run in groupby(rows, key=lambda row: row["run"]):
        counts = {"accepted": 0, "rejected": 0}
        for number, answers in groupby(of_run, key=lambda row: row["number"]):
            updates = sorted(answers, key=lambda row: row["node"] or "")
            _count_verdicts(counts, updates)
            verdicts = "[" + ",".join(_verdict(row) for row in updates if row["digest"]) + "]"
            yield {**updates[0], **STATELESS, **counts, "cause": _cause(number), "verdicts": verdicts, "opens": "[]"}


def _verdict(row: Mapping[str, Any]) -> str:
    fields = {"round": row["number"], **{name: row[name] for name in ("node", "verdict", "reason", "share")}}
    text = json.dumps(fields, allow_nan=False, separators=(",", ":"))
    return f'{text[:-1]},"numbers":{row["numbers"]}}}'


def _count_verdicts(counts: dict[str, int], verdicts: list[Any]) -> None:
    for name in counts:
        counts[name] += sum(verdict["verdict"] == name for verdict in verdicts)


def _cause(number: int) -> str:
    return f"[[{number},{PHASE}]]"


def _write_decisions() -> None:
    op.execute(
        "INSERT INTO policy_states (run, decision, state, pinned_updates, pinned_versions)"
        " SELECT run, number, state, pinned_updates, pinned_versions FROM steps s WHERE state_sha256 <> ''"
        " AND number = (SELECT max(number) FROM steps t WHERE t.run = s.run)"
    )
    rows = _rows(
        "SELECT run, number AS decision, CAST(cause AS TEXT) AS cause, newest, version, roster,"
        " CAST(verdicts AS TEXT) AS verdicts, state_sha256, decided_at FROM steps WHERE state_sha256 <> ''"
    )
    columns = "run, decision, round, newest, version, roster, verdicts, state_sha256, decided_at"
    _insert("decisions", columns, ({**row, "round": json.loads(row["cause"])[0][0]} for row in rows))


def _rows(query: str) -> Iterator[dict[str, Any]]:
    rows = op.get_bind().execute(sa.text(query), execution_options={"yield_per": BLOCK_ROWS})
    return (dict(row) for row in rows.mappings())


def _insert(table: str, columns: str, rows: Iterator[dict[str, Any]]) -> None:
    names = columns.split(", ")
    values = ", ".join(f"CAST(:{name} AS JSON)" if name in _JSON and _is_postgres() else f":{name}" for name in names)
    statement = sa.text(f"INSERT INTO {table} ({columns}) VALUES ({values})")
    block: list[dict[str, Any]] = []
    for row in rows:
        block.append({name: row[name] for name in names})
        if len(block) == BLOCK_ROWS:
            op.get_bind().execute(statement, block)
            block = []
    if block:
        op.get_bind().execute(statement, block)


def _is_postgres() -> bool:
    return op.get_bind().dialect.name == "postgresql"
