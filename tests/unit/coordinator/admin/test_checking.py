"""What a submission would come to: which nodes could take the run, and that nothing is recorded."""

from __future__ import annotations

import json

import pytest

from covey.coordinator.admin.checking import refusal_of, remark_of
from covey.coordinator.studies import Studies
from covey.errors import SpecError
from covey.machines.places import Room, Want
from covey.protos import admin_pb2 as pb
from covey.spec import parse_toml
from covey.storage.record.contract import NodeRecord
from tests.unit.coordinator.admin.serving import admin_service, certified
from tests.unit.coordinator.world import ROUNDS

TEXT = ROUNDS.format(count=2, nodes=2, where="central")
GIB = 2**30


def spec_of(extra="", task="digits"):
    return parse_toml(TEXT.replace('name = "digits"\n[rounds]', f'name = "{task}"\n[rounds]') + extra)


def checking(text):
    return pb.SubmitModelRequest(submission=pb.SubmitRunRequest(spec_toml=text))


@pytest.mark.parametrize(
    ("spec", "tasks", "why"),
    [
        (spec_of(), ("digits",), ""),
        (spec_of(), (), ""),  # it was never connected
        (spec_of(), ("scans", "texts"), "its operator does not allow task 'digits' (allowed: scans, texts)"),
        (spec_of(task="mine:Task"), ("scans",), ""),  # paths are between the run and the operator
    ],
)
def test_a_node_whose_operator_does_not_allow_the_task_would_take_no_part(spec, tasks, why):
    assert refusal_of(spec, NodeRecord("ada", "node", "active", 1.0, tasks=tasks)) == why


def test_what_only_the_node_knows_is_a_remark():
    assert remark_of(spec_of(), Room(gpu_bytes=1)) == ""
    large = spec_of("[training]\ngpu_memory_gib = 40.0\n")
    assert remark_of(large, Room()) == ""
    assert remark_of(large, Room(gpu_bytes=24 * GIB)) == "the run asks for 40 GiB of GPU memory; it had 24.0 free"
    assert remark_of(spec_of(task="mine:Task"), Room()).startswith("its operator has to allow mine:Task ")


async def test_what_a_submission_would_come_to_and_nothing_is_recorded(world, authority, identity):
    service, call = admin_service(world, authority), certified(world, identity("alice", "admin"))
    world.record.seen("ada", 11.0, tasks=("scans",))
    before = world.record.runs(), world.record.events()
    reply = await service.checks.check_run(checking(TEXT), call)
    assert json.loads(reply.spec)["rounds"]["rejoin_s"] == 30.0
    assert [(node.node, node.connected, bool(node.refusal)) for node in reply.nodes] == [
        ("ada", False, True),
        ("bob", False, False),
    ]
    assert (reply.nodes_count, reply.ready) == (2, 0)
    assert reply.waits_for == "it begins once 2 nodes are there: 0 of those connected could take it"
    with pytest.raises(SpecError, match=r"rounds\.count"):
        await service.checks.check_run(checking(TEXT.replace("count = 2", "count = 0")), call)
    assert (world.record.runs(), world.record.events()) == before


async def test_of_a_study_its_own_nodes_are_shown_and_a_place_is_waited_for(world, authority, identity, tmp_path):
    (tmp_path / "studies.toml").write_text('[studies.brain]\nnodes = ["bob", "eve"]\nadmins = ["alice"]\n')
    world.studies = Studies(tmp_path / "studies.toml")
    service, call = admin_service(world, authority), certified(world, identity("alice", "member"))
    for number in range(4):  # as many as there are places
        world.runs.places.enter(Want(f"run-{number}"))
    reply = await service.checks.check_run(checking('study = "brain"\n' + TEXT), call)
    assert [node.node for node in reply.nodes] == ["bob"]
    assert "waits for a place on the coordinator: 4 of 4 runs" in reply.waits_for
