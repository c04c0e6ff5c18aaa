"""kill -9 in an asynchronous run: nothing received is lost, the chain is whole, and a replay gives the same models."""

from __future__ import annotations

import json
import sqlite3

import pytest

from covey.storage.sql.store import open_store
from covey.testing.federation import Federation
from tests.integration.specs import async_spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
UPDATES = 16
NODES = 3

COORDINATOR_POINTS = [
    "invite:5",  # an assignment is recorded, but not sent
    "update-recorded:6",  # an update is recorded, but not acknowledged
    "aggregate:6",  # it is acknowledged, and the policy is about to be asked
    "before-commit:6",  # the files of the decision are there, their record is not
    "after-commit:6",  # it is recorded, and nobody was told
]
RULES = {
    "kardam": {"policy": "kardam", "options": "f = 0"},
    "buffered": {"policy": "buffered", "options": "k = 3", "extra": '[server_optimizer]\nname = "momentum"'},
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("async-crashes"), nodes=NODES) as made:
        yield made.start()


def run_spec(name, rule="kardam"):
    return async_spec(name, updates=UPDATES, min_nodes=NODES, **RULES[rule])


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


@pytest.mark.parametrize(
    ("point", "rule"),
    [
        *((point, "kardam") for point in COORDINATOR_POINTS),
        ("aggregate:5", "buffered"),
        ("before-commit:6", "buffered"),
    ],
)
def test_coordinator(federation, point, rule):
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": point})
    federation.wait_connected(NODES)
    run = federation.submit(run_spec(f"{rule}-{point.replace(':', '-')}", rule))
    assert federation.coordinator.wait(60) == -9
    federation.start_coordinator()
    rounds = examine(federation, run)
    # Nobody was given up: every assignment came to an update, but for those that were out at the end.
    assert all(r["state"] == "decided" or r["reason"] == "the run is completed" for r in rounds)


def test_node(federation):
    """It returns in time and keeps its assignment; the others went on meanwhile."""
    federation.stop_node(1)
    federation.start_node(1, env={"COVEY_FAULTS": "trained:2"})
    federation.wait_connected(NODES)
    text = async_spec("node", updates=60, min_nodes=NODES).replace('payload = "gradient"', 'payload = "delta"')
    slow = '[task]\nname = "synthetic"\noptions = { train_seconds = 0.5 }'
    run = federation.submit(text.replace('[task]\nname = "digits"', slow))
    assert federation.node(1).wait(60) == -9
    open_then = [r["round"] for r in federation.rounds(run) if r["state"] == "collecting" and r["invited"] == ["n1"]]
    assert len(open_then) == 1
    federation.start_node(1)
    rounds = examine(federation, run, 60)
    assert next(r for r in rounds if r["round"] == open_then[0])["state"] == "decided"


def test_worker_of_the_coordinator_in_the_middle_of_a_decision(federation):
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": "aggregate-block:5"})
    federation.wait_connected(NODES)
    run = federation.submit(run_spec("worker"))
    examine(federation, run)
    assert "the worker died" in federation.coordinator.log.read_text()


def test_a_changed_record_does_not_pass_a_replay(federation):
    run = federation.submit(run_spec("changed"))
    examine(federation, run)
    federation.stop_coordinator()
    try:
        with sqlite3.connect(federation.coordinator_dir / "covey.db") as database:
            database.execute(
                "UPDATE model_versions SET model_sha256 = ? WHERE run = ? AND version = 3", ("0" * 64, run)
            )
        printed = federation.cli("run", "replay", run, "--data-dir", federation.coordinator_dir, check=False)
        assert "the model came out as" in printed
    finally:
        federation.start_coordinator()
        federation.wait_connected(NODES)


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
