"""Machines that enrol themselves: tokens in a folder, and nodes that take one at their first start."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import pytest

from covey.testing.federation import Federation, FederationError
from covey.wire.identities.identity import Identity
from covey.wire.identities.tokens import JoinToken

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory):
    """One coordinator; the tests' nodes are in federations of their own, which share its folder."""
    with Federation(tmp_path_factory.mktemp("self-enrolment"), nodes=0) as made:
        made.start_coordinator()
        yield made


@pytest.fixture
def machines(tmp_path):
    """Three machines that have not joined."""
    with Federation(tmp_path, nodes=3) as made:
        yield made


def fill(coordinator, folder, count, *options):
    target = ("--data-dir", coordinator.coordinator_dir, "--json")
    return json.loads(coordinator.cli("coordinator", "token", "--to", folder, "--count", count, *options, *target))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def name_of(machines, index):
    return Identity.load(machines.node_dir(index) / "identity").name


def connected(coordinator):
    return {node["node"] for node in coordinator.admin.nodes() if node["state"] == "connected"}


def wait_connected(coordinator, machines, *wanted):
    machines.until(lambda: set(wanted) <= connected(coordinator), 60, f"{wanted} did not connect")


def test_machines_started_at_once_each_take_a_token_and_the_one_without_fails(coordinator, machines, tmp_path):
    folder = tmp_path / "tokens"
    assert fill(coordinator, folder, 2, "--prefix", "race") == {
        "folder": str(folder),
        "made": ["race-1", "race-2"],
        "unused": 2,
    }
    for index in range(3):
        machines.start_node(index, env={"COVEY_JOIN": str(folder)}).may_die = True
    wait_connected(coordinator, machines, "race-1", "race-2")
    machines.until(lambda: len(machines.pids) == 2, 60, "no machine gave up")
    (without,) = [index for index in range(3) if not machines.node(index).alive]
    assert machines.node(without).exit_code == 1
    assert "has no token for this machine" in machines.node(without).tail()
    assert {name_of(machines, index) for index in range(3) if index != without} == {"race-1", "race-2"}
    assert names(folder) == [".issued"]
    assert fill(coordinator, folder, 1, "--prefix", "race")["made"] == ["race-3"]
    machines.start_node(without, options=["--join", str(folder)])
    wait_connected(coordinator, machines, "race-3")


def test_the_folder_is_filled_up_and_names_are_never_given_twice(coordinator, tmp_path):
    folder = tmp_path / "tokens"
    assert fill(coordinator, folder, 2)["made"] == ["node-1", "node-2"]
    assert fill(coordinator, folder, 2) == {"folder": str(folder), "made": [], "unused": 2}
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder / "node-1.token")] == ["0o700", "0o600"]
    (folder / "node-2.token").rename(folder / "node-2.taken-00ff")
    assert fill(coordinator, folder, 2)["made"] == ["node-3"]
    (folder / "node-3.token").unlink()  # as by a machine that has claimed it and not yet joined
    (folder / "node-2.taken-00ff").unlink()
    assert fill(coordinator, folder, 2)["made"] == ["node-4"]
    coordinator.cli(
        "coordinator", "admin", "issue", "node-5", "--to", tmp_path / "admin", "--data-dir", coordinator.coordinator_dir
    )
    assert fill(coordinator, folder, 3)["made"] == ["node-6"]
    assert names(folder) == [".issued", "node-1.token", "node-4.token", "node-6.token"]
    (folder / ".issued").write_text('{"node": ')  # cut off by a power cut
    (folder / "node-6.token.tmp").write_text("half of a tok")
    assert fill(coordinator, folder, 4)["made"] == ["node-7"]
    assert "node-6.token.tmp" not in names(folder)


def test_evicted_nodes_keep_their_names(coordinator, machines, tmp_path):
    fill(coordinator, tmp_path / "first", 1, "--prefix", "gone")
    machines.start_node(0, options=["--join", str(tmp_path / "first")]).may_die = True
    wait_connected(coordinator, machines, "gone-1")
    coordinator.admin.evict("gone-1")
    assert fill(coordinator, tmp_path / "second", 1, "--prefix", "gone")["made"] == ["gone-2"]


def test_tokens_that_nobody_can_use_are_replaced(coordinator, tmp_path):
    folder = tmp_path / "tokens"
    fill(coordinator, folder, 2, "--prefix", "old")
    token = JoinToken.decode((folder / "old-1.token").read_text())
    (folder / "old-1.token").write_text(dataclasses.replace(token, expires_at=time.time() - 1).encode())
    with Federation(tmp_path / "other", nodes=0) as other:
        other.start_coordinator()
        fill(other, tmp_path / "theirs", 1)
    (tmp_path / "theirs" / "node-1.token").rename(folder / "old-2.token")
    assert fill(coordinator, folder, 2, "--prefix", "old") == {
        "folder": str(folder),
        "made": ["old-3", "old-4"],
        "unused": 2,
    }
    assert names(folder) == [".issued", "old-3.token", "old-4.token"]
    (folder / "notes.token").write_text("remember the milk")
    (folder / "folder.token").mkdir()
    assert fill(coordinator, folder, 2)["made"] == []
    assert {"notes.token", "folder.token"} < set(names(folder))


def test_callers_at_once_fill_a_folder_once(coordinator, tmp_path):
    folder, made = tmp_path / "tokens", []
    callers = [threading.Thread(target=lambda: made.extend(fill(coordinator, folder, 5)["made"])) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(made) == len(set(made)) == 5
    assert names(folder) == sorted([".issued", *(f"{name}.token" for name in made)])


@pytest.mark.parametrize(
    "options", [["--to", "t", "--node", "a"], ["--count", "2"], ["--prefix", "a"], ["--to", "t", "--count", "0"]]
)
def test_options_that_do_not_go_together(coordinator, options):
    with pytest.raises(FederationError, match="exit code 2"):
        coordinator.cli("coordinator", "token", *options, "--data-dir", coordinator.coordinator_dir)


def test_a_machine_that_boots_before_its_coordinator_waits(tmp_path):
    with Federation(tmp_path, nodes=1) as federation:
        federation.start_coordinator()
        fill(federation, tmp_path / "tokens", 1)
        federation.stop_coordinator()
        node = federation.start_node(0, options=["--join", str(tmp_path / "tokens")])
        federation.until(lambda: node.tail().count("cannot enrol yet") > 1, 60, "it did not try again")
        node.terminate()
        assert node.wait(20) == 130
        assert names(tmp_path / "tokens") == [".issued"]
        federation.start_node(0, options=["--join", str(tmp_path / "tokens")])
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
    assert "join.token" not in names(machines.node_dir(0))
    machines.start_node(0, env={"COVEY_JOIN": ""}).may_die = True
    assert machines.node(0).wait(60) == 1
    (tmp_path / "late.token").write_text(coordinator.admin.create_token("in-time"))
    machines.start_node(0, options=["--join", str(tmp_path / "late.token")])
    wait_connected(coordinator, machines, "in-time")
