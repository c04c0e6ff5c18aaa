"""From an assignment to its end: what is trained, kept, delivered again, and declined."""

import asyncio
import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from covey import messages as msg
from covey.artifact import artifact_of
from covey.errors import DiskFull
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.executor import Executor
from covey.node.operator.config import Limits, NodeSettings
from covey.node.operator.policy import Policy
from covey.spec import RoundsSpec, TaskSection, parse_data
from covey.wire.identities.signing import UpdateStatement
from covey.worker.jobs.files import WrittenFile
from tests.unit.node.memory import LARGE, SPEC, Node, assignment


@pytest.fixture
def do(node):
    """Do an assignment as a daemon that was just started would; the stages that it went through."""

    async def do(asked, node=node):
        stages = []
        executor = Executor(node.services)

        def advanced(stage, update):
            stages.append(stage)

        talk = Conversation(node.services, asked, advanced)
        node.coordinator.listen(talk.answered)
        await executor.do(talk)
        return stages

    return do


async def test_an_assignment_is_trained_and_delivered(node, do):
    asked = assignment("a", 4)
    assert await do(asked) == ["has-base", "trained", "offered", "settled"]
    [offer] = node.coordinator.of(msg.UpdateOffer)
    statement = UpdateStatement.from_bytes(offer.statement)
    assert (statement.run, statement.round, statement.base) == ("a", 4, asked.model_sha256)
    assert [part.name for part in offer.parts] == ["model", "buffers"]
    assert offer.parts[0].data == b"a 4 model".ljust(20, b".")
    assert node.on_disk() == {asked.model.digest}  # what was delivered is not needed any more
    assert node.outcomes() == {"received": 1.0}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ["training", "update delivered"]),
        ({"method": {"name": "statistics", "options": {"columns": ["pixel-mean"]}}}, ["answering", "answer delivered"]),
        ({"model": {"initial": "run:a"}, "evaluation": {"only": True}}, ["evaluating", "answer delivered"]),
    ],
    ids=["training", "statistics", "evaluation"],
)
async def test_the_log_says_what_was_done(node, do, more, words):
    spec = parse_data({"name": "x", "task": {"name": "digits"}, "rounds": {"count": 1}, **more})
    with capture_logs() as logged:
        await do(assignment("a", spec=spec.to_json()))
    assert [line["event"] for line in logged if line["log_level"] == "info"] == words


async def test_what_is_finished_is_delivered_after_a_restart_without_training(node, do, tmp_path):
    node.coordinator.refusals = ["not-ready"]
    node.coordinator.lose()
    update = await finished(node, do, assignment("a"))
    after = Node(tmp_path)
    assert after.store.finished("a", 1, 1, assignment("a").model_sha256) == update
    assert await do(assignment("a", attempt=2), after) == ["trained", "offered", "settled"]
    assert after.worker.jobs == []
    assert after.coordinator.of(msg.UpdateOffer)[0].statement == update.statement


async def finished(node, do, asked):
    """The update that is in the journal when the node dies before it could offer it."""
    work = asyncio.create_task(do(asked))
    await node.until(lambda: node.store.finished(asked.run, asked.round, asked.phase, asked.model_sha256))
    await node.until(lambda: len(node.on_disk()) >= 2)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return node.store.finished(asked.run, asked.round, asked.phase, asked.model_sha256)


@pytest.mark.parametrize("change", [{"number": 2}, {"seed": 1}])
async def test_another_round_or_base_is_trained(node, do, change):
    node.coordinator.lose()
    await finished(node, do, assignment("a"))
    node.coordinator.come_back()
    await do(assignment("a", **change))
    assert len(node.worker.jobs) == 2


async def test_an_update_whose_files_are_gone_is_trained_again(node, do):
    asked = assignment("a", layout=LARGE, model_data=b"\0" * LARGE.file_bytes)
    node.coordinator.lose()
    update = await finished(node, do, asked)
    node.files.release(update.digests)
    node.coordinator.come_back()
    assert await do(asked) == ["trained", "offered", "assigned", "has-base", "trained", "offered", "settled"]
    assert len(node.worker.jobs) == 2
    assert node.outcomes() == {"received": 1.0}


async def test_an_update_that_must_never_be_made_again_is_declined_once_it_is_lost(node, do):
    asked = assignment("a", layout=LARGE, model_data=b"\0" * LARGE.file_bytes)
    node.worker.private = True
    node.coordinator.lose()
    update = await finished(node, do, asked)
    node.files.release(update.digests)
    node.coordinator.come_back()
    await do(asked)
    assert len(node.worker.jobs) == 1
    assert "cost privacy again" in node.coordinator.of(msg.Decline)[0].reason


