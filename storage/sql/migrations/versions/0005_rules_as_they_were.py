"""Rules that were corrected keep their old meaning in the runs that are on record: their options name it.

`majority-vote` with `credit = true` becomes `"agreement"`, `kardam` with `variant = "official"` becomes
`"official-25"`, and `zeno` without a `rho` gets 0.0005. So a run goes on as it began, and its replay is right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

RUNS = sa.table("runs", sa.column("run", sa.String()), sa.column("spec", sa.Text()))
Change = Callable[[str, dict[str, Any]], None]


def upgrade() -> None:
    _rewrite(_as_it_was)


def downgrade() -> None:
    _rewrite(_as_it_is_named)


def _rewrite(change: Change) -> None:
    connection = op.get_bind()
    names = ("majority-vote", "kardam", "zeno")
    named = sa.or_(*(RUNS.c.spec.contains(name) for name in names))
    for run, text in connection.execute(sa.select(RUNS.c.run, RUNS.c.spec).where(named)).all():
        spec = json.loads(text)
        _change_rules(spec.get("aggregation"), change)
        changed = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        if changed != text:
            connection.execute(sa.update(RUNS).where(RUNS.c.run == run).values(spec=changed))


def _change_rules(value: Any, change: Change) -> None:
    """Every rule in a section: a fallback, what goes before, and a rule in another's options, too."""
    if isinstance(value, list):
        for item in value:
            _change_rules(item, change)
    elif isinstance(value, dict):
        if isinstance(value.get("name"), str):
            change(value["name"], value.setdefault("options", {}))
        for item in value.values():
            _change_rules(item, change)


def _as_it_was(name: str, options: dict[str, Any]) -> None:
    if name == "majority-vote" and options.get("credit") is True:
        options["credit"] = "agreement"
    if name == "kardam" and options.get("variant") == "official":
        options["variant"] = "official-25"
    if name == "zeno":
        options.setdefault("rho", 0.0005)


def _as_it_is_named(name: str, options: dict[str, Any]) -> None:
    if name == "majority-vote" and options.get("credit") == "agreement":
        options["credit"] = True
    if name == "kardam" and options.get("variant") == "official-25":
        options["variant"] = "official"
