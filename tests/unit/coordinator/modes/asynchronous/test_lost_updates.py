"""Updates that were acknowledged, and whose files are damaged or missing before they are used: the run goes on."""

from __future__ import annotations

import asyncio

import pytest

from covey import messages as msg
from covey.worker.jobs.steps import LOST
from tests.unit.coordinator.modes.asynchronous.test_async_mode import begun, decided
from tests.unit.coordinator.world import ROUNDS

HOW = pytest.mark.parametrize("how", ["damaged", "missing"])


def hurt(world, number, how):
    """Change a byte of an update's file, or delete it; its node."""
    (update,) = world.record.updates("run", number)
    path = world.files.path(update.parts[0].artifact.digest)
    if how == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return update.node


def lost_on_record(world):
    return [
        (event.node, event.detail["round"], event.detail["reason"])
        for event in world.record.events(run="run")
        if event.kind == "update-lost"
    ]


async def asked_again(world, node, count=2):
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, node)) == count)


@HOW
async def test_one_that_waits_for_its_decision(world, how):
    world.worker.gates["step"] = gate = asyncio.Event()
    active, task, assignments = await begun(world)
    for node in ("ada", "bob"):
        await world.offers.offer(node, world.update_of(node, assignments[node]))
    number = assignments["bob"].round
    hurt(world, number, how)
    gate.set()
    await asked_again(world, "bob")
    (update,) = world.record.updates("run", number)
    assert (update.verdict, update.reason) == ("rejected", LOST)
    assert world.record.round("run", number).state == "failed"
    assert lost_on_record(world) == [("bob", number, LOST)]
    assert [step.group for step in world.record.steps("run")] == [assignments["ada"].round]
    await world.offers.offer("bob", world.update_of("bob", world.nodes.got(msg.Assignment, "bob")[1]))
    await decided(world, active, 2)
    task.cancel()


async def test_one_that_is_changed_while_it_is_decided_on(world):
    world.worker.gates["step"] = gate = asyncio.Event()
    active, task, assignments = await begun(world)
    await world.offers.offer("ada", world.update_of("ada", assignments["ada"]))
    await world.worker.begins("step")
    hurt(world, assignments["ada"].round, "damaged")
    gate.set()
    await asked_again(world, "ada")
    assert world.record.steps("run") == []
    assert world.record.version("run", -1).version == 0  # what was made of it is not used
    assert lost_on_record(world) == [("ada", assignments["ada"].round, LOST)]
    assert not active.machine.done
    task.cancel()


@HOW
async def test_one_that_the_policy_refers_to(world, how):
    active, task, assignments = await begun(world)
    world.worker.pins = [first := assignments["ada"].round]
    await world.offers.offer("ada", world.update_of("ada", assignments["ada"]))
    await decided(world, active, 1)
    hurt(world, first, how)
    await world.offers.offer("bob", world.update_of("bob", assignments["bob"]))
    await decided(world, active, 2)
    assert [job.lost for job in world.worker.done("step")] == [(), (first,)]
    assert [dict(job.updates) for job in world.worker.done("step")] == [{}, {}]
    await asked_again(world, "bob")
    assert lost_on_record(world) == [("ada", first, LOST)]
    assert world.record.steps("run")[-1].pinned_updates == ()
    task.cancel()


async def test_the_version_that_one_started_from(world):
    active, task, assignments = await begun(world)
    await world.offers.offer("ada", world.update_of("ada", assignments["ada"]))
    await decided(world, active, 1)
    base = world.record.version("run", 0)
    world.files.path(base.artifact.digest).unlink()
    await world.offers.offer("bob", world.update_of("bob", assignments["bob"]))
    await asked_again(world, "bob")
    (update,) = world.record.updates("run", assignments["bob"].round)
    assert update.verdict == "rejected"
    assert update.reason == "lost: version 0, which it started from, was damaged or missing on the coordinator"
    assert world.nodes.got(msg.Assignment, "bob")[1].version == 1
    task.cancel()


async def test_in_a_round_one_that_is_changed_while_it_is_aggregated_is_asked_for_again(world):
    world.worker.gates["step"] = gate = asyncio.Event()
    world.submit(mode=ROUNDS)
    active, task = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    for node in ("ada", "bob"):
        await world.offers.offer(node, world.update_of(node, world.nodes.got(msg.Assignment, node)[0]))
    await world.worker.begins("step")
    (bob,) = [update for update in world.record.updates("run", 1) if update.node == "bob"]
    path = world.files.path(bob.parts[0].artifact.digest)
    path.write_bytes(b"another".ljust(path.stat().st_size))
    gate.set()
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, "bob")) == 2)
    assert world.record.version("run", -1).version == 0
    await world.offers.offer("bob", world.update_of("bob", world.nodes.got(msg.Assignment, "bob")[1]))
    while world.record.version("run", -1).version == 0:
        await world.changed(active)
    assert {update.node: update.verdict for update in world.record.updates("run", 1)} == dict.fromkeys(
        ("ada", "bob"), "accepted"
    )
    assert [(node, number) for node, number, _ in lost_on_record(world)] == [("bob", 1)]
    task.cancel()
