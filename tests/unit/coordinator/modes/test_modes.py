"""The modes' rooms, through the ports of a run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from covey import messages as msg
from covey.coordinator.modes.asynchronous.preparation import async_run_policy_of
from covey.coordinator.modes.asynchronous.preparation import restore as restore_async
from covey.coordinator.modes.contract import ReplayInputs
from covey.coordinator.modes.registry import ROOMS, replay_of, room_of
from covey.coordinator.modes.rounds.events import RecordOutcome
from covey.coordinator.modes.rounds.preparation import restore, round_policy_of
from covey.coordinator.runs.facts import NodeProgress
from covey.coordinator.runs.ports import FOREVER_S
from covey.coordinator.runs.steps.preparation import prepare
from covey.errors import Late, NotFound, SpecError, TaskError
from covey.testing.store import records as make
from tests.unit.coordinator.world import MODEL_BYTES, ROUNDS, UPDATES


async def played(world, run="run", **options):
    world.submit(run, **options)
    active, task = world.execute(run)
    await world.work(run)
    await task
    return active


# -- the registry


def test_a_mode_is_found_by_its_name():
    assert {name: room.counts for name, room in ROOMS.items()} == {
        "rounds": "rounds",
        "async": "updates",
        "gossip": "steps",
    }
    assert room_of("rounds").asked('{"rounds":{"count":7}}') == 7
    assert room_of("async").asked('{"async":{"updates":9},"rounds":{"count":7}}') == 9
    assert room_of("async").asked("") == 0
    assert room_of("gossip").asked('{"gossip":{"steps":30}}') == 30
    with pytest.raises(SpecError, match="'ring' is not known"):
        room_of("ring")


async def test_a_run_of_an_unknown_mode_cannot_be_replayed(world):
    record = replace(world.submit(), mode="ring")
    with pytest.raises(SpecError, match="'ring' is not known"):
        replay_of(ReplayInputs(world.record, record, world.folder, world.worker, world.folder))


# -- rounds


async def test_rounds_that_are_replayed_come_to_the_same_and_a_change_is_found(world, tmp_path):
    world.worker.description = replace(world.worker.description, slots={"server/velocity": MODEL_BYTES})
    await played(world, mode=f"{ROUNDS}[keep]\nupdates = 100\n", count=3)
    report = await world.replay(tmp_path / "same").run()
    assert (report.decisions, report.versions, report.problems) == (3, 3, ())
    assert report.model_sha256 == world.record.version("run", 3).model_sha256
    bases = [job.models[job.version] for job in world.worker.done("step")[3:]]
    assert [base.exists() for base in bases] == [False] * 3  # only the newest one is there
    world.worker.rejected = {"bob": "too far away"}
    report = await world.replay(tmp_path / "other").run()
    assert (report.decisions, report.versions) == (1, 0)
    assert [text.split(" came out as")[0] for text in report.problems] == [
        "round 1: the verdicts",
        "round 1: the verdicts",
        "round 1: the model",
        "round 1: the model's file",
        "round 1: what is kept with the version",
    ]
    world.worker.rejected = {"ada": "", "bob": ""}
    report = await world.replay(tmp_path / "short").run()
    assert report.problems == ("round 1: too few updates are left for the rule, and a version is recorded",)


async def test_rounds_whose_updates_are_gone_cannot_be_replayed(world, tmp_path):
    await played(world, count=3)
    with pytest.raises(NotFound, match=r"the update of round 1 is not kept any more: .* \[keep\] updates"):
        await world.replay(tmp_path / "gone").run()


async def test_a_replay_finds_a_file_that_is_not_the_one_that_was_signed(world, tmp_path):
    await played(world, mode=f"{ROUNDS}[keep]\nupdates = 100\n")
    update = world.record.updates("run", 2)[1]
    path = world.files.path(update.parts[0].artifact.digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[::-1])
    report = await world.replay(tmp_path / "edited").run()
    assert (report.decisions, report.versions) == (2, 1)
    assert report.problems[0].startswith(f"round 2: the digest of part 'model' of the update of {update.node} came out")


async def test_an_update_that_is_on_record_is_not_lost_too(world):
    """It came in at the deadline: the machine has not heard of it when it gives the node up."""
    run = make.start_run(world.record)
    world.record.open_round(make.round_record(run, 1))
    world.record.record_update(make.update_record(run, 1, "ada"))
    active = world.active(run)
    for node in ("ada", "bob"):
        await active.mode.do(RecordOutcome(node, 1, "lost", "no answer"))
    assert [(u.node, u.verdict) for u in world.record.updates(run, 1)] == [("ada", "received"), ("bob", "lost")]
    lost = {"name": "covey_updates_total"}
    assert world.metrics.registry.get_sample_value(lost["name"], {"node": "ada", "verdict": "lost"}) is None
    assert world.metrics.registry.get_sample_value(lost["name"], {"node": "bob", "verdict": "lost"}) == 1.0
    assert active.progress.nodes.keys() == {"bob"}
    await active.mode.do(RecordOutcome("eve", 9, "lost", "of a round that is not on record"))
    assert world.metrics.registry.get_sample_value(lost["name"], {"node": "eve", "verdict": "lost"}) is None


async def test_the_numbers_of_a_specification_and_no_deadlines_where_none_are_kept(world):
    prepared = await prepare(world.services, world.submit())
    policy = round_policy_of(prepared)
    assert (policy.count, policy.min_nodes, policy.deadline_s) == (2, 2, 600.0)
    patient = round_policy_of(prepared, keeps_deadlines=False)
    assert (patient.deadline_s, patient.hard_deadline_s, patient.rejoin_s) == (FOREVER_S, FOREVER_S, policy.rejoin_s)


async def test_what_the_record_knows_of_unfinished_rounds(world):
    run = make.start_run(world.record)
    policy = round_policy_of(await prepare(world.services, world.submit("other")))
    make.play_round(world.record, run, 1)
    assert (restore(world.record, run, policy).committed, restore(world.record, run, policy).round) == (1, 0)
    world.record.open_round(make.round_record(run, 2, attempt=1))
    world.record.record_update(make.update_record(run, 2, "ada"))
    restored = restore(world.record, run, policy)
    assert (restored.round, restored.aggregating, restored.answers) == (2, False, {"ada": "received"})
    assert restored.unevaluated == (1,)
    world.record.begin_aggregation(run, 2)
    assert restore(world.record, run, policy).aggregating


async def test_rows_that_the_rule_rejects_are_recorded_with_its_reason(world):
    world.worker.rejected = {"bob": "too far away"}
    await played(world)
    updates = {update.node: update for update in world.record.updates("run", 1)}
    assert (updates["bob"].verdict, updates["bob"].reason) == ("rejected", "too far away")
    assert updates["ada"].verdict == "accepted"


async def test_what_the_worker_cannot_aggregate_fails_the_run_and_leaves_no_file(world):
    world.worker.errors["step"] = TaskError("the rule refuses")
    await played(world)
    record = world.record.run("run")
    assert (record.state, record.reason) == ("failed", "round 1 cannot be aggregated: the rule refuses")
    (job,) = world.worker.done("step")
    assert not job.out.exists()


async def test_in_rounds_the_newest_version_is_served_and_nothing_else(world):
    active = await played(world)
    newest = world.record.version("run", -1)
    assert active.mode.served("ada", newest.artifact.digest) == newest.artifact
    assert active.mode.served("ada", "0" * 64) is None
    world.runs.add(active)
    assert world.runs.served("ada", newest.artifact.digest) == (active, newest.artifact)


# -- async


async def test_each_update_is_decided_on_and_makes_a_version(world):
    await played(world, mode=UPDATES, count=5)
    steps = world.record.steps("run")
    assert [step.version for step in steps] == [1, 2, 3, 4, 5]
    assert world.record.run("run").state == "completed"
    assert [version.evaluated for version in world.record.versions("run")] == [False] + [True] * 5


async def test_decisions_that_make_no_version_are_named_by_the_next_commit(world):
    world.worker.makes_versions = False
    active = await played(world, mode=UPDATES, count=3)
    assert [step.version for step in world.record.steps("run")] == [None] * 3
    assert len(active.mode._unsigned) == 3
    assert [version.version for version in world.record.versions("run")] == [0]


async def test_an_asynchronous_run_goes_on_where_it_was(world):
    world.submit("run", mode=UPDATES, count=6)
    _, task = world.execute("run")
    await world.work("run", stop=lambda: len(world.record.steps("run")) >= 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    decided = len(world.record.steps("run"))
    policy = async_run_policy_of(await prepare(world.services, world.record.run("run")))
    restored = restore_async(world.record, "run", policy)
    assert (restored.decided, restored.version) == (decided, decided)
    world.nodes.sent.clear()
    active, task = world.execute("run")
    assert active.facts.decided == 0
    await world.work("run")
    await task
    assert [step.number for step in world.record.steps("run")] == [1, 2, 3, 4, 5, 6]
    assert active.facts.decided == 6


async def test_a_policy_that_cannot_be_applied_fails_the_run(world):
    world.worker.errors["step"] = TaskError("no policy")
    await played(world, mode=UPDATES)
    assert "cannot be decided on: no policy" in world.record.run("run").reason


async def test_each_node_is_served_the_base_of_its_own_assignment(world):
    world.submit("run", mode=UPDATES, count=20)
    active, task = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    (first,) = world.nodes.got(msg.Assignment, "ada")
    (other,) = world.nodes.got(msg.Assignment, "bob")
    await world.offers.offer("bob", world.update_of("bob", other))
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment, "bob")) == 2)
    assert active.mode.base_of("ada", first.round).version == 0
    assert active.mode.served("ada", first.model.digest) == first.model
    assert active.newest().version == 1
    assert active.mode.open_round("bob") == 3
    with pytest.raises(Late):
        active.mode.base_of("ada", 99)
    task.cancel()


async def test_a_replay_of_what_is_on_record_comes_to_the_same_and_says_where_it_does_not(world, tmp_path):
    await played(world, mode=UPDATES, count=4)
    report = await world.replay(tmp_path / "same").run()
    assert (report.decisions, report.versions, report.ok) == (4, 4, True)
    assert report.model_sha256 == world.record.version("run", 4).model_sha256
    world.worker.makes_versions = False
    report = await world.replay(tmp_path / "other").run()
    assert not report.ok
    assert report.problems[0].startswith("decision 1: the version made came out as None")


# -- signs of life


@pytest.mark.parametrize("mode", [{}, {"mode": UPDATES}])
async def test_a_node_that_works_for_another_run_first_has_its_time_from_then_on(world, mode):
    world.submit("run", **mode)
    active, task = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    before = active.machine.wake_at
    handled = world.changes.count
    for node in ("ada", "bob"):
        active.moved(node, NodeProgress("queued"))
    while active.machine.wake_at <= before:
        handled = await world.changes.after(handled)
    assert active.progress.nodes["ada"].phase == "queued"
    task.cancel()
