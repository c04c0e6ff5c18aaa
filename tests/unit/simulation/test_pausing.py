from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from covey.client.connection import connect
from covey.client.specification import parsed
from covey.errors import SpecError
from covey.simulation.plan import Plan
from covey.simulation.simulation import simulate
from covey.telemetry import quiet_by_default
from tests.unit.simulation.in_process import CrewHere

SPEC = """
name = "paused"
seed = 3
[task]
name = "digits"
[training]
learning_rate = 0.05
batch_size = 64
local_epochs = 1
[server_optimizer]
name = "momentum"
[rounds]
count = 4
min_nodes = 3
"""


@pytest.fixture
def plan(tmp_path):
    return Plan(parsed(SPEC), 3, tmp_path / "whole", processes=1)


def rounds_of(folder, run):
    with connect(folder) as record:
        return record.rounds(run)


def test_a_run_that_is_refused_never_begins(plan, tmp_path):
    begun, task = [], SPEC.split("[training]")[0]
    method = '[method]\nname = "statistics"\noptions = { columns = ["pixel-mean"], epsilon = 1.0 }\n'
    noisy = f"{task}{method}[rounds]\ncount = 1\n"
    refused = replace(plan, spec=parsed(noisy), folder=tmp_path / "refused", begins=begun.append)
    with quiet_by_default():
        with pytest.raises(SpecError, match="ranges needs"):
            asyncio.run(simulate(refused, crew=CrewHere(tmp_path)))
        assert begun == []
        one = replace(plan, spec=parsed(SPEC.replace("count = 4", "count = 1")), begins=begun.append)
        asyncio.run(simulate(one, crew=CrewHere(tmp_path / "crew")))
    assert begun == [one]


def test_a_run_that_is_paused_and_taken_up_again_comes_to_the_same_model(plan, tmp_path):
    """Also when it was killed in between; the server optimizer's momentum goes on, too."""
    folder, crew = tmp_path / "parts", CrewHere(tmp_path)
    parts = replace(plan, folder=folder)

    def killed(progress):
        """The record stays as a kill leaves it."""
        raise InterruptedError(f"after {progress.done} rounds")

    with quiet_by_default():
        whole = asyncio.run(simulate(plan, crew=crew))
        run = asyncio.run(simulate(replace(parts, until=1), crew=crew)).run
        assert [(item.state, sorted(item.metrics)) for item in rounds_of(folder, run)] == [
            ("committed", ["accuracy", "loss"])
        ]
        with pytest.raises(InterruptedError):
            asyncio.run(simulate(replace(parts, until=2, resumed=run), killed, crew=crew))
        third = asyncio.run(simulate(replace(parts, until=3, resumed=run), crew=crew))
        assert (third.state, len(rounds_of(folder, run))) == ("running", 3)
        last = asyncio.run(simulate(replace(parts, resumed=run), crew=crew))
    assert (last.state, last.run) == ("completed", run)
    parted, undisturbed = rounds_of(folder, run), rounds_of(plan.folder, whole.run)
    assert [item.metrics for item in parted] == [item.metrics for item in undisturbed]
    with connect(folder) as record, connect(plan.folder) as other:
        assert record.version(run).model_sha256 == other.version(whole.run).model_sha256
