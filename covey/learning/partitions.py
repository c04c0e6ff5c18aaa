"""Covey's own partitions."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from covey.errors import SpecError
from covey.learning.partition import Examples, Indices, Partition
from covey.options import PluginOptions


class Iid(Partition):
    """Random parts of equal size: their numbers of examples differ by at most one."""

    def cut(self, examples: Examples, parts: int, rng: np.random.Generator) -> list[Indices]:
        """See `Partition.cut`."""
        return np.array_split(rng.permutation(examples.count), parts)


class Local(Partition):
    """Every part is everything: each node has data of its own."""

    whole = True

    def cut(self, examples: Examples, parts: int, rng: np.random.Generator) -> list[Indices]:
        """All examples for each; nobody asks."""
        return [np.arange(examples.count)] * parts


class Dirichlet(Partition):
    """Hsu, Qi and Brown 2019, label by label: each label's examples are split by a draw from Dir(alpha).

    A part that got none takes one of the largest part's.
    """

    class Options(PluginOptions):
        """Keys of [data] that `dirichlet` uses."""

        alpha: Annotated[float, Field(gt=0)] = 0.5

    section_keys = ("alpha",)
    needs = "labels"
    options: Options

    def cut(self, examples: Examples, parts: int, rng: np.random.Generator) -> list[Indices]:
        """See `Partition.cut`."""
        pieces: list[list[Indices]] = [[] for _ in range(parts)]
        for label in np.unique(examples.labels):
            members = rng.permutation(np.flatnonzero(examples.labels == label))
            shares = rng.dirichlet(np.full(parts, self.options.alpha))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
            for piece, cut in zip(pieces, np.split(members, cuts), strict=True):
                piece.append(cut)
        return _without_empty([np.concatenate(piece) for piece in pieces])


def _without_empty(pieces: list[Indices]) -> list[Indices]:
    for i, piece in enumerate(pieces):
        if not len(piece):
            largest = max(range(len(pieces)), key=lambda k: len(pieces[k]))
            pieces[i], pieces[largest] = pieces[largest][-1:], pieces[largest][:-1]
    return pieces


class Shards(Partition):
    """McMahan et al. 2017: examples sorted by label, cut into equal shards, so many random ones a part."""

    class Options(PluginOptions):
        """Keys of [data] that `shards` uses."""

        shards_per_node: int = Field(default=2, ge=1)

    section_keys = ("shards_per_node",)
    needs = "labels"
    options: Options

    def cut(self, examples: Examples, parts: int, rng: np.random.Generator) -> list[Indices]:
        """See `Partition.cut`.

        Raises:
            SpecError: There are more shards than examples.
        """
        labels, shards_per_node = examples.labels, self.options.shards_per_node
        count = parts * shards_per_node
        if len(labels) < count:
            raise SpecError(f"data.shards_per_node: {len(labels)} examples cannot be cut into {count} shards")
        mixed = rng.permutation(len(labels))
        shards = np.array_split(mixed[np.argsort(labels[mixed], kind="stable")], count)
        dealt = rng.permutation(count).reshape(parts, shards_per_node)
        return [np.concatenate([shards[i] for i in hand]) for hand in dealt]


class Key(Partition):
    """Whole keys (writers, speakers), dealt in random order: the parts' numbers of keys differ by at most one."""

    needs = "keys"

    def cut(self, examples: Examples, parts: int, rng: np.random.Generator) -> list[Indices]:
        """See `Partition.cut`.

        Raises:
            SpecError: There are fewer keys than parts.
        """
        keys = int(examples.keys.max()) + 1
        if keys < parts:
            raise SpecError(f"data.parts: {keys} keys cannot be dealt to {parts} parts")
        owner = np.empty(keys, dtype=np.int64)
        owner[rng.permutation(keys)] = np.arange(keys) % parts
        of_example = owner[examples.keys]
        return [np.flatnonzero(of_example == part) for part in range(parts)]
