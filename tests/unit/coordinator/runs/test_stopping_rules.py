"""What `[stop]` goes by: the specification's rules in the machine's clock, and what the record knows of a run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from covey.coordinator.runs.steps.preparation import prepare
from covey.coordinator.runs.steps.stopping import known_to_stop, number_of, stop_rules, value_of_nodes
from covey.machines.stopping import StopRules
from covey.spec import StopSection, parse_toml
from covey.storage.record.contract import RunRecord
from tests.unit.coordinator.world import MODEL_BYTES, ROUNDS, UPDATES


def stopping(world, mode=ROUNDS, where="central", **section):
    """A recorded run with such rules."""
    spec = parse_toml(mode.format(count=4, nodes=2, where=where))
    spec = spec.model_copy(update={"stop": StopSection(**section)})
    record = RunRecord("run", "name", spec.mode, spec.to_json(), spec.seed, "queued", "", 1000.0)
    world.record.add_run(record)
    return record


async def executed(world):
    _, task = world.execute("run")
    await asyncio.gather(task, world.work("run"))
    return world.record.run("run")


@pytest.mark.parametrize(
    ("section", "rounds", "why"),
    [
        ({"target": 0.75}, 1, "target = 0.75: version 1 has accuracy 0.75"),
        ({"patience": 1}, 2, "patience = 1: since version 1, with accuracy 0.75"),
        ({"bytes": 3 * 2 * MODEL_BYTES}, 3, "nodes have sent"),
    ],
)
async def test_a_run_in_rounds_ends_as_its_rules_say(world, section, rounds, why):
    stopping(world, **section)
    run = await executed(world)
    assert run.state == "completed"
    assert why in run.reason
    assert [version.version for version in world.record.versions("run")][-1] == rounds
    prepared = await prepare(world.services, run)
    known = known_to_stop(world.record, "run", stop_rules(world.services, prepared), central=True)
    assert known == (
        tuple((number, 0.75) for number in range(1, rounds + 1)) if "bytes" not in section else (),
        2 * MODEL_BYTES * rounds if "bytes" in section else 0,
    )


async def test_an_asynchronous_run_ends_as_its_rules_say(world):
    stopping(world, UPDATES, bytes=2 * MODEL_BYTES)
    run = await executed(world)
    assert (run.state, world.record.version("run", -1).version) == ("completed", 2)
    assert "nodes have sent" in run.reason


async def test_time_passes_while_no_coordinator_runs(world):
    record = stopping(world, time_s=60.0)
    now = world.services.now()
    prepared = await prepare(world.services, record)
    running = replace(prepared, run=replace(prepared.run, started_at=now - 3600.0))
    assert stop_rules(world.services, running).ends_at < world.services.clock()
    world.record.finish_run("run", "stopped", "", 1.0)


async def test_what_nodes_measure_is_found_again_in_their_answers(world):
    record = stopping(world, where="nodes", target=2.0)
    run = await executed(world)
    prepared = await prepare(world.services, replace(run, spec=record.spec))
    answers = world.record.updates("run", 3)
    measured = [replace(answer, metrics={"evaluation/accuracy": [3.0, 4.0]}) for answer in answers]
    assert value_of_nodes(prepared, answers) is None
    assert value_of_nodes(prepared, measured) == 0.75
    rules = StopRules("nodes/accuracy", target=2.0)
    assert known_to_stop(world.record, "run", rules, central=False) == ((), 0)
    assert number_of("a", {"a": "why not"}) is None
