"""Runs that begin with a model there is: recorded with it in one step, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from covey import messages as msg
from covey.coordinator.runs.first_model import FirstModelServices, add_run
from covey.errors import Conflict, LayoutError, NotFound, SpecError
from covey.machines.protocol import StopRequested
from covey.parts import FIRST, slot
from covey.spec import ModelSection, parse_data, parse_json, parse_toml
from covey.storage.files.address import Address
from covey.storage.files.distant import DistantFiles
from covey.storage.record.contract import RunRecord
from tests.unit.coordinator.world import ROUNDS


@pytest.fixture
def services(world):
    return FirstModelServices(world.store, world.files, world.worker, allow_paths=False, retention=world.retention)


def submitted(name, **model):
    """A run as it is submitted, and is not recorded yet."""
    spec = parse_toml(ROUNDS.format(count=2, nodes=2, where="central"))
    spec = spec.model_copy(update={"model": ModelSection(**model)})
    return RunRecord(name, name, spec.mode, spec.to_json(), spec.seed, "queued", "", 2000.0), spec


def evaluating(name, **model):
    """A run that only evaluates, with a baseline of two rounds."""
    record, spec = submitted(name, **model)
    section = spec.evaluation.model_copy(update={"only": True, "local_rounds": 2})
    spec = spec.model_copy(update={"evaluation": section})
    return replace(record, spec=spec.to_json()), spec


@pytest.fixture
async def parent(world):
    """A run that has ended, of two rounds."""
    world.submit("parent")
    _, task = world.execute("parent")
    await asyncio.gather(task, world.work("parent"))
    return world.record.run("parent")


async def test_a_version_of_another_run(world, services, parent):
    run, spec = await add_run(services, *submitted("child", initial="run:parent"))
    first = world.record.version("child", 0)
    assert spec.model == ModelSection(initial=f"sha256:{first.artifact.digest}", parent="parent@2")
    assert world.record.run("child") == run
    assert (run.state, parse_json(run.spec)) == ("queued", spec)
    newest = world.record.version("parent", 2).artifact
    assert world.worker.done("initial")[-1].source == world.files.path(newest.digest)
    await add_run(services, *submitted("older", initial="run:parent@0"))
    assert world.worker.done("initial")[-1].source == world.files.path(
        world.record.version("parent", 0).artifact.digest
    )
    _, best = await add_run(services, *submitted("best", initial="run:parent@best"))
    assert best.model.parent == "parent@2"


@pytest.mark.parametrize("named", ["run:parent", "sha256:{}"])
async def test_a_model_that_lasts_elsewhere_stays_until_it_is_read(tmp_path, world, services, parent, named):
    address, newest = Address(f"file://{tmp_path}/there"), world.record.version("parent", 2).artifact
    address.claim("record", "me")
    address.put(world.files.path(newest.digest), newest.digest)

    class NoRoom(DistantFiles):
        def check(self, digest):
            is_here = super().check(digest)
            self._drop_copies(0)  # somebody else needs room
            return is_here

    files = NoRoom(tmp_path / "another disk", address)
    services = replace(services, files=files)
    await add_run(services, *submitted("child", initial=named.format(newest.digest)))
    assert world.worker.done("initial")[-1].source == files.path(newest.digest)
    assert files.path(newest.digest).exists()


async def test_it_starts_with_that_model_and_keeps_it(world, services, parent):
    await add_run(services, *submitted("child", initial="run:parent"))
    made = len(world.worker.done("initial"))
    first = world.record.version("child", 0)
    _, task = world.execute("child")
    await asyncio.gather(task, world.work("child"))
    assert world.record.run("child").state == "completed"
    assert len(world.worker.done("initial")) == made
    kept = world.record.version("child", 0)
    assert kept.kept
    assert kept.artifact == first.artifact
    sent = [message for message in world.nodes.got(msg.Assignment) if (message.run, message.version) == ("child", 0)]
    assert {message.model.digest for message in sent} == {first.artifact.digest}


async def test_a_file_that_came_along_stays_the_caller_s(world, services, parent, tmp_path):
    given = tmp_path / "given"
    given.write_bytes(b"values")
    record, asked = submitted("child", initial="begin.safetensors")
    _, spec = await add_run(services, record, asked, given)
    assert world.worker.done("initial")[-1].source == given
    assert spec.model.parent == ""
    await add_run(services, *submitted("again", **spec.model.model_dump()))
    assert world.worker.done("initial")[-1].source == world.files.path(spec.model.digest)


async def test_what_is_not_there_is_said(world, services, parent):
    for model, error, said in [
        ({"initial": "begin.safetensors"}, SpecError, "did not come along"),
        ({"initial": "run:nobody"}, NotFound, "no run 'nobody'"),
        ({"initial": "run:parent@9"}, NotFound, "no version 9; it has 0 to 2"),
        ({"initial": "sha256:" + "0" * 64}, NotFound, "no file"),
    ]:
        with pytest.raises(error, match=said):
            await add_run(services, *submitted("child", **model))
    digest = world.record.version("parent", 2).artifact.digest
    with pytest.raises(SpecError, match="is another model"):
        await add_run(services, *submitted("child", initial=f"sha256:{digest}", parent="parent@1"))
    world.retention.drop([digest])
    with pytest.raises(NotFound, match="version 2 of run parent is no longer kept; choose another one: 0 to 1"):
        await add_run(services, *submitted("child", initial="run:parent"))
    assert [run.run for run in world.record.runs()] == ["parent"]


async def test_a_model_that_does_not_fit_leaves_nothing(world, services, parent):
    before = set(world.files.path("0" * 64).parent.iterdir())
    world.worker.errors["initial"] = LayoutError("missing: 'a'")
    with pytest.raises(LayoutError, match="missing: 'a'"):
        await add_run(services, *submitted("child", initial="run:parent"))
    assert set(world.files.path("0" * 64).parent.iterdir()) == before
    assert list((world.folder / "files" / "scratch").iterdir()) == []


async def test_a_file_that_is_let_go_while_it_is_read_is_used_for_nothing(world, services, parent):
    gate = world.worker.gates["initial"] = asyncio.Event()
    world.worker.jobs.clear()
    submission = asyncio.create_task(add_run(services, *submitted("child", initial="run:parent@2")))
    await world.worker.begins("initial")
    world.record.delete_run("parent")
    gate.set()
    with pytest.raises(Conflict, match="let go meanwhile"):
        await submission
    assert world.record.runs() == []


async def test_a_baseline_begins_with_the_model_with_which_the_evaluated_run_began(world, services, parent):
    await add_run(services, *submitted("child", initial="run:parent"))
    _, task = world.execute("child")
    await asyncio.gather(task, world.work("child"))
    for name, wanted in (("child", world.record.version("child", 0).artifact), ("parent", None)):
        record, spec = evaluating(f"of-{name}", initial=f"run:{name}")
        _, spec = await add_run(services, record, spec)
        named = f"sha256:{wanted.digest}" if wanted else ""
        assert spec.evaluation.local_initial == named
        beside = world.record.version(f"of-{name}", 0).state
        assert [(part.name, part.artifact) for part in beside] == ([(slot(FIRST), wanted)] if wanted else [])
    other = replace(world.record.run("child"), layout="another")
    world.record.run = lambda run, real=world.record.run: other if run == "child" else real(run)
    with pytest.raises(SpecError, match=r"evaluation\.local_rounds: run child began with a model of its own"):
        await add_run(services, *evaluating("changed", initial="run:child"))


async def test_what_stays_on_nodes_is_that_of_the_last_version(world, services, parent):
    world.worker.stays = 3
    await add_run(services, *evaluating("newest", initial="run:parent"))
    with pytest.raises(SpecError, match=r"3 tensors stay .* run parent ended with version 2"):
        await add_run(services, *evaluating("older", initial="run:parent@1"))
    await add_run(services, *submitted("child", initial="run:parent"))
    with pytest.raises(SpecError, match="run child is queued"):
        await add_run(services, *evaluating("early", initial="run:child@0"))


async def test_the_nodes_of_a_gossip_run_have_its_file_from_here(world, services, parent, tmp_path):
    given = tmp_path / "given"
    given.write_bytes(b"values")
    asked = {"name": "g", "mode": "gossip", "task": {"name": "digits"}, "gossip": {"min_nodes": 2}}
    spec = parse_data(asked | {"model": {"initial": "given"}})
    await add_run(services, RunRecord("g", "g", spec.mode, spec.to_json(), 0, "queued", "", 2000.0), spec, given)
    active, task = world.execute("g")
    while not (orders := world.nodes.got(msg.GossipOrder)):
        await world.changed(active)
    first = world.record.version("g", 0).artifact
    assert (orders[0].model_bytes, parse_json(orders[0].spec).model.digest) == (first.size_bytes, first.digest)
    assert [active.served(node, first.digest) for node in ("ada", "nobody")] == [first, None]
    assert active.served("ada", "0" * 64) is None
    active.post(StopRequested("enough"))
    await task
