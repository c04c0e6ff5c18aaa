"""A replay of rounds, from a record in which one thing is not as it was: each is found, and said in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covey.coordinator.modes.rounds.replay import RoundsReplay
from covey.errors import NotFound, SpecError
from covey.parts import DeclaredPart
from covey.testing.store import records as make
from covey.worker.jobs.steps import OpenedPhase, updates_of
from tests.unit.coordinator.world import MODEL, MODEL_BYTES, ROUNDS, written

KEPT = f"{ROUNDS}[keep]\nupdates = 100\n"
MEMBER = DeclaredPart("member", "none", "", MODEL_BYTES, True, 1, None, "all", "collect", ("version",))


async def played(world, count=2):
    world.submit(mode=KEPT, count=count)
    _, task = world.execute("run")
    await world.work("run")
    await task


async def test_it_tells_how_far_it_is_and_leaves_one_version(world, tmp_path):
    await played(world, count=3)
    seen = []
    replay = world.replay(tmp_path / "replay")
    assert isinstance(replay, RoundsReplay)
    report = await replay.run(lambda done, whole: seen.append((done, whole)))
    assert (report.ok, report.decisions, report.versions) == (True, 3, 3)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [path.name for path in (tmp_path / "replay").iterdir()] == ["version-3"]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE assignments SET weight = 7.0 WHERE node = 'bob'", "the signed weight of the update of bob came out"),
        ("UPDATE assignments SET statement = X'7b7d' WHERE node = 'bob'", "the statement of the update of bob cannot"),
        ("UPDATE assignments SET reason = 'late' WHERE node = 'bob'", "the verdicts came out as"),
        ("UPDATE model_versions SET model_sha256 = 'ab' WHERE version = 1", "the model came out as"),
        ("DELETE FROM model_versions WHERE version = 1", "version 1 is not recorded"),
    ],
)
async def test_what_was_changed_in_the_record_is_found(world, tmp_path, statement, problem):
    await played(world)
    world.edit(statement)
    report = await world.replay(tmp_path / "replay").run()
    assert (report.decisions, report.versions) == (1, 0)
    assert report.problems[0].startswith(f"round 1: {problem}")


async def test_secret_noise_cannot_be_made_again_and_that_is_said(world, tmp_path):
    world.submit(mode=KEPT + '[weights]\nby = "equal"\n[privacy]\nunit = "node"\nclip = 1.0\nnoise = 1.0\n')
    with pytest.raises(SpecError, match=r"noise .* was secret and is gone.*covey run audit"):
        await world.replay(tmp_path / "replay").run()


async def test_a_first_version_that_comes_out_differently_ends_it_at_once(world, tmp_path):
    await played(world)
    world.edit("UPDATE model_versions SET model_sha256 = 'ab' WHERE version = 0")
    report = await world.replay(tmp_path / "replay").run()
    assert (report.decisions, report.versions, len(report.problems)) == (0, 0, 1)
    assert report.problems[0].startswith("version 0: the model came out as")
    assert not world.worker.done("step")[2:]


async def test_updates_that_are_gone_are_noticed_before_anything_is_made(world, tmp_path):
    await played(world)
    update = world.record.updates("run", 2)[0]
    world.files.path(update.parts[0].artifact.digest).unlink()
    jobs = len(world.worker.jobs)
    with pytest.raises(NotFound, match="the update of round 2 is not kept any more"):
        await world.replay(tmp_path / "replay").run()
    assert len(world.worker.jobs) == jobs


async def test_the_method_is_asked_once_more_what_followed_from_all_answers(world, tmp_path):
    parts = (MEMBER, replace(MODEL, up=2))
    world.worker.description = replace(world.worker.description, parts=parts, phases=2)
    world.worker.plans[1, 1] = OpenedPhase(2, {"bob": "{}"}, {"ada": "a lie"})
    await played(world, count=1)
    (state,) = world.record.version("run", 1).state
    assert state.name == "method/member/bob"  # ada's was rejected
    report = await world.replay(tmp_path / "replay").run()
    assert (report.ok, report.versions) == (True, 1)
    (job,) = world.worker.done("step")[2:]
    assert job.phase == 2
    assert [(a.node, a.phase, a.verdict) for a in job.answers] == [
        ("ada", 1, "rejected"),
        ("bob", 1, "received"),
        ("bob", 2, "received"),
    ]
    assert [update.node for update in updates_of(job)] == ["bob"]


async def test_a_run_without_a_committed_round_comes_to_its_first_version(world, tmp_path):
    world.submit(mode=KEPT)
    artifact, sha256 = written(world.folder / "first", world.record.run("run").spec.encode())
    first = make.version_record("run", 0, model_sha256=sha256, artifact=artifact)
    world.record.start_run("run", ("ada",), 1, make.LAYOUT, first, 1001.0)
    world.record.open_round(make.round_record("run", 1, invited=("ada",)))
    report = await world.replay(tmp_path / "replay").run()
    assert (report.ok, report.decisions, report.versions, report.model_sha256) == (True, 0, 0, sha256)
