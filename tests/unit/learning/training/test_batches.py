"""Data as people have it: ragged examples, mappings, streams, and processes that load ahead."""

import random
import resource
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from covey.errors import TaskError
from covey.learning import streams
from covey.learning.data import batches, moved, size_of
from covey.learning.streams import in_memory
from covey.learning.task import FitSettings, LossOutput, NodeData, Task, central_data_of
from covey.learning.training.loop import evaluate, gradient, steps_in_round, train
from covey.learning.training.prefetch import prefetched
from covey.spec import TrainingSection

CPU = torch.device("cpu")
ARGUMENTS: Any = {"round": 1, "rounds": 2, "seed": 3, "roster_index": 0, "device": CPU}


class Texts(Dataset):
    """Examples of different lengths; the class is whether there are many."""

    def __len__(self):
        return 21

    def __getitem__(self, index):
        return {"tokens": torch.arange(1 + index % 5).float(), "label": index % 5 > 2}


class Noisy(Texts):
    """Augmented at random, from all three streams."""

    def __getitem__(self, index):
        noise = torch.rand(()) + random.random()
        return {**super().__getitem__(index), "noise": noise}


class Ragged(Task):
    """Pads its batches."""

    def model(self):
        return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 2))

    def train_data(self, data):
        return Texts()

    def collate(self, examples):
        x = nn.utils.rnn.pad_sequence([e["tokens"] + e.get("noise", 0) for e in examples], batch_first=True)
        return {"x": nn.functional.pad(x, (0, 5 - x.shape[1])), "y": torch.tensor([int(e["label"]) for e in examples])}

    def loss(self, model, batch):
        logits = model(batch["x"])
        return LossOutput(nn.functional.cross_entropy(logits, batch["y"]), len(batch["y"]), logits, batch["y"])


class Normed(Task):
    """BatchNorm, and nothing else of its own."""

    def model(self):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def train_data(self, data):
        return TensorDataset(torch.randn(25, 3), torch.zeros(25, dtype=torch.long))


def trained(task, dataset, **training):
    torch.manual_seed(1)
    model = task.model()
    section = TrainingSection(batch_size=8, **{"local_epochs": 2, **training})
    result = train(task, model, dataset, FitSettings(section, torch.arange(size_of(dataset)), **ARGUMENTS))
    return result, torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_task_collates_its_batches_in_training_and_evaluation_alike():
    task, dataset = Ragged(), Texts()
    assert Ragged.own_collate
    result, _ = trained(task, dataset)
    assert (result.examples, result.steps) == (21, 6)
    metrics = evaluate(task, task.model(), dataset, 8, CPU)
    assert metrics["accuracy"].count == 21
    one = TrainingSection(batch_size=8, local_steps=1)
    gradients, _ = gradient(task, task.model(), dataset, FitSettings(one, torch.arange(21), **ARGUMENTS))
    assert gradients["0.weight"].abs().sum() > 0


@pytest.mark.parametrize("dataset", [Texts(), Noisy()])
def test_processes_that_load_ahead_change_no_bit(dataset):
    one = trained(Ragged(), dataset, workers=1)
    for workers in (2, 3):
        assert torch.equal(trained(Ragged(), dataset, workers=workers)[1], one[1])
    if type(dataset) is Texts:
        assert torch.equal(trained(Ragged(), dataset)[1], one[1]), "nothing is drawn: the same without processes"


def test_batches_come_in_order_and_no_more_are_made_than_asked_for():
    rows = torch.tensor([[0, 5], [10, 15], [1, 6]])
    found = list(prefetched(Texts(), rows, CPU, None, workers=2, seed=1))
    assert [len(batch["label"]) for batch in found] == [2, 2, 2]
    assert [batch["tokens"].shape[1] for batch in found] == [1, 1, 2]


def test_the_last_batch_can_be_left_out_and_a_batch_of_one_says_so():
    task = Normed()
    dataset = task.train_data(None)
    with pytest.raises(TaskError, match=r"batch of one example.*training.drop_last = true"):
        trained(task, dataset)
    result, _ = trained(task, dataset, drop_last=True)
    assert result.steps == 2 * 3
    small = TrainingSection(batch_size=64, drop_last=True, local_epochs=2)
    assert steps_in_round(small, 25) == 2, "the only batch of an epoch stays"
    assert trained(task, dataset, drop_last=True, local_steps=5, local_epochs=None)[0].steps == 5
    assert "drop_last" not in TrainingSection(local_epochs=1).model_dump()


def test_a_stream_is_read_to_its_end(monkeypatch):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.full((3,), float(i)), i % 2) for i in range(20)])

    kept = in_memory(Stream())
    assert size_of(kept) == 20
    assert kept[3][0].tolist() == [3.0, 3.0, 3.0]
    assert in_memory(kept) is kept
    monkeypatch.setattr(streams, "MAX_STREAMED", 19)
    with pytest.raises(TaskError, match=r"Stream has more than 19 examples.*map-style data set"):
        in_memory(Stream())


@pytest.mark.parametrize(
    "example",
    [
        torch.zeros(1 << 17),
        (torch.zeros(1 << 17), 1),
        {"image": np.zeros(1 << 16), "id": "a"},
        [b"x" * (1 << 19)],
        "x" * (1 << 19),
    ],
    ids=["tensor", "pair", "mapping", "bytes", "text"],
)
def test_a_stream_without_end_or_of_large_examples_is_refused_by_its_size(monkeypatch, example):
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield example

    monkeypatch.setattr(streams, "bytes_to_hold", lambda: 10 << 20)
    with pytest.raises(TaskError, match=r"Endless takes more than 0.00977 GiB with its first (19|20|21) examples"):
        in_memory(Endless())


def test_a_stream_may_take_a_part_of_the_memory_that_the_worker_has(monkeypatch):
    whole = streams.bytes_to_hold()
    assert (1 << 28) < whole < (1 << 44)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 26, 1 << 26))
    assert streams.bytes_to_hold() == 1 << 25


def test_mappings_and_other_containers_are_moved_whole():
    class Graph:
        def to(self, device):
            return ("moved", device)

    batch = next(batches(Texts(), torch.tensor([0, 5]), 2, CPU))
    assert batch["label"].tolist() == [False, False]
    assert moved({"g": Graph(), "names": ["a"]}, CPU) == {"g": ("moved", CPU), "names": ("a",)}
    with pytest.raises(TaskError, match=r"stack expects.*give the task a `collate"):
        next(batches(Texts(), torch.tensor([0, 1]), 2, CPU))
    with pytest.raises(TaskError, match=r"a mapping with tokens, label, and not pairs.*`loss` of its own"):
        Normed().loss(nn.Linear(1, 1), batch)


def test_central_data_are_told_where_they_are_if_they_ask():
    class Asks(Normed):
        def central_data(self, data=None):
            return data.paths["table"]

    where = NodeData(paths={"table": "/srv/table.csv"})
    found: Any = central_data_of(Asks(), where)
    assert found == "/srv/table.csv"
    assert central_data_of(Normed(), where) is None
