"""A model that somebody gives for a run to begin with: a safetensors file, compared with the run's layout."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from typing_extensions import override

from covey.errors import LayoutError
from covey.layout import SAFETENSORS_DTYPE, Layout, TensorSpec

MOST_NAMED = 20
"""Tensors of a kind of fault that a message names; of more it says how many there are."""
MAX_NAME_CHARS = 100
"""Of a tensor's name in a message: the file's names are whatever somebody wrote."""


class GivenModel(Mapping[str, Tensor]):
    """The tensors of a layout in an open file, each read when it is asked for.

    Args:
        file: Open.
        sources: Name in the layout to name in the file.
    """

    def __init__(self, file: Any, sources: Mapping[str, str]) -> None:
        self._file, self._sources = file, sources

    @override
    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(self._sources[name])
        return tensor

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    @override
    def __len__(self) -> int:
        return len(self._sources)


@contextmanager
def given_model(
    path: Path,
    layout: Layout,
    own: Mapping[str, Tensor],
    kept: Mapping[str, str] | None = None,
    frozen: Collection[str] = (),
) -> Iterator[GivenModel]:
    """A file's tensors, after a comparison with the run's layout.

    Tied weights may be there under one of their names or under several, with the same values. Frozen tensors may be
    there with the values that the task gives them: nodes make them themselves, and would not learn of others.

    Args:
        path: A safetensors file; whoever wrote it is not trusted.
        layout: The run's.
        own: The task's own tensors by name, for what may be infinite (a buffer's elements that are so there), and for
            those that are frozen.
        kept: Names of tensors that are in no file of the run's, and why.
        frozen: Names of those that are frozen.

    Raises:
        LayoutError: It is no safetensors file; or tensors are missing, unexpected, of another form, or not finite: the
            message names them, at most 20 of each kind.
    """
    with _opened(path) as file:
        sources, faults = _compared(file, layout, kept or {}, frozenset(frozen))
        faults += _thawed(file, own, sorted(frozen))
        model = GivenModel(file, sources)
        if not faults:
            faults = list(_wrong_values(file, layout, model, own))
        if faults:
            raise LayoutError(f"the given model does not fit the run's: {'; '.join(faults)}")
        yield model


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        opening = safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        text = str(error)[:200]
        raise LayoutError(f"the given model is not a whole safetensors file: {text}") from error
    with opening as file:
        yield file


def _thawed(file: Any, own: Mapping[str, Tensor], frozen: Iterable[str]) -> list[str]:
    """The frozen tensors that the file has with other values than the task gives them."""
    names = set(file.keys())
    other = [_short(name) for name in frozen if name in names and not _same(file.get_tensor(name), own[name])]
    return _listed("frozen, with other values here than the task's model has (load them there, in Task.model)", other)


def _same(given: Tensor, own: Tensor) -> bool:
    """Whether both are the same to the bit."""
    if (given.dtype, given.shape) != (own.dtype, own.shape):
        return False
    return torch.equal(*(tensor.reshape(-1).cpu().contiguous().view(torch.uint8) for tensor in (given, own)))


def _compared(
    file: Any, layout: Layout, kept: Mapping[str, str], frozen: frozenset[str]
) -> tuple[dict[str, str], list[str]]:
    """Name in the layout to name in the file, and what is missing, unexpected or of another form."""
    names, further = set(file.keys()), dict(layout.aliases)
    sources = {spec.name: spec.name for spec in layout.tensors if spec.name in names}
    for alias, name in layout.aliases:
        if alias in names:
            sources.setdefault(name, alias)
    missing = [_form(spec) for spec in layout.tensors if spec.name not in sources]
    unexpected = [
        _short(name) + (f" (which {kept[name]})" if name in kept else "")
        for name in sorted(names - {spec.name for spec in layout.tensors} - further.keys() - frozen)
    ]
    misshaped = [
        f"{_short(spec.name)} is {given}, and not {wanted}"
        for spec in layout.tensors
        if spec.name in sources and (given := _form_in(file, sources[spec.name])) != (wanted := _form_of(spec))
    ]
    return sources, [
        *_listed("missing", missing),
        *_listed("unexpected", unexpected),
        *_listed("another form", misshaped),
    ]


def _wrong_values(file: Any, layout: Layout, model: GivenModel, own: Mapping[str, Tensor]) -> Iterator[str]:
    infinite = [_short(spec.name) for spec in layout.tensors if not _may_be(model[spec.name], spec, own)]
    yield from _listed("not finite", infinite)
    names = set(file.keys())
    tied = [
        f"{_short(other)} and {_short(name)}"
        for other, name in layout.aliases
        if other in names and not torch.equal(file.get_tensor(other), model[name])
    ]
    yield from _listed("tied weights that differ", tied)


def _may_be(values: Tensor, spec: TensorSpec, own: Mapping[str, Tensor]) -> bool:
    """Whether all values are finite, or of a buffer only those are not that are so in the task's own model."""
    if not values.is_floating_point():
        return True
    wrong = ~torch.isfinite(values)
    if spec.part != "model" and (mine := own.get(spec.name)) is not None:
        wrong &= torch.isfinite(mine.cpu())
    return not bool(wrong.any())


def _form(spec: TensorSpec) -> str:
    return f"{_short(spec.name)} {_form_of(spec)}"


def _form_of(spec: TensorSpec) -> str:
    return f"{SAFETENSORS_DTYPE[spec.dtype]} {list(spec.shape)}"


def _form_in(file: Any, name: str) -> str:
    view = file.get_slice(name)
    return f"{view.get_dtype()} {list(view.get_shape())}"


def _short(name: str) -> str:
    return repr(name if len(name) <= MAX_NAME_CHARS else name[:MAX_NAME_CHARS] + "...")


def _listed(what: str, items: Iterable[str]) -> list[str]:
    """A clause about some tensors; none where there are none."""
    listed = list(items)
    if not listed:
        return []
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return [f"{what}: {', '.join(listed[:MOST_NAMED])}{more}"]
