"""Features are what goes into the predictor; losses of single examples have the loss as their mean."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional

from covey.errors import SpecError, TaskError
from covey.learning.representations.features import Features, losses_of, split_of
from covey.learning.task import LossOutput, Split, Task
from covey.testing.method_rounds import PlainExample


class Long(PlainExample):
    """Its predictor is two layers."""

    def split(self, model: nn.Module) -> Split | None:
        assert isinstance(model, nn.Sequential)
        return Split(model[:1], model[1:])


class Apart(PlainExample):
    """Its predictor is no module of the model's own."""

    def split(self, model: nn.Module) -> Split | None:
        return Split(model, nn.Linear(2, 2))


@pytest.mark.parametrize(("task", "depth"), [(PlainExample(), 2), (Long(), 1)])
def test_features_are_what_goes_into_the_predictor(task: Task, depth: int) -> None:
    model, x = task.model(), torch.randn(3, 8)
    features = Features(task, model, "mine")
    model(x)
    assert isinstance(model, nn.Sequential)
    taken = features.taken()
    assert torch.equal(taken, model[:depth](x))
    assert taken.requires_grad
    with pytest.raises(TaskError, match="did not ask the predictor"):
        features.taken()


def test_a_model_is_left_as_it_was() -> None:
    task = PlainExample()
    model = task.model()
    features = Features(task, model, "mine")
    assert any(module._forward_pre_hooks for module in model.modules())
    del features
    gc.collect()
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_predictor_that_is_not_the_models_is_said() -> None:
    task = Apart()
    model = task.model()
    features = Features(task, model, "mine")
    model(torch.randn(3, 8))
    with pytest.raises(TaskError, match=r"the predictor that .*split .* names; make it of the model's own modules"):
        features.taken()


def test_without_a_split_there_is_a_way_out() -> None:
    with pytest.raises(SpecError, match=r'"mine" needs the features .* give it a `split`'):
        split_of(PlainExample(), nn.Linear(8, 2), "mine")


def test_losses_of_single_examples() -> None:
    task, logits, targets = PlainExample(), torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    each = functional.cross_entropy(logits, targets, reduction="none")
    assert torch.equal(losses_of(task, LossOutput(each.mean(), 5, logits, targets)), each)
    own = torch.arange(5.0)
    assert torch.equal(losses_of(task, LossOutput(own.mean(), 5, logits, targets, own)), own)
    smoothed = functional.cross_entropy(logits, targets, label_smoothing=0.3)
    with pytest.raises(TaskError, match=r"give `each`, .* whose mean is the loss"):
        losses_of(task, LossOutput(smoothed, 5, logits, targets))
    with pytest.raises(TaskError, match="says nothing of single examples"):
        losses_of(task, LossOutput(own.mean(), 5))
