import gzip
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import JsonValue
from torch import Tensor

from covey.errors import TaskError
from covey.learning.data import held_on, size_of
from covey.learning.partition import part_of
from covey.learning.task import FitSettings, NodeData
from covey.learning.tasks.idx_images import IdxImages
from covey.learning.training.loop import evaluate, train
from covey.spec import DataSection, TrainingSection
from covey.testing.tasks import TaskConformance

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[4]
SMALL: dict[str, JsonValue] = {"set": "files", "height": 8, "width": 8, "classes": 3, "hidden": 16}


def data_folder(name: str) -> Path:
    root = Path(os.environ.get("COVEY_DATA") or ROOT.parent / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"no {name} in COVEY_DATA or ../shared/data")
    return root / name


def write_idx(path: Path, values: Tensor, magic: bytes | None = None) -> None:
    header = magic or bytes([0, 0, 8, values.ndim])
    raw = header + b"".join(size.to_bytes(4, "big") for size in values.shape) + values.numpy().tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_images(folder: Path, part: str = "train", n: int = 40, side: int = 8, suffix: str = "") -> Path:
    g = torch.Generator().manual_seed(len(part))
    labels = torch.randint(0, 3, (n,), generator=g).to(torch.uint8)
    images = torch.randint(0, 60, (n, side, side), generator=g).to(torch.uint8)
    images[torch.arange(n), labels.long()] = 250
    write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return folder


class OnImages(TaskConformance):
    task_class = IdxImages

    @pytest.fixture(autouse=True)
    def _images(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        self.folder = write_images(tmp_path / "images")

    def node_data(self) -> NodeData:
        return NodeData({"images": str(self.folder)})


class TestImagesMlp(OnImages):
    options: ClassVar = SMALL


class TestImagesCnn(OnImages):
    options: ClassVar = {**SMALL, "model": "cnn"}


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_images_are_read_plain_and_gzipped(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, suffix=suffix)
    write_images(tmp_path, "t10k", n=10, suffix=suffix)
    task, data = IdxImages(SMALL), NodeData({"images": str(tmp_path)})
    images, labels = task.train_data(data).tensors
    assert (images.dtype, images.shape, labels.dtype) == (torch.uint8, (40, 8, 8), torch.int64)
    assert bool((images[torch.arange(40), labels] == 250).all())
    held_out = task.eval_data(data)
    assert held_out is not None
    assert size_of(held_out) == 10
    assert task.central_data() is None


def test_images_in_the_data_folder_are_evaluated_centrally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist").mkdir()
    write_images(tmp_path / "mnist")
    write_images(tmp_path / "mnist", "t10k", n=10)
    monkeypatch.setenv("COVEY_DATA", str(tmp_path))
    task = IdxImages({**SMALL, "set": "mnist"})
    central = task.central_data()
    assert central is not None
    assert (size_of(task.train_data(NodeData())), size_of(central)) == (40, 10)
    assert task.eval_data(NodeData()) is None
    assert IdxImages({**SMALL, "set": "fashion-mnist"}).central_data() is None


def test_writers_are_the_keys(tmp_path: Path) -> None:
    write_images(tmp_path)
    np.savez(tmp_path / "writers.npz", train_writer=np.arange(40, dtype=np.uint16) // 10)
    task = IdxImages(SMALL)
    data = held_on(task.train_data(NodeData({"images": str(tmp_path)})), torch.device("meta"))
    assert size_of(data) == 40
    keys = task.keys(data)
    assert keys is not None
    assert list(keys) == [i // 10 for i in range(40)]
    found = part_of(task, data, DataSection(partition="key"), 0, 4, 1)
    assert len({keys[i] for i in found.tolist()}) == 1


def test_wrong_writers_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    np.savez(tmp_path / "writers.npz", train_writer=np.arange(39, dtype=np.uint16))
    with pytest.raises(TaskError, match=r"train_writer has shape \(39,\) for 40 images"):
        IdxImages(SMALL).train_data(NodeData({"images": str(tmp_path)}))


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (lambda f: (f / "train-images-idx3-ubyte").unlink(), "no file train-images-idx3-ubyte"),
        (lambda f: write_idx(f / "train-images-idx3-ubyte", torch.zeros(1), b"\0\0\x0d\x03"), "not an idx"),
        (lambda f: (f / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03"), "not an idx file"),
        (lambda f: os.truncate(f / "train-images-idx3-ubyte", 999), "983 values follow"),
        (lambda f: write_images(f, side=9), r"task.options are \(8, 8\)"),
        (lambda f: write_idx(f / "train-labels-idx1-ubyte", torch.zeros(39, dtype=torch.uint8)), "39 labels"),
        (lambda f: write_idx(f / "train-labels-idx1-ubyte", torch.tensor([7] * 40).byte()), "has label 7"),
    ],
)
def test_broken_images_are_refused(tmp_path: Path, break_it: Any, text: str) -> None:
    write_images(tmp_path)
    break_it(tmp_path)
    with pytest.raises(TaskError, match=text):
        IdxImages(SMALL).train_data(NodeData({"images": str(tmp_path)}))


def test_a_broken_gzip_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, suffix=".gz")
    os.truncate(tmp_path / "train-images-idx3-ubyte.gz", 100)
    with pytest.raises(TaskError, match="cannot be read"):
        IdxImages(SMALL).train_data(NodeData({"images": str(tmp_path)}))


def test_missing_images_say_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVEY_DATA", raising=False)
    with pytest.raises(TaskError, match=r"\[data\.paths\] images = \.\.\., or set COVEY_DATA"):
        IdxImages().train_data(NodeData())


def test_mnist_by_writer_is_learned() -> None:
    folder = data_folder("mnist")
    task, node = IdxImages({"hidden": 64}), NodeData({"images": str(folder)})
    data, held_out = task.train_data(node), task.eval_data(node)
    assert held_out is not None
    indices = part_of(task, data, DataSection(partition="key"), 1, 100, 3)
    torch.manual_seed(0)
    model = task.model()
    train(
        task,
        model,
        data,
        FitSettings(TrainingSection(local_epochs=3), indices, round=1, rounds=1, seed=1, roster_index=0, device=CPU),
    )
    assert evaluate(task, model, held_out, 512, CPU)["accuracy"].ratio > 0.6