async def test_what_the_operator_does_not_allow_is_declined(node, do):
    spec = RoundsSpec(name="x", task=TaskSection(name="elsewhere")).to_json()
    assert await do(assignment("a", spec=spec)) == []
    [decline] = node.coordinator.of(msg.Decline)
    assert decline.code == "declined"
    assert "allowed: digits" in decline.reason
    await do(assignment("a", spec=spec, work="evaluate"))
    (answer,) = node.coordinator.of(msg.Evaluation)
    assert "declined: task 'elsewhere' is not allowed" in json.loads(answer.metrics)["evaluation"]


async def test_a_specification_that_cannot_be_read_is_declined(node, do):
    await do(assignment("a", spec="{}"))
    assert node.coordinator.of(msg.Decline)[0].code == "invalid-spec"


async def test_files_that_momentum_needs_are_kept_after_the_delivery(node, do):
    def trained(result):
        sent = result.parts[0]
        same = replace(result.state[0], path=sent.path, artifact=sent.artifact)
        return replace(result, state=(same,))

    train = node.worker.train

    async def train_and_keep(job, on_progress):
        return trained(await train(job, on_progress))

    node.worker.train = train_and_keep
    await do(assignment("a", node_state=("momentum",)))
    [offer] = node.coordinator.of(msg.UpdateOffer)
    assert offer.parts[0].artifact.digest in node.on_disk()
    assert offer.parts[1].artifact.digest not in node.on_disk()


HELD = (msg.WantedPart("buffers", "none", 8, True), msg.WantedPart("model", "none", 20, True, held=2))


def later(**fields):
    return assignment("a", phase=2, wanted=(msg.WantedPart("model", "none", 20, True),), **fields)


async def test_what_is_held_back_is_sent_in_its_phase_without_training_again(node, do, tmp_path):
    await do(assignment("a", wanted=HELD))
    [first] = node.coordinator.of(msg.UpdateOffer)
    assert [part.name for part in first.parts] == ["buffers"]
    after = Node(tmp_path)  # killed in between
    assert await do(later(), after) == ["trained", "offered", "settled"]
    assert after.worker.jobs == []
    [offer] = after.coordinator.of(msg.UpdateOffer)
    before, statement = (UpdateStatement.from_bytes(each.statement) for each in (first, offer))
    assert (before.phase, statement.phase) == (1, 2)
    assert (statement.weight, statement.metrics, statement.base) == (before.weight, before.metrics, before.base)
    assert [(part.name, part.data) for part in offer.parts] == [("model", b"a 1 model".ljust(20, b"."))]


async def test_what_is_held_back_and_lost_is_declined_in_words(node, do):
    await do(assignment("a", wanted=HELD))
    update = node.store.holding("a", 1, 2, later().model_sha256)
    node.files.release({item.part.artifact.digest for item in update.held})
    await do(later())
    await do(later(number=7))
    first, second = node.coordinator.of(msg.Decline)
    assert first.code == second.code == "declined"
    assert "phase 2 of round 1 asks for what this node made in phase 1" in first.reason
    assert len(node.worker.jobs) == 1


async def test_what_is_held_back_goes_when_the_next_round_is_trained(node, do):
    await do(assignment("a", wanted=HELD))
    held = node.store.holding("a", 1, 2, later().model_sha256).held[0].part.artifact.digest
    assert held in node.on_disk()
    await do(assignment("a", 2, wanted=HELD))
    assert held not in node.on_disk()


async def test_a_file_that_another_run_has_just_adopted_outlives_the_run_that_had_it_first(node):
    """Run a ends just when run b's training has adopted files of the same content, and has not noted them yet."""

    def same(name, path, job):
        path.write_bytes(b"the same state")
        return WrittenFile(name, path, artifact_of([b"the same state"]))

    node.worker._state = same
    executor, forgetting = Executor(node.services), []
    loop, save = asyncio.get_running_loop(), node.store.save

    async def work(run):
        talk = Conversation(node.services, assignment(run, node_state=("momentum",)), lambda stage, update: None)
        node.coordinator.listen(talk.answered)
        await executor.do(talk)

    async def end(run):
        forgetting.append(asyncio.create_task(executor.forget(run)))
        await asyncio.wait(forgetting, timeout=0.2)  # without a lock it would be done now

    def end_the_other_first(update, state, own):
        asyncio.run_coroutine_threadsafe(end("a"), loop).result(20)
        save(update, state, own)

    await work("a")
    node.store.save = end_the_other_first
    await work("b")
    await asyncio.gather(*forgetting)
    assert artifact_of([b"the same state"]).digest in node.store.needed()
    assert node.store.needed() <= node.on_disk()


