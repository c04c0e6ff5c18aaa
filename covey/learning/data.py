"""Batches from data sets: cut from tensors on the device where possible, else collated example by example."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

from covey.errors import TaskError

GATHER_BYTES = 4 << 20
"""Rows are gathered for several batches at once, up to this size: fewer calls, and still within the cache."""


def held_on(dataset: Dataset[Any], device: torch.device) -> Dataset[Any]:
    """The data set with its tensors on `device`, where it is a plain `TensorDataset`; else itself.

    Done once for a run; training would otherwise copy the tensors in every round. What else the data set
    knows (the owners of its examples) is kept.
    """
    if not is_plain(dataset) or all(t.device == device for t in dataset.tensors):  # type: ignore[attr-defined]
        return dataset
    moved: Any = copy.copy(dataset)
    moved.tensors = tuple(t.to(device) for t in moved.tensors)
    return moved  # type: ignore[no-any-return]


def size_of(dataset: Dataset[Any]) -> int:
    """How many examples a data set has.

    Raises:
        TaskError: It is not map-style.
    """
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError as error:
        raise TaskError(
            f"{type(dataset).__name__} has no length: data sets must be map-style (__len__ and __getitem__)"
        ) from error


def batches(
    dataset: Dataset[Any],
    order: Tensor,
    batch_size: int,
    device: torch.device,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Iterator[Any]:
    """The examples of a data set in the given order, batch by batch; the last batch may be shorter.

    Args:
        dataset: Map-style.
        order: int64 [n], indices into the data set, on the CPU.
        batch_size: Examples in a batch.
        device: Where the batches shall be.
        collate: Makes a batch of a list of examples; None: torch's own.
    """
    if collate is None and is_plain(dataset):
        return _from_tensors(dataset.tensors, order, batch_size, device)  # type: ignore[attr-defined]
    return (moved(made_of(dataset, rows, collate), device) for rows in torch.split(order, batch_size))


def is_plain(dataset: Dataset[Any]) -> bool:
    """Whether it is just tensors, of which batches can be cut."""
    # A subclass that changes what an example is must be asked for each of them.
    if not isinstance(dataset, TensorDataset) or hasattr(dataset, "__getitems__"):
        return False
    return type(dataset).__getitem__ is TensorDataset.__getitem__


def _from_tensors(
    tensors: tuple[Tensor, ...], order: Tensor, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, ...]]:
    tensors = tuple(t.to(device) for t in tensors)
    order = order.to(device)
    batch_bytes = batch_size * sum(t.nbytes // max(1, len(t)) for t in tensors)
    window = batch_size * max(1, GATHER_BYTES // max(1, batch_bytes))
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        yield from zip(*(torch.split(t.index_select(0, rows), batch_size) for t in tensors), strict=True)


def made_of(dataset: Dataset[Any], rows: Tensor, collate: Callable[[list[Any]], Any] | None) -> Any:
    """One batch of examples, collated.

    Args:
        dataset: Map-style.
        rows: int64 `[b]`, on the CPU.
        collate: As for `batches`.

    Raises:
        TaskError: The examples do not fit together, and the task does not say how to make a batch of them.
    """
    fetch, indices = getattr(dataset, "__getitems__", None), rows.tolist()
    examples = list(fetch(indices)) if fetch else [dataset[i] for i in indices]
    if collate is not None:
        return collate(examples)
    try:
        return default_collate(examples)
    except (RuntimeError, TypeError) as error:
        raise TaskError(
            f"torch cannot make a batch of these examples ({error}); give the task a `collate(self, examples)` that "
            "does: pads them, say, or keeps them in a list"
        ) from error


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on a device: tensors, mappings, tuples and lists (which become tuples) of them, and what has a `to`."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return tuple(moved(value, device) for value in batch)
    to = getattr(batch, "to", None)
    return to(device) if callable(to) else batch
