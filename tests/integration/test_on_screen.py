"""What the commands show is so: who does what, what is waited for, what happened, and what is gone."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from covey.cli.framework.command import INTERRUPTED
from covey.cli.main import covey as command
from covey.client import connect
from covey.errors import Conflict, NotFound
from covey.testing.federation import Federation
from tests.integration.specs import spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Two nodes, shared by the tests; the last one stops the coordinator."""
    with Federation(tmp_path_factory.mktemp("screen"), nodes=2) as made:
        yield made.start()


@pytest.fixture
def covey(federation):
    """Runs a command on the coordinator's data directory, in this process; what it printed."""

    def run(*arguments, code=0):
        done = CliRunner().invoke(command, [*map(str, arguments), "--data-dir", str(federation.coordinator_dir)])
        assert done.exit_code == code, done.output
        return done.stdout

    return run


def test_an_open_round_shows_who_does_what_and_a_lost_node_is_named(federation, covey):
    federation.node(1).suspend()
    run = federation.submit(spec("open", rounds=1, policy="rejoin_s = 600"))
    federation.until(lambda: any(r["received"] for r in federation.rounds(run)), 60, "n0 never delivered")
    shown = json.loads(covey("round", "show", run, "1", "--json"))
    assert (shown["state"], shown["received"], shown["bytes_received"] > 0) == ("collecting", 1, True)
    does = {node["node"]: node for node in shown["nodes"]}
    assert (does["n0"]["phase"], does["n1"]["phase"]) == ("received", "invited")
    assert does["n0"]["bytes_received"] == shown["bytes_received"]
    assert 0 < does["n1"]["since"] <= time.time()
    text = covey("round", "show", run, "1")
    assert "DOES" in text
    assert max(map(len, text.splitlines())) <= 80
    assert f"does invited for round 1 of open ({run}) since" in covey("node", "list")
    nodes = {node["node"]: node for node in json.loads(covey("node", "list", "--json"))}
    assert [work["round"] for work in nodes["n1"]["work"]] == [1]
    assert nodes["n0"]["work"] == []
    federation.kill_node(1)
    federation.until(lambda: "waiting for n1 to come back" in federation.show(run)["reason"], 60, "n1 is not named")
    assert "waiting for n1" in covey("run", "show", run)
    federation.start_node(1)
    assert federation.wait(run)["reason"] == ""


def test_last_seen_is_the_last_sign_of_life(federation):
    with connect(federation.coordinator_dir) as connection:
        before = connection.node("n0").node.last_seen_at
        federation.until(lambda: connection.node("n0").node.last_seen_at != before, 30, "it stands still")


def test_events_logs_and_admins(federation, covey):
    run = federation.submit(spec("told", rounds=2))
    federation.wait(run)
    kinds = [event["kind"] for event in json.loads(covey("events", "--json"))]
    assert kinds[0] == "coordinator-started"
    assert kinds.count("enrolled") >= 2
    assert {"run-submitted", "run-started", "run-finished"} <= set(kinds)
    assert f"run-finished  run {run}" in covey("events", "--run", "told")
    lines = json.loads(covey("run", "logs", "told", "--json"))
    assert [line["what"] for line in lines] == [
        "run-submitted",
        "run-started",
        "opened",
        "committed",
        "opened",
        "committed",
        "run-finished",
    ]
    assert "round 2: 2 accepted, version 2" in covey("run", "logs", run)
    covey("admin", "issue", "alice", "--role", "auditor", "--to", federation.root / "alice")
    (alice,) = json.loads(covey("admin", "list", "--json"))
    assert (alice["name"], alice["role"], alice["state"]) == ("alice", "auditor", "active")
    assert "alice" in covey("coordinator", "admin", "list")


def test_tokens_are_listed_without_their_secrets_and_revoked(federation, covey):
    secret = covey("coordinator", "token", "--node", "late").strip().splitlines()[-1]
    listed = {token["node"]: token for token in json.loads(covey("coordinator", "token", "list", "--json"))}
    assert (listed["late"]["state"], listed["n0"]["state"]) == ("unused", "used")
    assert listed["late"]["id"] not in secret
    assert "late" in covey("coordinator", "token", "list")
    (revoked,) = json.loads(covey("coordinator", "token", "revoke", "late", "--json"))
    assert revoked["state"] == "revoked"
    done = CliRunner().invoke(command, ["node", "join", secret, "--data-dir", str(federation.root / "late")])
    assert done.exit_code == 1
    covey("coordinator", "token", "revoke", "n0", code=1)
    assert "token-revoked" in covey("events", "--node", "late")


def test_a_name_is_the_newest_run_and_a_deleted_one_is_gone(federation, covey):
    first, second = (federation.submit(spec("twin", rounds=1, seed=seed)) for seed in (1, 2))
    for run in (first, second):
        federation.wait(run)
    assert json.loads(covey("run", "show", "twin", "--json"))["run"] == second
    covey("run", "delete", "twin", code=INTERRUPTED)  # nobody is there to say yes
    assert "is deleted: " in covey("run", "delete", "twin", "--yes")
    assert json.loads(covey("run", "show", "twin", "--json"))["run"] == first
    assert not list((federation.coordinator_dir / "events").glob(f"{second}*"))
    covey("run", "export", "twin", "--to", federation.root / "twin.safetensors")
    with connect(federation.coordinator_dir) as connection:
        with pytest.raises(NotFound):
            connection.run(second)
        waiting = connection.submit(spec("waits", min_nodes=9))
        with pytest.raises(Conflict, match="stop it first"):
            connection.delete(waiting)
        connection.delete(connection.stop(waiting))


def test_drain_and_backup_say_where_they_are_and_a_stopped_coordinator_runs_nothing(federation, covey):
    machine = json.loads(covey("coordinator", "backup", "--to", federation.root / "backup", "--json"))["machine"]
    assert machine
    run = federation.submit(spec("drained", rounds=500, policy="rejoin_s = 600"))
    federation.wait_round(run, 1)
    federation.kill_node(1)
    federation.until(lambda: "waiting for n1" in federation.show(run)["reason"], 60, "n1 is not named")
    said = covey("coordinator", "drain")
    assert "it stops when these have ended:" in said
    assert f"run drained ({run}) is collecting" in said
    assert "waiting for n1" in said
    federation.kill_coordinator()
    shown = json.loads(covey("run", "show", run, "--json"))
    assert shown["state"] == "interrupted"
    assert "no coordinator is running" in shown["reason"]
    assert "interrupted" in covey("run", "list")
