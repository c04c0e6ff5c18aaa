from typing import ClassVar

import pytest
import torch
from torch import Tensor

from covey.errors import SpecError
from covey.learning.models.state import tensors_of
from covey.learning.task import FitSettings, NodeData
from covey.learning.tasks.synthetic import Synthetic, tensor_sizes
from covey.learning.training.loop import train
from covey.spec import TrainingSection
from covey.testing.tasks import TaskConformance

CPU = torch.device("cpu")


class TestSynthetic(TaskConformance):
    task_class = Synthetic
    options: ClassVar = {"parameters": 5000, "tensors": 7}
    learns = False


def test_synthetic_has_the_shapes_of_resnet18() -> None:
    sizes = tensor_sizes(11_699_132, 122)
    assert sizes[:7] == [9408, 64, 64, 64, 64, 1, 36_864]
    assert sizes[-2:] == [512_000, 1000]
    assert max(sizes) == 512 * 512 * 9


@pytest.mark.parametrize(("parameters", "tensors"), [(1, 1), (10_000, 1), (9, 9), (10_001, 300), (25_000_000, 122)])
def test_synthetic_has_exactly_what_was_asked_for(parameters: int, tensors: int) -> None:
    sizes = tensor_sizes(parameters, tensors)
    assert (len(sizes), sum(sizes)) == (tensors, parameters)
    assert min(sizes) >= 1


def test_synthetic_training_differs_by_node_and_round_only() -> None:
    task = Synthetic({"parameters": 9001, "tensors": 3})
    data = task.train_data(NodeData())
    start = torch.cat([t.flatten() for t in tensors_of(task.model()).values()])

    def change(round: int, node: int) -> Tensor:
        model = task.model()
        train(
            task,
            model,
            data,
            FitSettings(
                TrainingSection(), torch.arange(8), round=round, rounds=9, seed=1, roster_index=node, device=CPU
            ),
        )
        return torch.cat([t.flatten() for t in tensors_of(model).values()]) - start

    first = change(1, 0)
    assert torch.equal(first, change(1, 0))
    assert bool((first != 0).all())
    assert first.abs().max() < 2e-3
    assert not torch.equal(first, change(2, 0))
    assert not torch.equal(first, change(1, 1))


def test_synthetic_training_can_be_ended_while_it_waits() -> None:
    class Stop(BaseException):
        pass

    task = Synthetic({"train_seconds": 3600})
    calls: list[None] = []

    def each_step() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise Stop

    with pytest.raises(Stop):
        train(
            task,
            task.model(),
            task.train_data(NodeData()),
            FitSettings(
                TrainingSection(),
                torch.arange(8),
                round=1,
                rounds=1,
                seed=1,
                roster_index=0,
                device=CPU,
                each_step=each_step,
            ),
        )


def test_synthetic_smaller_than_its_tensors_is_refused() -> None:
    with pytest.raises(SpecError, match="no tensor may be empty"):
        Synthetic({"parameters": 3, "tensors": 4})
