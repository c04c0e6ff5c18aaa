"""Who may call what: every method of the service, for everybody who may not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from covey.coordinator.admin.handlers import admin_handler
from covey.coordinator.modes.registry import take_up
from covey.coordinator.runs.schedule.run_nodes import RunNodes
from covey.coordinator.studies import Studies, study_of
from covey.machines.places import Room, Want
from covey.machines.protocol import NodeRemoved
from covey.protos import admin_pb2 as pb
from covey.protos import tensors_pb2
from covey.storage.record.contract import NodeRecord
from covey.testing.store import records as make
from tests.unit.coordinator.admin.serving import admin_service, certified
from tests.unit.coordinator.world import ROUNDS

METHODS = pb.DESCRIPTOR.services_by_name["Admin"].methods_by_name
STUDIES = """
[studies.brain]
nodes = ["ada"]
admins = ["alice"]
members = ["bob"]
auditors = ["carol"]
[studies.heart]
nodes = ["bob"]
"""
KINDS: dict[str, Any] = {name: getattr(pb, method.input_type.name) for name, method in METHODS.items()}
READ = {
    *("ShowRun", "WatchRun", "LocateVersion", "DownloadVersion", "ListRounds", "ShowRound", "ListContributions"),
    *("ListGossip", "AuditRun", "ListEvents", "ListSiteLog"),
}
MANAGE = {"StopRun", "DeleteRun"}
SUBMIT = {"SubmitRun", "SubmitRunWithModel", "CheckRun"}
FILTERED = {"ListRuns", "ListNodes", "ShowNode", "Status"}
FEDERATION = {"EvictNode", "CreateToken", "ListTokens", "RevokeToken", "Pause", "Drain", "Backup"}
FEDERATION |= {"ListStudies", "EditStudy"}
DENIED, MISSING, WRONG = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


class Refused(grpc.aio.BaseError):
    """A call ended with a status."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


async def abort(status, text, metadata=()):
    raise Refused(status, text)


def text_of(study="", name="digits", extra="", nodes=1):
    head = f'study = "{study}"\n' if study else ""
    return head + ROUNDS.format(count=2, nodes=nodes, where="central").replace('"digits"', f'"{name}"', 1) + extra


@pytest.fixture
def called(world, authority, identity, tmp_path):
    """Calls a method as it is served: `called(who, method, **request)` returns what came back first."""
    (tmp_path / "studies.toml").write_text(STUDIES)
    world.studies = Studies(tmp_path / "studies.toml")
    for study in ("brain", "heart"):
        world.submit(f"{study}-run", mode=f'study = "{study}"\n' + ROUNDS)
    world.submit("old-run")
    handler = admin_handler(admin_service(world, authority))
    roles = {"root": "admin", "office": "auditor", "n1": "node"}
    calls = {
        name: certified(world, identity(name, roles.get(name, "member")))
        for name in ("root", "office", "n1", "alice", "bob", "carol", "mallory", "olga")
    }
    for call in calls.values():
        call.abort, call.peer = abort, lambda: "here"

    async def call_it(who, method, about="brain", **given) -> Any:
        found: Any = handler.service(SimpleNamespace(method=f"/covey.v1.Admin/{method}", invocation_metadata=()))
        request = (given and KINDS[method](**given)) or asked(method, about)
        if not found.response_streaming:
            return await found.unary_unary(request, calls[who])
        stream = found.stream_stream(one(request), calls[who]) if found.request_streaming else None
        stream = stream or found.unary_stream(request, calls[who])
        return await (stream if asyncio.iscoroutine(stream) else anext(aiter(stream), None))

    return call_it


async def one(request):
    yield request


def asked(method, study):
    """The smallest request about a study's run."""
    kind = KINDS[method]
    if method == "SubmitRun":
        return kind(spec_toml=text_of(study, "new"))
    if method in ("SubmitRunWithModel", "CheckRun"):
        model = tensors_pb2.Artifact(digest="0" * 64, size_bytes=1)
        return kind(submission=pb.SubmitRunRequest(spec_toml=text_of(study, "new")), model=model)
    if method in READ | MANAGE:
        return kind(run=f"{study}-run")
    return kind(node="bob" if study == "heart" else "ada") if method in ("ShowNode", "EvictNode") else kind()


