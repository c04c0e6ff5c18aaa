"""What the replays of all modes do alike."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from covey.coordinator.modes.contract import ReplayInputs
from covey.coordinator.modes.replaying import different, first_version, require_kept, text_of
from covey.errors import LayoutError, NotFound
from covey.spec import ModelSection, parse_json
from covey.testing.store import records as make


def inputs(world, run, **options):
    return ReplayInputs(world.record, run, world.folder, world.worker, world.folder, **options)


async def test_the_first_version_is_made_again_where_it_is_wanted(world):
    run, out = replace(world.submit(), layout=make.LAYOUT), world.folder / "version-0"
    sha256 = await first_version(inputs(world, run, allow_path=True), out)
    (job,) = world.worker.done("initial")
    assert (job.run, job.spec_json, job.out, job.allow_path) == ("run", run.spec, out, True)
    assert out.read_bytes() == bytes.fromhex(sha256)[: out.stat().st_size]


async def test_a_task_that_makes_another_model_here_is_no_replay(world):
    run = replace(world.submit(), layout='[["w","float32",[3],"model"]]')
    with pytest.raises(LayoutError, match="the task installed here makes another model than the run's"):
        await first_version(inputs(world, run), world.folder / "out")


async def test_a_run_that_was_given_a_model_begins_with_that_file_again(world):
    digest, run = "0" * 64, replace(world.submit(), layout=make.LAYOUT)
    given = parse_json(run.spec).model_copy(update={"model": ModelSection(initial=f"sha256:{digest}")})
    run = replace(run, spec=given.to_json())
    with pytest.raises(NotFound, match="the model that the run began with is gone"):
        await first_version(inputs(world, run), world.folder / "out")
    (world.folder / digest).write_bytes(b"values")
    await first_version(inputs(world, run), world.folder / "out")
    assert world.worker.done("initial")[-1].source == world.folder / digest


def test_every_file_of_an_update_must_be_there(tmp_path):
    update = make.update_record("run", 3, "ada")
    first, second = (part.artifact.digest for part in update.parts)
    (tmp_path / first).touch()
    with pytest.raises(NotFound, match=r"the update of round 3 is not kept any more: .* \[keep\] updates"):
        require_kept(update, tmp_path)
    (tmp_path / second).touch()
    require_kept(update, tmp_path)


def test_verdicts_are_compared_as_text_so_that_not_a_number_equals_itself():
    made = [{"node": "ada", "share": math.nan, "numbers": {"b": 1.0, "a": 2.0}}]
    again = [{"numbers": {"a": 2.0, "b": 1.0}, "share": math.nan, "node": "ada"}]
    assert text_of(made) == text_of(again)
    assert text_of(made) != text_of([made[0] | {"share": 0.5}])


def test_what_came_out_differently_is_said_once():
    assert different("the model", "a", "a") == []
    assert different("the model", "a", "b") == ["the model came out as a, and is recorded as b"]
