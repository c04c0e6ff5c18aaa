"""A round that is being aggregated: what the worker is given, and what is left where nothing comes of it."""

from __future__ import annotations

import pytest

from covey import messages as msg
from covey.coordinator.modes.rounds.closing import Closing, step_job
from covey.errors import CorruptChunk
from covey.testing.store import records as make
from covey.worker.jobs.steps import StepResult
from tests.unit.coordinator.world import MODEL_BYTES


@pytest.fixture
async def active(world):
    """A run whose first round is open; its rule keeps a momentum."""
    description = world.worker.description
    world.worker.description = type(description)(**vars(description) | {"slots": {"momentum": MODEL_BYTES}})
    world.submit()
    active, _ = world.execute("run")
    await world.nodes.until(lambda: len(world.nodes.got(msg.Assignment)) == 2)
    return active


def answered():
    """Two updates, the later node's first, and a node that declined."""
    sent = [make.update_record("run", 1, node) for node in ("bob", "ada")]
    return Closing(sent, [*sent, make.outcome_record("run", 1, "cyd", "declined")])


async def test_the_worker_is_given_the_newest_version_the_updates_and_room(world, active):
    job = step_job(active, answered(), 1)
    base = active.newest()
    assert (job.run, job.version, job.phase, job.roster) == ("run", 0, 1, ("ada", "bob"))
    assert (job.spec_json, job.layout) == (active.run.spec, make.LAYOUT)
    assert job.models == {0: world.files.path(base.artifact.digest)}
    assert [answer.node for answer in job.answers] == ["ada", "bob"]
    assert job.state == {}  # there is none before the first step
    assert set(job.out_state) == {"momentum"}
    assert len({job.out, *job.out_state.values(), *job.models.values()}) == 3


async def test_each_job_has_room_of_its_own(active):
    jobs = [step_job(active, Closing(), 2) for _ in range(2)]
    assert jobs[0].out != jobs[1].out
    assert [(job.phase, job.answers) for job in jobs] == [(2, ())] * 2


async def test_from_a_version_that_is_damaged_no_step_is_made(world, active):
    path = world.files.path(active.newest().artifact.digest)
    path.unlink()
    path.write_bytes(b"x" * MODEL_BYTES)
    with pytest.raises(CorruptChunk, match="is damaged or missing"):
        step_job(active, answered(), 1)


async def test_where_nothing_comes_of_it_its_room_is_given_back_however_often(world, active):
    closing = Closing()
    closing.discard(world.files)  # nothing was begun
    closing.job = job = step_job(active, closing, 1)
    for path in (job.out, *job.out_state.values()):
        path.write_bytes(b"m" * MODEL_BYTES)
    for _ in range(2):
        closing.discard(world.files)
    assert not any(path.exists() for path in (job.out, *job.out_state.values()))
    assert world.files.has(active.newest().artifact.digest)


async def test_what_was_made_is_there_only_once_job_and_result_are(active):
    closing = Closing()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="without a result"):
            closing.outcome()
        closing.job = step_job(active, closing, 1)
    closing.result = StepResult(())
    assert closing.outcome() == (closing.job, closing.result)
