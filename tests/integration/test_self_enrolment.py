"""Machines that enrol themselves: one token in a file, and nodes that use it at their first start."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from covey.testing.federation import Federation
from covey.wire.identities.identity import Identity
from covey.wire.identities.tokens import JoinToken

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory):
    """One coordinator; the tests' nodes are in federations of their own, which share its tokens."""
    with Federation(tmp_path_factory.mktemp("self-enrolment"), nodes=0) as made:
        made.start_coordinator()
        yield made


@pytest.fixture
def machines(tmp_path):
    """Three machines that have not joined."""
    with Federation(tmp_path, nodes=3) as made:
        yield made


def shared(coordinator, path, name, uses):
    """A file with a token of so many uses."""
    where = ("--data-dir", coordinator.coordinator_dir, "--json")
    made = json.loads(coordinator.cli("coordinator", "token", "--node", name, "--uses", uses, *where))
    assert (made["node"], made["uses"]) == (name, uses)
    path.write_text(made["token"])
    return path


def listed(coordinator, name):
    """What `token list` says of the token of this name."""
    found = coordinator.cli("coordinator", "token", "list", "--json", "--data-dir", coordinator.coordinator_dir)
    (one,) = [token for token in json.loads(found) if token["node"] == name]
    return one["state"], one["uses"], one["uses_left"]


def name_of(machines, index):
    return Identity.load(machines.node_dir(index) / "identity").name


def connected(coordinator):
    return {node["node"] for node in coordinator.admin.nodes() if node["state"] == "connected"}


def wait_connected(coordinator, machines, *wanted):
    machines.until(lambda: set(wanted) <= connected(coordinator), 60, f"{wanted} did not connect")


def test_machines_started_at_once_share_a_token_and_the_one_too_many_fails(coordinator, machines, tmp_path):
    path = shared(coordinator, tmp_path / "join.token", "race", 2)
    for index in range(3):
        machines.start_node(index, env={"COVEY_JOIN": str(path)}).may_die = True
    wait_connected(coordinator, machines, "race-1", "race-2")
    machines.until(lambda: len(machines.pids) == 2, 60, "no machine gave up")
    (without,) = [index for index in range(3) if not machines.node(index).alive]
    assert machines.node(without).exit_code == 1
    assert "every use of this join token is taken" in machines.node(without).tail()
    assert {name_of(machines, index) for index in range(3) if index != without} == {"race-1", "race-2"}
    assert listed(coordinator, "race") == ("used", 2, 0)
    machines.start_node(without, options=["--join", str(shared(coordinator, path, "more", 2))])
    wait_connected(coordinator, machines, "more-1")
    assert listed(coordinator, "more") == ("in use", 2, 1)
    coordinator.cli("coordinator", "token", "revoke", "more", "--data-dir", coordinator.coordinator_dir)
    assert listed(coordinator, "more") == ("revoked", 2, 1)


def test_a_machine_may_boot_before_its_coordinator(tmp_path):
    with Federation(tmp_path / "federation", nodes=1) as federation:
        federation.start_coordinator()
        path = shared(federation, tmp_path / "join.token", "node", 5)
        federation.stop_coordinator()
        node = federation.start_node(0, options=["--join", str(path)])
        federation.until(lambda: node.tail().count("cannot enrol yet") > 1, 60, "it did not try again")
        node.terminate()
        assert node.wait(20) == 130
        federation.start_node(0, options=["--join", str(path)])
        federation.start_coordinator()
        federation.wait_connected(1)
        assert name_of(federation, 0) == "node-1"


def test_a_token_that_the_coordinator_refuses_is_dropped(coordinator, machines, tmp_path):
    short = JoinToken.decode(coordinator.admin.create_token("late", expires_s=0.001))
    (tmp_path / "late.token").write_text(dataclasses.replace(short, expires_at=time.time() + 3600).encode())
    node = machines.start_node(0, options=["--join", str(tmp_path / "late.token")])
    node.may_die = True
    assert node.wait(60) == 1
    assert "unknown or has expired" in node.tail()
    assert not (machines.node_dir(0) / "join.token").exists()
    machines.start_node(0, env={"COVEY_JOIN": ""}).may_die = True
    assert machines.node(0).wait(60) == 1
    (tmp_path / "late.token").write_text(coordinator.admin.create_token("in-time"))
    machines.start_node(0, options=["--join", str(tmp_path / "late.token")])
    wait_connected(coordinator, machines, "in-time")
