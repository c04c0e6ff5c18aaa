"""What a run sees of the connected nodes."""

from __future__ import annotations

from covey import messages as msg
from covey.coordinator.runs.schedule.run_nodes import RunNodes
from covey.machines.places import Places, Room, Want
from tests.unit.coordinator.world import Nodes


def test_a_run_sees_those_that_have_a_place_for_it_and_sends_to_no_other():
    places, nodes = Places(), Nodes("ada", "bob", "eve")
    for node in nodes.nodes():
        places.joined(node, Room(1 if node == "bob" else 0))
    places.enter(Want("first", submitted_at=1.0))
    want = Want("run", submitted_at=2.0, scope=frozenset({"ada", "bob"}))
    places.enter(want)
    seen = RunNodes(nodes, places, "run")
    assert seen.nodes() == ["ada"]
    assert [node in seen for node in ("ada", "bob", "eve", 7)] == [True, False, False, False]
    assert (seen.takes("bob"), seen.takes("eve")) == (True, False)
    assert seen.peer("ada") is not None
    assert seen.peer("eve") is None
    assert not seen.send("eve", msg.Cancel("run", 1, ""))
    assert seen.send("ada", msg.Cancel("run", 1, ""))
    assert [node for node, _ in nodes.sent] == ["ada"]
