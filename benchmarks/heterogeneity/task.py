"""MNIST as FedGen's authors deal it, and their model; a task for runs of `benchmarks.heterogeneity`.

The split is theirs (`data/Mnist/generate_niid_dirichlet.py`): at most 1,500 images of each label (15,000 in all, though
the option says half of 60,000), of which Dirichlet proportions go to each of 20 nodes, none to a node that has 1,500 or
more before; drawn again until every node has 10. A node's test images are a twentieth of those of each label that it
trains on: the per-client accuracy is over a part of the test images, where labels count by how many nodes have them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from benchmarks.methods.data import CLASSES, everything
from covey.learning.statistics import Stat
from covey.learning.task import NodeData, Split, Task, last_layer_split, loss_of

NODES, RATIO, LEAST = 20, 0.5, 10


class Owned(TensorDataset):
    """Images, labels, and whose each is."""

    def __init__(self, x: Tensor, y: Tensor, owners: Sequence[int]) -> None:
        super().__init__(x, y)
        self.owners = owners


class HeterogeneousMnist(Task):
    """28 x 28 images scaled to -1..1."""

    class Options(Task.Options):
        """[task.options]."""

        alpha: float = Field(gt=0)
        """Of the Dirichlet distribution."""
        seed: int
        """Of the split."""

    has_keys = True
    options: Options

    def model(self) -> nn.Module:
        """The authors' CNN for MNIST: two convolutions with BatchNorm, 784 - 32 - 10, nothing between the last two."""
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(784, 32),
            nn.Linear(32, CLASSES),
        )

    def split(self, model: nn.Module) -> Split | None:
        """The last layer predicts."""
        return last_layer_split(model)

    def train_data(self, data: NodeData) -> Owned:
        """(float32 [1, 28, 28], int64 label) of all nodes."""
        rows, owners = deal(self.options.alpha, self.options.seed)
        images = everything("train")[rows]
        return Owned(_scaled(images.x), images.y, owners.tolist())

    def keys(self, dataset: Dataset[Any]) -> Sequence[Hashable] | None:
        """The owners."""
        return dataset.owners if isinstance(dataset, Owned) else None

    def central_data(self) -> TensorDataset:
        """All test images; the third tensor says whether some node has the image among its own test images."""
        images = everything("t10k")
        return TensorDataset(_scaled(images.x), images.y, self._tested(images.y))

    def evaluate(self, model: nn.Module, batch: Any) -> Mapping[str, Stat]:
        """Loss and `accuracy` over all images; `client_accuracy` over those that are some node's."""
        x, y, tested = batch
        output = loss_of(self, model, (x, y))
        if output.logits is None:
            raise TypeError("the built-in loss gives logits")
        correct = output.logits.argmax(1) == y
        return {
            "loss": Stat(output.loss.item() * len(y), len(y)),
            "accuracy": Stat(correct.sum().item(), len(y)),
            "client_accuracy": Stat((correct & tested).sum().item(), tested.sum().item()),
        }

    def _tested(self, labels: Tensor) -> Tensor:
        """Bool `[n]`: the first images of each label, a twentieth for each node that has the label."""
        rows, owners = deal(self.options.alpha, self.options.seed)
        train = everything("train").y[rows].numpy()
        chosen = torch.zeros(len(labels), dtype=torch.bool)
        for label in range(CLASSES):
            places = (labels == label).nonzero().flatten()
            holders = len(set(owners[train == label].tolist()))
            chosen[places[: holders * (len(places) // NODES)]] = True
        return chosen


def _scaled(x: Tensor) -> Tensor:
    return (x * 2 - 1).view(-1, 1, 28, 28)


@cache
def deal(alpha: float, seed: int) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Which training images are dealt, int64 `[n]`, and to which node each."""
    rng, labels = np.random.default_rng(seed), everything("train").y.numpy()
    most = RATIO * len(labels) / NODES
    while True:
        rows: list[np.ndarray[Any, Any]] = []
        owners: list[np.ndarray[Any, Any]] = []
        held = np.zeros(NODES, dtype=np.int64)
        for label in rng.permutation(CLASSES):
            of_label = rng.permutation(np.flatnonzero(labels == label))
            of_label = of_label[: int(min(most, RATIO * len(of_label)))]
            shares = rng.dirichlet(np.full(NODES, alpha)) * (held < most)
            if not shares.sum() > 0:
                break
            cuts = (np.cumsum(shares / shares.sum()) * len(of_label)).astype(int)[:-1]
            pieces = np.split(of_label, cuts)
            held += [len(piece) for piece in pieces]
            rows += pieces
            owners += [np.full(len(piece), node) for node, piece in enumerate(pieces)]
        if held.min() >= LEAST:
            return torch.from_numpy(np.concatenate(rows)), np.concatenate(owners)
