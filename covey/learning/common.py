"""Examples that all nodes have: batches that all draw alike, and ids by which predictions on them are matched."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from covey.errors import TaskError
from covey.learning.data import size_of
from covey.learning.returns import described
from covey.learning.task import Task, task_errors
from covey.seeds import derive_seed

ID_BYTES = 8


def count_of(task: Task) -> int:
    """How many common examples a task has; 0: it has none.

    Raises:
        TaskError: The task's code failed.
    """
    with task_errors("Task.common_data"):
        data = task.common_data()
        return 0 if data is None else size_of(data)


def required(data: Dataset[Any] | None, who: str) -> Dataset[Any]:
    """The common data, which `who` needs.

    Raises:
        TaskError: There are none here, or no example among them.
    """
    if data is None or not size_of(data):
        raise TaskError(f"{who} needs examples that all nodes have, and `Task.common_data` gives none here")
    return data


def drawn(examples: int, count: int, seed: int, purpose: str, round: int) -> Tensor:
    """Which of so many common examples a round uses: int64 `[count]`, the same on every node.

    Epoch after epoch, each a new permutation, so that no example comes twice before all came once.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, purpose, round))
    epochs = [torch.randperm(examples, generator=generator) for _ in range(-(-count // examples))]
    return torch.cat([torch.empty(0, dtype=torch.int64), *epochs])[:count]


def ids_of(dataset: Dataset[Any], rows: Tensor) -> Tensor:
    """Ids of examples, int64 `[n]`: the first 8 bytes of SHA-256 over what each consists of, labels included.

    They depend on what the examples are and not on where they stand: nodes whose common data are in another order, or
    lack some, match what they share.

    Args:
        dataset: Map-style.
        rows: int64 `[n]`, places in it.

    Raises:
        TaskError: An example has something that is neither numbers nor text.
    """
    ids = [int.from_bytes(_digest(dataset[row]), "big", signed=True) for row in rows.tolist()]
    return torch.tensor(ids, dtype=torch.int64)


def places(wanted: Tensor, ids: Tensor) -> Tensor:
    """Where each wanted id stands in `ids`: int64 like `wanted`, the first place; -1: nowhere."""
    if not len(ids):
        return torch.full_like(wanted, -1)
    ordered, order = ids.sort(stable=True)
    at = torch.searchsorted(ordered, wanted).clamp_(max=len(ids) - 1)
    return torch.where(ordered[at] == wanted, order[at], -1)


def _digest(example: object) -> bytes:
    digest = hashlib.sha256()
    _add(digest, example)
    return digest.digest()[:ID_BYTES]


def _add(digest: hashlib._Hash, value: object) -> None:
    """Each value with what tells its kind and its length, so that no two examples run together to the same bytes."""
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{list(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, tuple | list):
        digest.update(f"({len(value)}".encode())
        for item in value:
            _add(digest, item)
    elif isinstance(value, dict):
        _add(digest, sorted(value.items()))
    elif isinstance(value, str | bytes | int | float | np.generic):
        text = repr(value.item() if isinstance(value, np.generic) else value).encode()
        digest.update(f"{len(text)}:".encode() + text)
    else:
        raise TaskError(
            f"an example of `Task.common_data` has {described(value)}, which has no bytes of its own to know it by; "
            "give tensors, arrays, numbers or texts"
        )
