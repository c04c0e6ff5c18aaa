"""One run from its taking up to its end, through the ports: a real store and files, nodes that answer."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace

import pytest

from covey import messages as msg
from covey.artifact import artifact_of
from covey.coordinator.runs import layouts
from covey.coordinator.runs.steps.preparation import expected_nodes
from covey.errors import Fenced, TaskError
from covey.machines.protocol import NodeAnswered, NodeRemoved, StopRequested
from covey.testing.store import records as make
from covey.testing.store.phases import open_phase
from covey.wire.identities.signing import CommitStatement
from tests.unit.coordinator.world import ROUNDS, UPDATES, World


async def played(world, run="run", **options):
    """A submitted run that both nodes have worked for until its end."""
    world.submit(run, **options)
    active, task = world.execute(run)
    await world.work(run)
    await task
    return active


async def test_a_run_goes_from_its_submission_to_a_chain_of_signed_versions(world):
    await played(world, count=3)
    record, versions = world.record.run("run"), world.record.versions("run")
    assert (record.state, record.roster) == ("completed", ("ada", "bob"))
    assert [version.version for version in versions] == [0, 1, 2, 3]
    statements = [CommitStatement.from_bytes(version.statement) for version in versions[1:]]
    assert [statement.parent for statement in statements[1:]] == [
        hashlib.sha256(version.statement).hexdigest() for version in versions[1:-1]
    ]
    assert [statement.model_sha256 for statement in statements] == [version.model_sha256 for version in versions[1:]]
    assert all([verdict.verdict for verdict in statement.verdicts] == ["accepted"] * 2 for statement in statements)
    assert [version.metrics["accuracy"] for version in versions[1:]] == [0.75] * 3
    assert versions[1].metrics["nothing"] == "nothing was counted"
    for node in ("ada", "bob"):
        assert [a.round for a in world.nodes.got(msg.Assignment, node)] == [1, 2, 3]
        assert len(world.nodes.got(msg.Receipt, node)) == 3
        assert world.nodes.got(msg.Cancel, node) == [msg.Cancel("run", 0, "the run is completed")]
    events = [event.kind for event in world.record.events(run="run")]
    assert events == ["run-finished", "run-started"]


async def test_the_nodes_evaluate_the_last_version(world):
    await played(world, where="nodes")
    assert world.record.version("run", 2).metrics == {"nodes/accuracy": 0.5}
    assert [a.work for a in world.nodes.got(msg.Assignment, "ada")] == ["train", "train", "evaluate"]
    assert not world.worker.done("evaluate")


async def test_a_run_that_was_cut_off_goes_on_to_the_same_version(world, tmp_path):
    await played(world, "whole")
    world.submit("cut", submitted_at=2000.0)
    _, task = world.execute("cut")
    await world.work("cut", stop=lambda: len(world.record.updates("cut", 1)) == 1)
    task.cancel()
    (first,) = world.record.updates("cut", 1)
    world.runs.active.clear()
    world.nodes.sent.clear()
    active, task = world.execute("cut")
    await world.work("cut")
    await task
    assert [a.round for a in world.nodes.got(msg.Assignment, first.node)] == [2]
    assert world.record.run("cut").state == "completed"
    # What each node sends depends on the run's id, and so do the versions; how they are made does not.
    assert len(world.record.versions("cut")) == len(world.record.versions("whole"))
    assert [len(job.answers) for job in world.worker.done("step")] == [2] * 4
    assert active.progress.bytes_received > 0


async def test_a_node_that_works_for_another_run_first_is_waited_for_with_its_last_evaluation(world):
    world.submit(where="nodes")
    active, _ = world.execute("run")
    await world.work("run", stop=lambda: active.machine is not None and active.machine.state == "finishing")
    before = active.machine.wake_at
    active.evaluates_later("ada", 1)  # of another version
    active.evaluates_later("ada", 2)
    await world.changed(active)
    assert active.machine.state == "finishing"
    assert active.machine.wake_at == before  # bob's time is as it was
    await active.node_evaluated("bob", 2, {"accuracy": (1.0, 2.0)})
    while active.machine.wake_at == before:
        await world.changed(active)
    assert active.machine.wake_at > before


async def test_an_error_that_nobody_expected_fails_the_run_in_words(world):
    world.submit()
    world.worker.errors["describe"] = ZeroDivisionError("in a plug-in")
    active, task = world.execute("run")
    await task
    record = world.record.run("run")
    assert (record.state, record.reason) == ("failed", "internal error: ZeroDivisionError('in a plug-in')")
    assert active.machine is None


async def test_what_the_worker_refuses_is_the_reason(world):
    world.submit()
    world.worker.errors["initial"] = TaskError("the task cannot make its model")
    _, task = world.execute("run")
    await task
    record = world.record.run("run")
    assert (record.state, record.reason) == ("failed", "the task cannot make its model")


async def test_a_crash_beside_the_events_fails_the_run(world):
    world.submit()
    world.worker.errors["step"] = ZeroDivisionError("in the rule")
    _, task = world.execute("run")
    await world.work("run", stop=lambda: bool(world.worker.done("step")))
    await task
    assert world.record.run("run").state == "failed"
    assert "ZeroDivisionError" in world.record.run("run").reason


async def test_another_coordinator_ends_the_care_and_not_the_run(world):
    world.submit()
    world.worker.errors["describe"] = Fenced("another coordinator took over")
    _, task = world.execute("run")
    with pytest.raises(Fenced):
        await task
    assert world.record.run("run").state == "queued"


async def test_a_failed_evaluation_is_done_all_the_same(world):
    world.worker.errors["evaluate"] = TaskError("no data")
    await played(world)
    assert world.record.run("run").state == "completed"
    assert all(version.evaluated for version in world.record.versions("run")[1:])


async def test_while_it_is_paused_a_run_opens_no_round(world):
    world.operation.paused = True
    world.submit()
    active, task = world.execute("run")
    while not world.record.run("run").reason:
        await world.changes.after(world.changes.count)
    assert world.record.run("run").reason == "paused by the operator"
    assert active.is_idle
    assert active.facts.waiting
    active.post(StopRequested("stopped by ada"))
    await task
    assert (world.record.run("run").state, world.record.run("run").reason) == ("stopped", "stopped by ada")


async def test_evaluations_of_a_run_wait_for_each_other_and_no_round_does(world):
    world.worker.gates["evaluate"] = gate = asyncio.Event()
    world.submit(count=3)
    _, task = world.execute("run")
    work = asyncio.create_task(world.work("run"))
    while not world.worker.done("evaluate"):
        await world.changes.after(world.changes.count)
    gate.set()
    await task
    work.cancel()
    assert len(world.worker.done("evaluate")) == 3


@pytest.mark.parametrize("mode", [ROUNDS, UPDATES])
async def test_a_small_model_comes_along_and_is_counted(world, mode):
    active = await played(world, mode=mode)
    assignments = world.nodes.got(msg.Assignment, "ada")
    for assignment in assignments:
        assert artifact_of([assignment.model_data]) == assignment.model
        assert assignment.download_granted
    sent = world.metrics.registry.get_sample_value("covey_node_sent_bytes_total", {"node": "ada"})
    assert sent == sum(len(assignment.model_data) for assignment in assignments) > 0
    assert active.facts.committed == 2


async def test_two_worlds_make_the_same_versions_of_the_same_run(tmp_path):
    sha = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        world = World(folder, "ada", "bob")
        await played(world)
        sha.append([version.model_sha256 for version in world.record.versions("run")])
        await world.close()
    assert sha[0] == sha[1]


async def test_an_eviction_in_a_round_that_is_tried_again_rejects_what_the_node_sent_in_every_phase(world):
    world.submit()
    world.worker.description = replace(world.worker.description, phases=2)
    record = world.record
    base = artifact_of([b"base"])
    world.files.put(base, b"base")
    record.start_run("run", ("ada", "bob"), 2, make.LAYOUT, make.version_record("run", 0, artifact=base), 1001.0)
    record.open_round(make.round_record("run", 1, invited=("ada", "bob")))
    for name in ("run r1 bob", "run r1 boblater"):  # whose files are whole, or it would be asked for them again
        for text in (f"{name} model", f"{name} buffers"):
            world.files.put(make.artifact(text), text.encode())
    record.record_update(make.update_record("run", 1, "bob"))
    record.begin_aggregation("run", 1)
    open_phase(record, "run", {"bob": ""}, roster=2)
    record.record_update(make.update_record("run", 1, "bob", "later", phase=2))
    record.begin_aggregation("run", 1)
    record.open_round(make.round_record("run", 1, 2, invited=("ada", "bob")))
    active, _ = world.execute("run")
    await world.nodes.until(lambda: world.nodes.got(msg.Assignment, "ada"))
    assert [(u.phase, u.verdict) for u in record.updates("run", 1)] == [(1, "received"), (2, "received")]
    active.post(NodeRemoved("bob", world.services.clock()))
    while any(update.verdict == "received" for update in record.updates("run", 1)):
        await world.changed(active)
    assert [(u.node, u.phase, u.verdict, u.reason) for u in record.updates("run", 1)] == [
        ("bob", 1, "rejected", "evicted"),
        ("bob", 2, "rejected", "evicted"),
    ]


async def test_a_machine_that_only_enrolled_is_not_expected_and_has_no_place_in_the_roster(world):
    for name in ("ann", "zoe"):
        make.enrol(world.record, make.node_record(name))
    world.record.seen("zoe", time.time())
    assert set(await expected_nodes(world.services)) == {"ada", "bob", "zoe"}


async def test_a_node_that_takes_long_to_evaluate_at_the_end_is_named(world, monkeypatch):
    world.submit("run", where="nodes")
    active, task = world.execute("run")
    await world.work("run", lambda: active.machine is not None and active.machine.state == "finishing")
    assert active.awaited == ""  # it may take a moment
    monkeypatch.setattr("covey.coordinator.runs.active_run.LONG_S", -1.0)
    assert active.awaited == "waiting for ada and bob to evaluate version 2"
    await active.node_evaluated("ada", 2, {})
    assert active.awaited == "waiting for bob to evaluate version 2"
    await active.node_evaluated("bob", 2, {})
    await task


async def test_a_run_is_completed_with_a_word_of_who_took_part_in_no_round(world):
    world.submit("run", count=1, mode=ROUNDS.replace("min_nodes = {nodes}", "min_nodes = 1"))
    active, task = world.execute("run")
    await world.work("run", lambda: active.mode.open_round("ada") > 0)
    active.post(NodeAnswered("bob", 1, "declined", "task-failed: no data", time.time()))
    await world.work("run", lambda: False)
    await task
    record = world.record.run("run")
    assert record.state == "completed"
    assert record.reason == (
        "without bob, which took part in no round (1 declined; the last one, bob: task-failed: no data)"
    )


async def test_the_file_of_a_long_layout_goes_when_the_last_run_that_needs_it_has_ended(world, monkeypatch):
    monkeypatch.setattr(layouts, "INLINE_BYTES", 10)
    layouts.layout_file.cache_clear()
    try:
        for run in ("first", "second"):
            world.submit(run)
        _, first = world.execute("first")
        _, second = world.execute("second")
        await world.work("first", stop=lambda: bool(world.record.updates("first", 1)))
        file = layouts.layout_file(world.record.run("first").layout)
        assert file is not None
        assert world.files.has(file.digest)
        await world.work("first")
        await first
        assert world.files.has(file.digest)
        await world.work("second")
        await second
        assert not world.files.has(file.digest)
    finally:
        layouts.layout_file.cache_clear()
