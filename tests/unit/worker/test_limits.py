"""What a node's operator allows, where it depends on the data; and what a worker is given of its daemon's."""

from __future__ import annotations

import pytest

from covey.errors import PolicyError
from covey.spec import ExchangeSection, RoundsSpec, TaskSection, TrainingSection
from covey.worker.client.confinement import Confinement
from covey.worker.execute.limits import check_limits
from covey.worker.jobs.training import TrainLimits


def spec(payload="delta", **training):
    exchange = ExchangeSection(payload=payload)
    return RoundsSpec(
        name="r", task=TaskSection(name="digits"), training=TrainingSection(**training), exchange=exchange
    )


@pytest.mark.parametrize(
    ("limits", "run", "examples", "why"),
    [
        (TrainLimits(epochs=2), spec(batch_size=10, local_steps=21), 100, "21 steps.*2 epochs"),
        (TrainLimits(epochs=2), spec(local_epochs=3), 100, "epochs"),
        (TrainLimits(batch_size=8), spec(batch_size=32), 7, "batch of 7 examples"),
        (TrainLimits(examples=64), spec(batch_size=8, local_steps=7), 1000, "56 examples.*64"),
        (TrainLimits(examples=64), spec("gradient", batch_size=32, local_steps=1), 1000, "32 examples.*64"),
        (TrainLimits(examples=64), spec(local_epochs=5), 63, "63 examples.*64"),
    ],
)
def test_a_training_that_asks_for_more_is_declined_before_it_begins(limits, run, examples, why):
    with pytest.raises(PolicyError, match=why):
        check_limits(limits, run, examples)


@pytest.mark.parametrize(
    ("limits", "run", "examples"),
    [
        (TrainLimits(), spec(local_epochs=1000), 1),
        (TrainLimits(epochs=2), spec(batch_size=10, local_steps=20), 100),
        (TrainLimits(epochs=1), spec("gradient", batch_size=32, local_steps=1), 1000),
        (TrainLimits(epochs=1, batch_size=8, examples=64), spec(batch_size=8, local_epochs=1), 64),
        (TrainLimits(batch_size=8), spec(), 0),
    ],
)
def test_what_is_allowed_goes_on(limits, run, examples):
    check_limits(limits, run, examples)


def test_a_worker_sees_nothing_of_the_environment_that_it_does_not_need():
    whole = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "CUDA_VISIBLE_DEVICES": "0",
        "PYTHONPATH": "/tasks",
        "COVEY_STORE": "postgresql://covey:secret@db/covey",
        "COVEY_JOIN": "covey1.token",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MY_DATA": "/data",
    }
    kept = {"PATH", "LC_ALL", "CUDA_VISIBLE_DEVICES", "PYTHONPATH"}
    assert Confinement().of(whole).keys() == kept
    assert Confinement(environment=("MY_DATA", "ABSENT")).of(whole).keys() == kept | {"MY_DATA"}
