"""DP-SGD in the node's training: what a step is, where its noise comes from, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from covey.errors import SpecError
from covey.learning.task import FitResult, FitSettings, NodeData, Task
from covey.learning.training.private import train_privately
from covey.spec import PrivacySection, TrainingSection

N = 40


class Linear(Task):
    layers: tuple[nn.Module, ...] = ()

    def model(self) -> nn.Module:
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(6, 50), *self.layers, nn.Linear(50, 3))

    def train_data(self, data: NodeData) -> Dataset[Any]:
        generator = torch.Generator().manual_seed(4)
        x = torch.randn(N, 6, generator=generator)
        return TensorDataset(x, torch.randint(0, 3, (N,), generator=generator))


class Mixing(Linear):
    layers = (nn.BatchNorm1d(50),)


class OwnFit(Linear):
    own_fit = True


def trained(
    task: Task | None = None, training: dict[str, Any] | None = None, **privacy: Any
) -> tuple[Tensor, FitResult]:
    """All parameters after one round, less those before it; and the result."""
    task = task or Linear()
    model, heard = task.model(), []
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    settings = TrainingSection.model_validate({"learning_rate": 1.0, "local_steps": 1, **(training or {})})
    fit = FitSettings(
        settings, torch.arange(N), 1, 3, 11, 1, torch.device("cpu"), progress=lambda *told: heard.append(told)
    )
    section = PrivacySection.model_validate({"unit": "example", "clip": 1.0, "noise": 1.0, **privacy})
    result = train_privately(task, model, task.train_data(NodeData()), fit, section)
    assert all(math.isnan(loss) for _, _, loss in heard)
    return nn.utils.parameters_to_vector(model.parameters()).detach() - before, result


def test_without_noise_and_clipping_steps_are_those_of_full_batch_descent() -> None:
    task = Linear()
    model = task.model()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    x, y = task.train_data(NodeData()).tensors  # type: ignore[attr-defined]
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    wanted = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    found, result = trained(training={"learning_rate": 0.3, "local_steps": 3}, clip=1e6, noise=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert (result.examples, result.steps, dict(result.metrics)) == (N, 3, {})


def test_noise_is_z_c_over_the_expected_number_of_examples() -> None:
    """With a clip so small that the gradients do not show."""
    change, _ = trained(noise=500.0, clip=1e-3, sampling=0.25)
    deviation = 500.0 * 1e-3 / (0.25 * N)
    assert change.std().item() == pytest.approx(deviation, rel=0.15)
    assert change.mean().abs() < deviation


def test_a_step_moves_by_at_most_c_for_each_example_that_is_drawn() -> None:
    change, _ = trained(clip=0.01, noise=1e-12, sampling=0.5)
    assert 0 < change.norm() <= 0.01 * N / (0.5 * N)
    nobody, _ = trained(clip=0.01, noise=1e-12, sampling=1e-12)
    assert nobody.norm() < 1e-3 * N  # noise alone, divided by next to nothing


def test_noise_and_examples_come_from_a_secret_unless_the_run_is_to_be_reproducible() -> None:
    same, other = trained(sampling=0.5)[0], trained(sampling=0.5)[0]
    assert not torch.equal(same, other)
    # Without noise it is the examples alone that differ.
    assert not torch.equal(trained(sampling=0.5, noise=1e-12)[0], trained(sampling=0.5, noise=1e-12)[0])
    first, second = (trained(sampling=0.5, reproducible=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_epochs_are_as_many_steps_as_sampling_makes_them() -> None:
    assert trained(training={"local_steps": None, "local_epochs": 2}, sampling=0.1)[1].steps == 20


@pytest.mark.parametrize(("task", "text"), [(Mixing(), "BatchNorm1d.*GroupNorm"), (OwnFit(), "own fit")])
def test_what_gives_no_gradients_of_single_examples_is_refused(task: Task, text: str) -> None:
    with pytest.raises(SpecError, match=f'^privacy.unit: "example" .*{text}'):
        trained(task)
