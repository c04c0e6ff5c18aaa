"""Handwritten digits, 8x8, from the file that scikit-learn carries: real data that is always at hand."""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from covey.errors import TaskError
from covey.learning.task import NodeData, Split, Task, last_layer_split
from covey.learning.tasks.views import noisy, shifted

PIXELS, CLASSES = 64, 10
SIDE, MOVED, NOISE = 8, 1, 0.1
"""Pixels of a side; by how many of them, and with how much noise, a view differs."""
TRAINING_SHARE = 0.8


class Digits(Task):
    """1797 images of digits; four fifths for training, the rest on the coordinator for evaluation."""

    class Options(Task.Options):
        """[task.options] of `digits`."""

        hidden: int = Field(default=64, ge=0, le=100_000)
        """Units of the hidden layer; 0: a linear model."""

        common: int = Field(default=0, ge=0, le=1000)
        """How many of the training examples are no node's own, but common to all."""

        evaluate_on_nodes: bool = False
        """Whether nodes have the examples for evaluation, too."""

    options: Options

    def model(self) -> nn.Module:
        """64 - hidden - 10 with ReLU, or linear."""
        hidden = self.options.hidden
        if not hidden:
            return nn.Linear(PIXELS, CLASSES)
        return nn.Sequential(nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))

    def split(self, model: nn.Module) -> Split | None:
        """The last layer predicts; a linear model has no extractor."""
        return last_layer_split(model)

    def view(self, batch: Any, generator: torch.Generator) -> Any:
        """Moved by a pixel at most, with noise."""
        x, y = batch
        return noisy(shifted(x.view(-1, SIDE, SIDE), MOVED, generator), NOISE, generator).flatten(1), y

    def table(self, dataset: Dataset[Any]) -> dict[str, Tensor]:
        """`pixel-mean`: the mean of an image's pixels, 0..1."""
        x, _ = dataset.tensors  # type: ignore[attr-defined]
        return {"pixel-mean": x.double().mean(1)}

    def train_data(self, data: NodeData) -> TensorDataset:
        """(float32 [64] in 0..1, int64 label), 1437 examples without those that are common."""
        own = _split()[0]
        return TensorDataset(*(tensor[self.options.common :] for tensor in own.tensors)) if self.options.common else own

    def common_data(self) -> TensorDataset | None:
        """The first `common` of the training examples, which are in random order."""
        if not self.options.common:
            return None
        return TensorDataset(*(tensor[: self.options.common] for tensor in _split()[0].tensors))

    def eval_data(self, data: NodeData) -> TensorDataset | None:
        """Those of the coordinator, where the option says so."""
        return _split()[1] if self.options.evaluate_on_nodes else None

    def central_data(self) -> TensorDataset:
        """The same, the other 360 examples."""
        return _split()[1]


@cache
def _split() -> tuple[TensorDataset, TensorDataset]:
    images, labels = _read(_file())
    # The legacy generator's stream is frozen: the split is the same with every version of numpy.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
    first = int(len(labels) * TRAINING_SHARE)
    train, test = order[:first], order[first:]
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])


def _read(path: Path) -> tuple[Tensor, Tensor]:
    text = gzip.decompress(path.read_bytes()).decode("ascii").replace("\n", ",")
    table = torch.from_numpy(np.fromstring(text, sep=",", dtype=np.float32)).reshape(-1, PIXELS + 1)
    return table[:, :PIXELS] / 16, table[:, PIXELS].long()


def _file() -> Path:
    # Importing scikit-learn takes seconds in every process; finding it takes a millisecond.
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise TaskError("the task digits reads scikit-learn's data file: pip install 'covey[digits]' on this machine")
