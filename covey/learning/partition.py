"""How a data set is cut into the nodes' parts in experiments: disjoint, complete, a function of the seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from covey.errors import NoPart, SpecError
from covey.learning.data import size_of
from covey.learning.returns import method_of, require
from covey.learning.section_plugins import SectionPlugin, make_in
from covey.learning.task import Task, task_errors
from covey.plugins import Kind
from covey.seeds import derive_seed
from covey.spec import DataSection

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """What a partition may know of the examples that it cuts.

    Attributes:
        count: How many there are.
        labels: int64 `[count]`, for a partition that needs them; else empty.
        keys: The owner of each example as a number, in the order of their first examples: int64 `[count]`, for a
            partition that needs them; else empty.
    """

    count: int
    labels: Indices
    keys: Indices


class Partition(SectionPlugin):
    """A way to cut a data set ([data] partition).

    Class attributes:
        needs: What it goes by, beside the number of examples.
        whole: Whether every part is everything, because the data are each node's own; then `cut` is not called.
    """

    needs: ClassVar[Literal["nothing", "labels", "keys"]] = "nothing"
    whole: ClassVar[bool] = False

    @abstractmethod
    def cut(self, examples: Examples, parts: int, rng: np.random.Generator) -> list[Indices]:
        """The indices of all parts: disjoint, complete, none empty, in any order; from these arguments only.

        Args:
            examples: At least `parts` of them.
            parts: How many parts.
            rng: The source of randomness, the same on every node.

        Raises:
            SpecError: They cannot be cut so.
        """


PARTITIONS = Kind("partition", "covey.partitions", Partition, "data", "partition")


def partition_in(section: DataSection) -> Partition:
    """The partition that [data] names.

    Raises:
        PluginError: Not installed here.
        SpecError: An option is wrong.
    """
    return make_in(PARTITIONS, section.partition, section, "data")


def part_of(task: Task, dataset: Dataset[Any], section: DataSection, part: int, parts: int, seed: int) -> Tensor:
    """The indices of one part of a task's data set; see `partition`."""
    needs = partition_in(section).needs
    with task_errors("labels and keys of the data"):
        labels = task.labels(dataset) if needs == "labels" else None
        keys = task.keys(dataset) if needs == "keys" else None
    if labels is not None:
        require(labels, Tensor, method_of(task, "labels"), "return a tensor of integers, one for each example")
    if keys is not None:
        require(keys, Sized, method_of(task, "keys"), "return a list with the owner of each example")
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
        labels: int64 [examples], for a partition that needs them.
        keys: One for each example, for a partition that needs them.

    Returns:
        int64 [n], ascending.

    Raises:
        PluginError: The partition is not installed here.
        NoPart: There are not so many parts.
        SpecError: Too few examples (or shards, or keys) for so many parts, or the task gives no
            labels or keys.
    """
    kind = partition_in(section)
    if kind.whole:
        return torch.arange(examples)
    if not 0 <= part < parts:
        raise NoPart(
            f"data.parts: the data are cut into {parts} parts, and this is node {part + 1} of the roster; "
            "it takes the part of a node that is lost, once there is one"
        )
    if examples < parts:
        raise SpecError(f"data.parts: {examples} examples cannot be cut into {parts} parts")
    known = Examples(
        examples,
        _labels(labels, section, examples) if kind.needs == "labels" else _NONE,
        _owners(keys, section, examples) if kind.needs == "keys" else _NONE,
    )
    pieces = kind.cut(known, parts, np.random.default_rng(derive_seed(seed, "partition")))
    _require_complete(pieces, parts, examples, section.partition)
    return torch.from_numpy(np.sort(pieces[part]).astype(np.int64))


_NONE: Indices = np.empty(0, dtype=np.int64)


def _require_complete(pieces: Sequence[Indices], parts: int, examples: int, name: str) -> None:
    """Refuse a plug-in's mistake that would leave a node without data, or examples out."""
    if len(pieces) != parts or sum(map(len, pieces)) != examples or not all(map(len, pieces)):
        text = f"cut {examples} examples into {len(pieces)} parts with {sum(map(len, pieces))} examples in all"
        raise SpecError(f'data.partition: "{name}" {text}, not into {parts} parts of at least one each')


def _labels(labels: Tensor | None, section: DataSection, examples: int) -> Indices:
    if labels is None:
        raise SpecError(f'data.partition: "{section.partition}" needs labels, and the task gives none; choose "iid"')
    if labels.shape != (examples,):
        raise SpecError(f"the task gives labels of shape {tuple(labels.shape)} for {examples} examples")
    return labels.cpu().numpy().astype(np.int64)


def _owners(keys: Sequence[Hashable] | None, section: DataSection, examples: int) -> Indices:
    if keys is None:
        text = "needs a task that names the owner of each example (Task.keys)"
        raise SpecError(f'data.partition: "{section.partition}" {text}')
    if len(keys) != examples:
        raise SpecError(f"the task gives {len(keys)} keys for {examples} examples")
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.fromiter((numbers[key] for key in keys), dtype=np.int64, count=examples)
