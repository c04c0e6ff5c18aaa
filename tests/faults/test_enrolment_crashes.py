"""A machine that is killed while it enrols itself goes on with the token that it had taken."""

from __future__ import annotations

import json

import pytest

from covey.testing.federation import Federation
from covey.wire.identities.identity import Identity

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("enrolment-crashes"), nodes=0) as made:
        made.start_coordinator()
        yield made


@pytest.mark.parametrize("point", ["token-kept", "token-redeemed", "joined"])
def test_a_machine_killed_while_it_enrols_takes_one_use_of_its_token(coordinator, tmp_path, point):
    path = tmp_path / "join.token"
    where = ("--data-dir", coordinator.coordinator_dir)
    path.write_text(coordinator.cli("coordinator", "token", "--node", point, "--uses", 3, *where))
    with Federation(tmp_path / "machine", nodes=1) as machine:
        options = ["--join", str(path)]
        assert machine.start_node(0, options=options, env={"COVEY_FAULTS": point}).wait(60) == -9
        machine.start_node(0, options=options)
        machine.until(lambda: connected(coordinator, f"{point}-1"), 60, "it did not go on")
        assert Identity.load(machine.node_dir(0) / "identity").name == f"{point}-1"
        assert not [path for path in machine.node_dir(0).iterdir() if path.name.startswith("join.")]
    enrolled = [node["node"] for node in coordinator.admin.nodes() if node["node"].startswith(point)]
    assert enrolled == [f"{point}-1"]
    listed = json.loads(coordinator.cli("coordinator", "token", "list", "--json", *where))
    assert [one["uses_left"] for one in listed if one["node"] == point] == [2]


def connected(coordinator, name):
    return (name, "connected") in [(node["node"], node["state"]) for node in coordinator.admin.nodes()]
