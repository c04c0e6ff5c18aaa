"""Mode `gossip` with a real store, real keys and nodes that record what they are sent."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from covey import messages as msg
from covey.coordinator.modes.gossip import events as ev
from covey.coordinator.modes.gossip.mode import EVICTED
from covey.coordinator.modes.gossip.replay import refuse_replay
from covey.coordinator.modes.gossip.statements import Statements
from covey.coordinator.modes.registry import room_of
from covey.coordinator.nodes.gossip import peer_address, take_statement
from covey.errors import IdentityError, SpecError
from covey.machines import protocol as pr
from covey.wire.evictions import EvictionStatement, SignedNotice, opened_eviction
from covey.wire.identities.authority import Authority
from covey.wire.identities.gossip_statement import EdgeStatement, GossipStatement, StepStatement
from tests.unit.coordinator.world import FEDERATION, World

ONE = str(1 << 52)
SPEC = """
name = "g"
mode = "gossip"
[task]
name = "digits"
[gossip]
steps = {count}
min_nodes = {nodes}
"""


def statement(world: World, node: str = "ada", number: int = 1, **changes: Any) -> msg.GossipSaid:
    """What a node states, signed by its key."""
    edge = EdgeStatement("bob", 1, "5", "0", "0", 1, "7", 1)
    step = StepStatement(number - 1, 1.0, ONE, 0.5, 0.25, {"loss": 2.0})
    plain = GossipStatement(
        FEDERATION, "run", node, world.keys[node].key_id, 1, number, "working", "", number, ONE, ONE, "0", (), (edge,),
        (step,), "", 1.0,
    )  # fmt: skip
    raw = replace(plain, **changes).to_bytes()
    return msg.GossipSaid("run", raw, world.keys[node].sign(raw))


def receipt(said: msg.GossipSaid, number: int, step: int) -> msg.GossipReceipt:
    return msg.GossipReceipt("run", 1, number, step, hashlib.sha256(said.statement).hexdigest())


def sent(world: World, kind: type, node: str = "ada") -> list[Any]:
    return [message for to, message in world.nodes.sent if to == node and isinstance(message, kind)]


async def begun(world: World) -> tuple[Any, Any]:
    """A run that has begun with all nodes."""
    world.submit(mode=SPEC, count=4)
    active, task = world.execute("run")
    while active.machine is None or not active.machine.is_open:
        await world.changed(active)
    while not sent(world, msg.GossipOrder, "bob"):
        await world.changed(active)
    return active, task


async def state(world: World, active: Any, node: str, number: int, **changes: Any) -> None:
    await active.mode.stated(node, statement(world, node, number, **changes))


async def test_who_takes_part_is_handed_out_and_what_nodes_state_is_kept(world: World) -> None:
    active, task = await begun(world)
    (order,) = sent(world, msg.GossipOrder)
    assert [member.name for member in order.members] == ["ada", "bob"]
    assert order.members[0] == msg.GossipMember("ada", "ada.example:7410", "aa" * 32)
    assert order.model_sha256 == world.record.version("run", 0).model_sha256
    await state(world, active, "ada", 1)
    assert sent(world, msg.GossipReceipt) == [receipt(statement(world), 1, 1)]
    assert active.progress.nodes["ada"].phase == "training"
    assert active.progress.nodes["ada"].loss == 2.0
    await state(world, active, "ada", 1)  # again: the receipt was lost
    await state(world, active, "ada", 3)  # one is missing: the node is told from where to go on
    assert sent(world, msg.GossipReceipt) == [receipt(statement(world), 1, 1)] * 3
    await state(world, active, "ada", 2, state="completed", step=4)
    await state(world, active, "bob", 1, state="completed", step=4)
    await task
    run = world.record.run("run")
    assert (run.state, run.reason, run.roster) == ("completed", "", ("ada", "bob"))
    assert [row.number for row in world.record.gossip_statements("run", "ada")] == [1, 2]
    assert {row.node: row.state for row in world.record.gossip_members("run")} == dict.fromkeys(
        ("ada", "bob"), "completed"
    )
    assert sent(world, msg.Cancel) == [msg.Cancel("run", 0, "the run is completed")]


async def test_whoever_looks_sees_that_nodes_cannot_reach_each_other_until_they_can(world: World) -> None:
    world.nodes.callers = {"ada", "bob"}
    active, task = await begun(world)
    assert active.awaited.startswith("ada and bob cannot reach each other, for peers can call none of them")
    assert "--peer-listen HOST:PORT" in active.awaited
    world.nodes.callers = {"ada"}
    active.post(pr.NodeJoined("bob", 1.0))  # it was started again
    while active.awaited:
        await world.changed(active)
    await state(world, active, "bob", 1, state="completed", step=4)
    await state(world, active, "ada", 1, state="completed", step=4)
    await task


@pytest.mark.parametrize(
    "changes",
    [{"federation": "x"}, {"run": "other"}, {"node": "bob"}, {"key": "k"}, {"incarnation": 7}, {"live": "much"}],
)
async def test_a_statement_that_does_not_count_is_refused_and_costs_nothing_else(
    world: World, changes: dict[str, Any]
) -> None:
    active, _ = await begun(world)
    said = statement(world, **changes)
    await active.mode.stated("ada", said)
    (refusal,) = sent(world, msg.Refusal)
    assert refusal.update == hashlib.sha256(said.statement).hexdigest()
    assert world.record.gossip_statements("run", "ada") == []
    assert not active.machine.done


async def test_a_forged_signature_is_refused_and_so_is_who_takes_no_part(world: World) -> None:
    active, _ = await begun(world)
    honest = statement(world)
    await active.mode.stated("ada", replace(honest, signature=bytes(64)))
    await active.mode.stated("cyd", honest)
    assert len(sent(world, msg.Refusal)) == 1
    assert world.record.gossip_statements("run", "ada") == []


async def test_a_node_that_declines_is_out_by_a_notice_that_the_authority_signed(world: World) -> None:
    active, task = await begun(world)
    active.post(pr.NodeAnswered("ada", 1, "declined", "policy: no", 1.0))
    while not sent(world, msg.GossipNotice, "bob"):
        await world.changed(active)
    (notice,) = sent(world, msg.GossipNotice, "bob")
    pem = Authority.open(world.folder / "authority").pem
    said = opened_eviction(SignedNotice(notice.statement, notice.signature, notice.certificate), pem)
    assert (said.run, said.node, said.incarnation, said.reason) == ("run", "ada", 1, "declined: policy: no")
    await state(world, active, "bob", 1, state="completed")
    await task
    assert world.record.run("run").reason == "1 completed; 1 declined (ada: policy: no)"


async def test_a_coordinator_that_comes_back_knows_what_it_knew(world: World) -> None:
    active, task = await begun(world)
    await state(world, active, "ada", 1, state="completed", step=4)
    active.post(pr.NodeRemoved("bob", 1.0))
    await task
    world.record.events(run="run", kind=EVICTED)
    assert world.record.run("run").state == "completed"
    # As a coordinator that was killed before the end has it:
    again = type(active)(world.services, world.record.run("run"), lambda run: type(active.mode)(run))
    again.base, again.prepared = active.base, active.prepared
    machine = await again.mode.begin(active.prepared, {})
    assert {node: part.state for node, part in machine.parts.items()} == {"ada": "completed", "bob": "evicted"}
    assert [node for node, part in machine.parts.items() if part.is_out_for_good] == ["bob"]
    await again.mode.do(ev.SendOrder("ada"))
    told = [EvictionStatement.from_bytes(notice.statement) for notice in sent(world, msg.GossipNotice, "ada")]
    assert [(each.node, each.is_for_good) for each in told[-2:]] == [("bob", False), ("bob", True)]
    world.nodes.sent.clear()
    await again.mode.stated("ada", statement(world, "ada", 1))
    assert sent(world, msg.GossipReceipt) == [receipt(statement(world, state="completed", step=4), 1, 1)]


async def test_an_address_that_has_changed_is_told_to_everybody(world: World) -> None:
    active, _ = await begun(world)
    world.nodes.sent.clear()
    world.nodes.port = 7411
    active.post(pr.NodeJoined("ada", 1.0))
    while not sent(world, msg.GossipOrder, "bob"):
        await world.changed(active)
    (order,) = sent(world, msg.GossipOrder, "bob")
    assert [member.address for member in order.members] == ["ada.example:7411", "bob.example:7410"]


async def test_of_a_run_that_is_over_a_node_is_told_so(world: World) -> None:
    world.submit(mode=SPEC, count=4)
    await take_statement(world.runs, world.store, world.nodes, "ada", statement(world))
    assert sent(world, msg.Cancel) == []  # it is just being taken up
    assert [refusal.code for refusal in sent(world, msg.Refusal)] == ["not-ready"]
    world.record.finish_run("run", "stopped", "by root", 1.0)
    await take_statement(world.runs, world.store, world.nodes, "ada", statement(world))
    assert sent(world, msg.Cancel) == [msg.Cancel("run", 0, "the run is stopped")]
    await take_statement(world.runs, world.store, world.nodes, "ada", replace(statement(world), run="gone"))
    assert sent(world, msg.Cancel)[-1] == msg.Cancel("gone", 0, "the run is not on record")


@pytest.mark.parametrize(
    ("said", "address"),
    [("", ""), ("a.example:7410", "a.example:7410"), ("a b:1", ""), ("a:", ""), ("a:123456", ""), ("x\x1b[2J:1", "")],
)
def test_a_peer_address_that_is_none_is_passed_over(said: str, address: str) -> None:
    assert peer_address("ada", said) == address


async def test_of_an_incarnation_that_rejoins_statements_begin_anew(world: World) -> None:
    known = Statements(FEDERATION, "run")
    key = world.keys["ada"].key_id, world.keys["ada"].public_bytes
    for incarnation, number in ((1, 1), (1, 2), (2, 1), (2, 2)):
        said = statement(world, number=number, incarnation=incarnation)
        opened = known.open("ada", key, said)
        assert known.is_next(opened)
        known.recorded(known.record(opened, said, 1.0))
    with pytest.raises(IdentityError, match="incarnation 1, and 2"):
        known.open("ada", key, statement(world, number=3))


async def test_a_further_incarnation_states_something_only_once_the_one_before_is_evicted(world: World) -> None:
    active, _ = await begun(world)
    await state(world, active, "ada", 1, incarnation=2)
    (refusal,) = sent(world, msg.Refusal)
    assert (refusal.code, world.record.gossip_statements("run", "ada")) == ("not-ready", [])
    active.post(pr.NodeRemoved("ada", 1.0))
    while not sent(world, msg.GossipNotice, "bob"):
        await world.changed(active)
    assert list(active.mode._notices) == [("ada", 1)]  # which is the one that its peers know

    await state(world, active, "bob", 1, state="retired")
    while len(sent(world, msg.GossipNotice, "bob")) < 3:  # of ada there are two: of her incarnation, and for good
        await world.changed(active)
    await state(world, active, "bob", 1, incarnation=2)
    assert [row.incarnation for row in world.record.gossip_statements("run", "bob")] == [1, 2]
    again = type(active)(world.services, world.record.run("run"), lambda run: type(active.mode)(run))
    again.base, again.prepared = active.base, active.prepared
    machine = await again.mode.begin(active.prepared, {})
    assert {node: part.incarnation for node, part in machine.parts.items()} == {"ada": 2, "bob": 2}


def test_nothing_is_replayed(world: World) -> None:
    assert room_of("gossip").replay is refuse_replay
    with pytest.raises(SpecError, match="covey run audit run"):
        world.replay(world.folder / "replay", world.submit(mode=SPEC, count=4).run)
