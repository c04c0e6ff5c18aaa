"""What of a model travels: every entry of its `state_dict`, each tensor once, or a refusal that names the entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from covey.errors import LayoutError
from covey.layout import DTYPE_BYTES
from covey.vectors import BLOCK_ELEMENTS, is_finite

MAX_NAMED = 5
"""How many entries a refusal names; of more it says how many there are."""
_WRAPPED = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""torch's own wrappers (looked up by name: importing the compiler takes seconds), and where each has the model."""


@dataclass(frozen=True)
class Entries:
    """A model's parameters and persistent buffers.

    Attributes:
        tensors: Each tensor once, under its first name, parameters first; detached, sharing memory with the model.
        parameters: The names in it that are parameters.
        aliases: Further names of the same tensors (tied weights, a module that is registered twice): name to first
            name.
    """

    tensors: dict[str, Tensor]
    parameters: frozenset[str]
    aliases: dict[str, str]


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own model inside of `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    while type(model).__module__.startswith("torch.") and type(model).__name__ in _WRAPPED:
        model = getattr(model, _WRAPPED[type(model).__name__])
    return model


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is an ordinary one: dense, with values of its own."""
    if is_lazy(tensor) or is_traceable_wrapper_subclass(tensor):
        return False
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested


def is_expanded(tensor: Tensor) -> bool:
    """Whether elements share memory, so that no values can be copied into the tensor."""
    return any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))


def entries_of(model: nn.Module) -> Entries:
    """The entries of a model's `state_dict`.

    Raises:
        LayoutError: An entry cannot be exchanged; the message names it, and says what to do.
    """
    model = unwrapped(model)
    entries, first = Entries({}, frozenset(), {}), dict[int, str]()
    parameters = list(model.named_parameters(remove_duplicate=False))
    for name, tensor in (*parameters, *_persistent_buffers(model)):
        known = first.setdefault(id(tensor), name)
        if known != name:
            entries.aliases[name] = known
        else:
            entries.tensors[name] = tensor
    names = frozenset(name for name, _ in parameters if name in entries.tensors)
    _refuse(_unacceptable(model, entries))
    detached = {name: tensor.detach() for name, tensor in entries.tensors.items()}
    return Entries(detached, names, entries.aliases)


def check_values(model: nn.Module, *, own_fit: bool) -> None:
    """Refuse a model that no training could be made of.

    Args:
        model: With its first values.
        own_fit: Whether the task trains by itself; then it may train what torch does not differentiate.

    Raises:
        LayoutError: A tensor has no values, a parameter is not finite, or nothing can be trained.
    """
    model = unwrapped(model)
    empty = 'it has no values (device "meta"); make it on the CPU, or give it values in Task.model (after to_empty)'
    _refuse((name, empty) for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta)
    advice = "a parameter has a value that is not finite; register what never changes as a buffer (register_buffer)"
    _refuse((name, advice) for name, p in model.named_parameters() if p.is_floating_point() and not _is_finite(p))
    if own_fit or any(p.requires_grad and p.numel() for p in model.parameters()):
        return
    some = next((name for name, _ in model.named_parameters()), None)
    what = "the model has no parameters" if some is None else f"all parameters are frozen (among them {some!r})"
    raise LayoutError(f"{what}: nothing can be trained; leave requires_grad on for some, or give the task its own fit")


def _persistent_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name, buffer


def _unacceptable(model: nn.Module, entries: Entries) -> Iterator[tuple[str, str]]:
    for name, tensor in entries.tensors.items():
        if reason := _wrong_form(tensor):
            yield name, reason
    if any(is_lazy(tensor) for tensor in entries.tensors.values()):
        return  # has no state_dict yet
    try:
        listed = set(model.state_dict())
    except Exception as error:  # hooks and methods of the user's own
        raise LayoutError(f"the model's state_dict fails: {type(error).__name__}: {error}") from error
    known = entries.tensors.keys() | entries.aliases.keys()
    for name in sorted(listed - known):
        if name.rpartition(".")[2] == "_extra_state":
            yield name, "extra state (get_extra_state) is not carried; keep it in a buffer of fixed shape"
        else:
            yield name, "an entry of state_dict that is neither a parameter nor a buffer; register it as one of them"
    for name in sorted(known - listed):
        yield (
            name,
            "state_dict leaves it out, so that a model file could not be loaded; leave the hook out that does so",
        )


def _wrong_form(tensor: Tensor) -> str:
    """Why a tensor cannot be carried; empty: it can."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if is_lazy(tensor):
        return "it has no shape yet: give lazy modules their sizes in Task.model"
    if is_traceable_wrapper_subclass(tensor) or tensor.is_nested:
        return f"a {type(tensor).__name__} has no plain values; use ordinary tensors"
    if tensor.is_quantized:
        return f"quantised tensors ({dtype}) are not carried; train in floating point and quantise the exported model"
    if tensor.layout != torch.strided:
        form = str(tensor.layout).removeprefix("torch.")
        return f"{form} tensors are not carried; make it dense (to_dense), or keep indices and values as buffers"
    if tensor.is_complex():
        return f"{dtype} is not carried; keep torch.view_as_real of it, and view_as_complex in forward"
    if dtype not in DTYPE_BYTES:
        return f"{dtype} is not carried; choose {', '.join(DTYPE_BYTES)}"
    if is_expanded(tensor):
        return (
            "its elements share memory (expand), and torch cannot load values into it; call .clone() or .contiguous()"
        )
    return ""


def _refuse(wrong: Iterator[tuple[str, str]]) -> None:
    problems = [f"tensor {name!r}: {reason}" for name, reason in wrong]
    if problems:
        more = f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        raise LayoutError("; ".join(problems[:MAX_NAMED]) + more)


def _is_finite(tensor: Tensor) -> bool:
    # By blocks: a model may fill half of the memory.
    return all(is_finite(piece) for piece in torch.split(tensor.detach().reshape(-1), BLOCK_ELEMENTS))
