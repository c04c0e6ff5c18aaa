"""How a data set is cut into the nodes' parts in experiments: disjoint, complete, a function of the seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from covey.errors import SpecError
from covey.learning.data import size_of
from covey.learning.task import Task, task_errors
from covey.seeds import derive_seed
from covey.spec import DataSection

Indices = npt.NDArray[np.int64]


def part_of(task: Task, dataset: Dataset[Any], section: DataSection, part: int, parts: int, seed: int) -> Tensor:
    """The indices of one part of a task's data set; see `partition`."""
    with task_errors("labels and keys of the data"):
        labels = task.labels(dataset) if section.partition in ("dirichlet", "shards") else None
        keys = task.keys(dataset) if section.partition == "key" else None
    return partition(section, part, parts, seed, examples=size_of(dataset), labels=labels, keys=keys)


def partition(
    section: DataSection,
    part: int,
    parts: int,
    seed: int,
    *,
    examples: int,
    labels: Tensor | None = None,
    keys: Sequence[Hashable] | None = None,
) -> Tensor:
    """The indices of one part.

    The parts of one (section, parts, seed) are disjoint, cover all examples, and hold at least one each; only
    with `local`, where the data are the node's own, every part is everything.

    Args:
        section: The run's [data].
        part: Which one, from 0: the node's place in the roster.
        parts: How many there are.
        seed: The run's.
        examples: Size of the data set.
        labels: int64 [examples], for `dirichlet` and `shards`.
        keys: One for each example, for `key`.

    Returns:
        int64 [n], ascending.

    Raises:
        SpecError: No such part, too few examples (or shards, or keys) for so many parts, or the task gives no
            labels or keys.
    """
    if section.partition == "local":
        return torch.arange(examples)
    if not 0 <= part < parts:
        raise SpecError(f"data.parts: the data are cut into {parts} parts, and this is node {part + 1} of the roster")
    if examples < parts:
        raise SpecError(f"data.parts: {examples} examples cannot be cut into {parts} parts")
    rng = np.random.default_rng(derive_seed(seed, "partition"))
    match section.partition:
        case "iid":
            pieces = np.array_split(rng.permutation(examples), parts)
        case "key":
            pieces = _by_key(keys, examples, parts, rng)
        case _:
            pieces = _by_label(_labels(labels, section, examples), section, parts, rng)
    return torch.from_numpy(np.sort(pieces[part]).astype(np.int64))


def _by_label(labels: Indices, section: DataSection, parts: int, rng: np.random.Generator) -> list[Indices]:
    if section.partition == "shards":
        return _shards(labels, parts, section.shards_per_node, rng)
    return _dirichlet(labels, parts, section.alpha, rng)


def _dirichlet(labels: Indices, parts: int, alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Hsu, Qi and Brown 2019, label by label: each label's examples are split by a draw from Dir(alpha)."""
    pieces: list[list[Indices]] = [[] for _ in range(parts)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(np.cumsum(rng.dirichlet(np.full(parts, alpha)))[:-1] * len(members)).astype(np.int64)
        for piece, cut in zip(pieces, np.split(members, cuts), strict=True):
            piece.append(cut)
    return _without_empty([np.concatenate(piece) for piece in pieces])


def _without_empty(found: list[Indices]) -> list[Indices]:
    for i, piece in enumerate(found):
        if not len(piece):
            largest = max(range(len(found)), key=lambda k: len(found[k]))
            found[i], found[largest] = found[largest][-1:], found[largest][:-1]
    return found


def _shards(labels: Indices, parts: int, shards_per_node: int, rng: np.random.Generator) -> list[Indices]:
    """McMahan et al. 2017: examples sorted by label, cut into equal shards, so many random ones a part."""
    count = parts * shards_per_node
    if len(labels) < count:
        raise SpecError(f"data.shards_per_node: {len(labels)} examples cannot be cut into {count} shards")
    mixed = rng.permutation(len(labels))
    shards = np.array_split(mixed[np.argsort(labels[mixed], kind="stable")], count)
    dealt = rng.permutation(count).reshape(parts, shards_per_node)
    return [np.concatenate([shards[i] for i in hand]) for hand in dealt]


def _by_key(keys: Sequence[Hashable] | None, examples: int, parts: int, rng: np.random.Generator) -> list[Indices]:
    """Whole keys, dealt in random order: the parts' numbers of keys differ by at most one."""
    if keys is None:
        raise SpecError('data.partition: "key" needs a task that names the owner of each example (Task.keys)')
    if len(keys) != examples:
        raise SpecError(f"the task gives {len(keys)} keys for {examples} examples")
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    if len(numbers) < parts:
        raise SpecError(f"data.parts: {len(numbers)} keys cannot be dealt to {parts} parts")
    owner = np.empty(len(numbers), dtype=np.int64)
    owner[rng.permutation(len(numbers))] = np.arange(len(numbers)) % parts
    of_example = owner[np.fromiter((numbers[key] for key in keys), dtype=np.int64, count=examples)]
    return [np.flatnonzero(of_example == part) for part in range(parts)]


def _labels(labels: Tensor | None, section: DataSection, examples: int) -> Indices:
    if labels is None:
        raise SpecError(f'data.partition: "{section.partition}" needs labels, and the task gives none; choose "iid"')
    if labels.shape != (examples,):
        raise SpecError(f"the task gives labels of shape {tuple(labels.shape)} for {examples} examples")
    return labels.cpu().numpy().astype(np.int64)
