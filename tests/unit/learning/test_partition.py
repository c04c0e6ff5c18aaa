from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset

from covey.errors import NoPart, SpecError
from covey.learning.partition import part_of, partition
from covey.learning.task import NodeData, Task
from covey.spec import DataSection

SIZES = st.integers(1, 300)
PARTS = st.integers(1, 12)
SEEDS = st.integers(0, 2**63 - 1)


def cut(section: DataSection, parts: int, seed: int, **data: Any) -> list[Tensor]:
    return [partition(section, part, parts, seed, **data) for part in range(parts)]


def labels_of(examples: int, classes: int) -> Tensor:
    return torch.arange(examples) * 7 % classes


def disjoint_and_complete(found: list[Tensor], examples: int) -> None:
    assert torch.equal(torch.sort(torch.cat(found)).values, torch.arange(examples))
    assert all(len(part) for part in found)
    assert all(torch.equal(part, torch.sort(part).values) for part in found)
    assert all(part.dtype == torch.int64 for part in found)


@settings(max_examples=60, deadline=None)
@given(SIZES, PARTS, SEEDS)
def test_iid_is_even(examples: int, parts: int, seed: int) -> None:
    examples = max(examples, parts)
    found = cut(DataSection(partition="iid"), parts, seed, examples=examples)
    disjoint_and_complete(found, examples)
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=60, deadline=None)
@given(SIZES, PARTS, SEEDS, st.floats(1e-3, 1e4), st.integers(1, 20))
def test_dirichlet_leaves_no_part_empty(examples: int, parts: int, seed: int, alpha: float, classes: int) -> None:
    examples = max(examples, parts)
    section = DataSection(partition="dirichlet", alpha=alpha)
    disjoint_and_complete(cut(section, parts, seed, examples=examples, labels=labels_of(examples, classes)), examples)


def test_dirichlet_skews_by_alpha() -> None:
    labels = labels_of(4000, 10)

    def largest_share(alpha: float) -> float:
        section = DataSection(partition="dirichlet", alpha=alpha)
        counts = torch.stack(
            [torch.bincount(labels[p], minlength=10) for p in cut(section, 8, 3, examples=4000, labels=labels)]
        )
        return (counts.max(0).values / counts.sum(0)).mean().item()

    assert largest_share(1e4) == pytest.approx(1 / 8, abs=0.02)
    assert largest_share(0.05) > 0.6


@settings(max_examples=60, deadline=None)
@given(SIZES, PARTS, SEEDS, st.integers(1, 4))
def test_shards_hold_few_labels(examples: int, parts: int, seed: int, shards: int) -> None:
    examples = max(examples, parts * shards)
    labels = labels_of(examples, 5)
    section = DataSection(partition="shards", shards_per_node=shards)
    found = cut(section, parts, seed, examples=examples, labels=labels)
    disjoint_and_complete(found, examples)
    # A shard of the sorted examples crosses no more label borders than fit into it.
    crossings = -(-5 // (parts * shards))
    assert all(len(labels[part].unique()) <= shards * (crossings + 1) for part in found)


@settings(max_examples=60, deadline=None)
@given(SIZES, PARTS, SEEDS, st.integers(1, 30))
def test_keys_stay_whole(examples: int, parts: int, seed: int, owners: int) -> None:
    owners = max(owners, parts)
    examples = max(examples, owners)
    keys = [f"writer-{i * 3 % owners if owners % 3 else i % owners}" for i in range(examples)]
    found = cut(DataSection(partition="key"), parts, seed, examples=examples, keys=keys)
    disjoint_and_complete(found, examples)
    held = [{keys[i] for i in part.tolist()} for part in found]
    assert sum(map(len, held)) == len(set(keys))
    assert max(map(len, held)) - min(map(len, held)) <= 1


def test_local_is_everything() -> None:
    for part in range(3):
        assert torch.equal(partition(DataSection(partition="local"), part, 2, 1, examples=5), torch.arange(5))


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "key"])
def test_follows_the_seed_only(kind: Any) -> None:
    data: dict[str, Any] = {"examples": 200, "labels": labels_of(200, 10), "keys": list(range(200))}
    section = DataSection(partition=kind)
    first, again, other = (cut(section, 4, seed, **data) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("section", "data", "text"),
    [
        (DataSection(partition="iid"), {"examples": 3}, "3 examples cannot be cut into 4 parts"),
        (DataSection(partition="dirichlet"), {"examples": 9}, "needs labels"),
        (DataSection(partition="shards"), {"examples": 9, "labels": torch.zeros(8)}, "labels of shape"),
        (DataSection(partition="shards"), {"examples": 7, "labels": torch.zeros(7)}, "8 shards"),
        (DataSection(partition="key"), {"examples": 9}, "Task.keys"),
        (DataSection(partition="key"), {"examples": 9, "keys": "abc"}, "3 keys for 9 examples"),
        (DataSection(partition="key"), {"examples": 9, "keys": "aaabbbccc"}, "3 keys cannot be dealt to 4"),
    ],
)
def test_what_cannot_be_cut_is_refused(section: DataSection, data: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        partition(section, 0, 4, 1, **data)


def test_a_node_beyond_the_parts_is_refused() -> None:
    with pytest.raises(NoPart, match="cut into 4 parts, and this is node 5"):
        partition(DataSection(), 4, 4, 1, examples=10)


class Owned(Task):
    has_keys = True

    def model(self) -> Any:
        raise NotImplementedError

    def train_data(self, data: NodeData) -> TensorDataset:
        return TensorDataset(torch.zeros(6, 2), torch.tensor([0, 0, 0, 1, 1, 1]))

    def keys(self, dataset: Any) -> list[str]:
        return list("aabbcc")


def test_labels_and_keys_come_from_the_task() -> None:
    task = Owned()
    data = task.train_data(NodeData())
    by_key = [part_of(task, data, DataSection(partition="key"), k, 3, 1).tolist() for k in range(3)]
    assert sorted(by_key) == [[0, 1], [2, 3], [4, 5]]
    by_label = [
        part_of(task, data, DataSection(partition="shards", shards_per_node=1), k, 2, 1).tolist() for k in range(2)
    ]
    assert sorted(by_label) == [[0, 1, 2], [3, 4, 5]]
