"""A network with one hidden layer as one flat vector, and the gradients of all nodes at once.

The formulas are written out, because a batched product is several times faster than automatic differentiation of so
small a model; a test compares them with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.methods.data import CLASSES, PIXELS, Digits
from covey.layout import Layout, TensorSpec
from covey.seeds import derive_seed


@dataclass(frozen=True)
class Network:
    """784 - hidden - 10 with ReLU and cross entropy; its parameters are W1, b1, W2, b2 in one vector of d elements."""

    hidden: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors, in order."""
        h = self.hidden
        return {"w1": (h, PIXELS), "b1": (h,), "w2": (CLASSES, h), "b2": (CLASSES,)}

    @property
    def d(self) -> int:
        """How many parameters there are."""
        return (PIXELS + 1) * self.hidden + (self.hidden + 1) * CLASSES

    @property
    def layout(self) -> Layout:
        """For codecs that scale each tensor apart."""
        return Layout(tuple(TensorSpec(name, "float32", shape) for name, shape in self.shapes.items()))

    def initial(self, seed: int) -> Tensor:
        """Torch's own initial values, float32 `[d]`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "model"))
            layers = nn.Linear(PIXELS, self.hidden), nn.Linear(self.hidden, CLASSES)
        return torch.cat([p.detach().flatten() for layer in layers for p in layer.parameters()])

    def gradients(self, parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of each node's mean loss.

        Args:
            parameters: float32 `[d]`, or `[n, d]` where each node has its own.
            x: `[n, b, 784]`.
            y: int64 `[n, b]`.

        Returns:
            float32 `[n, d]`.
        """
        _, _, w2, _ = self._tensors(parameters)
        hidden, logits = self._forward(parameters, x)
        errors = torch.softmax(logits, -1).sub_(functional.one_hot(y, CLASSES)).div_(y.shape[-1])
        inner = (errors @ w2).mul_(hidden > 0)
        pieces = [inner.mT @ x, inner.sum(-2), errors.mT @ hidden, errors.sum(-2)]
        return torch.cat([piece.flatten(1) for piece in pieces], 1)

    def loss(self, parameters: Tensor, data: Digits) -> float:
        """Mean cross entropy."""
        return float(functional.cross_entropy(self._forward(parameters, data.x)[1], data.y))

    def accuracy(self, parameters: Tensor, data: Digits) -> float:
        """In percent; NaN for parameters that are not finite."""
        if not torch.isfinite(parameters).all():
            return float("nan")
        right = self._forward(parameters, data.x)[1].argmax(-1) == data.y
        return 100 * float(right.float().mean())

    def _tensors(self, parameters: Tensor) -> list[Tensor]:
        """W1, b1, W2, b2 as views; with `[n, d]` each has n in front, and the biases a one for the batch."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        pieces = torch.split(parameters, sizes, -1)
        lead = parameters.shape[:-1]
        layers = [piece.view(*lead, *shape) for piece, shape in zip(pieces, self.shapes.values(), strict=True)]
        return [t.unsqueeze(-2) if lead and t.dim() == 2 else t for t in layers]

    def _forward(self, parameters: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        w1, b1, w2, b2 = self._tensors(parameters)
        hidden = torch.relu(x @ w1.mT + b1)
        return hidden, hidden @ w2.mT + b2