async def status_of(call):
    """How a call was refused; None: it was not, or for what is no matter of rights."""
    try:
        await call
    except Refused as refused:
        is_of_rights = refused.status is DENIED or "there is no run" in str(refused) or "no study" in str(refused)
        return refused.status if is_of_rights or "in a study of yours" in str(refused) else None
    return None


def test_every_method_of_the_service_is_looked_at_here():
    groups = (READ, MANAGE, SUBMIT, FILTERED, FEDERATION)
    assert set().union(*groups) == set(METHODS)
    assert sum(map(len, groups)) == len(METHODS)


@pytest.mark.parametrize("who", ["n1", "mallory", "alice", "bob", "carol"])
async def test_nobody_without_a_role_in_a_study_gets_anywhere_near_it(called, world, who):
    before = world.record.runs(), world.record.nodes(), world.record.events()
    wanted = dict.fromkeys(READ | MANAGE, MISSING) | dict.fromkeys(SUBMIT, WRONG)
    wanted |= dict.fromkeys(FEDERATION, DENIED) | {"ShowNode": MISSING}
    if who == "n1":
        wanted = dict.fromkeys(METHODS, DENIED)
    assert {method: await status_of(called(who, method, "heart")) for method in wanted} == wanted
    assert (world.record.runs(), world.record.nodes(), world.record.events()) == before


async def test_a_role_gives_what_it_says_in_its_study(called):
    for who, may in (("carol", READ), ("bob", READ | SUBMIT), ("alice", READ | SUBMIT | MANAGE)):
        for method in sorted(READ | SUBMIT | MANAGE, key=lambda name: (name in MANAGE, name)):
            assert await status_of(called(who, method)) == (None if method in may else DENIED), (who, method)
    assert await status_of(called("mallory", "EvictNode", node="ada", study="brain")) is MISSING


async def test_admins_and_auditors_of_the_federation_see_all(called):
    for study in ("brain", "heart"):
        for method in READ | FILTERED:
            assert await status_of(called("office", method, study)) is None, method
        for method in MANAGE | SUBMIT:
            assert await status_of(called("office", method, study)) is DENIED, method
            assert await status_of(called("root", method, study)) is None, method


async def test_lists_hold_what_the_caller_sees(called, world):
    def runs(reply):
        return {run.run for run in reply.runs}

    assert runs(await called("root", "ListRuns")) == {"brain-run", "heart-run", "old-run"}
    assert runs(await called("bob", "ListRuns")) == {"brain-run"}
    assert runs(await called("mallory", "ListRuns")) == set()
    assert [node.node for node in (await called("root", "ListNodes")).nodes] == ["ada", "bob"]
    assert [node.node for node in (await called("bob", "ListNodes")).nodes] == ["ada"]
    assert list((await called("bob", "ListNodes", role="admin")).nodes) == []
    assert (await called("mallory", "ListNodes")).nodes == []
    assert await status_of(called("bob", "ListEvents", limit=5)) is DENIED
    for run in ("brain-run", "heart-run"):
        world.active(run)
    assert list((await called("bob", "Status")).active_runs) == ["brain-run"]
    assert list((await called("office", "Status")).active_runs) == ["brain-run", "heart-run"]


async def test_who_shuts_a_node_out_of_a_study_learns_nothing_of_the_others(called, world, tmp_path, monkeypatch):
    (tmp_path / "studies.toml").write_text(STUDIES + '[studies.open]\nnodes = ["*"]\nadmins = ["olga"]\n')
    make.enrol(world.record, NodeRecord("alice", "member", "active", 10.0, signing_key=b"k" * 32, key_id="k"))
    elsewhere = {"accepted": 7, "rejected": 2, "last_reason": "rejected in heart-run: norm 9.1"}
    read = type(world.record).node
    monkeypatch.setattr(type(world.record), "node", lambda self, node: replace(read(self, node), **elsewhere))
    before = world.record.events()
    for node in ("bob", "mallory", "nobody"):
        assert await status_of(called("alice", "EvictNode", node=node, study="brain")) is MISSING
    for who in ("olga", "root"):
        with pytest.raises(Refused, match="there is no node 'alice'"):
            await called(who, "EvictNode", node="alice", study="open")
    with pytest.raises(Refused, match="there is no node 'alice'"):
        await called("olga", "ShowNode", node="alice")
    assert (world.record.events(), world.studies.evicted("brain")) == (before, frozenset())
    shown = await called("alice", "EvictNode", node="ada", study="brain")
    assert (shown.node, shown.accepted, shown.rejected, shown.last_reason) == ("ada", 0, 0, "")
    assert shown == (await called("alice", "ShowNode", node="ada")).node
    assert (await called("root", "EvictNode", node="ada", study="brain")).accepted == 7


