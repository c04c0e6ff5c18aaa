"""What the worker is told, what is signed, and what becomes of files that came to nothing."""

import asyncio
import json
import os

import pytest

from covey import messages as msg
from covey.artifact import artifact_of
from covey.errors import LimitExceeded, PolicyError, TaskError
from covey.node.assignments.base_model import BaseModels
from covey.node.assignments.conversation import Conversation
from covey.node.assignments.held_files import HeldFiles
from covey.node.assignments.training import Training
from covey.node.assignments.wanted_parts import state_bytes
from covey.node.operator.adversary import Drill
from covey.spec import RoundsSpec, TaskSection, WeightsSection, parse_data, parse_json
from covey.wire.identities.signing import UpdateStatement
from tests.unit.node.memory import LARGE, SMALL, SPEC, Node, assignment


@pytest.fixture
def train(node):
    held = HeldFiles(node.files, node.store)

    async def train(asked, node=node):
        talk = Conversation(node.services, asked, lambda stage, update: None)
        return await Training(node.services, held, BaseModels(held)).train(talk, parse_json(asked.spec))

    return train


def scratch(node):
    return list((node.data_dir / "files" / "scratch").iterdir())


async def test_an_assignment_that_names_no_parts_is_declined_in_words(node, train):
    with pytest.raises(PolicyError, match="does not say which parts"):
        await train(assignment("a", wanted=()))
    assert node.worker.jobs == []


def test_state_is_as_long_as_the_parameters():
    assert (state_bytes(SMALL), state_bytes(LARGE)) == (20, 400_000)


async def test_the_parts_that_are_wanted_are_made(node, train):
    wanted = (msg.WantedPart("generator", "none", 12, True), msg.WantedPart("labels", "none", 3, False))
    update = await train(assignment("a", wanted=wanted))
    assert [part.name for part in update.parts] == ["generator", "labels"]


async def test_the_worker_is_told_what_the_assignment_says(node, train):
    await train(assignment("a", 3, evaluate=True, broadcast=b"\1\2", roster_index=2))
    [job] = node.worker.jobs
    assert (job.run, job.round, job.roster_index, job.num_partitions) == ("a", 3, 2, 3)
    assert (job.evaluate, job.broadcast, job.attack) == (True, "AQI=", None)
    assert job.base == node.files.path(assignment("a").model.digest)
    assert list(job.scratch) == ["model", "buffers"]


@pytest.mark.parametrize(("private", "held", "is_synced"), [(False, 0, False), (True, 0, True), (False, 2, True)])
async def test_only_what_cannot_be_made_again_waits_for_the_disk(node, train, monkeypatch, private, held, is_synced):
    synced, fsync = set(), os.fsync

    def recorded(fd):
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recorded)
    node.worker.private = private
    wanted = (msg.WantedPart("model", "none", 20, True), msg.WantedPart("later", "none", 8, True, held))
    update = await train(assignment("a", wanted=wanted, node_state=("momentum",)))
    parts = [part.artifact.digest for part in update.parts] + [item.part.artifact.digest for item in update.held]
    assert len(parts) == 2
    assert [node.files.path(digest).stat().st_ino in synced for digest in parts] == [is_synced] * 2
    (state,) = node.store.needed() - set(parts)
    assert node.files.path(state).stat().st_ino in synced


async def test_how_far_it_is_is_said(node, train):
    await train(assignment("a"))
    assert node.coordinator.of(msg.Progress) == [msg.Progress("a", 1, "training", 1, 2, 0.5, 0.1)]


async def test_state_is_staged_and_counts_once_it_is_accepted(node, train):
    names = ("residual", "momentum")
    first = await train(assignment("a", 1, node_state=names))
    assert node.worker.jobs[0].state == {}
    await train(assignment("a", 2, node_state=names, feedback=msg.Feedback(first.digest, True)))
    contents = {name: path.read_bytes() for name, path in node.worker.jobs[1].state.items()}
    assert contents == {name: f"{name} after a 1".encode() for name in names}


async def test_state_of_an_update_that_was_not_accepted_is_dropped(node, train):
    first = await train(assignment("a", 1, node_state=("momentum",)))
    staged = node.store.needed() - first.digests
    assert staged < node.on_disk()
    await train(assignment("a", 2, node_state=("momentum",), feedback=msg.Feedback(first.digest, False)))
    assert node.worker.jobs[1].state == {}
    assert not staged & node.on_disk()


