"""A replay of decisions, from a record in which one thing is not as it was."""

from __future__ import annotations

import pytest

from covey.coordinator.modes.asynchronous.replay import Replay
from covey.errors import NotFound
from tests.unit.coordinator.world import UPDATES


async def played(world, count=4):
    world.submit(mode=UPDATES, count=count)
    _, task = world.execute("run")
    await world.work("run")
    await task


async def test_it_tells_how_far_it_is_and_keeps_only_models_that_are_still_needed(world, tmp_path):
    await played(world)
    seen = []
    replay = world.replay(tmp_path / "replay")
    assert isinstance(replay, Replay)
    report = await replay.run(lambda done, whole: seen.append((done, whole)))
    assert (report.ok, report.decisions, report.versions) == (True, 4, 4)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [path.name for path in (tmp_path / "replay").iterdir()] == ["version-4"]


async def test_decisions_without_a_version_are_made_again_too(world, tmp_path):
    world.worker.makes_versions = False
    await played(world)
    report = await world.replay(tmp_path / "replay").run()
    assert (report.ok, report.decisions, report.versions) == (True, 4, 0)
    assert report.model_sha256 == world.record.version("run", 0).model_sha256


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE model_versions SET model_sha256 = 'ab' WHERE version = 2", "decision 2: the model came out as"),
        ("UPDATE model_versions SET model_sha256 = 'ab' WHERE version = 0", "version 0: the model came out as"),
        ("UPDATE steps SET verdicts = '[]' WHERE number = 3", "decision 3: the verdicts came out as"),
        ("UPDATE steps SET state_sha256 = 'ab' WHERE number = 1", "decision 1: the policy's state came out as"),
    ],
)
async def test_what_was_changed_in_the_record_is_found(world, tmp_path, statement, problem):
    await played(world)
    world.edit(statement)
    report = await world.replay(tmp_path / "replay").run()
    assert not report.ok
    assert report.problems[0].startswith(problem)


async def test_updates_that_are_gone_are_noticed_before_anything_is_made(world, tmp_path):
    await played(world)
    world.files.path(world.record.updates("run", 3)[0].parts[0].artifact.digest).unlink()
    jobs = len(world.worker.jobs)
    with pytest.raises(NotFound, match="the update of round 3 is not kept any more"):
        await world.replay(tmp_path / "replay").run()
    assert len(world.worker.jobs) == jobs
