"""What nodes of a digits run came to: their consensus model, and how far it is from that of another run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from covey.client.gossip_nodes import read_node
from covey.errors import NotFound
from covey.learning.models.state import load_into
from covey.learning.tasks.digits import Digits
from covey.learning.training.loop import evaluate

BATCH = 360


@dataclass(frozen=True)
class Learned:
    """A consensus model of `digits`: the mean of the nodes' models, weighted by their mass.

    Attributes:
        values: float64 [parameters], all of it.
        accuracy: On the examples that no node trains on, in [0, 1].
        spread: The largest Euclidean distance of a node's model from it.
    """

    values: Tensor
    accuracy: float
    spread: float

    def distance(self, other: Learned) -> float:
        """The Euclidean distance of both consensus models."""
        return float(torch.linalg.vector_norm(self.values - other.values))


def learned(folders: Sequence[Path]) -> Learned:
    """What nodes have learned by their records.

    Args:
        folders: The data directories of all of them that still have mass.

    Raises:
        NotFound: One has no record, or has published no model.
    """
    values, kept = [], []
    for folder in folders:
        node = read_node(folder)
        if node.model is None:
            raise NotFound(f"{node.facts.me} has published no model")
        values.append(values_of(node.model))
        kept.append(node.machine.exchange.kept)
    mean = sum((vector * units for vector, units in zip(values, kept, strict=True)), torch.zeros(())) / sum(kept)
    spread = max(float(torch.linalg.vector_norm(vector - mean)) for vector in values)
    return Learned(mean, _accuracy(mean), spread)


def values_of(model: Path) -> Tensor:
    """The parameters in a model file of `digits`, float64 [parameters]."""
    module = Digits({}).model()
    load_into(module, model)
    return nn.utils.parameters_to_vector(module.parameters()).detach().double()


def _accuracy(values: Tensor) -> float:
    task = Digits({})
    module = task.model()
    nn.utils.vector_to_parameters(values.float(), module.parameters())
    accuracy = evaluate(task, module, task.central_data(), BATCH, torch.device("cpu"))["accuracy"]
    return accuracy.total / accuracy.count
