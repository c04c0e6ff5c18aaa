"""What a model keeps beside its `state_dict`: it begins every piece of work as `Task.model` made it.

A warm model is used for one training after the other, in a simulation for one node after the other. What no model file
holds (buffers with `persistent=False`, plain attributes such as counters and caches) would otherwise carry something
from one to the next: a node's result would depend on which process did its work, and on when that last restarted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from covey.learning.models.entries import entries_of, is_expanded, is_plain, unwrapped

_NUMBERS = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class _Kept:
    """One module's: its non-persistent buffers, its plain tensors (the object, and its values), and plain values."""

    module: nn.Module
    buffers: dict[str, Tensor | None]
    tensors: dict[str, tuple[Tensor, Tensor]]
    plain: dict[str, object]


class TransientState:
    """A model's state beside its `state_dict`, as it is now.

    Plain attributes count where they are tensors, numbers, text or None. Tensors that share memory with an entry of the
    `state_dict` are left alone: they follow it.

    Args:
        model: As `Task.model` made it.

    Raises:
        LayoutError: An entry of its state_dict cannot be exchanged; the message names it.
    """

    def __init__(self, model: nn.Module) -> None:
        model = unwrapped(model)
        entries = {_storage(tensor) for tensor in entries_of(model).tensors.values()}
        self._kept = [_kept(module, entries) for module in model.modules()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back; buffers stay on their device."""
        for kept in self._kept:
            for name, values in kept.buffers.items():
                _restore_buffer(kept.module, name, values)
            own = vars(kept.module)
            for name in [name for name, value in own.items() if name not in kept.plain and _is_value(name, value)]:
                del own[name]
            own.update(kept.plain)
            for name, (tensor, values) in kept.tensors.items():
                own[name] = _with_values(tensor, values)


def _kept(module: nn.Module, entries: set[int]) -> _Kept:
    transient = {name: module._buffers.get(name) for name in module._non_persistent_buffers_set}
    buffers = {
        name: None if tensor is None else tensor.detach().clone()
        for name, tensor in transient.items()
        if tensor is None or _restorable(tensor, entries)
    }
    tensors = {
        name: (value, value.detach().clone())
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and _restorable(value, entries)
    }
    return _Kept(module, buffers, tensors, {n: v for n, v in vars(module).items() if _is_value(n, v)})


def _is_value(name: str, value: object) -> bool:
    return isinstance(value, _NUMBERS) and name != "training"


def _restore_buffer(module: nn.Module, name: str, values: Tensor | None) -> None:
    now = module._buffers.get(name)
    if values is None:
        module._buffers[name] = None
    else:
        somewhere = now if now is not None else next(iter(module.parameters()), values)
        module._buffers[name] = _with_values(now, values.to(somewhere.device))


def _with_values(tensor: Tensor | None, values: Tensor) -> Tensor:
    """The tensor itself with these values, or a copy of them where it has another form by now."""
    if tensor is None or tensor.shape != values.shape or tensor.dtype != values.dtype or tensor.device != values.device:
        return values.clone()
    if not torch.equal(tensor, values):
        if is_expanded(tensor):
            return values.clone()
        tensor.copy_(values)
    return tensor


def _restorable(tensor: Tensor, entries: set[int]) -> bool:
    return is_plain(tensor) and _storage(tensor) not in entries


def _storage(tensor: Tensor) -> int:
    """Where a tensor's memory begins; one without memory is its own."""
    return tensor.untyped_storage().data_ptr() or id(tensor)
