"""A record of schema 0002, of both modes and in every state, after the migration to groups, assignments and steps.

`data/schema_0002.json` was written by the last version with that schema: its rows, and what its store's methods said.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from contextlib import closing
from dataclasses import asdict

import pytest
from sqlalchemy import JSON, LargeBinary, Text, cast, select

from covey.errors import StoreError
from covey.storage.sql.migrations import migrate as migrations
from covey.storage.sql.store import open_store
from covey.testing.store import records as make
from tests.unit.storage.schema_0002 import READINGS, REFUSAL, TABLES, connected, go_to, table, write

SAME = ("events", "file_references", "keys", "model_versions", "nodes", "runs", "settings")
OTHERS = ("tokens", "groups", "assignments", "steps")
ENDS = ("committed", "decided")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/covey.db"
    return request.getfixturevalue("empty_postgres")


@pytest.fixture
def old(url):
    """A database with the rows of the dump, at its schema."""
    write(url)
    return url


def rows_of(connection, name):
    """Every row as the dump has it: JSON as the text that is stored."""
    columns = table(connection, name).c
    query = select(*(cast(c, Text).label(c.name) if isinstance(c.type, JSON) else c for c in columns))
    rows = [dict(row) for row in connection.execute(query).mappings()]
    for row in rows:
        for column in columns:
            if isinstance(column.type, LargeBinary):
                row[column.name] = {"base64": base64.b64encode(row[column.name]).decode()}
    return rows


def in_order(rows):
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.fixture
def new(old):
    migrations.migrate(old)
    return old


def test_every_row_of_the_tables_that_stay_is_as_it_was(new):
    with connected(new) as connection:
        for name in SAME:
            rows = rows_of(connection, name)
            for row in rows:
                assert row.pop("previous_serial", "") == ""
                measured = row.pop("measured", None)
                assert measured is None or measured == (row["metrics"] != "{}")
            assert in_order(rows) == in_order(TABLES[name])


def test_a_token_has_one_use_and_what_was_given_for_it(new):
    keys = ("csr_key_sha256", "certificate")
    with connected(new) as connection:
        tokens, redemptions = rows_of(connection, "tokens"), rows_of(connection, "redemptions")
    before = TABLES["tokens"]
    kept = [{name: row[name] for name in row if name not in keys} for row in before]
    assert in_order(tokens) == in_order([{**row, "uses": 1} for row in kept])
    used = [{name: row[name] for name in ("secret_sha256", *keys)} for row in before if row["csr_key_sha256"]]
    assert in_order([{**row, "node": ""} for row in redemptions]) == in_order([{**row, "node": ""} for row in used])


def test_rounds_are_groups_and_updates_assignments(new):
    bases = {(r["run"], r["round"]): (r["attempt"], r["base_version"]) for r in TABLES["rounds"]}
    groups = [{**row, "number": row["round"], "phase": 1, "part": None} for row in TABLES["rounds"]]
    assignments = []
    for row in TABLES["updates"]:
        attempt, base = bases[row["run"], row["round"]]
        own = {"group_number": row["round"], "phase": 1, "kind": "train", "attempt": attempt, "base_version": base}
        assignments.append({**row, **own})
    for row in (*groups, *assignments):
        del row["round"]
    with connected(new) as connection:
        assert in_order(rows_of(connection, "groups")) == in_order(groups)
        assert in_order(rows_of(connection, "assignments")) == in_order(assignments)


def test_decisions_are_steps_and_the_last_one_has_the_state(new):
    states = {(row["run"], row["decision"]): row for row in TABLES["policy_states"]}
    expected = []
    for row in TABLES["decisions"]:
        state = states.get((row["run"], row["decision"]), {})
        counts = Counter(
            verdict["verdict"]
            for earlier in TABLES["decisions"]
            if earlier["run"] == row["run"] and earlier["decision"] <= row["decision"]
            for verdict in json.loads(earlier["verdicts"])
        )
        step = {name: row[name] for name in ("run", "newest", "version", "roster", "verdicts", "state_sha256")}
        step |= {"number": row["decision"], "cause": f"[[{row['round']},1]]", "decided_at": row["decided_at"]}
        step |= {"state": state.get("state", ""), "opens": "[]"}
        step |= {name: state.get(name, "[]") for name in ("pinned_updates", "pinned_versions")}
        expected.append(step | {"accepted": counts["accepted"], "rejected": counts["rejected"]})
    with connected(new) as connection:
        steps = [row for row in rows_of(connection, "steps") if row["state_sha256"]]
    assert in_order(steps) == in_order(expected)
    assert {row["run"] for row in steps} == {"async-running", "async-completed"}


def test_every_committed_round_has_the_step_that_its_updates_make(new):
    with connected(new) as connection:
        steps = {(s["run"], s["number"]): s for s in rows_of(connection, "steps") if not s["state_sha256"]}
    committed = {(r["run"], r["round"]): r for r in TABLES["rounds"] if r["state"] == "committed"}
    assert steps.keys() == committed.keys()
    for (run, number), step in steps.items():
        judged = [
            {name: update[name] for name in ("round", "node", "verdict", "reason", "share")}
            | {"numbers": json.loads(update["numbers"])}
            for update in sorted(TABLES["updates"], key=lambda row: row["node"])
            if (update["run"], update["round"]) == (run, number)
        ]
        assert json.loads(step["verdicts"]) == judged
        assert (step["cause"], step["version"], step["newest"]) == (f"[[{number},1]]", number, number - 1)
        assert (step["roster"], step["decided_at"]) == (3, committed[run, number]["committed_at"])
    assert [(steps["sync-collecting", n]["accepted"], steps["sync-collecting", n]["rejected"]) for n in (1, 2, 3)] == [
        (3, 0),
        (6, 0),
        (8, 1),
    ]


def test_a_commit_now_leaves_the_same_step_as_a_migrated_one(new, tmp_path):
    with closing(open_store(f"sqlite:///{tmp_path}/now.db")) as store:
        run = make.start_run(store, "sync-collecting")
        expected = [make.play_round(store, run, number) for number in (1, 2)]
        steps = store.steps(run)
    with closing(open_store(new)) as migrated:
        assert migrated.steps(run, limit=len(expected)) == steps


def plain(value):
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def fields(record):
    if record is None:
        return None
    values = plain(asdict(record))
    assert values.pop("phase", 1) == 1  # unknown when the readings were taken: rounds had one phase
    assert values.pop("part", None) is None  # nor was this on record
    assert values.pop("previous_serial", "") == ""  # nor did certificates have one before
    for name in ("declined", "lost", "late", "received", "last_reason"):  # nor were these counted
        values.pop(name, None)
    return values


def ended(record):
    """A round, but for the bytes of one that has not ended, which were not counted then."""
    return record if record["committed_at"] else {**record, "bytes_received": None}


def as_decision(step):
    """A step as decisions were read then."""
    values = fields(step)
    names = ("run", "newest", "version", "roster", "verdicts", "state_sha256", "decided_at")
    return {name: values[name] for name in names} | {"decision": step.number, "round": step.group}


def as_policy_state(step):
    """A step's state as it was read then."""
    values = fields(step)
    names = ("run", "state", "pinned_updates", "pinned_versions")
    return {name: values[name] for name in names} | {"decision": step.number}


