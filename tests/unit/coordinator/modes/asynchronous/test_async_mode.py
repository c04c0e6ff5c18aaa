"""Mode `async` through the ports of a run: a node's own assignment, one decision at a time, and what a commit names."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from covey import messages as msg
from covey.coordinator.modes.asynchronous.mode import AsyncMode
from covey.coordinator.runs.facts import NodeProgress
from covey.errors import Late
from covey.machines.protocol import NodeRemoved, TransferProgressed
from covey.wire.identities.signing import CommitStatement
from tests.unit.coordinator.world import ROUNDS, UPDATES


async def begun(world, count=20):
    """A run whose first two assignments are out, with its task and them by node."""
    world.submit(mode=UPDATES, count=count)
    active, task = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    return active, task, {node: world.nodes.got(msg.Assignment, node)[0] for node in ("ada", "bob")}


async def decided(world, active, number):
    while len(world.record.steps("run")) < number:
        await world.changed(active)


def test_what_it_says_of_itself_before_the_run_is_taken_up(world):
    world.submit(mode=UPDATES)
    mode = world.active("run").mode
    assert isinstance(mode, AsyncMode)
    assert (mode.counts, mode.open_round("ada"), mode.open_phase("ada")) == ("updates", 0, 1)
    assert mode.served("ada", "0" * 64) is None
    with pytest.raises(Late, match="this assignment is closed"):
        mode.base_of("ada", 1)


async def test_each_node_has_an_assignment_of_its_own_that_is_on_record_before_it_is_sent(world):
    active, task, assignments = await begun(world)
    assert sorted(a.round for a in assignments.values()) == [1, 2]
    for node, assignment in assignments.items():
        assert active.mode.open_round(node) == assignment.round
        record = world.record.round("run", assignment.round)
        assert (record.invited, record.state, record.base_version) == ((node,), "collecting", 0)
    task.cancel()


async def test_an_update_closes_its_assignment_and_opens_the_next_from_the_newest_version(world):
    active, task, assignments = await begun(world)
    await world.offers.offer("ada", world.update_of("ada", assignments["ada"]))
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, "ada")) == 2)
    following = world.nodes.got(msg.Assignment, "ada")[1]
    assert (following.round, following.version) == (3, 1)
    assert active.mode.base_of("ada", 3).version == 1
    assert active.mode.base_of("bob", assignments["bob"].round).version == 0
    with pytest.raises(Late):
        active.mode.base_of("ada", assignments["ada"].round)
    task.cancel()


async def test_staleness_comes_from_the_record_of_the_assignment(world):
    active, task, assignments = await begun(world)
    for node in ("ada", "bob"):
        await world.offers.offer(node, world.update_of(node, assignments[node]))
    await decided(world, active, 2)
    stale = {update.node: update.numbers["staleness"] for n in (1, 2) for update in world.record.updates("run", n)}
    assert stale == {"ada": 0.0, "bob": 1.0}
    task.cancel()


async def test_verdicts_of_decisions_without_a_version_are_signed_with_the_next_one(world):
    world.worker.makes_versions = False
    active, task, assignments = await begun(world)
    await world.offers.offer("ada", world.update_of("ada", assignments["ada"]))
    await decided(world, active, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    world.worker.makes_versions = True
    world.runs.active.clear()
    active, task = world.execute("run")  # who returns knows of them from the record
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, "bob")) == 2)
    await world.offers.offer("bob", world.update_of("bob", assignments["bob"]))
    await decided(world, active, 2)
    statement = CommitStatement.from_bytes(world.record.version("run", 1).statement)
    assert [(verdict.node, verdict.round) for verdict in statement.verdicts] == [
        ("ada", assignments["ada"].round),
        ("bob", assignments["bob"].round),
    ]
    task.cancel()


async def test_what_was_sent_by_a_node_that_is_evicted_meanwhile_is_not_decided_on(world):
    world.worker.gates["step"] = gate = asyncio.Event()
    active, task, assignments = await begun(world)
    await world.offers.offer("ada", world.update_of("ada", assignments["ada"]))
    await world.offers.offer("bob", world.update_of("bob", assignments["bob"]))
    world.members.evicted.add("bob")
    active.post(NodeRemoved("bob", world.services.clock()))
    gate.set()
    while world.record.updates("run", assignments["bob"].round)[0].verdict == "received":
        await world.changed(active)
    (update,) = world.record.updates("run", assignments["bob"].round)
    assert (update.verdict, update.reason) == ("rejected", "evicted")
    assert [step.group for step in world.record.steps("run")] == [assignments["ada"].round]
    task.cancel()


class Events:
    """Keeps the events that a machine takes."""

    def __init__(self):
        self.taken = []

    def opened(self, machine):
        """What the machine was then does not matter here."""

    def took(self, machine, event, actions):
        self.taken.append(event)

    def failed(self, event, error):
        raise error

    def closed(self):
        """Nothing is held."""


@pytest.mark.parametrize(("mode", "counts"), [(UPDATES, True), (ROUNDS, False)])
async def test_training_is_a_sign_of_progress_here_and_not_in_rounds(world, mode, counts):
    events = Events()
    world.services = replace(world.services, record_events=lambda run: events)
    world.submit(mode=mode)
    active, task = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    active.moved("ada", NodeProgress("training", 1, 2))
    active.post(NodeRemoved("bob", world.services.clock()))
    while not any(isinstance(event, NodeRemoved) for event in events.taken):
        await world.changed(active)
    heard = [event.node for event in events.taken if isinstance(event, TransferProgressed)]
    assert heard == ["ada"] * counts
    assert active.progress.nodes["ada"].phase == "training"
    task.cancel()


async def test_nodes_that_keep_state_learn_what_became_of_their_update(world):
    world.worker.description = replace(world.worker.description, node_state=("residual",))
    _, task, assignments = await begun(world)
    assert assignments["ada"].feedback == msg.Feedback()
    await world.offers.offer("ada", world.update_of("ada", assignments["ada"]))
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, "ada")) == 2)
    (update,) = world.record.updates("run", assignments["ada"].round)
    assert world.nodes.got(msg.Assignment, "ada")[1].feedback == msg.Feedback(update.digest, True)
    task.cancel()
