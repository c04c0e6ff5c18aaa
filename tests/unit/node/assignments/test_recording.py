"""The event log of a node's assignments."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from covey.client.event_log import MachineState, debug_log
from covey.machines.log import Replayed
from covey.node.actor import NodeActor
from covey.node.assignments.recording import assignments_log
from tests.unit.node.memory import assignment


async def test_a_nodes_work_replays_from_its_log(node, tmp_path):
    log = assignments_log(tmp_path / "events")
    node.actor = NodeActor(replace(node.services, recorder=log), node.ended.append)
    node.coordinator.listen(node.actor.receive)
    node.worker.gates["a"] = asyncio.Event()
    for message in (assignment("a"), assignment("b"), assignment("a", attempt=2)):
        node.actor.receive(message)
    node.actor.lost()
    node.worker.gates["a"].set()
    await node.idle()
    await node.actor.stop()
    assert await asyncio.to_thread(log.join, 30.0)
    items = list(debug_log(tmp_path / "events" / "assignments.jsonl"))
    replayed = [item for item in items if isinstance(item, Replayed)]
    assert [item.difference for item in replayed] == [""] * len(replayed)
    actions = [name for item in replayed for name in item.entry.actions]
    assert actions.count("Start") == 2
    assert "Renew" in actions
    assert [item.event.assignment.model_data for item in replayed if hasattr(item.event, "assignment")] == [b""] * 3
    [state] = [item.state for item in items if isinstance(item, MachineState)]
    assert (state["_work"], state["_waiting"]) == (None, {})