def test_the_methods_say_what_they_said(new):
    with closing(open_store(new)) as store:
        assert store.check() == []
        assert {run.run for run in store.runs()} == READINGS["runs"].keys()
        for run, said in READINGS["runs"].items():
            rounds = store.rounds(run)
            assert fields(store.run(run)) == said["run"]
            assert [ended(fields(record)) for record in rounds] == [ended(record) for record in said["rounds"]]
            updates = [fields(update) for record in rounds for update in store.updates(run, record.round)]
            assert updates == said["updates"]
            steps = [step for step in store.steps(run) if step.state_sha256]  # of decisions
            assert [as_decision(step) for step in steps] == said["decisions"]
            assert (as_policy_state(steps[-1]) if steps else None) == said["policy_state"]
            assert fields(store.next_arrival(run)) == said["next_arrival"]
            assert [fields(record) for record in store.versions(run)] == said["versions"]
        assert [fields(record) for record in store.nodes()] == READINGS["nodes"]
        assert sorted(store.referenced_digests()) == READINGS["digests"]


def test_what_was_half_way_goes_on(new):
    with closing(open_store(new)) as store:
        make.commit(store, "sync-aggregating", 2, [make.accepted(make.update_record("sync-aggregating", 2, "ada"))])
        store.open_round(make.round_record("sync-collecting", 4, 3))
        assert store.record_update(make.update_record("sync-collecting", 4, "bob"))
        assert not store.record_update(make.update_record("sync-collecting", 4, "ada"))
        make.commit(store, "sync-collecting", 4, [make.accepted(make.update_record("sync-collecting", 4, "ada"))])
        assert [step.number for step in store.steps("sync-collecting")] == [1, 2, 3, 4]
        assert store.close_round(make.outcome_record("async-running", 8, "bob", "lost"))
        assert [p for p in store.check() if "has no verdict" not in p] == []


def test_there_is_a_way_back_that_loses_nothing_of_what_there_was(new):
    with connected(new) as connection:
        after = {
            name: in_order(rows_of(connection, name)) for name in (*SAME, "tokens", "groups", "assignments", "steps")
        }
        go_to(connection, "0002")
        for name, rows in TABLES.items():
            assert in_order(rows_of(connection, name)) == in_order(rows)
        go_to(connection, "head")
        assert {name: in_order(rows_of(connection, name)) for name in after} == after
    assert any(row["state"] in ENDS for row in TABLES["rounds"])


def test_who_only_reads_is_refused_and_changes_nothing(old):
    with connected(old) as connection:
        before = {name: in_order(rows_of(connection, name)) for name in TABLES}
    with pytest.raises(StoreError, match=re.escape(REFUSAL)):
        open_store(old, migrate=False)
    with connected(old) as connection:
        assert migrations.revision(connection) == "0002"
        assert {name: in_order(rows_of(connection, name)) for name in before} == before
    migrations.migrate(old)
    with closing(open_store(old, migrate=False)) as store:
        assert {run.run for run in store.runs()} == READINGS["runs"].keys()
