"""A record from before some rules were corrected: its specifications name what they had."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from covey.storage.sql.engine import WRITES, database_url, make_engine
from covey.storage.sql.migrations import migrate as migrations
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from tests.unit.storage.schema_0002 import go_to

AGGREGATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "credit": (
        {"name": "majority-vote", "options": {"credit": True, "f": 1}},
        {"name": "majority-vote", "options": {"credit": "agreement", "f": 1}},
    ),
    "plain vote": (
        {"name": "majority-vote", "options": {"credit": False}},
        {"name": "majority-vote", "options": {"credit": False}},
    ),
    "kardam": (
        {"name": "kardam", "options": {"variant": "official"}},
        {"name": "kardam", "options": {"variant": "official-25"}},
    ),
    "zeno": ({"name": "zeno", "options": {"f": 2}}, {"name": "zeno", "options": {"f": 2, "rho": 0.0005}}),
    "own rho": ({"name": "zeno", "options": {"rho": 0.1}}, {"name": "zeno", "options": {"rho": 0.1}}),
    "fallback": (
        {"name": "krum", "options": {}, "fallback": {"name": "majority-vote", "options": {"credit": True}}},
        {"name": "krum", "options": {}, "fallback": {"name": "majority-vote", "options": {"credit": "agreement"}}},
    ),
    "inner rule": (
        {"name": "buffered", "options": {"rule": {"name": "majority-vote", "options": {"credit": True}}}},
        {"name": "buffered", "options": {"rule": {"name": "majority-vote", "options": {"credit": "agreement"}}}},
    ),
}


def text(aggregation: dict[str, Any]) -> str:
    spec = {"aggregation": aggregation, "name": "zeno", "seed": 5, "training": {"learning_rate": 0.1}}
    return json.dumps(spec, sort_keys=True, separators=(",", ":"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/covey.db"
    return str(request.getfixturevalue("empty_postgres"))


def test_specifications_name_the_rules_that_their_runs_had(url: str) -> None:
    with closing(open_store(url)) as store:
        for name, (before, _) in AGGREGATIONS.items():
            store.add_run(make.run_record(name, spec=text(before)))
    engine = make_engine(database_url(url))
    try:
        with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            go_to(connection, "0004")
            go_to(connection, migrations.HEAD)
        with closing(open_store(url)) as store:
            specs = {name: store.run(name).spec for name in AGGREGATIONS}
        assert specs == {name: text(after) for name, (_, after) in AGGREGATIONS.items()}
        with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            go_to(connection, "0004")
    finally:
        engine.dispose()
