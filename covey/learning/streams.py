"""Streams (`IterableDataset`): read to their end once, into memory, within a bound.

An epoch is a permutation of all of a node's examples, drawn from the run's seed, and an update says how many there are:
a pass over a stream, which knows neither its length nor its order, could not be made again to the same bits. So a
stream is kept, or refused by its size; what is larger than memory is a map-style data set that reads from the disk.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from covey.errors import TaskError

MAX_STREAMED = 1_000_000
"""So many examples of an `IterableDataset` are kept."""
PART_OF_MEMORY = 4
"""They take at most this part of the machine's memory, and twice that of what the worker may have (one in so many)."""
GIB = 1 << 30


class Listed(Dataset[Any]):
    """Examples in a list."""

    def __init__(self, examples: Sequence[Any]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Any:
        return self._examples[index]


def in_memory(dataset: Dataset[Any]) -> Dataset[Any]:
    """A data set that can be asked for any example: an `IterableDataset` is read to its end.

    Raises:
        TaskError: It has more examples than are kept, or larger ones.
    """
    if not isinstance(dataset, IterableDataset):
        return dataset
    examples, held, most = list[Any](), 0, bytes_to_hold()
    for example in dataset:
        examples.append(example)
        held += size_in_memory(example)
        if len(examples) > MAX_STREAMED:
            raise _too_large(dataset, f"has more than {MAX_STREAMED} examples")
        if held > most:
            text = f"takes more than {most / GIB:.3g} GiB with its first {len(examples)} examples"
            raise _too_large(dataset, f"{text}, which is all that a stream may have of this machine's memory")
    return Listed(examples)


def _too_large(dataset: Dataset[Any], why: str) -> TaskError:
    return TaskError(
        f"the IterableDataset {type(dataset).__name__} {why}, and a stream is kept in memory; give a map-style data "
        "set (__len__ and __getitem__), which is read example by example as training asks for them"
    )


def bytes_to_hold() -> int:
    """How much a stream may take: a quarter of the machine's memory, and half of what the worker is limited to."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // PART_OF_MEMORY
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return whole if limit == resource.RLIM_INFINITY else min(whole, 2 * limit // PART_OF_MEMORY)


def size_in_memory(example: Any) -> int:
    """About how many bytes an example takes: of tensors and arrays their values, of containers what is in them."""
    if isinstance(example, Tensor):
        return int(example.nbytes)
    if isinstance(example, Mapping):
        return sys.getsizeof(example) + sum(map(size_in_memory, example.values()))
    if isinstance(example, tuple | list):
        return sys.getsizeof(example) + sum(map(size_in_memory, example))
    return int(getattr(example, "nbytes", 0)) or sys.getsizeof(example)
