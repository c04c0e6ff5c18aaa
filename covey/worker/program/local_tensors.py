"""Tensors of a model that never leave a node: a file of the node's own stands for them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from covey.artifact import Artifact
from covey.errors import LayoutError
from covey.layout import Layout
from covey.learning.models.state import layout_of, tensors_of, views
from covey.worker.files.updates import write_tensors

_EMPTY = torch.empty(0, dtype=torch.uint8)


class LocalTensors:
    """Some tensors of a model.

    Args:
        model: The model, with the values that count on a node that has none of its own yet; or without values ("meta").
        names: Which tensors.

    Attributes:
        names: The same.
        layout: Of these tensors.

    Raises:
        LayoutError: The model has no tensor of such a name.
    """

    def __init__(self, model: nn.Module, names: frozenset[str]) -> None:
        self.names = names
        if not names:
            self.layout, self._first = Layout(()), dict[str, Tensor]()
            return
        whole = layout_of(model)
        self.layout = Layout(tuple(tensor for tensor in whole.tensors if tensor.name in names))
        if missing := names - {tensor.name for tensor in whole.tensors}:
            raise LayoutError(f"the model has no tensor {min(missing)!r} that could stay local")
        self._first = {name: tensor.clone() for name, tensor in tensors_of(model).items() if name in names}

    def without(self, layout: Layout) -> Layout:
        """A layout without these tensors."""
        if not self.names:
            return layout
        kept = tuple(tensor for tensor in layout.tensors if tensor.name not in self.names)
        return Layout(kept, tuple(pair for pair in layout.aliases if pair[1] not in self.names))

    def load_into(self, model: nn.Module, path: Path | None) -> None:
        """Copy a node's values into the model; without a file the first ones.

        Raises:
            LayoutError: The file has another size.
        """
        if not self.names:
            return
        values, own = self._first, tensors_of(model)
        if path is not None:
            values = views(self._mapped(path), self.layout)
        with torch.no_grad():
            for name, value in values.items():
                own[name].copy_(value)

    def _mapped(self, path: Path) -> Tensor:
        size = path.stat().st_size
        if size != self.layout.nbytes:
            raise LayoutError(f"{path.name} has {size} bytes of local tensors instead of {self.layout.nbytes}")
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8) if size else _EMPTY

    def digest(self) -> str:
        """SHA-256 (hex) of layout and first values; empty: there are no such tensors."""
        if not self.names:
            return ""
        whole = hashlib.sha256(self.layout.canonical_bytes())
        for tensor in self.layout.tensors:
            whole.update(self._first[tensor.name].reshape(-1).cpu().view(torch.uint8).numpy().data)
        return whole.hexdigest()

    def write(self, model: nn.Module, path: Path) -> Artifact:
        """The model's values, into a synced file.

        Raises:
            TaskError: A value is not finite.
        """
        return write_tensors(path, self.layout, tensors_of(model), self._first)