async def test_an_update_of_a_run_that_has_ended_goes_with_its_files(node, do):
    node.coordinator.lose()
    update = await finished(node, do, assignment("a"))
    assert update.digests <= node.on_disk()
    await Executor(node.services).forget("a")
    assert not update.digests & node.on_disk()
    assert node.store.needed() == set()


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(parameters=4), "a model of 5 parameters; this node's operator allows 4"),
        (Limits(epochs=0.5), "1 epochs a round"),
        (Limits(least_batch_size=64), "batches of 32 examples"),
        (Limits(round_s=0.05), r"took longer than the 0.05 s"),
    ],
)
async def test_work_above_the_operator_s_limits_is_declined(node, do, limits, why):
    node.worker.gates["a"] = asyncio.Event()
    config = replace(node.services.config, settings=NodeSettings(limits=limits))
    node.services = replace(node.services, config=config)
    await do(assignment("a"))
    [decline] = node.coordinator.of(msg.Decline)
    assert decline.code == "declined"
    assert why in decline.reason


async def test_the_operator_s_time_holds_for_a_local_only_baseline_as_a_whole(node, do):
    node.worker.gates["a"] = asyncio.Event()
    config = replace(node.services.config, settings=NodeSettings(limits=Limits(round_s=0.05)))
    node.services = replace(node.services, config=config)
    only = {"evaluation": {"only": True, "local_rounds": 10**4}, "model": {"initial": "run:x"}, "rounds": {"count": 1}}
    await do(assignment("a", spec=parse_data(json.loads(SPEC) | only).to_json()))
    [decline] = node.coordinator.of(msg.Decline)
    assert "took longer than the 0.05 s" in decline.reason


async def test_what_this_machine_has_no_room_for_is_said_and_tried_again(node, do):
    node.worker.errors = [DiskFull("no room for /srv/scratch/1"), OSError(24, "Too many open files", "/srv/x")]
    assert await do(assignment("a")) == ["has-base", "has-base", "has-base", "trained", "offered", "settled"]
    said = [message.waits_for for message in node.coordinator.of(msg.Progress) if message.phase == "waiting"]
    assert said[0] == "no room for /srv/scratch/1"
    assert "cannot open /srv/x: too many files are open" in said[1]
    assert node.coordinator.of(msg.Decline) == []
    assert node.outcomes() == {"received": 1.0}


async def test_a_journal_that_cannot_be_written_costs_no_training(node, do, monkeypatch):
    errors, save = [DiskFull("no room for /srv/journal/a.json")] * 2, node.store.save

    def full(*update):
        if errors:
            raise errors.pop()
        save(*update)

    monkeypatch.setattr(node.store, "save", full)
    assert await do(assignment("a")) == ["has-base", "trained", "offered", "settled"]
    assert len(node.worker.jobs) == 1


def ruled(folder, *, now=0.0, **rules):
    """A node whose operator has rules."""
    node = Node(folder, settings=NodeSettings(policy=Policy(**rules)))
    node.services = replace(node.services, now=lambda: now)
    return node


async def test_a_round_of_too_few_is_declined_and_one_of_enough_is_not(do, tmp_path):
    node = ruled(tmp_path, min_participants=3)
    for participants in (2, 0):
        await do(assignment("a", participants=participants), node)
    few, unsaid = node.coordinator.of(msg.Decline)
    assert (few.code, few.reason) == (
        "not-now",
        "2 nodes take part; this node's operator wants 3 ([policy] min_participants in node.toml)",
    )
    assert unsaid.reason.startswith("it is not said how many nodes take part; ")
    assert await do(assignment("a", participants=3), node) == ["has-base", "trained", "offered", "settled"]


async def test_out_of_hours_nothing_is_begun_and_what_was_begun_is_finished(do, tmp_path):
    rules = {"hours": "22:00-06:00", "time_zone": "Europe/Berlin"}
    night = ruled(tmp_path, now=1_796_076_000.0, **rules)  # 30 November 2026, 23:00 in Berlin
    night.coordinator.lose()
    await finished(night, lambda asked: do(asked, night), assignment("a", participants=1))
    day = ruled(tmp_path, now=1_796_119_200.0, **rules)  # the next day, 11:00
    await do(assignment("b", participants=1), day)
    await do(replace(assignment("b"), work="evaluate"), day)
    reason = "outside this node's hours (22:00-06:00 Europe/Berlin)"
    assert [(said.code, said.reason) for said in day.coordinator.of(msg.Decline)] == [("not-now", reason)]
    assert reason in day.coordinator.of(msg.Evaluation)[0].metrics.decode()
    assert await do(assignment("a", attempt=2, participants=1), day) == ["trained", "offered", "settled"]


async def test_which_filters_updates_pass_is_said_until_the_coordinator_has_it(node, do):
    node.worker.filters = ("clip-norm 1.0",)
    executor = Executor(node.services)
    for number in (1, 2):
        talk = Conversation(node.services, assignment("a", number), lambda stage, update: None)
        node.coordinator.listen(talk.answered)
        await executor.do(talk)
    offers = [UpdateStatement.from_bytes(offer.statement).notice for offer in node.coordinator.of(msg.UpdateOffer)]
    assert offers == ["from here on its updates pass this site's outgoing filter clip-norm 1.0", ""]
