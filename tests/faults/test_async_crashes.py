"""kill -9 in an asynchronous run: nothing received is lost, the chain is whole, and a replay gives the same models."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest

from covey.storage.sql.store import open_store
from covey.testing.federation import Federation
from tests.faults.chain import REJOINS, run_along
from tests.integration.specs import async_spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
UPDATES = 16
NODES = 3
KARDAM_POINTS = [
    "invite:3",  # an assignment is recorded, but not sent
    "update-recorded:3",  # an update is recorded, but not acknowledged
    "aggregate:3",  # it is acknowledged, and the policy is about to be asked
    "before-commit:3",  # the files of the decision are there, their record is not
    "after-commit:3",  # it is recorded, and nobody was told
    "aggregate-block:3,after-commit:4",  # the worker first, in the middle of a decision
]
BUFFERED_POINTS = ["aggregate:5", "before-commit:3"]
RULES = {
    "kardam": {"policy": "kardam", "options": "f = 0"},
    "buffered": {"policy": "buffered", "options": "k = 3", "extra": '[server_optimizer]\nname = "momentum"'},
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("async-crashes"), nodes=NODES) as made:
        yield made.start()


def run_spec(name, rule="kardam", updates=UPDATES):
    return async_spec(name, updates=updates, min_nodes=NODES, rounds=REJOINS, **RULES[rule])


def examine(federation, run, updates=UPDATES):
    """The run is complete, every update that was received first is decided on in its order, and all can be replayed."""
    shown = federation.wait(run, timeout_s=90)
    assert shown["updates_decided"] == updates
    rounds = federation.rounds(run)
    arrived = sorted((r for r in rounds if r["arrival"]), key=lambda r: r["arrival"])
    assert [r["arrival"] for r in arrived] == list(range(1, len(arrived) + 1))
    assert [r["state"] for r in arrived[:updates]] == ["decided"] * updates
    where = ["--data-dir", federation.coordinator_dir]
    assert "every signature is valid" in federation.cli("run", "audit", run, *where)
    store = open_store(f"sqlite:///{federation.coordinator_dir}/covey.db")
    assert store.check() == []
    store.close()
    replayed = json.loads(federation.cli("run", "replay", run, "--json", *where))
    assert (replayed["ok"], replayed["decisions"]) == (True, updates)
    assert replayed["versions"] == shown["model_version"] > 0
    assert replayed["model_sha256"] == shown["model_sha256"]
    return rounds


@pytest.fixture(scope="module")
def killed(federation):
    """The coordinator was killed at every point of this run."""
    updates = 4 * UPDATES
    run = run_along(federation, run_spec("killed", updates=updates), coordinator=KARDAM_POINTS)["run"]
    assert "the worker died" in federation.coordinator.log.read_text()
    return run, examine(federation, run, updates)


def nobody_was_given_up(rounds):
    """Every assignment came to an update, but for those that were out at the end."""
    return all(r["state"] == "decided" or r["reason"].endswith("the run is completed") for r in rounds)


def test_a_coordinator_that_is_killed_at_every_point(killed):
    _, rounds = killed
    assert nobody_was_given_up(rounds)


def test_a_coordinator_that_is_killed_while_updates_are_held(federation):
    run = run_along(federation, run_spec("held", "buffered", 2 * UPDATES), coordinator=BUFFERED_POINTS)["run"]
    assert nobody_was_given_up(examine(federation, run, 2 * UPDATES))


def test_node(federation):
    """It returns in time and keeps its assignment; the others went on meanwhile."""
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": "trained:2"})
    federation.wait_connected(NODES)
    text = async_spec("node", updates=60, min_nodes=NODES, rounds=REJOINS)
    text = text.replace('payload = "gradient"', 'payload = "delta"')
    slow = '[task]\nname = "synthetic"\noptions = { train_seconds = 0.5 }'
    run = federation.submit(text.replace('[task]\nname = "digits"', slow))
    assert federation.node(1).wait(60) == -9
    open_then = [r["round"] for r in federation.rounds(run) if r["state"] == "collecting" and r["invited"] == ["n1"]]
    assert len(open_then) == 1
    federation.start_node(1)
    rounds = examine(federation, run, 60)
    assert next(r for r in rounds if r["round"] == open_then[0])["state"] == "decided"


def test_a_changed_record_does_not_pass_a_replay(federation, killed):
    run, _ = killed
    federation.stop_coordinator()
    with contextlib.closing(sqlite3.connect(federation.coordinator_dir / "covey.db")) as database:
        (right,) = database.execute("SELECT model_sha256 FROM model_versions WHERE run = ? AND version = 3", (run,))
        change(database, run, "0" * 64)
        printed = federation.cli("run", "replay", run, "--data-dir", federation.coordinator_dir, check=False)
        change(database, run, *right)
    assert "the model came out as" in printed
    federation.start_coordinator()
    federation.wait_connected(NODES)


def change(database, run, sha256):
    with database:
        database.execute("UPDATE model_versions SET model_sha256 = ? WHERE run = ? AND version = 3", (sha256, run))


def test_coordinator_on_postgresql(tmp_path, postgres_database):
    with Federation(tmp_path, nodes=2, store_url=postgres_database) as federation:
        federation.start_coordinator(env={"COVEY_FAULTS": "before-commit:4"})
        federation.join()
        for index in range(2):
            federation.start_node(index)
        federation.wait_connected(2)
        run = federation.submit(async_spec("postgresql", policy="kardam", options="f = 0", updates=UPDATES))
        assert federation.coordinator is not None
        assert federation.coordinator.wait(60) == -9
        federation.start_coordinator()
        shown = federation.wait(run, timeout_s=90)
        where = ["--data-dir", federation.coordinator_dir, "--store", postgres_database]
        replayed = json.loads(federation.cli("run", "replay", run, "--json", *where))
        assert (replayed["ok"], replayed["decisions"]) == (True, UPDATES)
        assert replayed["model_sha256"] == shown["model_sha256"]
