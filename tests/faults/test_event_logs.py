"""Event logs of real daemons: after a kill -9 in the middle, every part replays to the actions that were recorded."""

from __future__ import annotations

import json

import pytest

from covey.client.event_log import MachineState, debug_log
from covey.machines.log import Opening, Replayed
from covey.testing.federation import Federation, FederationError
from tests.integration.specs import async_spec, spec

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
NODES = 2
RUNS = {
    "rounds": (spec("killed-rounds", rounds=4), "before-commit:2"),
    "async": (async_spec("killed-async", updates=12), "aggregate:6"),
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    with Federation(tmp_path_factory.mktemp("events"), nodes=NODES) as made:
        yield made.start()


@pytest.fixture(scope="module", params=RUNS)
def log(federation, request):
    """The event log of a run in whose middle the coordinator was killed, and that ended after its restart."""
    text, point = RUNS[request.param]
    federation.stop_coordinator()
    federation.start_coordinator(env={"COVEY_FAULTS": point})
    federation.wait_connected(NODES)
    run = federation.submit(text)
    assert federation.coordinator.wait(60) == -9
    federation.start_coordinator()
    federation.wait(run, timeout_s=90)
    path = federation.coordinator_dir / "events" / f"{run}.jsonl"
    federation.until(lambda: b'["FinishRun"]' in path.read_bytes(), 60, "the end was not written")
    return path


def test_every_part_leads_to_the_actions_that_were_recorded(log):
    items = list(debug_log(log))
    openings = [item for item in items if isinstance(item, Opening)]
    events = [item for item in items if isinstance(item, Replayed)]
    states = [item.state for item in items if isinstance(item, MachineState)]
    assert len(openings) == 2  # one for each start
    assert [item.difference for item in events] == [""] * len(events)
    assert sum("Started" in item.entry.event["$"] for item in events) == 2
    assert sum(item.entry.event["$"] == "UpdateStored" for item in events) >= 4  # at least after the restart
    assert states[-1].get("state", states[-1].get("_phase")) == "done"


def test_it_is_shown_and_a_difference_too(federation, log, tmp_path):
    printed = federation.cli("run", "debug", log)
    assert "NodeJoined(node='n1'" in printed
    assert "FinishRun(state='completed', reason='')" in printed
    lines = log.read_text().splitlines()
    changed = json.loads(lines[-1])
    assert changed["actions"] == ["FinishRun"]
    other = tmp_path / "changed.jsonl"
    other.write_text("\n".join([*lines[:-1], json.dumps(changed | {"actions": ["Report"]})]))
    assert "is recorded to have asked for Report" in federation.cli("run", "debug", other, check=False)
    with pytest.raises(FederationError, match="1 events led to other actions than were recorded"):
        federation.cli("run", "debug", other)


def test_a_nodes_log_replays_too(federation):
    federation.stop_node(0)
    federation.start_node(0)
    federation.wait_connected(NODES)
    run = federation.submit(spec("after-a-restart", rounds=2))
    federation.wait(run, timeout_s=90)
    federation.stop_node(0)
    items = list(debug_log(federation.node_dir(0) / "events" / "assignments.jsonl"))
    federation.start_node(0)
    federation.wait_connected(NODES)
    events = [item for item in items if isinstance(item, Replayed)]
    assert len([item for item in items if isinstance(item, Opening)]) == 2
    assert [item.difference for item in events] == [""] * len(events)
    assert sum(item.entry.actions == ("Start",) for item in events) >= 2
