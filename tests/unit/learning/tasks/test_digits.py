import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from covey.errors import TaskError
from covey.learning.data import size_of
from covey.learning.task import FitSettings, NodeData
from covey.learning.tasks import digits
from covey.learning.tasks.digits import Digits
from covey.learning.training.loop import evaluate, train
from covey.spec import TrainingSection
from covey.testing.tasks import TaskConformance

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[4]


class TestDigits(TaskConformance):
    task_class = Digits


class TestLinearDigits(TaskConformance):
    task_class = Digits
    options: ClassVar = {"hidden": 0}


def test_digits_are_split_once_for_all() -> None:
    task = Digits()
    train_part, central = task.train_data(NodeData()), task.central_data()
    assert (size_of(train_part), size_of(central)) == (1437, 360)
    x, y = train_part.tensors
    assert x.shape == (1437, 64)
    assert (x.min().item(), x.max().item()) == (0, 1)
    every = torch.cat([y, central.tensors[1]])
    assert torch.bincount(every).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    rows = {tuple(row) for row in x.tolist()}
    assert sum(tuple(row) in rows for row in central.tensors[0].tolist()) == 0


def test_digits_are_learned_in_twenty_epochs() -> None:
    task = Digits()
    torch.manual_seed(0)
    model, data = task.model(), task.train_data(NodeData())
    train(
        task,
        model,
        data,
        FitSettings(
            TrainingSection(local_epochs=20),
            torch.arange(size_of(data)),
            round=1,
            rounds=1,
            seed=1,
            roster_index=0,
            device=CPU,
        ),
    )
    assert evaluate(task, model, task.central_data(), 512, CPU)["accuracy"].ratio > 0.94


def test_digits_need_neither_scikit_learn_nor_the_compiler() -> None:
    program = (
        "import sys, torch; from covey.learning.training.loop import train; from covey.spec import TrainingSection\n"
        "from covey.learning.task import FitSettings, NodeData; from covey.learning.tasks.digits import Digits\n"
        "t = Digits(); d = t.train_data(NodeData())\n"
        "for level in ('best-effort', 'require'):\n"
        "    settings = TrainingSection(deterministic=level, optimizer='adam')\n"
        "    place = dict(round=1, rounds=1, seed=1, roster_index=0, device=torch.device('cpu'))\n"
        "    train(t, t.model(), d, FitSettings(settings, torch.arange(99), **place))\n"
        "print([m for m in ('sklearn', 'scipy', 'torch._dynamo', 'torch._inductor') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"pip install 'covey\[digits\]'"):
        digits._file()