async def test_an_evaluation_does_without_what_stayed_of_a_run_and_is_damaged(node, train):
    """The worker says then that it is missing; what else this node keeps has nothing to do with it."""
    first = await train(assignment("a", 1, node_state=("method/local",)))
    own = {"method/local": artifact_of([b"stays"])}
    node.store.save(first, {}, own)
    node.files.put(own["method/local"], b"stays")
    node.store.forget("a")
    model = {"initial": f"sha256:{assignment('b').model.digest}", "parent": "a@1"}
    only = {"evaluation": {"only": True}, "model": model, "rounds": {"count": 1}}
    spec = parse_data(json.loads(SPEC) | only).to_json()
    await train(assignment("b", spec=spec))
    assert list(node.worker.jobs[-1].state) == ["method/local"]
    node.files.path(own["method/local"].digest).unlink()
    await train(assignment("b", 2, spec=spec))
    assert node.worker.jobs[-1].state == {}


async def test_the_statement_says_what_was_made(node, train):
    update = await train(assignment("a", 3, phase=2))
    said = UpdateStatement.from_bytes(update.statement)
    assert (said.federation, said.node, said.run, said.round, said.weight) == ("f", "n0", "a", 3, 7.0)
    assert said.metrics == {"loss": (2.0, 4.0)}
    assert [(part.digest, part.bytes) for part in said.parts] == [
        (part.artifact.digest, part.artifact.size_bytes) for part in update.parts
    ]
    assert update.phase == 2
    assert node.store.finished("a", 3, 2, update.base) == update


async def test_equal_weights_are_equal(node, train):
    spec = RoundsSpec(name="x", task=TaskSection(name="digits"), weights=WeightsSection(by="equal"))
    update = await train(assignment("a", spec=spec.to_json()))
    assert UpdateStatement.from_bytes(update.statement).weight == 1.0


async def test_a_training_that_has_diverged_is_not_signed(node, train):
    node.worker.metrics = {"loss": (float("nan"), 1.0)}
    with pytest.raises(LimitExceeded, match="diverged"):
        await train(assignment("a"))
    assert node.store.needed() == set()


@pytest.mark.parametrize("end", ["error", "cancelled"])
async def test_files_of_a_training_that_came_to_nothing_go_with_the_next_one(node, train, end):
    if end == "error":
        node.worker.errors = [TaskError("diverged")]
    node.worker.gates["a"] = asyncio.Event()
    work = asyncio.create_task(train(assignment("a")))
    await node.until(lambda: node.worker.jobs)
    given_up = list(node.worker.jobs[0].scratch.values())
    for path in given_up:
        path.write_bytes(b"half")
    node.worker.gates["a"].set() if end == "error" else work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert set(scratch(node)) == set(given_up)
    await train(assignment("b"))
    assert scratch(node) == []


async def test_a_drill_is_added_to_the_order(tmp_path, train):
    drilled = Node(tmp_path / "drilled", drill=Drill("sign-flip", {"x": 1}))
    await train(assignment("a"), drilled)
    [job] = drilled.worker.jobs
    assert (job.attack.name, job.attack.options) == ("sign-flip", {"x": 1})
    assert job.attack.memory == drilled.data_dir / "drills" / "a"


async def test_what_came_along_reaches_the_worker(node, train):
    came = artifact_of([b"control"])
    inputs = (msg.InputFile("control", "", came, b"control"),)
    await train(assignment("a", inputs=inputs, phase=2))
    [job] = node.worker.jobs
    assert (job.phase, {part: path.read_bytes() for part, path in job.inputs.items()}) == (2, {"control": b"control"})


async def test_what_a_training_spends_cannot_change_within_a_run(node, train):
    """Also where the node has no floor: a run that looks cheap later has been expensive before."""

    def asked(number, noise):
        privacy = {"unit": "example", "clip": 1.0, "noise": noise}
        run = RoundsSpec(name="r", task=TaskSection(name="digits"), privacy=privacy)
        return assignment("a", number, spec=run.to_json())

    await train(asked(1, 1.0))
    await train(asked(2, 1.0))
    with pytest.raises(PolicyError, match=r"privacy was .*\"noise\":1.0.* on this node before, and cannot become"):
        await train(asked(3, 50.0))
    assert [job.private_before for job in node.worker.jobs] == [0, 0]  # this worker's updates are not private
