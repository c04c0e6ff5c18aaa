import os
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.utils.data import TensorDataset

from covey.errors import TaskError
from covey.learning.data import size_of
from covey.learning.partition import part_of
from covey.learning.task import FitSettings, NodeData
from covey.learning.tasks.characters import SYMBOLS, UNKNOWN, Characters, Windows, encode, speeches
from covey.learning.training.loop import evaluate, train
from covey.spec import DataSection, TrainingSection
from covey.testing.tasks import TaskConformance

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[4]
SPEECH = "First:\nHello, you.\n\nSecond:\nWhat? Caf\u00e9!\n\nFirst:\nBye.\n"


def data_folder(name: str) -> Path:
    root = Path(os.environ.get("COVEY_DATA") or ROOT.parent / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"no {name} in COVEY_DATA or ../shared/data")
    return root / name


class TestCharacters(TaskConformance):
    task_class = Characters
    options: ClassVar = {"context": 12, "hidden": 16}
    training = TrainingSection(optimizer="adam", learning_rate=0.01, local_steps=20)

    @pytest.fixture(autouse=True)
    def _text(self, tmp_path: Path) -> None:
        self.path = tmp_path / "text"
        self.path.write_text(SPEECH * 40)

    def node_data(self) -> NodeData:
        return NodeData({"text": str(self.path)})


def test_speeches_are_by_speaker() -> None:
    assert speeches(SPEECH) == [("First", "Hello, you.\nBye.\n"), ("Second", "What? Caf\u00e9!")]
    assert speeches("no names\n\nat all") == [("", "no names\nat all")]


def test_characters_outside_the_alphabet_are_unknown() -> None:
    codes = encode("\n ~\u00e9")
    assert codes.tolist() == [0, 1, SYMBOLS - 2, UNKNOWN]


def test_windows_predict_the_next_character_and_have_one_speaker() -> None:
    windows = Windows([("a", "abcdefgh"), ("b", "xyz"), ("c", ""), ("d", "12345")], context=3)
    x, y = windows.tensors
    assert windows.speakers == ["a", "a", "d"]
    assert torch.equal(x, torch.stack([encode(s) for s in ("abc", "def", "123")]))
    assert torch.equal(y, torch.stack([encode(s) for s in ("bcd", "efg", "234")]))
    assert size_of(Windows([("a", "ab")], context=3)) == 0


def test_texts_are_found_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVEY_DATA", raising=False)
    task = Characters({"context": 8})
    with pytest.raises(TaskError, match=r"no text: .*\[data\.paths\] text = \.\.\., or set COVEY_DATA"):
        task.train_data(NodeData())
    assert task.central_data() is None
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(SPEECH * 20)
    monkeypatch.setenv("COVEY_DATA", str(tmp_path))
    central = task.central_data()
    assert central is not None
    assert size_of(task.train_data(NodeData())) > size_of(central) > 0
    assert task.eval_data(NodeData()) is None
    (tmp_path / "latin1").write_bytes(b"caf\xe9")
    with pytest.raises(TaskError, match="UTF-8"):
        task.train_data(NodeData({"text": str(tmp_path / "latin1")}))


def test_shakespeare_by_speaker() -> None:
    path = data_folder("tinyshakespeare") / "input.txt"
    task = Characters({"context": 32, "hidden": 48})
    data = task.train_data(NodeData({"text": str(path)}))
    keys = task.keys(data)
    assert keys is not None
    assert len(set(keys)) > 150
    indices = part_of(task, data, DataSection(partition="key"), 0, 40, 2)
    torch.manual_seed(0)
    model = task.model()
    settings = TrainingSection(optimizer="adam", learning_rate=0.005, local_steps=60)
    train(task, model, data, FitSettings(settings, indices, round=1, rounds=1, seed=1, roster_index=0, device=CPU))
    held_out = task.eval_data(NodeData({"text": str(path)}))
    assert isinstance(held_out, TensorDataset)
    sample = TensorDataset(*(t[:200] for t in held_out.tensors))
    assert evaluate(task, model, sample, 64, CPU)["loss"].ratio < 3.2
