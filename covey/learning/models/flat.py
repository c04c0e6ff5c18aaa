"""A model's exchanged parameters as one flat float32 vector, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from covey.layout import Layout
from covey.learning.models.state import tensors_of


def flat_of(model: nn.Module, layout: Layout) -> Tensor:
    """The tensors of a layout, in its order: float32 `[layout.numel]` on the CPU, new memory."""
    own = tensors_of(model)
    pieces = [own[tensor.name].reshape(-1).to("cpu", torch.float32) for tensor in layout.tensors]
    return torch.cat([torch.empty(0), *pieces])


@torch.no_grad()
def load_flat(model: nn.Module, layout: Layout, flat: Tensor) -> None:
    """Copy a flat vector, float32 `[layout.numel]`, into the model's tensors of this layout."""
    own, at = tensors_of(model), 0
    for tensor in layout.tensors:
        own[tensor.name].copy_(flat[at : at + tensor.numel].view(tensor.shape))
        at += tensor.numel


def cut(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """A flat vector `[layout.numel]` as tensors by name: views of it."""
    pieces = torch.split(flat, [tensor.numel for tensor in layout.tensors])
    return {tensor.name: piece.view(tensor.shape) for tensor, piece in zip(layout.tensors, pieces, strict=True)}
