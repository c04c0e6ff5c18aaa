"""Which part of the data a newcomer of an asynchronous run has: on record with its assignment, whoever is connected."""

from __future__ import annotations

import asyncio

import pytest

from covey import messages as msg
from covey.coordinator.modes.asynchronous.data_parts import DataParts
from covey.machines.membership import Membership
from covey.machines.protocol import NodeJoined, NodeRemoved
from tests.unit.coordinator.world import UPDATES, World

ROSTER = ("ada", "bob", "cyd", "dee")
PARTS = 2


def members(*present, away=()):
    made = Membership(ROSTER, dict.fromkeys(away, 0.0))
    for node in present:
        made.join(node)
    return made


def test_the_first_nodes_have_the_part_of_their_place():
    parts = DataParts()
    assert [parts.take(node, ROSTER, PARTS, members(*ROSTER)) for node in ROSTER] == [None] * 4


def test_a_newcomer_takes_the_part_of_one_that_is_gone_and_not_of_one_that_is_expected_back():
    parts = DataParts()
    assert parts.take("cyd", ROSTER, PARTS, members("ada", "cyd", away=["bob"])) is None
    assert parts.take("cyd", ROSTER, PARTS, members("ada", "cyd")) == 1
    assert parts.of("cyd") == 1


def test_it_keeps_its_part_when_another_becomes_free_and_over_a_restart_in_which_all_are_expected():
    parts = DataParts({"cyd": 1})
    assert parts.take("cyd", ROSTER, PARTS, members("cyd", "dee")) == 1
    assert parts.take("dee", ROSTER, PARTS, members("cyd", "dee")) == 0
    assert parts.take("cyd", ROSTER, PARTS, members("cyd", away=["ada", "bob", "dee"])) == 1


def test_two_newcomers_never_have_the_same_one_unless_the_first_is_gone():
    parts = DataParts({"cyd": 1})
    assert parts.take("dee", ROSTER, PARTS, members("ada", "dee", away=["cyd"])) is None
    assert parts.take("dee", ROSTER, PARTS, members("ada", "dee")) == 1
    assert parts.of("cyd") is None
    assert parts.take("cyd", ROSTER, PARTS, members("ada", "cyd", "dee")) is None


def test_the_owner_that_returns_has_its_own_part_and_the_newcomer_takes_another_or_none():
    parts = DataParts({"cyd": 1})
    assert parts.take("bob", ROSTER, PARTS, members("ada", "bob", "cyd")) is None
    assert parts.take("cyd", ROSTER, PARTS, members("ada", "bob", "cyd")) is None
    assert parts.take("cyd", ROSTER, PARTS, members("bob", "cyd")) == 0


@pytest.fixture
async def three(tmp_path):
    made = World(tmp_path, "ada", "bob", "cyd")
    yield made
    await made.close()


async def sent(world, node, count):
    """A node's assignment, when it has got so many."""
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, node)) == count)
    return world.nodes.got(msg.Assignment, node)[-1]


async def test_it_is_on_record_and_the_same_when_it_is_sent_again_after_a_restart(three):
    three.submit(mode=UPDATES.replace("{nodes}", "1") + '[data]\npartition = "iid"\nparts = 2\n', count=20)
    active, task = three.execute("run")
    first = await sent(three, "cyd", 1)
    assert (first.part, first.num_partitions) == (-1, 2)
    three.nodes.connected.discard("bob")
    active.post(NodeRemoved("bob", three.services.clock()))
    await three.offers.offer("cyd", three.update_of("cyd", first))
    taken = await sent(three, "cyd", 2)
    assert (taken.part, three.record.round("run", taken.round).part) == (1, 1)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    three.runs.active.clear()
    three.nodes.connected.discard("ada")  # who is connected makes no difference
    active, task = three.execute("run")
    again = await sent(three, "cyd", 3)
    assert (again.round, again.part) == (taken.round, 1)

    three.nodes.connected.add("bob")
    active.post(NodeJoined("bob", three.services.clock()))
    assert (await sent(three, "bob", 2)).part == -1
    await three.offers.offer("cyd", three.update_of("cyd", again))
    last = await sent(three, "cyd", 4)
    assert (last.part, three.record.round("run", last.round).part) == (-1, None)
    task.cancel()
