"""Examples that are loaded by processes beside the training, ahead of time; the same bits for any number of them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from covey.learning.data import made_of, moved
from covey.seeds import derive_seed

Collate = Callable[[list[Any]], Any]


class _Batches(Dataset[Any]):
    """A data set whose items are whole batches, each made from a random stream of its own."""

    def __init__(self, dataset: Dataset[Any], collate: Collate | None, seed: int) -> None:
        self._dataset, self._collate, self._seed = dataset, collate, seed

    def __getitem__(self, item: tuple[int, Tensor]) -> Any:
        number, rows = item
        seed = derive_seed(self._seed, "loader", number)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        return made_of(self._dataset, rows, self._collate)


def prefetched(
    dataset: Dataset[Any],
    rows: Iterable[Tensor],
    device: torch.device,
    collate: Collate | None,
    *,
    workers: int,
    seed: int,
) -> Iterator[Any]:
    """Batches in order, made by processes ahead of time.

    What a data set draws at random comes from (seed, the batch's number): it is the same for any number of processes.

    Args:
        dataset: Map-style.
        rows: int64 `[b]` for each batch, on the CPU.
        device: Where the batches shall be.
        collate: As for `covey.learning.data.batches`.
        workers: How many processes, at least 1.
        seed: Of this training.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # how many is the user's decision
        loader: DataLoader[Any] = DataLoader(
            _Batches(dataset, collate, seed),
            batch_size=None,
            sampler=zip(count(), rows),  # read as it is needed
            num_workers=workers,
            generator=torch.Generator(),  # else it would draw from the training's own stream
        )
        loaded = iter(loader)
    for batch in loaded:
        yield moved(batch, device)
