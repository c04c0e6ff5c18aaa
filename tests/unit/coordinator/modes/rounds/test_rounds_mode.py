"""Mode `rounds` through the ports of a run: what nodes are asked, in which phase, with what, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace

import pytest

from covey import messages as msg
from covey.coordinator.modes.rounds.mode import RoundsMode
from covey.coordinator.runs.assignments import AssignmentInputs
from covey.coordinator.runs.facts import NodeProgress
from covey.errors import WorkerError
from covey.parts import DeclaredPart
from covey.wire.identities.signing import CommitStatement
from covey.worker.jobs.steps import OpenedPhase
from tests.unit.coordinator.world import MODEL, MODEL_BYTES, ROUNDS

BID = DeclaredPart("bid", "none", "", MODEL_BYTES, True, 1, None, "all", "collect")
CHANGED = {"change": MODEL_BYTES, "broadcast": MODEL_BYTES}


async def played(world, **options):
    """A submitted run that both nodes have worked for until its end."""
    world.submit(**options)
    active, task = world.execute("run")
    await world.work("run")
    await task
    return active


def phased(world):
    """A method that asks for bids, and then `bob` for the model."""
    parts = (BID, replace(MODEL, up=2))
    world.worker.description = replace(world.worker.description, parts=parts, phases=2)
    world.worker.plans[1, 1] = OpenedPhase(2, {"bob": '{"leads":true}'}, {"ada": "a lie"})


def test_what_it_says_of_itself_before_the_run_is_taken_up(world):
    world.submit()
    mode = world.active("run").mode
    assert isinstance(mode, RoundsMode)
    assert (mode.counts, mode.open_round("ada"), mode.open_phase("ada")) == ("rounds", 0, 1)
    assert mode.served("ada", "0" * 64) is None


async def test_one_round_is_open_for_all_and_starts_from_the_newest_version(world):
    world.submit()
    active, task = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    assert [active.mode.open_round(node) for node in ("ada", "bob", "stranger")] == [1, 1, 1]
    assert active.mode.base_of("bob", 1).version == 0
    active.mode.moved("bob", NodeProgress("training", 3, 4))  # no sign of progress here: only bytes are
    assert active.machine.wake_at is not None
    task.cancel()


async def test_who_is_asked_once_more_gets_the_methods_words_and_nothing_to_train_from(world):
    phased(world)
    world.submit(count=1)
    active, task = world.execute("run")
    await world.work("run", stop=lambda: any(a.phase == 2 for a in world.nodes.got(msg.Assignment)))
    (asked,) = [a for a in world.nodes.got(msg.Assignment) if a.phase == 2]
    assert not [a for a in world.nodes.got(msg.Assignment, "ada") if a.phase == 2]
    assert (asked.round, asked.params, asked.model_data, asked.inputs) == (1, '{"leads":true}', b"", ())
    assert [(part.name, part.held) for part in asked.wanted] == [("model", 0)]
    (first,) = [a for a in world.nodes.got(msg.Assignment, "bob") if a.phase == 1]
    assert [(part.name, part.held) for part in first.wanted] == [("bid", 0), ("model", 2)]
    assert first.model_data
    (refused,) = [update for update in world.record.updates("run", 1) if update.node == "ada"]
    assert (refused.verdict, refused.reason) == ("rejected", "a lie")
    assert active.mode.open_phase("bob") == 2
    await world.work("run")
    await task
    statement = CommitStatement.from_bytes(world.record.version("run", 1).statement)
    assert {(verdict.node, verdict.phase, verdict.verdict) for verdict in statement.verdicts} == {
        ("bob", 1, "accepted"),
        ("bob", 2, "accepted"),
    }


async def test_a_coordinator_that_returns_asks_the_same_with_the_same_words(world):
    phased(world)
    world.submit(count=1)
    _, task = world.execute("run")
    await world.work("run", stop=lambda: any(a.phase == 2 for a in world.nodes.got(msg.Assignment)))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    world.runs.active.clear()
    world.nodes.sent.clear()
    active, task = world.execute("run")
    await world.nodes.until(lambda: world.nodes.got(msg.Assignment))
    assert [(a.phase, a.params) for a in world.nodes.got(msg.Assignment)] == [(2, '{"leads":true}')]
    assert active.progress.bytes_received == 2 * MODEL_BYTES  # two bids came in before
    await world.work("run")
    await task
    assert world.record.run("run").state == "completed"


async def test_nodes_with_the_version_before_are_sent_the_change_and_what_the_codec_said(world):
    world.worker.description = replace(world.worker.description, slots=CHANGED)
    active = await played(world)
    first, second = world.nodes.got(msg.Assignment, "ada")
    assert (first.change, first.broadcast) == (None, b"")
    state = {file.name: file.artifact for file in world.record.version("run", 1).state}
    assert second.change == msg.Change(state["change"], first.model.digest, second.change.data)
    assert len(second.change.data) == MODEL_BYTES
    assert second.broadcast == world.files.path(state["broadcast"].digest).read_bytes()
    assert not second.model_data
    newest = {file.name: file.artifact for file in world.record.version("run", 2).state}
    assert active.mode.served("ada", newest["change"].digest) == newest["change"]


async def test_a_coordinator_that_returns_knows_from_which_version_the_change_leads(world):
    world.worker.description = replace(world.worker.description, slots=CHANGED)
    world.submit(count=3)
    _, task = world.execute("run")
    await world.work("run", stop=lambda: world.record.run("run").state == "running" and len(commits(world)) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    world.runs.active.clear()
    world.nodes.sent.clear()
    _, task = world.execute("run")
    await world.nodes.until(lambda: world.nodes.got(msg.Assignment))
    (again, *_) = world.nodes.got(msg.Assignment)
    before = world.record.version("run", again.version - 1)
    assert again.change.base == before.artifact.digest
    assert again.model_data  # who surely has the version before is not on record
    task.cancel()


def commits(world):
    return [version for version in world.record.versions("run") if version.version]


async def test_what_nodes_keep_follows_the_verdict_on_their_newest_update(world):
    world.worker.description = replace(world.worker.description, node_state=("residual",))
    world.worker.rejected = {"bob": "too far away"}
    active = await played(world)
    sent = {update.node: update.digest for update in world.record.updates("run", 1)}
    for node, accepted in (("ada", True), ("bob", False)):
        first, second = world.nodes.got(msg.Assignment, node)
        assert (first.node_state, first.feedback) == (("residual",), msg.Feedback())
        assert second.feedback == msg.Feedback(sent[node], accepted)
    newest = {update.node: update.digest for update in world.record.updates("run", 2)}
    assert active.mode.inputs("bob").feedback == msg.Feedback(newest["bob"], False)
    assert isinstance(active.mode.inputs("ada"), AssignmentInputs)


async def test_a_rule_that_gave_way_to_its_fallback_is_on_record(world):
    rule = '[aggregation]\nname = "median"\n'
    await played(world, mode=f"{ROUNDS}{rule}", count=1)
    (event,) = [event for event in world.record.events(run="run") if event.kind == "fallback-rule"]
    assert event.detail == {"round": 1, "rule": "mean"}  # which is what this worker always applies


async def test_files_of_older_versions_and_of_their_updates_go(world):
    await played(world, count=3)
    for number in (1, 2, 3):
        kept = [world.files.has(update.parts[0].artifact.digest) for update in world.record.updates("run", number)]
        assert kept == [number == 3] * 2


@pytest.mark.parametrize("where", ["central", "nodes"])
async def test_what_nodes_measured_of_the_base_belongs_to_its_version(world, where):
    world.submit(count=2, where=where)
    active, task = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    for node in ("ada", "bob"):
        (assignment,) = world.nodes.got(msg.Assignment, node)
        metrics = {"evaluation/accuracy": (3.0, 4.0)}
        await world.offers.offer(node, world.update_of(node, assignment, metrics=metrics))
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, "ada")) == 2)
    await active.driver.settle()
    assert world.record.version("run", 0).metrics.get("nodes/accuracy") == 0.75
    assert json.loads(world.record.run("run").spec)["evaluation"]["where"] == where
    task.cancel()


def damage(world, node):
    """A disk changes a byte of what a node has sent."""
    (update,) = [update for update in world.record.updates("run", 1) if update.node == node]
    path = world.files.path(update.parts[0].artifact.digest)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_is_made_of_a_round_whose_updates_were_damaged_while_they_were_used(world, tmp_path, fails):
    """Whether the worker noticed or not: one of two is below the quorum, and the version is that of both."""
    world.worker.gates["step"] = gate = asyncio.Event()
    if fails:
        world.worker.errors["step"] = WorkerError("the file is not what it was")
    world.submit(count=1)
    _, task = world.execute("run")
    working = asyncio.create_task(world.work("run"))
    await world.worker.begins("step")
    damage(world, "bob")
    gate.set()
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, "bob")) == 2)
    world.worker.errors.clear()
    await working
    await task
    assert world.record.run("run").state == "completed"
    assert [a.attempt for a in world.nodes.got(msg.Assignment, "bob")] == [1, 2]
    assert len(world.nodes.got(msg.Assignment, "ada")) == 1
    statement = CommitStatement.from_bytes(world.record.version("run", 1).statement)
    assert [(verdict.node, verdict.verdict) for verdict in statement.verdicts] == [
        ("ada", "accepted"),
        ("bob", "accepted"),
    ]
    (event,) = [event for event in world.record.events(run="run") if event.kind == "update-lost"]
    assert (event.node, event.detail["round"]) == ("bob", 1)
    assert world.record.round("run", 1).attempt == 2
    report = await world.replay(tmp_path / "replay").run()
    assert (report.decisions, report.problems) == (1, ())