async def test_who_has_no_role_anywhere_is_not_searched_for(called, world, monkeypatch):
    monkeypatch.setattr(type(world.record), "runs", lambda *given, **more: pytest.fail("the record was read"))
    assert (await called("mallory", "ListRuns")).runs == []


async def test_a_name_is_one_run_s_in_its_study_and_another_s_run_is_no_model(called, world):
    first = await called("bob", "SubmitRun", spec_toml=text_of("brain"))
    with pytest.raises(Refused, match="study 'brain' has a run 'digits' already"):
        await called("alice", "SubmitRun", spec_toml=text_of("brain"))
    theirs = await called("root", "SubmitRun", spec_toml=text_of("heart"))
    assert (await called("bob", "ShowRun", run="digits")).run == first.run
    with pytest.raises(Refused, match="several studies have a run 'digits'; say which one: brain/digits, heart/digits"):
        await called("root", "ShowRun", run="digits")
    assert (await called("root", "ShowRun", run="heart/digits")).run == theirs.run
    for mine in ("heart/digits", theirs.run, "/name of old-run"):
        assert await status_of(called("bob", "ShowRun", run=mine)) is MISSING
        if " " not in mine:
            begins = f'[model]\ninitial = "run:{mine}"\n'
            assert await status_of(called("bob", "SubmitRun", spec_toml=text_of("brain", "x", begins))) is MISSING
    begins = f'[model]\ninitial = "sha256:{"0" * 64}"\n'
    with pytest.raises(Refused, match="a digest may be of another study"):
        await called("bob", "SubmitRun", spec_toml=text_of("brain", "x", begins))
    assert {study_of(run) for run in world.record.runs(name="x")} == set()


async def test_a_node_that_is_shut_out_of_a_study_works_for_the_others(called, world):
    for run in ("brain-run", "heart-run"):
        for node in ("ada", "bob"):
            world.runs.places.joined(node, Room())
        scope = world.studies.scope(study_of(world.record.run(run)))
        world.runs.places.enter(Want(run, scope=scope))
        nodes = RunNodes(world.nodes, world.runs.places, run)
        world.services = world.services.__class__(**{**vars(world.services), "nodes": nodes})
        world.runs.add(take_up(world.services, world.record.run(run)))
    told = {run: [] for run in world.runs.active}
    for run, events in told.items():
        world.runs.of(run).post = events.append
    for who, status in (("carol", DENIED), ("bob", DENIED), ("mallory", MISSING), ("alice", None)):
        assert await status_of(called(who, "EvictNode", node="ada", study="brain")) == status
    assert [type(event) for event in told["brain-run"]] == [NodeRemoved]
    assert told["heart-run"] == []
    assert not world.runs.of("brain-run").services.nodes.takes("ada")
    assert world.studies.evicted("brain") == {"ada"}
    assert {node.node: node.state for node in world.record.nodes()} == {"ada": "active", "bob": "active"}


@pytest.fixture
def woken(monkeypatch):
    """The scheduler, once for each time that it was told to look again."""
    made: list[Any] = []
    monkeypatch.setattr("covey.coordinator.runs.schedule.scheduler.Scheduler.wake", lambda self: made.append(self))
    return made


async def test_who_waits_is_looked_at_again_when_a_run_is_stopped_or_a_node_shut_out(woken, called):
    await called("root", "StopRun", run="old-run")
    assert len(woken) == 1
    await called("alice", "EvictNode", node="ada", study="brain")
    assert len(woken) == 2


async def test_a_study_is_asked_for_no_more_nodes_than_it_has(called):
    with pytest.raises(Refused, match="the study 'brain' has 1 node:"):
        await called("bob", "SubmitRun", spec_toml=text_of("brain", "new", nodes=2))
