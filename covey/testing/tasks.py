"""The conformance suite of tasks: inherit from `TaskConformance` in a test file and name the task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.utils.data import Dataset

from covey.errors import SpecError
from covey.learning.data import batches, size_of
from covey.learning.models.state import layout_of, load_into, tensors_of, write_model
from covey.learning.task import FitResult, FitSettings, NodeData, Task
from covey.learning.training.loop import evaluate, train
from covey.spec import TrainingSection

CPU = torch.device("cpu")


class TaskConformance:
    """What Covey relies on in a task.

    Subclasses give `task_class`, and where needed `options` and `node_data`; keep models and data small.
    """

    task_class: type[Task]
    options: ClassVar[Mapping[str, JsonValue]] = {}
    training = TrainingSection(local_steps=30)
    """Enough for the loss to fall visibly."""
    learns = True
    """Whether training is expected to lower the loss."""

    def node_data(self) -> NodeData:
        """Paths and options as a node's operator would give them."""
        return NodeData()

    def task(self) -> Task:
        """A fresh task, as each program makes its own."""
        return self.task_class(self.options)

    def seeded_model(self) -> nn.Module:
        """A fresh model from a fixed seed."""
        torch.manual_seed(1)
        return self.task().model()

    def test_unknown_option_is_refused_by_name(self) -> None:
        """A misspelt option must not be ignored."""
        with pytest.raises(SpecError, match="no-such-option"):
            self.task_class({**self.options, "no-such-option": 1})

    def test_model_is_a_function_of_options_and_seed(self) -> None:
        """Coordinator and nodes build the same model, each for itself."""
        first, second = self.seeded_model(), self.seeded_model()
        assert layout_of(first) == layout_of(second)
        assert _equal(tensors_of(first), tensors_of(second))

    def test_model_survives_its_file(self, tmp_path: Path) -> None:
        """All of the model's state is in its parameters and persistent buffers."""
        model, other = self.seeded_model(), self.task().model()
        write_model(tmp_path / "model", layout_of(model), model)
        load_into(other, tmp_path / "model")
        assert _equal(tensors_of(model), tensors_of(other))

    def test_labels_and_keys_name_every_example(self) -> None:
        """Partitions need one label and one key for each example, or none at all."""
        task, data = self.task(), self._data()
        labels, keys = task.labels(data), task.keys(data)
        assert labels is None or labels.shape == (size_of(data),)
        assert keys is None or (task.has_keys and len(keys) == size_of(data))

    def test_loss_is_a_finite_scalar_that_counts_its_examples(self) -> None:
        """The loss is the mean over so many examples, and can be differentiated."""
        model, batch = self.seeded_model(), self._batch(min(8, size_of(self._data())))
        output = self.task().loss(model, batch)
        assert output.loss.ndim == 0
        assert torch.isfinite(output.loss)
        assert output.loss.requires_grad
        assert output.examples == min(8, size_of(self._data()))

    def test_metrics_merge(self) -> None:
        """Metrics are sums and counts: evaluating in one batch or in several gives the same."""
        data = self._data()
        count = min(16, size_of(data))
        subset = torch.utils.data.Subset(data, range(count))
        model = self.seeded_model()
        whole, pieces = (evaluate(self.task(), model, subset, size, CPU) for size in (count, 5))
        assert whole.keys() == pieces.keys()
        for name in whole:
            assert pieces[name].count == pytest.approx(whole[name].count)
            assert pieces[name].total == pytest.approx(whole[name].total, rel=1e-4, abs=1e-5)

    def test_training_is_repeatable(self) -> None:
        """The same seed, round and node give the same model, bit for bit."""
        first, second = self.seeded_model(), self.seeded_model()
        assert self._train(first).metrics == self._train(second).metrics
        assert _equal(tensors_of(first), tensors_of(second))

    def test_training_changes_the_model_and_lowers_the_loss(self) -> None:
        """Some value changes, all stay finite, and the loss on the training examples falls."""
        model, before = self.seeded_model(), tensors_of(self.seeded_model())
        at_first = self._loss(model)
        result = self._train(model)
        after = tensors_of(model)
        assert not _equal(before, after)
        assert all(bool(torch.isfinite(t).all()) for t in after.values())
        assert result.examples == size_of(self._data())
        if self.learns:
            assert self._loss(model) < at_first

    def _data(self) -> Dataset[Any]:
        return self.task().train_data(self.node_data())

    def _batch(self, size: int) -> Any:
        return next(batches(self._data(), torch.arange(size), size, CPU))

    def _train(self, model: nn.Module) -> FitResult:
        data = self._data()
        return train(
            self.task(),
            model,
            data,
            FitSettings(
                self.training, torch.arange(size_of(data)), round=1, rounds=1, seed=1, roster_index=0, device=CPU
            ),
        )

    def _loss(self, model: nn.Module) -> float:
        size = min(512, size_of(self._data()))
        with torch.no_grad():
            return self.task().loss(model.train(), self._batch(size)).loss.item()


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
