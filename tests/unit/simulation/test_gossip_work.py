"""The work of virtual gossip nodes: many jobs in a request, and files that are written over when nobody needs them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from covey.errors import LayoutError
from covey.learning.models.state import layout_of, write_model
from covey.simulation.gossip.models import ModelFolder
from covey.simulation.gossip.workers import MOST, Workers
from covey.simulation.pool import Pool
from covey.worker.files.mapped import MappedModel
from covey.worker.jobs.mixtures import MixJob, Portion
from covey.worker.program.host import Host
from covey.worker.program.loop import function_of


class Small(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((6,), value))


LAYOUT = layout_of(Small(0.0))


class Here:
    """Does operations in this process, as the worker's program does, and notes how many jobs came together."""

    def __init__(self) -> None:
        self.host = Host(torch.device("cpu"))
        self.sizes: list[int] = []

    async def do(self, operation: Any, job: Any) -> Any:
        self.sizes.append(len(job.mixtures))
        await asyncio.sleep(0)
        return function_of(operation)(job, self.host)


def workers(count: int = 2) -> tuple[Workers, list[Here]]:
    doing: Any = [Here() for _ in range(count)]
    return Workers(Pool(doing), count), doing


def half_way(tmp_path: Path, value: float) -> MixJob:
    """From a model of zeros half of the way to one of `value`."""
    paths = [tmp_path / f"{number:g}" for number in (0.0, value)]
    for path, number in zip(paths, (0.0, value), strict=True):
        write_model(path, LAYOUT, Small(number))
    return MixJob(LAYOUT.to_json(), paths[0], tmp_path / f"out-{value:g}", (Portion(paths[1], 0.5),), synced=False)


def test_what_waits_goes_in_few_requests_and_each_gets_its_own_result(tmp_path: Path) -> None:
    jobs = [half_way(tmp_path, float(value)) for value in range(1, 91)]

    async def scenario() -> list[float]:
        shared, doing = workers()
        results = await asyncio.gather(*map(shared.mix, jobs))
        assert sum(sum(each.sizes) for each in doing) == len(jobs)
        assert sum(len(each.sizes) for each in doing) < len(jobs) / 4
        assert all(0 < size <= MOST for each in doing for size in each.sizes)
        assert all(each.sizes for each in doing), "both work"
        await shared.close()
        return [result.moved for result in results]

    moved = asyncio.run(scenario())
    assert moved == pytest.approx([value / 2 * 6**0.5 for value in range(1, 91)])
    assert torch.equal(MappedModel(jobs[-1].out, LAYOUT).read(slice(0, 6)), torch.full((6,), 45.0))


def test_a_job_that_comes_when_the_last_one_has_just_ended_is_done(tmp_path: Path) -> None:
    job = half_way(tmp_path, 2.0)

    async def scenario() -> None:
        shared, doing = workers(1)
        for _ in range(20):
            await asyncio.wait_for(shared.mix(job), 60)
        assert doing[0].sizes == [1] * 20

    asyncio.run(scenario())


def test_an_error_is_raised_where_the_job_is_waited_for_and_others_can_follow(tmp_path: Path) -> None:
    good = half_way(tmp_path, 2.0)
    (tmp_path / "bad").write_bytes(b"no model")
    bad = MixJob(LAYOUT.to_json(), tmp_path / "bad", tmp_path / "out")

    async def scenario() -> None:
        shared, _ = workers(1)
        with pytest.raises(LayoutError):
            await shared.mix(bad)
        assert (await shared.mix(good)).refused == ()
        given_up = shared.mix(good)
        await shared.close()
        assert not given_up.done()

    asyncio.run(scenario())


def test_a_file_is_written_over_when_its_last_holder_has_let_go(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    path = folder.new()
    model = folder.model(path, "a" * 64)
    model.hold()
    model.release()
    assert folder.new() != path
    model.release()
    assert folder.new() == path
