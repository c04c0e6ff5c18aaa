"""What nodes of a digits run came to: their consensus model, and how far it is from that of another run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from covey.client.gossip_consensus import export_consensus
from covey.learning.models.state import load_into, tensors_of
from covey.learning.tasks.digits import Digits
from covey.learning.training.loop import evaluate

BATCH = 360


@dataclass(frozen=True)
class Learned:
    """A consensus model of `digits`.

    Attributes:
        model: It.
        accuracy: On the examples that no node trains on, in [0, 1].
        spread: The largest Euclidean distance of a node's model from it.
    """

    model: nn.Module
    accuracy: float
    spread: float

    def distance(self, other: Learned) -> float:
        """The Euclidean distance of both consensus models."""
        mine, theirs = _vector(self.model), _vector(other.model)
        return float(torch.linalg.vector_norm(mine - theirs))


def learned(folders: Sequence[Path]) -> Learned:
    """What nodes have learned by their records.

    Args:
        folders: The data directories of all of them.

    Raises:
        NotFound: One has no record, or nobody published a model.
    """
    with tempfile.TemporaryDirectory(prefix="covey-learned-") as folder:
        out = Path(folder) / "mean.safetensors"
        consensus = export_consensus(folders, out)
        return learned_by(out, consensus.spread)


def learned_by(model: Path, spread: float) -> Learned:
    """What a model file of `digits` holds."""
    task = Digits({})
    module = task.model()
    load_into(module, model)
    accuracy = evaluate(task, module, task.central_data(), BATCH, torch.device("cpu"))["accuracy"]
    return Learned(module, accuracy.total / accuracy.count, spread)


def _vector(model: nn.Module) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors_of(model).values()])
